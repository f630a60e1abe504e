"""What a planned model is given: the largest batch that a config's settings allow, and a question about a clip.

Shapes: B samples, L tokens, T frames, S segments of sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from video_llama.common.errors import ConfigError, WeightsError
from video_llama.common.modalities import MediaKind
from video_llama.common.types import IGNORE_LABEL, Batch, MediaGroup, slot_id
from video_llama.config.loader import JobConfig
from video_llama.datasets.config import CaptionsConfig, ConversationsConfig
from video_llama.models.encoders.factory import audio_processor
from video_llama.models.prompting import caption_prompts
from video_llama.planning.tracing import valueless
from video_llama.processors.audio import SEGMENT_SECONDS
from video_llama.processors.decode import SAMPLE_RATE
from video_llama.prompts.templates import MODEL_TYPES

CHARACTERS_PER_TOKEN = 3
"""Of a prompt, where there is no tokenizer to count with."""
LONGEST_DIALOGUE = 2048
"""Tokens of the longest dialogue that is planned for; some decoders take many more."""


@dataclass(frozen=True)
class Workload:
    """Sequences of one shape."""

    frames: int
    """T of a clip."""
    text: int
    """Tokens of text of a sequence, besides its media."""
    batch: int = 1
    """B."""

    def named(self) -> str:
        """Return what it is, for people."""
        clips = f"{self.frames} frames" if self.frames > 1 else "1 frame"
        return f"{self.batch} x ({clips}, {self.text} tokens of text)"


def training_workload(job: JobConfig, processes: int = 1, text: int | None = None) -> Workload:
    """Return the longest samples that the settings allow, in a batch of ``batch_size_train``; auto: all of a step at once.

    Args:
        job: with the sections ``model`` and ``run``.
        processes: how many share ``global_batch_size``.
        text: tokens of text of a sample. None: as many as the settings allow.
    """
    model, sets = job.model, list(job.datasets.values())
    frames = [getattr(config.vis_processor.train, "n_frms", 1) for config in sets]
    batch = getattr(job.run, "batch_size_train", 1)
    if batch == "auto":
        batch = max(1, (job.run.global_batch_size or 1) // processes)
    return Workload(max(frames, default=8), text or _longest_text(model, sets), batch if isinstance(batch, int) else 1)


def use_workload(job: JobConfig, frames: int) -> Workload:
    """Return a dialogue about a clip that fills the decoder's context, or ``LONGEST_DIALOGUE``."""
    tokens = min(job.model.decoder_folder.max_context, LONGEST_DIALOGUE)
    return Workload(frames, tokens - sum(tokens_of_media(job.model, ("audio", "video"))))


def _longest_text(model: Any, sets: Sequence[Any]) -> int:
    """Return the tokens of text of the longest sample."""
    captions = [s for s in sets if not isinstance(s, ConversationsConfig)]
    conversations = [s for s in sets if not isinstance(s, CaptionsConfig)]
    longest = []
    if captions or not sets:
        longest.append(model.max_txt_len + _caption_prompt(model))
    if conversations:
        media = training_media(model)
        longest.append(model.max_instruct_len - sum(tokens_of_media(model, media)))
    return max(1, *longest)


def _caption_prompt(model: Any) -> int:
    """Return the tokens of the longest prompt for captions; 0 if the file of prompts is not there."""
    template = model.template or MODEL_TYPES["vicuna"]  # auto: its own is about as long
    try:
        longest = max(caption_prompts(model, template), key=len)
    except ConfigError:
        return 0
    try:
        return len(model.decoder_folder.tokenizer().encode(longest))
    except WeightsError:  # there is no tokenizer
        return len(longest) // CHARACTERS_PER_TOKEN


def training_media(model: Any) -> tuple[MediaKind, ...]:
    """Return the kinds of media of a training sample with a clip; where one of two is drawn, the larger one."""
    source, video = model.modalities.audio_source, model.modalities.video
    sound: MediaKind = "audio" if source == "sound" else "audio_frames"
    return (*([sound] if source else []), *(["video"] if video else []))  # type: ignore[arg-type]


def use_media(model: Any) -> tuple[MediaKind, ...]:
    """Return the kinds of media of a question about a clip with sound."""
    return (*(["audio"] if model.equip_audio_branch else []), *(["video"] if model.modalities.video else []))  # type: ignore[arg-type]


def tokens_of_media(model: Any, kinds: Sequence[MediaKind]) -> list[int]:
    """Return the tokens of each item."""
    return [model.tokens_per_slot.get(kind, 0) for kind in kinds]


def batch_of(model: Any, work: Workload, kinds: Sequence[MediaKind]) -> Batch:
    """Return a batch with media without values; all text has loss.

    Args:
        model: the ``model`` section.
        work: its sizes.
        kinds: the media of each sample, in the order of their slots.
    """
    slots = [slot_id(k) for k, n in enumerate(tokens_of_media(model, kinds)) for _ in range(n)]
    ids = torch.tensor([*slots, *[1] * work.text]).repeat(work.batch, 1)
    labels = ids.clone()
    labels[:, : len(slots)] = IGNORE_LABEL
    groups = tuple(_groups(model, work, kinds))
    return Batch(tuple(map(str, range(work.batch))), ids, labels, torch.ones_like(ids), groups)


def _groups(model: Any, work: Workload, kinds: Sequence[MediaKind]) -> Iterator[MediaGroup]:
    rows = torch.arange(work.batch)
    for k, kind in enumerate(kinds):
        if kind == "audio":
            processor = audio_processor(model)
            assert processor is not None, "there is an audio branch"
            segment = processor.segment(torch.zeros(1, SEGMENT_SECONDS * SAMPLE_RATE))
            data = valueless((work.batch, model.audio_segments, *segment.shape), segment.dtype)
        else:
            data = valueless((work.batch, 3, work.frames, model.image_size, model.image_size), torch.uint8)
        yield MediaGroup(kind, data, rows, torch.full_like(rows, slot_id(k)))


def at_batch(work: Workload, batch: int) -> Workload:
    """Return the workload with another batch size."""
    return replace(work, batch=batch)
