"""What grouping by length saves: padding, and waiting for the slowest process, on a mixture like that of stage 2.

    python -m benchmarks.padding

Prints both for steps of several sizes, as drawn and grouped. Work is what ``length_groups`` takes it for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from video_llama.datasets.length_groups import FRAME_WORK, BatchLimits, Length, grouped

STEPS = 200
SPLITS = [(8, 4, 1), (8, 4, 2), (8, 4, 4), (1, 4, 8), (1, 4, 32)]
"""Processes, samples of a forward pass, forward passes of a step."""


def like_stage_2(n: int, seed: int) -> list[Length]:
    """Return samples of about the lengths of MiniGPT-4's captions and LLaVA's and VideoChat's instructions, in LLaMA's tokens."""
    draw = random.Random(seed)
    kinds = {
        "minigpt4": lambda: Length(int(draw.gauss(105, 15)), 32, 1),
        "llava": lambda: Length(int(min(480, draw.lognormvariate(5.5, 0.35))), 32, 1),
        "videochat": lambda: Length(40 + int(min(440, draw.lognormvariate(5.0, 0.6))), 32, 8),
    }
    return [kinds[draw.choices(list(kinds), [10, 45, 45])[0]]() for _ in range(n)]


def padded(sizes: Sequence[Length], batches: Sequence[Sequence[int]]) -> int:
    """Return the tokens of micro-batches with padding."""
    return sum(len(batch) * max(sizes[i].tokens for i in batch) for batch in batches)


def work(sizes: Sequence[Length], batches: Sequence[Sequence[int]]) -> int:
    """Return what micro-batches cost, in tokens."""
    return padded(sizes, batches) + FRAME_WORK * sum(sizes[i].frames for batch in batches for i in batch)


def as_drawn(ranks: int, size: int, accumulation: int) -> list[list[range]]:
    """Return the micro-batches of each process without grouping."""
    starts = range(0, ranks * size * accumulation, size)
    return [[range(start, start + size) for start in starts[rank::ranks]] for rank in range(ranks)]


def ratios(split: tuple[int, int, int], *, group: bool, steps: int = STEPS) -> tuple[float, float]:
    """Return tokens with padding over real ones, and the work of the slowest process over the mean."""
    ranks, size, accumulation = split
    real = with_padding = slowest = total = 0
    for seed in range(steps):
        sizes = like_stage_2(ranks * size * accumulation, seed)
        shares: Sequence[Sequence[Sequence[int]]] = as_drawn(*split)
        if group:
            shares = grouped(sizes, ranks, accumulation, BatchLimits())
        loads = [work(sizes, share) for share in shares]
        real += sum(length.tokens for length in sizes)
        with_padding += sum(padded(sizes, share) for share in shares)
        slowest, total = slowest + max(loads) * ranks, total + sum(loads)
    return with_padding / real, slowest / total


def main() -> None:
    """Print both ratios of each split."""
    print("processes x samples x passes: padding as drawn, grouped; slowest process as drawn, grouped")
    for split in SPLITS:
        (padding, slowest), (less, sooner) = (ratios(split, group=group) for group in (False, True))
        print(f"{' x '.join(map(str, split)):>10}: {padding:.3f}, {less:.3f}; {slowest:.3f}, {sooner:.3f}")


if __name__ == "__main__":
    main()
