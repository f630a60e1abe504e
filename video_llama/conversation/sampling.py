"""Drawing tokens instead of taking the likeliest. Torch's global generator is left as it was.

Shapes: B rows, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from video_llama.conversation.settings import GenerationSettings


class Draw(LogitsProcessor):
    """Draws each row's next token by itself, and leaves no other to choose.

    A row's chance depends on the seed and the step alone, so it draws in a batch what it would draw alone.

    Args:
        settings: temperature, top_p and seed.
        n_rows: B.
    """

    def __init__(self, settings: GenerationSettings, n_rows: int) -> None:
        self.temperature, self.top_p = settings.temperature, settings.top_p
        self.chances = [torch.Generator() for _ in range(n_rows)]
        for chance in self.chances:
            if settings.seed is None:
                chance.seed()
            else:
                chance.manual_seed(settings.seed)

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """Return float[B, W]: -inf but for the token that is drawn (nucleus sampling: Holtzman et al. 2020)."""
        scores = scores.double()
        scores = (scores - scores.amax(-1, keepdim=True)) / self.temperature
        likeliest, tokens = scores.softmax(-1).sort(dim=-1, descending=True, stable=True)
        sums = likeliest.cumsum(-1)
        last = (sums - likeliest < self.top_p).sum(-1, keepdim=True) - 1  # of the smallest set that reaches top_p
        points = torch.cat([torch.rand(1, 1, generator=chance, dtype=torch.float64) for chance in self.chances])
        drawn = torch.searchsorted(sums, points.to(sums.device) * sums.gather(-1, last), right=True).minimum(last)
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens.gather(-1, drawn), 0.0)


@contextmanager
def forked_chance(seed: int | None) -> Iterator[None]:
    """For what draws from torch's global generators: seed them, and put them back after."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
        if seed is None:
            torch.seed()
        else:
            torch.manual_seed(seed)
        yield
