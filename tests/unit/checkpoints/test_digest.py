"""A checkpoint carries a digest that every flipped byte, and every missing one, breaks."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest
import torch

from video_llama.checkpoints.digest import append_digest, matches_digest
from video_llama.checkpoints.io import read_checkpoint, write_checkpoint
from video_llama.common.errors import WeightsError

TENSORS = {"a": torch.arange(300.0), "b": torch.ones(2, 3)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "c.pth", {"model": TENSORS, "step": 7})
    return tmp_path / "c.pth"


def test_other_readers_skip_the_digest(path):
    assert matches_digest(path) is True
    for mmap in (True, False):
        content = torch.load(path, weights_only=True, mmap=mmap)
        assert torch.equal(content["model"]["a"], TENSORS["a"])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")


def test_any_flipped_bit_is_noticed(path):
    whole, chance = path.read_bytes(), random.Random(0)
    for at in [0, len(whole) - 1, *chance.sample(range(len(whole)), 300)]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(WeightsError, match=r"c\.pth: (damaged|truncated)"):
            read_checkpoint(path)


def test_a_file_without_its_last_bytes_is_refused_wherever_it_ends(path):
    whole = path.read_bytes()
    for n in range(1, 120):
        path.write_bytes(whole[:-n])
        with pytest.raises(WeightsError, match=r"c\.pth: "):
            read_checkpoint(path)


def test_a_file_of_the_format_before_has_no_digest_and_is_read(tmp_path):
    torch.save({"format": "video_llama/1", "model": TENSORS}, tmp_path / "old.pth")
    assert matches_digest(tmp_path / "old.pth") is None
    assert read_checkpoint(tmp_path / "old.pth")["format"] == "video_llama/1"


def test_a_file_that_is_no_archive_gets_no_digest(tmp_path):
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(ValueError, match="not a zip archive"):
        append_digest(tmp_path / "text")
    assert (tmp_path / "text").read_text() == "no archive"
    assert matches_digest(tmp_path / "text") is None
