"""Seconds that parts of a training step take, on the steps on which they are measured.

Measuring waits for the device at the start and the end of each part, so it is done on a few steps only. On all others, and
outside training, a part is only named in a profiler's trace.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import record_function


class PartTimes:
    """Seconds by the names of parts.

    Args:
        device: where they are computed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """Return the time at which the device has finished all that was asked of it so far."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


_measuring: ContextVar[PartTimes | None] = ContextVar("part_times", default=None)


@contextmanager
def measuring_parts(device: torch.device) -> Iterator[PartTimes]:
    """Measure the parts that run during the block."""
    times = PartTimes(device)
    token = _measuring.set(times)
    try:
        yield times
    finally:
        _measuring.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Name the block as a part of the step, and time it if parts are being measured."""
    times = _measuring.get()
    with record_function(name):
        if times is None:
            yield
            return
        started = times.now()
        yield
        times.seconds[name] += times.now() - started


def backward_part(name: str, outputs: Tensor, inputs: Tensor) -> None:
    """Add to a part the time that the backward pass takes from its outputs to its inputs, if it gets there."""
    times = _measuring.get()
    if times is None or not (outputs.requires_grad and inputs.requires_grad):
        return
    measured, started = times, 0.0

    def start(_: Tensor) -> None:
        nonlocal started
        started = measured.now()

    def stop(_: Tensor) -> None:
        measured.seconds[name] += measured.now() - started

    hooks: list[tuple[Any, Any]] = [(outputs, start), (inputs, stop)]  # torch has no types for this method
    for tensor, hook in hooks:
        tensor.register_hook(hook)
