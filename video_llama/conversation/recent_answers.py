"""Answers to the last prompts: the same prompt is not answered again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from video_llama.conversation.prefill import Prompt, prompt_key
from video_llama.conversation.scheduler import Answer

MAX_ANSWERS = 64
"""Most answers kept. Each keeps the features of its media, up to 3 MB for a clip of 32 frames."""


class RecentAnswers:
    """The most recently used answers of one model, finished or not, all with the same settings."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Answer] = OrderedDict()

    def get(self, prompt: Prompt) -> Answer | None:
        """Return the answer to a prompt; None: it is not kept."""
        key = prompt_key(prompt)
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, answer: Answer) -> None:
        """Keep an answer, dropping the least recently used one."""
        self._kept[prompt_key(answer.request.prompt)] = answer
        if len(self._kept) > MAX_ANSWERS:
            self._kept.popitem(last=False)

    def forget(self, answer: Answer) -> None:
        """Drop an answer that failed."""
        self._kept.pop(prompt_key(answer.request.prompt), None)
