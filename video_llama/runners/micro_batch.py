"""Batch sizes that are tried: powers of two, and three quarters of them."""

from __future__ import annotations


def divisors(samples: int) -> list[int]:
    """Return the sizes that split so many samples evenly, from the smallest: 1, 2, 3, 4, 6, 8, 12 and so on."""
    sizes = {factor << k for factor in (1, 3) for k in range(samples.bit_length())}
    return sorted(size for size in sizes if size <= samples and samples % size == 0)
