"""Interfaces between packages: what each kind of registered class must offer.

Shapes: N media items, S segments, T frames, E width of the audio encoder, B samples, L tokens, H decoder width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from video_llama.common.types import Batch, Media, MediaGroup, ModelOutput


class TrainableModel(Protocol):
    """What a runner needs of a model, besides its being a ``torch.nn.Module``.

    A model may also have ``training_flops(batch)``, the FLOPs of a step's forward and backward, or None if they are not known.
    """

    def __call__(self, batch: Batch) -> ModelOutput:
        """Run one training forward."""

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the trainable tensors by name: the model's own, not copies."""

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Fill the trainable tensors; every name and shape must match."""


class Decoder(Protocol):
    """The language model inside a ``ChatModel``."""

    @property
    def lm(self) -> Any:
        """A transformers causal language model."""

    @property
    def max_context(self) -> int:
        """Longest sequence, in tokens."""


class ChatModel(Protocol):
    """What conversations need of a model, besides its being a ``torch.nn.Module``."""

    @property
    def decoder(self) -> Decoder:
        """Generates the answers."""

    training: bool

    def train(self, mode: bool = True) -> Any:
        """Switch dropout of the trained parts on or off."""

    def eval(self) -> Any:
        """Switch dropout off."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters; the first one's device is where inputs go."""

    def encode_frozen(self, media: Sequence[MediaGroup]) -> tuple[MediaGroup, ...]:
        """Run the frozen encoders. What they return can be kept and passed to ``embed_prompt`` any number of times."""

    def embed_prompt(self, input_ids: Tensor, media: Sequence[MediaGroup]) -> Tensor:
        """Return float[B, L, H]: the embeddings of int64[B, L] token ids, with the media in their slots."""


class AudioEncoder(Protocol):
    """A frozen encoder of sound: a ``torch.nn.Module`` built from its ``Config``.

    The Config says ``processor``, the registered name of the processor that makes its input, and ``takes_frames``, whether
    the encoder is a ``FrameEncoder`` too.
    """

    width: int
    """E."""

    @staticmethod
    def own_weights(config: Any) -> dict[str, Tensor]:
        """Return the pretrained tensors, by their names in the module. Empty: it has none, or a ``model`` key names their
        file."""

    def encode_audio(self, segments: Tensor) -> Tensor:
        """Map segments of sound, float[N, S, ...], to float[N, S, E].

        An encoder may also have ``forward_flops(kind)``, which returns the ``Forward`` of one segment of sound or one frame;
        without it, a run does not log FLOPs.
        """


class FrameEncoder(AudioEncoder, Protocol):
    """An audio encoder that maps frames to the same space.

    Its constructor also takes ``inputs``, which of sound and frames the model uses, so that it builds no more.
    """

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Map frames, uint8[N, 3, T, H, W] or normalised float, to float[N, T, E]."""


class VisualProcessor(Protocol):
    """Reads an image or a clip. One that can read the audio track of the open file too is a ``ClipProcessor``."""

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        """Read a file. All randomness comes from ``rng``."""


class OpenClip(Protocol):
    """A clip that a ``ClipProcessor`` has opened."""

    def sound(self, max_lost: float) -> Any:
        """Open its audio track, for ``AudioProcessor.read_track``.

        Args:
            max_lost: largest fraction of the track that may be damaged.
        Raises:
            NoSoundTrack: it has none.
            DecodeError: the track cannot be decoded.
        """


@runtime_checkable
class ClipProcessor(VisualProcessor, Protocol):
    """Reads a clip in two steps, so that its audio track can be read without opening the file again."""

    def open(self, path: str | Path) -> OpenClip:
        """Open a clip."""

    def read(self, video: Any, rng: np.random.Generator) -> Media:
        """Read the frames of an open clip."""


class AudioProcessor(Protocol):
    """Makes an audio encoder's input. Its ``config.n_segments`` is S."""

    config: Any

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        """Read the sound of a file: a clip's, or sound alone."""

    def read_track(self, track: Any) -> Media:
        """Read the segments of an open audio track: ``data`` float[S, ...]."""

    def segment(self, waveform: Tensor) -> Tensor:
        """Make the encoder's input of one segment, float[C, L] of up to 2 s; always of the same shape."""
