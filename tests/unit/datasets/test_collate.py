"""Samples of any kind in one batch: padding, slots, and media grouped by kind and shape."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from video_llama.common.modalities import MediaKind
from video_llama.common.types import IGNORE_LABEL, Batch, Media, Replaced, Sample, slot_id
from video_llama.datasets.collate import collate

PAD = 7
KINDS: tuple[MediaKind, ...] = ("image", "video", "audio", "audio_frames")


def medium(kind: MediaKind, n_frames: int, value: int, side: int = 2) -> Media:
    if kind == "audio":
        return Media(kind, torch.full((n_frames, 1, side, 2 * side), float(value)))
    return Media(kind, torch.full((3, n_frames, side, side), value, dtype=torch.uint8))


def sample(n_tokens: int, *media: Media, name: str = "", **changes: object) -> Sample:
    """A sample of two slot tokens for each medium and then ``n_tokens`` tokens; the last has a label."""
    ids = [slot_id(k) for k in range(len(media)) for _ in range(2)] + list(range(10, 10 + n_tokens))
    labels = [IGNORE_LABEL] * (len(ids) - 1) + ids[-1:]
    return Sample(name, torch.tensor(ids), torch.tensor(labels), tuple(media), **changes)  # type: ignore[arg-type]


def media_of(batch: Batch, row: int) -> dict[int, tuple[str, torch.Tensor]]:
    """The media of a row, by slot id."""
    return {
        int(slot): (group.kind, frames)
        for group in batch.media
        for frames, r, slot in zip(group.data, group.rows, group.slots, strict=True)
        if r == row
    }


media_lists = st.lists(
    st.builds(medium, st.sampled_from(KINDS), st.integers(1, 3), st.integers(0, 255), st.integers(1, 2)), max_size=3
)


@given(st.lists(st.tuples(st.integers(1, 5), media_lists), min_size=1, max_size=5))
def test_every_sample_can_be_read_back_out_of_a_batch(contents: list[tuple[int, list[Media]]]) -> None:
    samples = [sample(n, *media, name=str(i)) for i, (n, media) in enumerate(contents)]
    batch = collate(samples, PAD)
    assert batch.ids == tuple(s.id for s in samples)
    assert batch.input_ids.shape == batch.labels.shape == batch.attention_mask.shape
    assert batch.input_ids.shape[1] == max(len(s.input_ids) for s in samples), "no column is padding alone"
    for row, s in enumerate(samples):
        n = len(s.input_ids)
        assert torch.equal(batch.input_ids[row, :n], s.input_ids)
        assert torch.equal(batch.labels[row, :n], s.labels)
        assert bool((batch.input_ids[row, n:] == PAD).all())
        assert bool((batch.labels[row, n:] == IGNORE_LABEL).all())
        assert batch.attention_mask[row].tolist() == [1] * n + [0] * (batch.input_ids.shape[1] - n)
        found = media_of(batch, row)
        assert found.keys() == {slot_id(k) for k in range(len(s.media))}
        for k, media in enumerate(s.media):
            kind, frames = found[slot_id(k)]
            assert kind == media.kind
            assert torch.equal(frames, media.data)


def test_images_clips_of_two_lengths_and_plain_text_fit_in_one_batch() -> None:
    batch = collate(
        [
            sample(2, medium("image", 1, 1)),
            sample(3),
            sample(1, medium("video", 8, 2)),
            sample(4, medium("video", 4, 3), medium("image", 1, 4)),
            sample(2, medium("video", 8, 5)),
        ],
        PAD,
    )
    groups = {(g.kind, g.data.shape[2]): (g.rows.tolist(), g.slots.tolist()) for g in batch.media}
    assert groups == {
        ("image", 1): ([0, 3], [-1, -2]),
        ("video", 8): ([2, 4], [-1, -1]),
        ("video", 4): ([3], [-1]),
    }
    assert all(g.data.dtype == torch.uint8 and not g.encoded for g in batch.media)


def test_a_clip_of_one_frame_is_not_an_image() -> None:
    batch = collate([sample(1, medium("image", 1, 1)), sample(1, medium("video", 1, 1))], PAD)
    assert [g.kind for g in batch.media] == ["image", "video"]


def test_a_batch_of_text_has_no_media() -> None:
    assert collate([sample(1), sample(2)], PAD).media == ()


def test_a_batch_counts_its_target_tokens_truncated_samples_and_replacements() -> None:
    replaced = Replaced("a", "broken", "b")
    batch = collate(
        [
            sample(3, replaced=(replaced, replaced)),
            sample(1, truncated=True),
            sample(2, replaced=(replaced,), truncated=True),
        ],
        PAD,
    )
    assert batch.replaced == (replaced, replaced, replaced)
    assert batch.n_truncated == 2
    assert batch.n_target_tokens == 2, "a first token has nothing before it to be predicted from"


def test_audio_of_two_lengths_and_frames_instead_of_it_fit_in_one_batch() -> None:
    batch = collate(
        [
            sample(2, medium("audio", 8, 1), medium("video", 8, 2)),
            sample(3, medium("audio", 8, 3)),
            sample(1, medium("audio_frames", 8, 4), medium("video", 8, 4)),
            sample(4),
            sample(1, medium("audio", 2, 5)),
        ],
        PAD,
    )
    groups = {(g.kind, tuple(g.data.shape[1:3])): (g.rows.tolist(), g.slots.tolist()) for g in batch.media}
    assert groups == {
        ("audio", (8, 1)): ([0, 1], [-1, -1]),
        ("video", (3, 8)): ([0, 2], [-2, -2]),
        ("audio_frames", (3, 8)): ([2], [-1]),
        ("audio", (2, 1)): ([4], [-1]),
    }
