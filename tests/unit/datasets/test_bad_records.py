"""Bad records are replaced, by the seed alone, and reported with reasons; too many in a row end a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.unit.datasets.folder import Folder
from video_llama.common.errors import TrainingError
from video_llama.common.types import Sample
from video_llama.datasets.base import Dataset
from video_llama.datasets.mixture import Mixture, RecordRef
from video_llama.datasets.replacement import ATTEMPTS, sample_or_replacement

SEED = [42, 0, 0]


def webvid(folder: Folder, good: int, missing: int = 0, broken: int = 0, wordless: int = 0) -> Dataset:
    """A WebVid set with records of each kind, in that order."""
    rows = [(str(i), "p", f"number {i}") for i in range(good + missing + broken)]
    rows += [(str(len(rows) + i), "p", "...") for i in range(wordless)]
    folder.clips(*[f"p/{i}.mp4" for i in range(len(rows)) if not good <= i < good + missing])
    folder.clips(*[f"p/{i}.mp4" for i in range(good + missing, good + missing + broken)], content="broken")
    return folder.webvid(*rows)


def same(a: Sample, b: Sample) -> bool:
    return (a.id, a.replaced) == (b.id, b.replaced) and all(
        torch.equal(x, y)
        for x, y in [
            (a.input_ids, b.input_ids),
            (a.labels, b.labels),
            *((m.data, n.data) for m, n in zip(a.media, b.media, strict=True)),
        ]
    )


def test_a_good_record_is_returned_unchanged(folder: Folder) -> None:
    sample = sample_or_replacement(webvid(folder, good=3), 1, SEED)
    assert (sample.id, sample.replaced) == ("webvid/p/1.mp4", ())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file"),
        ("broken", "moov atom not found"),
        ("wordless", "0.csv:22: the caption '...' is empty after cleaning"),
    ],
)
def test_a_bad_record_is_replaced_and_reported_with_its_reason(folder: Folder, kind: str, reason: str) -> None:
    counts: dict[str, Any] = {"good": 20, kind: 1}
    sample = sample_or_replacement(webvid(folder, **counts), 20, SEED)
    (replaced,) = sample.replaced
    assert replaced.sample_id == "webvid/p/20.mp4"
    assert replaced.reason.endswith(reason)
    assert replaced.path == (None if kind == "wordless" else str(folder.media / "p/20.mp4"))
    assert replaced.replacement_id == sample.id != replaced.sample_id


def test_every_bad_record_tried_is_reported(folder: Folder) -> None:
    data = webvid(folder, good=3, missing=3)
    samples = [sample_or_replacement(data, index, [seed, 0, 0]) for index in (3, 4, 5) for seed in range(20)]
    assert {len(sample.replaced) for sample in samples} == {1, 2, 3}
    for sample in samples:
        tried = [replaced.sample_id for replaced in sample.replaced]
        assert len(set(tried)) == len(tried), "no bad record is tried twice"
        assert {replaced.replacement_id for replaced in sample.replaced} == {sample.id}


def test_the_same_seed_gives_the_same_replacement_and_the_same_frames(folder: Folder) -> None:
    data = webvid(folder, good=20, missing=5)
    for index in range(25):
        assert same(sample_or_replacement(data, index, SEED), sample_or_replacement(data, index, SEED))


def test_other_seeds_and_other_records_give_other_replacements(folder: Folder) -> None:
    data = webvid(folder, good=50, missing=20)
    assert len({sample_or_replacement(data, index, SEED).id for index in range(50, 70)}) > 10
    assert len({sample_or_replacement(data, 50, [seed, 0, 0]).id for seed in range(20)}) > 10


def test_one_good_record_among_few_is_always_found(folder: Folder) -> None:
    data = webvid(folder, good=1, missing=ATTEMPTS - 1)
    for index in range(ATTEMPTS):
        for seed in range(10):
            assert sample_or_replacement(data, index, [seed, 0, 0]).id == "webvid/p/0.mp4"


def test_many_bad_records_in_a_row_end_the_run_with_the_last_reason(folder: Folder) -> None:
    data = webvid(folder, good=0, missing=30)
    message = r"datasets\.webvid: 10 bad records in a row, starting at webvid/p/7\.mp4.*media/p/\d+\.mp4: no such file"
    with pytest.raises(TrainingError, match=message):
        sample_or_replacement(data, 7, SEED)


def test_a_data_set_without_any_good_record_ends_the_run(folder: Folder) -> None:
    data = webvid(folder, good=0, missing=1, wordless=1)
    with pytest.raises(TrainingError, match=r"datasets\.webvid: all 2 records are bad"):
        sample_or_replacement(data, 0, SEED)


def test_a_programming_error_is_not_treated_as_a_bad_record(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    data = webvid(folder, good=2)
    monkeypatch.setattr(data, "vis_processor", lambda path, rng: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sample_or_replacement(data, 0, SEED)


def test_a_draw_of_a_mixture_is_the_same_in_every_worker(folder: Folder) -> None:
    data = webvid(folder, good=5, missing=2)
    one, other = (Mixture([data], [1.0], seed=7) for _ in range(2))
    for record in range(7):
        assert same(one[RecordRef(0, record, 3)], other[RecordRef(0, record, 3)])


def test_a_record_is_read_with_a_different_rng_in_each_epoch(folder: Folder) -> None:
    mixture = Mixture([webvid(folder, good=1)], [1.0], seed=7)
    brightness = {int(mixture[RecordRef(0, 0, epoch)].media[0].data[0, 0, 0, 0]) for epoch in range(30)}
    assert len(brightness) > 15
