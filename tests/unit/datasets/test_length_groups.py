"""Micro-batches of similar length: the same samples, within the limits, little padding, the same work for all processes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.padding import like_stage_2, padded, ratios
from tests.unit.datasets.folder import Folder, turns
from tests.unit.datasets.test_audio_samples import QUESTION, with_audio
from tests.unit.datasets.test_mixture import Numbers, plan
from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.common.errors import BadRecord
from video_llama.common.types import Sample
from video_llama.datasets.base import Dataset
from video_llama.datasets.config import ProcessorsConfig
from video_llama.datasets.length_groups import BatchLimits, Length, grouped
from video_llama.datasets.mixture import Mixture, RankBatches, RecordRef
from video_llama.processors.config import VideoTrainConfig
from video_llama.processors.frame_sampling import timestamp_message

FREE = BatchLimits()
HELLO = Path(__file__).parents[3] / "video_llama/toy/hello.mp4"
lengths = st.builds(Length, st.integers(0, 500), st.sampled_from([0, 32, 64]), st.sampled_from([0, 1, 8]))
limits = st.builds(BatchLimits, tokens=st.none() | st.integers(1, 3000), frames=st.none() | st.integers(1, 30))


# --- how the samples of a step are split


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), limits, st.data())
def test_every_sample_is_in_one_micro_batch_of_one_process(
    ranks: int, accumulation: int, size: int, bounds: BatchLimits, data: st.DataObject
) -> None:
    n = ranks * accumulation * size
    sizes = data.draw(st.lists(lengths, min_size=n, max_size=n))
    shares = grouped(sizes, ranks, accumulation, bounds)
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(n))
    assert len(shares) == ranks
    assert all(share and all(share) for share in shares)
    if bounds == FREE:
        assert sum(map(len, shares)) == ranks * accumulation
    assert shares == grouped(sizes, ranks, accumulation, bounds)


@given(st.integers(1, 4), st.lists(lengths, min_size=4, max_size=40), limits)
def test_a_micro_batch_keeps_to_the_limits_unless_it_is_one_sample(
    ranks: int, sizes: list[Length], bounds: BatchLimits
) -> None:
    for batch in (batch for share in grouped(sizes, ranks, 1, bounds) for batch in share):
        frames = sum(sizes[i].frames for i in batch)
        assert len(batch) == 1 or bounds.hold(padded(sizes, [batch]), frames)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.data())
def test_no_micro_batch_is_larger_than_one_as_drawn_could_be(
    ranks: int, accumulation: int, size: int, data: st.DataObject
) -> None:
    n = ranks * accumulation * size
    sizes = data.draw(st.lists(lengths, min_size=n, max_size=n))
    for batch in (batch for share in grouped(sizes, ranks, accumulation, FREE) for batch in share):
        assert padded(sizes, [batch]) <= size * max(length.tokens for length in sizes)
        assert sum(sizes[i].frames for i in batch) <= size * max(length.frames for length in sizes)


@pytest.mark.parametrize(
    ("ranks", "size", "accumulation", "padding", "imbalance"),
    [(8, 4, 1, 1.10, 1.25), (8, 4, 2, 1.05, 1.06), (8, 4, 8, 1.02, 1.02), (1, 8, 16, 1.05, 1.0)],
)
def test_of_a_mixture_like_stage_2_hardly_a_token_is_padding_and_processes_have_the_same_work(
    ranks: int, size: int, accumulation: int, padding: float, imbalance: float
) -> None:
    split = (ranks, size, accumulation)
    found = ratios(split, group=True, steps=20)
    assert found[0] < padding
    assert found[1] <= imbalance
    assert ratios(split, group=False, steps=20)[0] > 1.4, "as drawn"


def test_with_limits_there_are_as_few_micro_batches_as_keep_to_them() -> None:
    sizes = [Length(100, 0, 0)] * 32
    assert [len(share) for share in grouped(sizes, 2, 8, BatchLimits(tokens=800))] == [2, 2]
    assert [len(share) for share in grouped(sizes, 2, 1, BatchLimits(tokens=800))] == [2, 2]
    assert [len(share) for share in grouped([Length(100, 0, 8)] * 32, 2, 1, BatchLimits(frames=16))] == [8, 8]


# --- the micro-batches of a run


class Sized(Numbers):
    """Records whose samples have lengths of their own."""

    def length(self, index: int, rng: np.random.Generator) -> Length:
        return like_stage_2(1, index)[0]


def mixture() -> Mixture:
    return Mixture([Sized(300), Sized(40)], [3, 1], 7)


def drawn(steps: range, world: int, **changes: Any) -> list[list[list[RecordRef]]]:
    """Return the micro-batches of each step, over all processes."""
    shape = plan(batch_size=4, world_size=world, steps_per_epoch=10, **changes)
    return [
        [batch for rank in range(world) for batch in RankBatches(mixture(), shape, rank, range(step, step + 1))]
        for step in steps
    ]


@pytest.mark.parametrize("bounds", [FREE, BatchLimits(tokens=900), BatchLimits(tokens=2000, frames=20)])
def test_a_step_takes_the_same_samples_as_without_grouping(bounds: BatchLimits) -> None:
    plain = drawn(range(15), 3, accumulation=2)
    for alone, together in zip(plain, drawn(range(15), 3, accumulation=2, grouping=bounds), strict=True):
        assert sorted(ref for batch in alone for ref in batch) == sorted(ref for batch in together for ref in batch)


def test_with_grouping_too_a_step_takes_the_same_samples_on_any_number_of_processes() -> None:
    ways = [drawn(range(12), world, accumulation=6 // world, grouping=FREE) for world in (1, 2, 3, 6)]
    steps = [[sorted(ref for batch in step for ref in batch) for step in way] for way in ways]
    assert all(way == steps[0] for way in steps)


# --- lengths without files


def truth(sample: Sample) -> Length:
    media = int((sample.input_ids < 0).sum())
    frames = sum(item.data.shape[1] for item in sample.media if item.kind != "audio")
    return Length(len(sample.input_ids) - media, media, frames)


def check(data: Dataset, seeds: int = 8) -> None:
    for index in range(len(data)):
        for seed in range(seeds):
            sample = data.sample(index, np.random.default_rng(seed))
            assert data.length(index, np.random.default_rng(seed)) == truth(sample)


TWENTY_SECONDS = timestamp_message([0.0, 10.0])
TALKS = [
    {
        "image": "1.jpg",
        "conversations": turns("<image>\nWhat is it?", "A cat.", "And how many are there?", "Two cats."),
    },
    {"conversations": turns("Who are you?", "A machine.")},
    {"image": "1.jpg", "conversations": turns("What is it, and why? <image>", "A long answer. " * 100)},
]


def test_the_length_of_captions_is_known_without_their_files(folder: Folder) -> None:
    prompts = tuple(f"###Human: <Image><ImageHere></Image> {'Please. ' * i} ###Assistant: " for i in range(4))
    folder.limited(caption_prompts=prompts).clips("p/1.mp4", "p/2.mp4")
    check(folder.webvid(("1", "p", "a cat"), ("2", "p", "two dogs, " * 40)))
    folder.file("cc/image/1.jpg")
    check(folder.cc_sbu_align({"annotations": [{"image_id": "1", "caption": "a cat on a mat"}]}))
    check(folder.manifest({"video": "p/1.mp4", "caption": "a cat on a mat"}))


def test_the_length_of_conversations_is_known_without_their_files(folder: Folder) -> None:
    folder.clips("COCO_train2014_1.jpg")
    check(folder.llava(TALKS))
    folder.clips("1.mp4", content=TWENTY_SECONDS)
    record = {"video": "1.mp4", "QA": [{"q": "What is it?", "a": "A cat."}, {"q": "Why?", "a": "So."}]}
    check(folder.videochat([record]))
    check(folder.videochat([record], chinese=True))


@pytest.mark.parametrize("video", [True, False])
@pytest.mark.parametrize("source", ["frames", "sound", "both"])
def test_the_length_of_samples_with_sound_is_known_without_their_files(
    folder: Folder, source: str, video: bool
) -> None:
    folder = with_audio(folder, source, video)
    if source != "frames":
        write_sound(folder.media / "1.wav", with_chirps(16_000, 1.0, [0.2]), 16_000, "pcm_s16le")
        check(folder.videochat([{"video": "1.wav", "QA": [{"q": "What is it?", "a": "A cat."}]}]))
    if source == "frames":
        folder.clips("1.mp4", content=TWENTY_SECONDS)
        check(folder.videochat([{"video": "1.mp4", "QA": [{"q": "What is it?", "a": "A cat."}]}]))
    if source == "frames" or video:
        folder.clips("COCO_train2014_1.jpg")
        check(folder.llava(TALKS))


def test_only_the_digits_of_frame_times_are_guessed(folder: Folder) -> None:
    for times in ([0.0, 0.5], [3.3, 100.0], [1000.1, 2000.2]):
        folder.clips("1.mp4", content=timestamp_message(times))
        data = folder.videochat([{"video": "1.mp4", "QA": [{"q": "What is it?", "a": "A cat."}]}])
        found, sample = data.length(0, np.random.default_rng(0)), data.sample(0, np.random.default_rng(0))
        digits = sum(len(str(time)) for time in times)
        assert abs(found.text - truth(sample).text) <= digits
        assert found[1:] == truth(sample)[1:]


def test_no_file_is_opened_for_a_length(folder: Folder) -> None:
    data = folder.webvid(("1", "p", "a cat"))
    assert data.length(0, np.random.default_rng(0)).tokens > 10
    with pytest.raises(BadRecord):
        folder.webvid(("1", "p", "...")).length(0, np.random.default_rng(0))


def test_a_length_is_the_same_on_machines_with_and_without_the_files(folder: Folder) -> None:
    data = folder.llava(TALKS)
    without = [data.length(index, np.random.default_rng(0)) for index in range(len(data))]
    folder.clips("1.jpg")  # under another image_prefix than that of the data set
    assert [data.length(index, np.random.default_rng(0)) for index in range(len(data))] == without


def test_the_length_of_a_draw_is_that_of_its_sample(folder: Folder) -> None:
    prompts = tuple(f"###Human: <Image><ImageHere></Image> {'Please. ' * i} ###Assistant: " for i in range(4))
    folder.limited(caption_prompts=prompts).clips(*(f"p/{i}.mp4" for i in range(9)))
    mixed = Mixture([folder.webvid(*((str(i), "p", "word " * i) for i in range(1, 9)))], [1], 3)
    for ref in mixed.draws(0, 24, range(24)):
        assert mixed.length(ref) == truth(mixed[ref])


def test_a_bad_record_counts_as_one_of_middling_length(folder: Folder) -> None:
    rows = [(str(i), "p", "..." if i < 4 else "word " * 2 * i) for i in range(12)]
    mixed = Mixture([folder.webvid(*rows)], [1], 3)
    assert [mixed.length(RecordRef(0, i, 0)) is None for i in range(12)] == [i < 4 for i in range(12)]
    shape = plan(batch_size=4, accumulation=3, steps_per_epoch=1, grouping=FREE)
    batches = [sorted(ref.record for ref in batch) for batch in RankBatches(mixed, shape, 0, range(1))]
    assert sorted(i for batch in batches for i in batch) == list(range(12))
    assert not any({0, 11} <= set(batch) or {0, 4} <= set(batch) for batch in batches)


@pytest.mark.parametrize("source", [None, "frames", "sound"])
def test_the_length_of_a_real_clip_with_sound_is_known_but_for_the_digits_of_its_frame_times(
    folder: Folder, source: Any
) -> None:
    folder = with_audio(folder, source) if source else folder
    shutil.copy(HELLO, folder.media / "1.mp4")
    processor = ProcessorsConfig(train=VideoTrainConfig(n_frms=4))
    data = folder.videochat([{"video": "1.mp4", "QA": QUESTION}], vis_processor=processor)
    for seed in range(3):
        found, sample = (make(0, np.random.default_rng(seed)) for make in (data.length, data.sample))
        assert abs(found.text - truth(sample).text) <= (0 if source else 4)
        assert found[1:] == truth(sample)[1:]
