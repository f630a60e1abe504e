"""Sound of any rate and length to 16 kHz, block by block, equal to resampling it whole.

Shapes: C channels, L samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import resample

SAMPLE_RATE = 16_000
"""Of the result, in samples per second."""

BLOCK_VALUES = 1 << 22
"""Numbers resampled at a time, over all channels: 44 s of stereo at 48 kHz."""

MAX_KERNEL = 1 << 24
"""Most numbers in the filter: one row for each phase, as many as the two rates have in a common period."""


def kernel_size(rate: int) -> int:
    """Return how many numbers the filter from ``rate`` has: few for the usual rates, a billion for 48001."""
    common = math.gcd(rate, SAMPLE_RATE)
    return (rate // common) * (SAMPLE_RATE // common)


def resampled(pieces: Iterable[NDArray[np.float32]], rate: int) -> Iterator[Tensor]:
    """Resample a waveform that comes in pieces.

    Blocks overlap by more than the filter reaches, and start where the two rates have a sample at the same time, so
    that each sample is the one that torchaudio's ``resample`` gives for the waveform as a whole.

    Args:
        pieces: float32[C, n], of any lengths.
        rate: their samples per second.
    Yields:
        float32[C, n], the next n samples at 16 kHz; ``ceil(L * 16000 / rate)`` in all.
    """
    common = math.gcd(rate, SAMPLE_RATE)
    period, made = rate // common, SAMPLE_RATE // common
    reach = math.ceil(8 * max(1, period / made))  # the filter has 6 zero crossings on each side
    margin = period * math.ceil(reach / period)
    held: list[NDArray[np.float32]] = []
    n_held = n_done = 0  # of those held, the first n_done are there only for what follows
    for piece in pieces:
        held.append(piece)
        n_held += piece.shape[1]
        block = period * math.ceil(BLOCK_VALUES / len(piece) / period)
        if n_held >= n_done + block + margin:
            whole = np.concatenate(held, axis=1)
            n_new = (n_held - n_done - margin) // period * period
            yield _resample(whole, rate)[:, n_done // period * made : (n_done + n_new) // period * made]
            held = [whole[:, max(n_done + n_new - margin, 0) :]]
            n_done = min(n_done + n_new, margin)
            n_held = held[0].shape[1]
    if n_held > n_done:
        yield _resample(np.concatenate(held, axis=1), rate)[:, n_done // period * made :]


def _resample(waveform: NDArray[np.float32], rate: int) -> Tensor:
    return resample(torch.from_numpy(np.ascontiguousarray(waveform)), rate, SAMPLE_RATE)
