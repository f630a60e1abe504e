"""Micro-batches of samples of similar length, and about the same work for every process: little padding, little waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

FRAME_WORK = 20
"""How many tokens cost as much as a frame: forward through the 1.0e9 weights of ViT-G for each of 257 patches, against forward
and backward through the 6.7e9 of a decoder of 7B."""


class Length(NamedTuple):
    """The size of a sample."""

    text: int
    """Tokens of its text."""
    media: int
    """Tokens of its images, clips and sound in the decoder."""
    frames: int
    """Frames that are encoded for it."""

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.text + self.media


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """Bounds of a micro-batch. A sample that is above one of them alone is a micro-batch of its own."""

    tokens: int | None = None
    """Tokens with padding: rows times the longest. None: no bound."""
    frames: int | None = None
    """Frames. None: no bound."""

    def hold(self, tokens: int, frames: int) -> bool:
        """Return whether a micro-batch keeps within the bounds."""
        return (self.tokens is None or tokens <= self.tokens) and (self.frames is None or frames <= self.frames)


def grouped(lengths: Sequence[Length], ranks: int, accumulation: int, limits: BatchLimits) -> list[list[list[int]]]:
    """Split the samples of a step into micro-batches, and these over processes.

    The samples are ordered by length and cut where the most costly micro-batch costs least. Without limits there are
    ``accumulation`` micro-batches for each process, none of them larger than one of equally many of the largest samples would be;
    with limits, as few as keep to them. Each goes, the most costly one first, to the process that has the least work so far.

    Args:
        lengths: of the samples, at least as many as processes.
        ranks: processes.
        accumulation: micro-batches of a process where there are no limits.
        limits: bounds of a micro-batch.
    Returns:
        for each process its micro-batches, as indices of ``lengths``: every process has at least one.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i].tokens, -lengths[i].frames, i))
    sizes = [(lengths[i].tokens, lengths[i].frames) for i in order]
    if limits == BatchLimits():
        rounds, equal = accumulation, len(lengths) // (ranks * accumulation)
        limits = BatchLimits(tokens=equal * max(sizes)[0], frames=equal * max(frames for _, frames in sizes))
    else:
        rounds = next(k for k in count(1) if len(_cut(sizes, None, limits)) <= ranks * k)
    cuts = _cheapest(sizes, ranks * rounds, limits)
    parts = [(_work(sizes[a:b]), order[a:b]) for a, b in zip(cuts, [*cuts[1:], len(order)], strict=True)]
    shares: list[tuple[int, list[list[int]]]] = [(0, []) for _ in range(ranks)]
    for work, part in sorted(parts, key=lambda part: (-part[0], part[1])):
        least = min(range(ranks), key=lambda rank: (shares[rank][0], len(shares[rank][1]), rank))
        shares[least] = (shares[least][0] + work, [*shares[least][1], sorted(part)])
    return [batches for _, batches in shares]


def _cheapest(sizes: Sequence[tuple[int, int]], n: int, limits: BatchLimits) -> list[int]:
    """Return where each of at most n micro-batches starts so that the most costly one costs least, and n if that is possible."""
    low, high = 0, _work(sizes)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_cut(sizes, middle, limits)) <= n else (middle, high)
    cuts = _cut(sizes, high, limits)
    while len(cuts) < min(n, len(sizes)):  # halve the most costly of several samples
        stops = [*cuts[1:], len(sizes)]
        divisible = [(a, b) for a, b in zip(cuts, stops, strict=True) if b - a > 1]
        a, b = max(divisible, key=lambda part: _work(sizes[part[0] : part[1]]))
        cuts = sorted([*cuts, min(range(a + 1, b), key=lambda at: max(_work(sizes[a:at]), _work(sizes[at:b])))])
    return cuts


def _cut(sizes: Sequence[tuple[int, int]], bound: int | None, limits: BatchLimits) -> list[int]:
    """Return where each micro-batch starts if all are as full as the limits, and a bound of their work, allow."""
    cuts, frames = list[int](), 0
    for i, (_, more) in enumerate(sizes):
        if cuts:
            padded = (i + 1 - cuts[-1]) * sizes[cuts[-1]][0]
            if limits.hold(padded, frames + more) and (bound is None or padded + FRAME_WORK * (frames + more) <= bound):
                frames += more
                continue
        cuts.append(i)
        frames = more
    return cuts


def _work(sizes: Sequence[tuple[int, int]]) -> int:
    """Return what a micro-batch costs, in tokens; its longest sample comes first."""
    return len(sizes) * sizes[0][0] + FRAME_WORK * sum(frames for _, frames in sizes)
