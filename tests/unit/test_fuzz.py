"""The fuzzing harness finds what it is meant to find, and gives the same files again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.mutations import WORDS, mutate
from tests.fuzz.readers import Reader, Seed, WrongValue, readers
from tests.fuzz.run import file_of, fuzz
from video_llama.common.errors import DecodeError


class Planted(Reader):
    """A reader with a fault for each of its first files, which say which."""

    hang_s = 2.0

    def valid_files(self):
        return [Seed("a.txt", b"text")]

    def read(self, path: Path) -> str:
        match int(path.parent.name):
            case 0:
                os.kill(os.getpid(), signal.SIGKILL)
            case 1:
                time.sleep(60)
            case 2:
                raise KeyError("moov")
            case 3:
                raise DecodeError("another.txt", "broken")
            case 4:
                raise WrongValue("-1 s")
            case 5:
                raise DecodeError(str(path), "broken")
            case 6:
                return "half of it is lost"
        return ""

    def broken(self, path: Path) -> str:
        match int(path.parent.name):
            case 7:
                return "FFmpeg: no frames"
            case 8:
                os.kill(os.getpid(), signal.SIGKILL)
        return ""


def test_every_kind_of_fault_is_found_and_the_run_goes_on(tmp_path):
    found = list(fuzz(Planted(tmp_path), 0, range(10), time.monotonic() + 60))
    assert [outcome.number for outcome in found] == list(range(10))
    findings = ["crash", "hang", "traceback", "nameless", "wrong value"]
    assert [o.kind for o in found] == [*findings, "refused", "reported", "broken", "unjudged", "accepted"]
    assert [o.kind for o in found if o.is_finding] == [*findings, "broken"]
    assert {path.name for path in tmp_path.iterdir()} >= {str(o.number) for o in found if o.is_finding}


def test_a_run_ends_at_its_time(tmp_path):
    assert list(fuzz(Planted(tmp_path), 0, range(10), time.monotonic() - 1)) == []


@pytest.mark.parametrize("name", ["pictures", "sound", "video"])
def test_a_seed_and_a_number_give_the_same_file_again(tmp_path, name):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first, second = readers()[name](tmp_path / "a"), readers()[name](tmp_path / "b")
    assert first.seeds == second.seeds
    contents = {file_of(first, 1, number).read_bytes() for number in range(30)}
    assert contents == {file_of(second, 1, number).read_bytes() for number in range(30)}
    assert len(contents) > 20
    assert file_of(first, 2, 0).read_bytes() != file_of(second, 1, 0).read_bytes()


@pytest.mark.parametrize("name", ["pictures", "sound", "video"])
def test_the_valid_files_are_accepted_and_called_whole(tmp_path, name):
    reader = readers()[name](tmp_path)
    for number, seed in enumerate(reader.seeds):
        path = tmp_path / str(number) / seed.name
        path.parent.mkdir()
        path.write_bytes(seed.data)
        if seed.name != "c.tif":  # floating-point pixels may be refused
            assert (seed.name, reader.read(path), reader.broken(path)) == (seed.name, "", "")


def test_mutations_change_nothing_outside_bytes(tmp_path):
    rng = np.random.default_rng(0)
    changed = [mutate(b"abcdefgh" * 8, [b"other"], [(0, 64), (60, 900)], WORDS, rng) for _ in range(500)]
    assert len(set(changed)) > 480
    assert all(isinstance(data, bytes) for data in changed)
