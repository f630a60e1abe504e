"""Mutations of a file's bytes, drawn from a random generator alone, so that a seed and a number give the same file again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Rng = np.random.Generator
Region = tuple[int, int]
"""First byte that may change, and the one after the last."""

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Values at which parsers of binary headers go wrong."""

WORDS = tuple(
    word.encode("utf-8", "surrogatepass")
    for word in (
        *(
            '"',
            "'",
            ",",
            "\t",
            "\n",
            "\r",
            "\r\n",
            "\\",
            "{",
            "}",
            "[",
            "]",
            ":",
            "null",
            "true",
            "NaN",
            "1e999",
            "-1",
            '""',
        ),
        *(
            "[]",
            "{}",
            "9" * 5000,
            "[" * 3000,
            '{"a":' * 3000,
            "\0",
            "\ufeff",
            "\u2028",
            "\ud800",
            '"\\ud800"',
            "\\u0000",
        ),
        *(
            "<image>",
            "<video>",
            "<Video>",
            "<ImageHere>",
            "</s>",
            "<s>",
            "<unk>",
            "###",
            "[INST]",
            "<|im_end|>",
            "../../x",
        ),
        *(
            '"image"',
            '"video"',
            '"QA"',
            '"q"',
            '"a"',
            '"value"',
            '"from"',
            '"human"',
            '"gpt"',
            '"caption"',
            '"image_id"',
        ),
        *("/etc/passwd", "x" * 5000, "é", "💥", "\x1b[2J", "file:///x", "=1+1"),
    )
)
"""What parsers of annotations trip over."""


def mutate(data: bytes, others: Sequence[bytes], regions: Sequence[Region], words: Sequence[bytes], rng: Rng) -> bytes:
    """Return data with one to eight changes.

    Args:
        others: data to take pieces from.
        regions: where changes start; one is drawn for each change.
        words: words to insert; empty: none are.
    """
    changes: list[Callable[..., None]] = [_flip, _set_byte, _set_number, _cut, _remove, _repeat, _zero, _splice]
    result = bytearray(data)
    for _ in range(1 + int(rng.integers(8)) if rng.random() < 0.7 else 1):
        if not result:
            break
        first, stop = regions[int(rng.integers(len(regions)))]
        first, stop = min(first, len(result) - 1), min(stop, len(result))
        at = int(rng.integers(first, max(stop, first + 1)))
        if words and rng.random() < 0.6:
            word = words[int(rng.integers(len(words)))]
            result[at : at + int(rng.integers(len(word) + 1)) * int(rng.integers(2))] = word
        else:
            changes[int(rng.integers(len(changes)))](result, at, others, rng)
    return bytes(result)


def _length(rng: Rng) -> int:
    return int(2 ** rng.uniform(0, 9))


def _flip(data: bytearray, at: int, others: Sequence[bytes], rng: Rng) -> None:
    data[at] ^= 1 << int(rng.integers(8))


def _set_byte(data: bytearray, at: int, others: Sequence[bytes], rng: Rng) -> None:
    data[at] = int(rng.integers(256))


def _set_number(data: bytearray, at: int, others: Sequence[bytes], rng: Rng) -> None:
    size = (1, 2, 4)[int(rng.integers(3))]
    value = INTERESTING[int(rng.integers(len(INTERESTING)))] % 256**size
    data[at : at + size] = value.to_bytes(size, ("big", "little")[int(rng.integers(2))])


def _cut(data: bytearray, at: int, others: Sequence[bytes], rng: Rng) -> None:
    del data[max(at, 1) :]


def _remove(data: bytearray, at: int, others: Sequence[bytes], rng: Rng) -> None:
    del data[at : at + _length(rng)]


def _repeat(data: bytearray, at: int, others: Sequence[bytes], rng: Rng) -> None:
    data[at:at] = data[at : at + _length(rng)]


def _zero(data: bytearray, at: int, others: Sequence[bytes], rng: Rng) -> None:
    piece = data[at : at + _length(rng)]
    data[at : at + len(piece)] = bytes(len(piece))


def _splice(data: bytearray, at: int, others: Sequence[bytes], rng: Rng) -> None:
    other = others[int(rng.integers(len(others)))]
    start, length = int(rng.integers(len(other))), _length(rng)
    data[at : at + length * int(rng.integers(2))] = other[start : start + length]
