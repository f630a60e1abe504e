"""A decoder that follows a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tests import tiny
from video_llama.prompts.tokenizer import Tokenizer


class Scripted(nn.Module):
    """Replaces the decoder's last layer: row r gives ``scripts[r]``, one token a step, and then repeats the last.

    Args:
        scripts: token ids.
        before: is called with the number of each step before it.
    """

    def __init__(self, scripts: Sequence[Sequence[int]], before: Callable[[int], None] = lambda step: None) -> None:
        super().__init__()
        self.scripts, self.before, self.step = scripts, before, 0

    def forward(self, hidden: Tensor) -> Tensor:
        self.before(self.step)
        logits = torch.zeros(len(self.scripts), 1, tiny.VOCABULARY)
        for row, script in enumerate(self.scripts):
            logits[row, 0, script[min(self.step, len(script) - 1)]] = 1.0
        self.step += 1
        return logits


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The token ids of a text."""
    return [token.id for token in tokenizer.encode(text)]
