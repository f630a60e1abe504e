"""Shuffling by arithmetic: the element at any position of a shuffled range, without the list.

A Feistel network over pairs of residues is a bijection whatever its round function, so that a key gives a permutation
(Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Whole numbers alone: the same on every machine.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from math import isqrt

_WORD = 2**32 - 1


def permuted(position: int, n: int, key: Sequence[int]) -> int:
    """Return the element at a position of ``range(n)`` in the order that a key gives, in constant time and memory.

    Args:
        position: from 0 to n - 1.
        n: at most 2**62.
        key: whole numbers that are not negative; other keys give other orders.
    Raises:
        IndexError: there is no such position.
    """
    if not 0 <= position < n:
        raise IndexError(f"position {position} of {n}")
    keys = words(tuple(key))
    a = isqrt(n - 1) + 1
    b = (n - 1) // a + 1  # a * b is n or little more
    while True:  # what lands outside the range goes on until it comes back
        left, right = divmod(position, b)
        for i in range(0, len(keys), 2):
            left = (left + scrambled(right, keys[i])) % a
            right = (right + scrambled(left, keys[i + 1])) % b
        position = left * b + right
        if position < n:
            return position


def scrambled(value: int, key: int) -> int:
    """Return 32 bits that depend on all bits of a value and a key, of 32 bits each (the finaliser of MurmurHash3)."""
    x = (value ^ key) & _WORD
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _WORD
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _WORD
    return x ^ (x >> 16)


@lru_cache(maxsize=4096)
def words(key: tuple[int, ...]) -> tuple[int, ...]:
    """Return eight words of 32 bits that follow from a key of any length."""
    return struct.unpack("<8I", hashlib.sha256(" ".join(map(str, key)).encode()).digest())
