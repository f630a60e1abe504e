"""Questions with known answers, and how many of them a model gets right."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from video_llama.common.errors import DataError
from video_llama.common.types import Media, MediaGroup
from video_llama.conversation.batching import generate_batch, prompt_of
from video_llama.conversation.chat import Chat
from video_llama.conversation.settings import GenerationSettings
from video_llama.processors.audio import SEGMENT_SECONDS
from video_llama.processors.decode import SAMPLE_RATE


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question on a clip."""

    id: str
    video: str
    """File name of the clip, relative to the folder of the set."""
    kind: str
    """What is asked for; accuracy is reported by kind."""
    question: str
    answer: str


def read_questions(path: str | Path) -> list[Question]:
    """Read a JSON list of questions.

    Raises:
        DataError: the file cannot be read, or a record lacks a field.
    """
    names = [f.name for f in fields(Question)]
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
        return [Question(**{name: record[name] for name in names}) for record in records]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected a JSON list of objects with {', '.join(names)} ({error!r})") from error


@dataclass(frozen=True, kw_only=True)
class InputAblation:
    """What a model is ablation of each clip it is asked about."""

    frames: Literal["own", "black", "none"] = "own"
    """The clip's frames, black ones in their place, or no frames at all."""

    sound: Literal["own", "silence", "none"] = "none"
    """The clip's sound, silence in its place, or no sound at all."""

    sound_from: Mapping[str, str] = field(default_factory=dict)
    """Clips whose sound is taken from another clip of the folder."""


AS_IT_IS = InputAblation()
"""What a model without an audio branch is ablation."""


def answer_all(
    chat: Chat,
    questions: Sequence[Question],
    folder: str | Path,
    *,
    batch_size: int,
    ablation: InputAblation = AS_IT_IS,
    max_new_tokens: int = 24,
) -> dict[str, str]:
    """Answer each question in a dialogue of its own; a clip is encoded once for all its questions.

    Args:
        chat: the model in use.
        questions: what is asked.
        folder: where the clips lie.
        batch_size: questions answered at once.
        ablation: what the model sees and hears.
        max_new_tokens: longest answer, in tokens.
    Returns:
        Answers by question id.
    Raises:
        DecodeError: a clip cannot be read; NoSoundTrack: it has no sound of its own to be ablation.
    """
    settings = GenerationSettings(max_new_tokens=max_new_tokens)
    ordered = sorted(questions, key=lambda q: q.video)
    answers: dict[str, str] = {}
    clips: dict[str, _Clip] = {}
    for start in tqdm(range(0, len(ordered), batch_size), desc="questions", unit="batch"):
        batch = ordered[start : start + batch_size]
        clips = {q.video: clips.get(q.video) or _read(chat, Path(folder), q.video, ablation) for q in batch}
        prompts = [prompt_of(chat, q.question, clips[q.video].media, clips[q.video].encoded) for q in batch]
        texts = generate_batch(chat, prompts, settings)
        answers |= {q.id: text for q, text in zip(batch, texts, strict=True)}
    return answers


@dataclass(frozen=True)
class _Clip:
    """What is ablation of a clip, and what the frozen encoders make of it, in the order of the prompt."""

    media: tuple[Media, ...]
    encoded: tuple[MediaGroup, ...]


def _read(chat: Chat, folder: Path, name: str, ablation: InputAblation) -> _Clip:
    media = []
    if ablation.sound != "none":
        media.append(_hear(chat, folder / ablation.sound_from.get(name, name), ablation))
    if ablation.frames != "none":
        seen = chat.video_processor(folder / name, np.random.default_rng(0))
        media.append(seen if ablation.frames == "own" else replace(seen, frames=torch.zeros_like(seen.frames)))
    return _Clip(tuple(media), chat.encode(media))


def _hear(chat: Chat, path: Path, ablation: InputAblation) -> Media:
    processor = chat.context.audio_processor
    if ablation.sound == "own":
        heard: Media = processor(path, np.random.default_rng(0))
        return heard
    silence = processor.segment(torch.zeros(1, SEGMENT_SECONDS * SAMPLE_RATE))
    return Media("audio", silence.expand(processor.config.n_segments, *silence.shape))


def is_right(answer: str, expected: str) -> bool:
    """Return whether an answer is the expected one, case and white space at the ends aside."""
    return answer.strip().lower() == expected.strip().lower()


def accuracy(questions: Sequence[Question], answers: Mapping[str, str]) -> dict[str, float]:
    """Return the share of right answers by kind; see ``is_right``."""
    right: dict[str, list[bool]] = defaultdict(list)
    for q in questions:
        right[q.kind].append(is_right(answers[q.id], q.answer))
    return {kind: sum(marks) / len(marks) for kind, marks in right.items()}
