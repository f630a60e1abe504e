"""The ledger of bad records: a file in it is not opened again, and no sample changes because of it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.datasets.folder import Folder
from video_llama.common.errors import BadRecord, DataError, DecodeError, SoundDecodeError
from video_llama.common.types import Replaced, Sample
from video_llama.datasets.base import Dataset
from video_llama.datasets.mixture import Mixture, RecordRef
from video_llama.datasets.quarantine import Entry, Quarantine, read_ledger
from video_llama.datasets.readings import Reading


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def failing(quarantine: Quarantine, error: Exception, *how: Any, seed: int = 0, draws: bool = False) -> str:
    """Read a file that fails; returns whether it was 'opened'."""
    generator, opened = rng(seed), []

    def read() -> None:
        with quarantine.reading("a.mp4", generator, *how):
            opened.append(True)
            if draws:
                generator.random()
            raise error

    with pytest.raises(type(error)) as caught:
        read()
    assert str(caught.value) == str(error)
    return "opened" if opened else "known"


ERRORS = [DecodeError("a.mp4", "broken"), SoundDecodeError("a.mp4", "mute"), BadRecord("a.mp4: nothing for the model")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_what_a_file_raised_is_raised_again_without_opening_it(error: Exception) -> None:
    quarantine = Quarantine()
    assert [failing(quarantine, error, seed=seed) for seed in range(3)] == ["opened", "known", "known"]


def test_another_way_of_reading_opens_the_file_again() -> None:
    quarantine = Quarantine()
    assert failing(quarantine, ERRORS[1], "with sound") == "opened"
    with quarantine.reading("a.mp4", rng(), "frames alone"):
        pass
    assert failing(quarantine, ERRORS[1], "with sound") == "known"


def test_a_failure_that_may_follow_from_what_was_drawn_holds_for_the_same_draws_alone() -> None:
    quarantine = Quarantine()
    assert failing(quarantine, ERRORS[0], seed=1, draws=True) == "opened"
    assert failing(quarantine, ERRORS[0], seed=1, draws=True) == "known"
    with quarantine.reading("a.mp4", rng(2)):
        pass


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, entries: list[dict[str, Any]]) -> None:
    with open(path, "a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def webvid(folder: Folder, n: int = 12, broken: int = 4) -> Dataset:
    """The first clips are broken."""
    folder.clips(*[f"p/{i}.mp4" for i in range(broken, n)])
    folder.clips(*[f"p/{i}.mp4" for i in range(broken)], content="broken")
    return folder.webvid(*[(str(i), "p", f"number {i}") for i in range(n)])


def samples(data: Dataset) -> list[Sample]:
    mixture = Mixture([data], [1.0], seed=7)
    return [mixture[RecordRef(0, record, visit)] for visit in range(2) for record in range(len(data))]


def shown(found: list[Sample]) -> list[Any]:
    bad = [[(r.sample_id, r.reason, r.replacement_id) for r in s.replaced] for s in found]
    return [(s.id, s.input_ids.tolist(), [m.data.sum().item() for m in s.media]) for s in found] + bad


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read."""
    from video_llama.datasets import base

    paths: list[str] = []
    read = base.read_training_media

    def noting(path: Path, *args: Any) -> Any:
        paths.append(Path(path).name)
        return read(path, *args)

    monkeypatch.setattr(base, "read_training_media", noting)
    return paths


def test_a_second_run_with_the_ledger_of_the_first_has_its_samples_and_opens_no_bad_file(
    folder: Folder, tmp_path: Path, opened: list[str]
) -> None:
    data = webvid(folder)
    expected = shown(samples(data))
    ledger = tmp_path / "bad_samples.jsonl"
    first = Quarantine(ledger)
    data.quarantine = Quarantine()
    for step, sample in enumerate(samples(data)):
        write(ledger, first.new(step, sample.replaced))
    listed = lines(ledger)
    assert sorted(line["path"] for line in listed) == sorted(str(folder.media / f"p/{i}.mp4") for i in range(4))
    assert {line["reason"] for line in listed} == {"moov atom not found"}
    assert all(line["replaced_by"].startswith("webvid/p/") and line["read_as"] for line in listed)
    opened.clear()
    data.quarantine = Quarantine(ledger)
    assert shown(samples(data)) == expected
    assert not {f"{i}.mp4" for i in range(4)} & set(opened)
    assert len(opened) >= 16


def test_a_line_that_another_process_adds_is_noticed_and_one_that_is_not_finished_waits(tmp_path: Path) -> None:
    ledger = tmp_path / "bad_samples.jsonl"
    quarantine = Quarantine(ledger)
    with quarantine.reading("a.mp4", rng()):
        pass
    text = json.dumps({"path": "a.mp4", "reason": "broken"}) + "\n"
    ledger.write_text(text[:20])
    with quarantine.reading("a.mp4", rng()):
        pass
    with open(ledger, "a") as file:
        file.write(text[20:])
    assert failing(quarantine, DecodeError("a.mp4", "broken")) == "known"


