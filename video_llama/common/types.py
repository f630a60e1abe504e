"""What the layers hand to each other: Media, Sample, MediaGroup, Batch, ModelOutput.

Shapes: B samples, L tokens, N media of one kind and length, T frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from video_llama.common.modalities import MediaKind, SoundUse

IGNORE_LABEL = -100


def slot_id(index: int) -> int:
    """Token id of the slot of media item ``index`` of a sample: -1, -2, ... which no text can produce."""
    return -1 - index


@dataclass(frozen=True)
class ClipFrames:
    """Which frames of a clip were read, and what it takes to select others."""

    indices: tuple[int, ...]
    """Numbers of the frames that were read, increasing."""
    times: tuple[float, ...]
    """Time of every frame of the clip, in seconds."""
    duration: float
    """Of the clip, in seconds."""

    @property
    def n_frames(self) -> int:
        """Frames of the clip."""
        return len(self.times)


@dataclass(frozen=True)
class Media:
    """One image, clip or sound, made by a processor, or its features from a ``FeatureStore``."""

    kind: MediaKind
    data: Tensor
    """Frames: uint8[3, T, H, W]; an image is a clip of one frame. Sound: float[S, ...], the encoder's input of S segments."""
    message: str = ""
    """Text about it in the prompt, such as the times of its frames; may be empty."""
    times: tuple[float, ...] = ()
    """Time of each frame, or of the start of each segment of sound, in seconds."""
    encoded: bool = False
    """``data`` is the frozen encoders' output: float[T, Q, D], or float[S, E] for the audio branch."""
    store_as: StoreAs | None = None
    """Where its features go once it is encoded. None: they are not kept."""
    sound: SoundUse | None = None
    """What was done with the sound of its file. None: the file is an image, or another item of the file says it."""
    frames: ClipFrames | None = None
    """Which frames of the clip these are. None: it is no clip, or its processor does not say."""


@dataclass(frozen=True)
class StoreAs:
    """The place of features in a ``FeatureStore``, and what is kept with them."""

    key: str
    about: Mapping[str, Any]
    """What can be written as JSON; see ``processors.stored_features``."""
    clip_times: tuple[float, ...] | None = None
    """See ``ClipFrames.times``. None: the features are not stored frame by frame."""


@dataclass(frozen=True)
class Replaced:
    """A bad record and the record that replaces it."""

    sample_id: str
    reason: str
    replacement_id: str
    path: str | None = None
    """The file that cannot be read; None: no file is at fault."""
    error: str = "BadRecord"
    """Class of the error."""
    read_as: str | None = None
    """How the file was read; see ``datasets.quarantine.Entry``."""

    @property
    def sound_failed(self) -> bool:
        """Whether only its sound cannot be read."""
        return self.error == "SoundDecodeError"


@dataclass(frozen=True)
class Sample:
    """One training example: token ids with a run of slot ids for each media item."""

    id: str
    input_ids: Tensor
    """int64[L]; a run of ``slot_id(k)`` marks where media item k goes."""
    labels: Tensor
    """int64[L]; -100 where there is no loss."""
    media: tuple[Media, ...] = ()
    replaced: tuple[Replaced, ...] = ()
    """Bad records that this sample replaces."""
    truncated: bool = False
    """Its text was too long, and was cut at the end."""
    dataset: str = ""
    """Name of its data set; the mixture fills it in."""

    @property
    def sounds(self) -> tuple[SoundUse, ...]:
        """What was done with the sound of each of its clips and sound files."""
        return tuple(media.sound for media in self.media if media.sound is not None)

    @property
    def n_media_tokens(self) -> int:
        """Tokens that its media take."""
        return int((self.input_ids < 0).sum())

    @property
    def n_target_tokens(self) -> int:
        """Tokens with loss; see ``Batch``."""
        return int((self.labels[1:] != IGNORE_LABEL).sum())


@dataclass(frozen=True)
class MediaGroup:
    """Media of one kind and shape, from anywhere in a batch."""

    kind: MediaKind
    data: Tensor
    """Media as they are, uint8[N, 3, T, H, W] or float[N, S, ...], or features after the frozen encoders:
    float[N, T, Q, D] for the vision-language branch, float[N, S, E] for the audio-language branch."""
    rows: Tensor
    """int64[N]: the batch row of each item."""
    slots: Tensor
    """int64[N]: the slot id of each item within its row."""
    encoded: bool = False
    """``data`` is the frozen encoders' output."""
    store_as: tuple[StoreAs | None, ...] = ()
    """See ``Media``; for each item that is not encoded."""

    def mapped(self, change: Callable[[Tensor], Tensor]) -> MediaGroup:
        """Return the group with a function applied to its tensors."""
        return replace(self, data=change(self.data), rows=change(self.rows), slots=change(self.slots))


@dataclass(frozen=True)
class Batch:
    """Samples of any mixture of captions, instructions, images, clips and plain text."""

    ids: tuple[str, ...]
    input_ids: Tensor
    """int64[B, L], right-padded."""
    labels: Tensor
    """int64[B, L]; -100 on padding and context."""
    attention_mask: Tensor
    """int64[B, L]; 0 on padding."""
    media: tuple[MediaGroup, ...] = ()
    replaced: tuple[Replaced, ...] = ()
    n_truncated: int = 0
    """Samples whose text was cut at the end."""
    sounds: tuple[tuple[SoundUse, ...], ...] = ()
    """For each sample, what was done with the sound of its clips and sound files; empty: not known."""
    datasets: tuple[str, ...] = ()
    """Name of each sample's data set; empty: not known."""

    @property
    def n_target_tokens(self) -> int:
        """Tokens with loss: labels shifted by one, so a label in the first column does not count."""
        return int((self.labels[:, 1:] != IGNORE_LABEL).sum())

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory (called by the data loader)."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            input_ids=change(self.input_ids),
            labels=change(self.labels),
            attention_mask=change(self.attention_mask),
            media=tuple(group.mapped(change) for group in self.media),
        )


def idle_batch(pad_id: int) -> Batch:
    """Return a batch without loss, for a process that has none left while others go on with a sharded model."""
    return Batch(
        ids=(),
        input_ids=torch.tensor([[pad_id, pad_id]]),
        labels=torch.tensor([[IGNORE_LABEL, IGNORE_LABEL]]),
        attention_mask=torch.tensor([[1, 1]]),
    )


@dataclass(frozen=True)
class ModelOutput:
    """The result of a training forward."""

    loss_sum: Tensor
    """float[]: cross-entropy summed over the target tokens; the runner divides by the global token count."""
    n_target_tokens: int
    sample_losses: Tensor | None = None
    """float[B], detached: the part of each sample in ``loss_sum``, for the log. None: not known."""
