"""When an answer is complete: its row's text holds one of the row's stop strings.

Shapes: B rows, or beams of them, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from video_llama.prompts.tokenizer import Tokenizer


class StopAtText(StoppingCriteria):
    """Ends a row once its text holds one of its stop strings, however that is cut into tokens.

    Args:
        tokenizer: turns ids into text.
        stops: for each row, the strings that end it.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[Sequence[str]]) -> None:
        self.tokenizer, self.stops = tokenizer, stops
        self.windows = [2 * max(len(stop.encode()) for stop in row) + 2 for row in stops]
        """Tokens at the end of a row that are looked at: a token holds at least one byte."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return bool[B]: which rows are done. The beams of a row follow each other."""
        beams = len(input_ids) // len(self.stops)
        done = []
        for i, ids in enumerate(input_ids[:, -max(self.windows) :].tolist()):
            row = i // beams
            text = self.tokenizer.decode(ids[-self.windows[row] :])
            done.append(any(stop in text for stop in self.stops[row]))
        return torch.tensor(done, device=input_ids.device)
