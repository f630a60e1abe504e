"""The next token of each row, chosen from its logits: greedily, or sampled from the nucleus.

Shapes: B rows, W vocabulary, K candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from video_llama.conversation.settings import GenerationSettings

CANDIDATES = 256
"""K: likeliest tokens that are tried first; a nucleus is rarely larger, and finding them is many times faster than sorting all."""


def seeded_generator(seed: int | None) -> torch.Generator:
    """Return a random generator of one row. None: a new seed."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def draw(scores: Tensor, temperature: Tensor, top_p: Tensor, points: Tensor) -> Tensor:
    """Draw a token for each row from the smallest set of likeliest tokens that reaches ``top_p`` (Holtzman et al. 2020).

    Args:
        scores: float[B, W].
        temperature, top_p: float64[B, 1].
        points: float64[B, 1], uniform in [0, 1).
    Returns:
        int64[B, 1].
    """
    scores = scores.double()
    likelihoods = ((scores - scores.amax(-1, keepdim=True)) / temperature).softmax(-1)
    n_candidates = min(CANDIDATES, likelihoods.shape[-1])
    tokens = likelihoods.topk(n_candidates, sorted=False).indices.sort(dim=-1).values
    likeliest, order = likelihoods.gather(-1, tokens).sort(dim=-1, descending=True, stable=True)
    tokens, least = tokens.gather(-1, order), likeliest[:, -1:]
    sums, last = _nucleus(likeliest, top_p)
    if bool((likeliest.gather(-1, last) <= least).any()):  # the nucleus may go on among the others
        likeliest, tokens = likelihoods.sort(dim=-1, descending=True, stable=True)
        sums, last = _nucleus(likeliest, top_p)
    drawn = torch.searchsorted(sums, points * sums.gather(-1, last), right=True).minimum(last)
    return tokens.gather(-1, drawn)


def _nucleus(likeliest: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """Return running sums, float64[B, K], and the index of the nucleus's last token, int64[B, 1]."""
    sums = likeliest.cumsum(-1)
    return sums, (sums - likeliest < top_p).sum(-1, keepdim=True) - 1


class TokenChooser:
    """Chooses the tokens of one answer; its random generator is its own, so the answer does not depend on other rows.

    Args:
        settings: how tokens are chosen; beams are not searched.
    """

    def __init__(self, settings: GenerationSettings) -> None:
        self.settings = settings
        self._generator = seeded_generator(settings.seed) if settings.temperature > 0 else None
        self._counts: Counter[int] = Counter()

    def point(self) -> float:
        """Draw the next number in [0, 1)."""
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def penalise(self, scores: Tensor) -> None:
        """Change the logits of tokens that are in the answer already, in place, in float[W]."""
        if self._counts and penalises(self.settings):
            tokens = torch.tensor([*self._counts], device=scores.device)
            counts = torch.tensor([*self._counts.values()], device=scores.device)
            scores[tokens] = penalised(scores[tokens], counts, self.settings)

    def note(self, token: int) -> None:
        """Remember a token of the answer."""
        self._counts[token] += 1


def penalises(settings: GenerationSettings) -> bool:
    """Return whether tokens already in an answer change in likelihood."""
    return settings.repetition_penalty != 1 or settings.frequency_penalty != 0 or settings.presence_penalty != 0


def penalised(scores: Tensor, counts: Tensor, settings: GenerationSettings) -> Tensor:
    """Return the logits of tokens that are in an answer already.

    The repetition penalty comes first (Keskar et al. 2019, section 4.1), then OpenAI's frequency and presence penalties.

    Args:
        scores: float[N], the model's.
        counts: int64[N], how often each token is in the answer; at least 1.
        settings: the penalties.
    """
    penalty = settings.repetition_penalty
    scores = torch.where(scores < 0, scores * penalty, scores / penalty)
    return scores - settings.frequency_penalty * counts - settings.presence_penalty


def choose(logits: Tensor, choosers: Sequence[TokenChooser]) -> list[int]:
    """Choose a token for each row.

    Args:
        logits: float[B, W].
        choosers: of the B rows.
    """
    scores = logits.to(torch.float32, copy=True)
    for row, chooser in enumerate(choosers):
        chooser.penalise(scores[row])
    greedy = scores.argmax(-1).tolist()
    rows = [row for row, chooser in enumerate(choosers) if chooser.settings.temperature > 0]
    drawn = dict(zip(rows, sampled(scores[rows], [choosers[row] for row in rows]), strict=True)) if rows else {}
    tokens = [drawn.get(row, token) for row, token in enumerate(greedy)]
    for chooser, token in zip(choosers, tokens, strict=True):
        chooser.note(token)
    return tokens


def sampled(scores: Tensor, choosers: Sequence[TokenChooser]) -> list[int]:
    """Sample a token for each row, from float[B, W]."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=scores.device)[:, None]

    temperature = column([chooser.settings.temperature for chooser in choosers])
    top_p = column([chooser.settings.top_p for chooser in choosers])
    points = column([chooser.point() for chooser in choosers])
    tokens: list[int] = draw(scores, temperature, top_p, points).squeeze(1).tolist()
    return tokens
