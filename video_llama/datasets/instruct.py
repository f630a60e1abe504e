"""Instruction data: LLaVA-150K conversations and VideoChat questions (Video-LLaMA, section 2.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from video_llama.common.errors import BadRecord
from video_llama.common.registry import DATASETS
from video_llama.common.types import Media, Sample
from video_llama.datasets.annotations import read_json
from video_llama.datasets.base import Dataset
from video_llama.datasets.config import LlavaInstructConfig, WebVidInstructConfig
from video_llama.prompts.labels import clean, encode
from video_llama.prompts.original_mask import original_labels
from video_llama.prompts.rendering import conversation, presented

IMAGE_TOKEN = "<image>"


class InstructDataset(Dataset):
    """A JSON list of conversations, with or without an image or clip."""

    def read_records(self) -> Sequence[Any]:
        """Read the annotation file."""
        return read_json(Path(self.source), list)

    def record_id(self, index: int) -> str:
        """Return the index in the file."""
        return f"[{index}]"

    def bad(self, index: int, reason: str) -> BadRecord:
        """Return the error for a record."""
        return BadRecord(f"{self.source}: {self.record_id(index)}: {reason}")

    def instruct(self, index: int, turns: Sequence[tuple[str, str]], media: Sequence[Media]) -> Sample:
        """Render turns in the training layout and tokenise them."""
        spec, template = self.spec, self.spec.template
        tokens = (spec.tokenizer, spec.tokens_per_slot)
        encoded = encode(conversation(template, template.training, turns, media), *tokens)
        if spec.label_mask == "original":
            encoded = original_labels(template, encoded, turns, media, *tokens)
        return self.truncated_sample(index, encoded, media, max_length=spec.max_instruct_len)


@DATASETS.register("llava_instruct")
class LlavaInstruct(InstructDataset):
    """LLaVA-Instruct-150K, in its published layout."""

    Config = LlavaInstructConfig

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Read the image, if any, and put it at ``<image>``."""
        turns = self._turns(index)
        image = self.records[index].get("image")
        if image and not (isinstance(image, str) and Path(image).name):
            raise self.bad(index, f"expected a file name under 'image', found {image!r:.80}")
        n_tokens = sum(question.count(IMAGE_TOKEN) for question, _ in turns)
        if n_tokens != (1 if image else 0):
            raise self.bad(
                index, f"its questions contain {IMAGE_TOKEN} {n_tokens} times, for {'one' if image else 'no'} image"
            )
        if not image:
            return self.instruct(index, turns, [])
        path = Path(self.config.build_info.videos_dir, image)
        media = self.read_media(path.with_name(self.config.image_prefix + path.name), rng)
        return self.instruct(index, [(q.replace(IMAGE_TOKEN, presented(media)), a) for q, a in turns], media)

    def _turns(self, index: int) -> list[tuple[str, str]]:
        """Pair the questions and answers of a record."""
        record = self.records[index]
        turns = record.get("conversations") if isinstance(record, dict) else None
        if not isinstance(turns, list) or not turns:
            raise self.bad(index, "no list under 'conversations'")
        if not all(isinstance(s, dict) and isinstance(s.get("value"), str) for s in turns):
            raise self.bad(index, "a turn without a text under 'value'")
        if [s.get("from") for s in turns] != ["human", "gpt"] * (len(turns) // 2):
            raise self.bad(index, "turns must alternate from human to gpt")
        return [(clean(q["value"]), clean(a["value"])) for q, a in zip(turns[::2], turns[1::2], strict=True)]


@DATASETS.register("webvid_instruct")
class WebVidInstruct(InstructDataset):
    """VideoChat-Instruct-11K. The first question starts with the clip and the times of its frames, or with its audio."""

    Config = WebVidInstructConfig
    with_times = True

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Read the clip and put it before the first question."""
        turns = self._turns(index)
        video = self.records[index].get("video")
        if not isinstance(video, str) or not video:
            raise self.bad(index, "no file name under 'video'")
        media = self.read_media(Path(self.config.build_info.videos_dir, video), rng)
        if not self.with_times:
            media = [replace(item, message="") for item in media]
        first_question, first_answer = turns[0]
        turns[0] = (presented(media) + first_question, first_answer)
        return self.instruct(index, turns, media)

    def _turns(self, index: int) -> list[tuple[str, str]]:
        """Read the questions and answers of a record."""
        record = self.records[index]
        pairs = record.get("QA") if isinstance(record, dict) else None
        if not isinstance(pairs, list) or not pairs:
            raise self.bad(index, "no list under 'QA'")
        if not all(isinstance(p, dict) and isinstance(p.get("q"), str) and isinstance(p.get("a"), str) for p in pairs):
            raise self.bad(index, "a question without texts under 'q' and 'a'")
        return [(clean(p["q"]), clean(p["a"])) for p in pairs]


@DATASETS.register("webvid_instruct_zh")
class WebVidInstructZh(WebVidInstruct):
    """VideoChat in Chinese: the same, without the English sentence on frame times."""

    with_times = False
