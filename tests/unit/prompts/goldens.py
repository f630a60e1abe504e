"""What the original made of samples, strings and dialogues. See tests/fixtures/text/README.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "fixtures" / "text" / "goldens.json"
CONTENT = json.loads(FILE.read_text(encoding="utf-8"))
PLACEHOLDER_ID: int = CONTENT["placeholder_id"]
TOKENS_PER_SLOT: int = CONTENT["tokens_per_slot"]
MAX_CONTEXT = 512
STRINGS: list[dict[str, Any]] = CONTENT["strings"]
CHATS: list[dict[str, Any]] = CONTENT["chats"]


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


def _golden(sample: dict[str, Any]) -> Golden:
    record = (
        {"QA": sample["QA"], "message": sample["msg"]}
        if sample["kind"] == "video"
        else {"conversations": sample["conversations"]}
    )
    trained = frozenset(i for start, stop in sample["trained"] for i in range(start, stop))
    return Golden(sample["kind"], sample["name"], sample["model_type"], record, sample["input_ids"], trained)


SAMPLES = [_golden(sample) for sample in CONTENT["samples"]]
