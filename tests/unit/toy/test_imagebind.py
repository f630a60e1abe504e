"""The toy ImageBind embeds sound and frames of a shape alike, also in combinations it was not trained on."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tools.toy_pretrain.imagebind import load_imagebind, loss_of, record
from video_llama.models.encoders.imagebind import ImageBind
from video_llama.processors.audio import spectrogram
from video_llama.toy.scene import SHAPES, SIDE, scenes, with_other_sounds
from video_llama.toy.sound import SAMPLE_RATE

WEIGHTS = Path(__file__).parents[3] / "video_llama/toy/weights"
N_CLIPS = 24


@pytest.fixture(scope="module")
def imagebind() -> ImageBind:
    return load_imagebind(WEIGHTS)


@dataclass(frozen=True)
class Vectors:
    """Embeddings of clips with foreign sound."""

    sounds: torch.Tensor
    """float[N, E], of each sound."""
    frames: torch.Tensor
    """float[N, T, E], of some frames of each clip."""
    sound_shape: torch.Tensor
    """int64[N]."""
    frame_shape: torch.Tensor
    """int64[N]."""


@pytest.fixture(scope="module")
def vectors(imagebind) -> Vectors:
    drawn = list(with_other_sounds(scenes(N_CLIPS, seed=1234, held_out=True)))
    frames, mel = zip(*map(record, drawn), strict=True)
    return Vectors(
        imagebind.audio(torch.stack(mel)),
        torch.stack([imagebind.vision(clip[::5]) for clip in frames]),
        torch.tensor([SHAPES.index(scene.sound_shape) for scene in drawn]),
        torch.tensor([SHAPES.index(scene.shape) for scene in drawn]),
    )


def test_the_nearest_sound_to_a_frame_has_its_shape(vectors):
    nearest = vectors.sound_shape[(vectors.frames @ vectors.sounds.T).argmax(2)]
    assert (nearest == vectors.frame_shape[:, None]).float().mean() >= 0.95


def test_the_nearest_clip_to_a_sound_shows_its_shape(vectors):
    nearest = vectors.frame_shape[(vectors.sounds @ vectors.frames.mean(1).T).argmax(1)]
    assert (nearest == vectors.sound_shape).float().mean() >= 0.95


def test_silence_and_a_black_frame_are_near_each_other_and_near_no_shape(imagebind, vectors):
    silence = imagebind.audio(spectrogram(torch.zeros(1, 2 * SAMPLE_RATE))[None])
    black = imagebind.vision(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8))
    assert F.cosine_similarity(silence, black) > 0.7
    assert F.cosine_similarity(silence, vectors.frames, dim=-1).max() < 0.5
    assert F.cosine_similarity(black, vectors.sounds).max() < 0.5


def test_frame_vectors_have_length_1_and_sound_vectors_20(vectors):
    torch.testing.assert_close(vectors.frames.norm(dim=-1), torch.ones(vectors.frames.shape[:2]))
    torch.testing.assert_close(vectors.sounds.norm(dim=1), torch.full((N_CLIPS,), 20.0), rtol=1e-3, atol=0)


def test_the_loss_counts_every_pair_of_one_kind_as_a_match():
    vectors = torch.eye(3)[[0, 1, 1]]
    same = vectors @ vectors.T > 0.5
    apart, together = loss_of(vectors, vectors, same), loss_of(vectors, vectors[[1, 0, 0]], same)
    assert apart < 0.5 < together
