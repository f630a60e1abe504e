"""Questions with known answers, and how many of them a model gets right."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from video_llama.common.contracts import Media, MediaGroup, slot_id
from video_llama.common.errors import DataError
from video_llama.conversation.chat import Chat
from video_llama.conversation.generation import generate
from video_llama.conversation.session import Session
from video_llama.prompts.labels import encode


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


def answer_all(
    chat: Chat,
    questions: Sequence[Question],
    folder: str | Path,
    *,
    batch_size: int,
    blank: bool = False,
    max_new_tokens: int = 24,
) -> dict[str, str]:
    """Answer each question in a dialogue of its own; a clip is encoded once for all its questions.

    Args:
        chat: the model in use.
        questions: what is asked.
        folder: where the clips lie.
        batch_size: questions answered at once.
        blank: show black frames in place of the clips'.
        max_new_tokens: longest answer, in tokens.
    Returns:
        Answers by question id.
    """
    ordered = sorted(questions, key=lambda q: q.video)
    answers: dict[str, str] = {}
    seen: dict[str, tuple[Media, torch.Tensor]] = {}
    for start in tqdm(range(0, len(ordered), batch_size), desc="questions", unit="batch"):
        batch = ordered[start : start + batch_size]
        seen = {q.video: seen.get(q.video) or _look(chat, Path(folder, q.video), blank) for q in batch}
        prompts = []
        for question in batch:
            session = Session(chat.context.template)
            session.show(seen[question.video][0])
            session.ask(question.question)
            encoded = encode(session.prompt(), chat.context.tokenizer, chat.context.tokens_per_slot)
            prompts.append(encoded.input_ids)
        texts = generate(
            chat.model,
            chat.context.tokenizer,
            prompts,
            _groups([seen[q.video][1] for q in batch]),
            stop=chat.context.template.end_sym,
            max_new_tokens=max_new_tokens,
        )
        answers |= {q.id: text for q, text in zip(batch, texts, strict=True)}
    return answers


def _look(chat: Chat, path: Path, blank: bool) -> tuple[Media, torch.Tensor]:
    """Read a clip and run the frozen encoders over it: features float[T, Q, D]."""
    media = chat.video_processor(path, np.random.default_rng(0))
    if blank:
        media = replace(media, frames=torch.zeros_like(media.frames))
    return media, chat.encode(media, slot_id(0)).frames[0]


def _groups(features: Sequence[torch.Tensor]) -> list[MediaGroup]:
    """Group one clip for each row by length."""
    rows: dict[int, list[int]] = defaultdict(list)
    for row, clip in enumerate(features):
        rows[clip.shape[0]].append(row)
    return [
        MediaGroup(
            "video",
            torch.stack([features[r] for r in members]),
            torch.tensor(members),
            torch.full((len(members),), slot_id(0)),
            encoded=True,
        )
        for members in rows.values()
    ]


def accuracy(questions: Sequence[Question], answers: Mapping[str, str]) -> dict[str, float]:
    """Return the share of exact matches by kind, case and white space at the ends aside."""
    right: dict[str, list[bool]] = defaultdict(list)
    for q in questions:
        right[q.kind].append(answers[q.id].strip().lower() == q.answer.strip().lower())
    return {kind: sum(marks) / len(marks) for kind, marks in right.items()}