def test_lines_written_by_hand_need_a_path_or_an_id_alone(tmp_path: Path, folder: Folder) -> None:
    data = webvid(folder, n=4, broken=0)
    ledger = tmp_path / "bad_samples.jsonl"
    write(ledger, [{"path": str(folder.media / "p/0.mp4")}, {"id": "webvid/p/2.mp4", "reason": "a test clip"}])
    data.quarantine = Quarantine(ledger)
    found = samples(data)
    assert {sample.id for sample in found} == {"webvid/p/1.mp4", "webvid/p/3.mp4"}
    assert {r.reason for sample in found for r in sample.replaced} == {"listed", "a test clip"}


def test_what_a_process_was_stuck_in_is_never_read_again(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "bad_samples.jsonl")
    quarantine.hold(Reading("webvid/1", "a.mp4"), "too slow")
    quarantine = pickle.loads(pickle.dumps(quarantine))
    for how in ("one way", "another"):
        assert failing(quarantine, DecodeError("a.mp4", "too slow"), how) == "known"
    quarantine.hold(Reading("webvid/1"), "too slow")
    with pytest.raises(BadRecord, match="too slow"), quarantine.record("webvid/1"):
        pass


def test_each_file_is_listed_once_and_records_without_one_by_their_id() -> None:
    quarantine = Quarantine()
    found = [
        Replaced("d/1", "broken", "d/5", path="a.mp4", error="DecodeError", read_as="x"),
        Replaced("d/2", "broken", "d/6", path="a.mp4", error="DecodeError", read_as="x"),
        Replaced("d/3", "the caption is empty", "d/6", read_as="record"),
    ]
    assert [(line["id"], line["step"]) for line in quarantine.new(4, found)] == [("d/1", 4), ("d/3", 4)]
    assert quarantine.new(5, found) == []


def test_a_ledger_that_is_given_joins_the_runs_own_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    own, given = tmp_path / "bad_samples.jsonl", tmp_path / "given.jsonl"
    write(own, [{"path": "a.mp4", "step": 3, "read_as": "x"}])
    own.write_text(own.read_text() + '{"path": "torn')
    write(given, [{"path": "a.mp4", "step": 9, "read_as": "x"}, {"path": "b.mp4", "step": 9}])
    for _ in range(2):
        assert Quarantine(own).prepare(given) == 2
        assert [(line["path"], line["step"]) for line in lines(own)] == [("a.mp4", 3), ("b.mp4", None)]


def test_lines_that_a_user_wrote_stay_as_they_are(tmp_path: Path) -> None:
    own, given = tmp_path / "bad_samples.jsonl", tmp_path / "given.jsonl"
    mine = '{"path":"a.mp4"}\n{"pth": "mistyped.mp4"}\n{"path": "last.mp4"}'
    own.write_text(mine)
    write(given, [{"path": "b\udcff.mp4"}])
    assert Quarantine(own).prepare(given) == 3
    assert own.read_text().startswith(f"{mine}\n")
    assert [entry.path for entry in read_ledger(own)] == ["a.mp4", "last.mp4", "b\udcff.mp4"]


def test_lines_that_are_no_entries_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = tmp_path / "bad_samples.jsonl"
    bad = ["no JSON", "[1]", '{"reason": "no name"}', '{"path": 7}', '{"path": "c", "error": []}']
    ledger.write_text("\n".join(['{"path": "a.mp4"}', *bad, "", '{"path": "b.mp4"}', ""]))
    assert [entry.path for entry in read_ledger(ledger)] == ["a.mp4", "b.mp4"]
    named = [n for n in range(1, 9) if f"bad_samples.jsonl:{n}:" in caplog.text]
    assert named == [2, 3, 4, 5, 6]


def test_retry_empties_the_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "bad_samples.jsonl"
    assert Quarantine(ledger).retry() == 0
    write(ledger, [{"path": "a.mp4"}, {"path": "b.mp4"}])
    quarantine = Quarantine(ledger)
    assert failing(quarantine, DecodeError("a.mp4", "listed")) == "known"
    assert quarantine.retry() == 2
    with quarantine.reading("a.mp4", rng()):
        pass
    assert read_ledger(ledger) == []


def test_a_ledger_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder: cannot be read"):
        Quarantine(tmp_path / "own.jsonl").prepare(tmp_path / "folder")


def test_the_line_on_an_error_says_how_the_file_was_read() -> None:
    quarantine = Quarantine()
    with pytest.raises(DecodeError) as caught, quarantine.reading("a.mp4", rng(), "so"):
        raise DecodeError("a.mp4", "broken")
    entry = Entry.of("webvid/1", caught.value)
    assert (entry.id, entry.path, entry.reason, entry.step) == ("webvid/1", "a.mp4", "broken", None)
    assert entry.read_as
    assert Entry.of("webvid/2", BadRecord("no words")).read_as == "record"
