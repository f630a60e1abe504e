"""The original's results for samples, strings and dialogues. See tests/fixtures/README.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.conftest import FIXTURES
from video_llama.common.types import IGNORE_LABEL

CONTENT = json.loads((FIXTURES / "reference/text/text_goldens.json").read_text(encoding="utf-8"))
DIALOGUES = json.loads((FIXTURES / "reference/data/conversations.json").read_text(encoding="utf-8"))["prompts"]
PLACEHOLDER_ID: int = CONTENT["image_patch_token_id"]
TOKENS_PER_SLOT: int = CONTENT["num_video_query_token"]
MAX_CONTEXT = 512
STRINGS: list[dict[str, Any]] = CONTENT["tokenize"]


@dataclass(frozen=True)
class Golden:
    """One instruction sample of the original."""

    kind: str
    """video or llava."""
    name: str
    model_type: str
    record: dict[str, Any]
    """As its annotation file holds it; for a video, ``message`` tells the times of its frames."""
    input_ids: list[int]
    trained: frozenset[int]
    """Positions that carry loss."""

    def __str__(self) -> str:
        return f"{self.kind}-{self.model_type}-{self.name}"


def _golden(kind: str, sample: dict[str, Any]) -> Golden:
    record = (
        {"QA": sample["QA"], "message": sample["msg"]}
        if kind == "video"
        else {"conversations": sample["conversations"]}
    )
    trained = frozenset(i for i, label in enumerate(sample["labels"]) if label != IGNORE_LABEL)
    return Golden(kind, sample["name"], sample["model_type"], record, sample["input_ids"], trained)


def _chat(dialogue: dict[str, Any]) -> dict[str, Any]:
    said = [text for _, text in dialogue["messages"]]
    turns = list(zip(said[::2], said[1::2], strict=True))
    return {"template": dialogue["template"], "turns": turns, "prompt": dialogue["prompt"]}


SAMPLES = [_golden(kind, sample) for kind in ("video", "llava") for sample in CONTENT[kind]]
CHATS = [
    _chat(dialogue)
    for dialogue in DIALOGUES
    if dialogue["template"] in ("default_conversation", "conv_llava_llama_2") and len(dialogue["messages"]) % 2 == 0
]
"""Dialogues whose last question has an answer, or None."""
