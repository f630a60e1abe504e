"""Parts of a step are measured where it is asked for: forward, and back from outputs to inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from video_llama.common.part_times import PartTimes, backward_part, measuring_parts, part

CPU = torch.device("cpu")


class Clock:
    """A clock that moves by one at each reading."""

    def __init__(self, monkeypatch) -> None:
        self.time = 0.0
        monkeypatch.setattr(PartTimes, "now", self.read)

    def read(self) -> float:
        self.time += 1.0
        return self.time


def step(x: Tensor) -> Tensor:
    with part("encoder"):
        inputs = x * 2
    with part("decoder"):
        outputs = inputs.exp().sum()
    backward_part("decoder", outputs, inputs)
    return outputs


def test_each_part_has_its_time_and_one_that_gradients_go_through_that_as_well(monkeypatch):
    clock = Clock(monkeypatch)
    with measuring_parts(CPU) as times:
        step(torch.ones(2, requires_grad=True)).backward()
        assert times.seconds == {"encoder": 1.0, "decoder": 2.0}
        step(torch.ones(2, requires_grad=True)).backward()  # the next micro-batch
    assert times.seconds == {"encoder": 2.0, "decoder": 4.0}
    assert clock.time == 12


def test_without_gradients_the_forward_pass_alone_is_measured(monkeypatch):
    Clock(monkeypatch)
    with measuring_parts(CPU) as times:
        step(torch.ones(2))
    assert times.seconds == {"encoder": 1.0, "decoder": 1.0}


def test_outside_of_a_measurement_nothing_reads_the_clock(monkeypatch):
    clock = Clock(monkeypatch)
    with measuring_parts(CPU):
        pass
    step(torch.ones(2, requires_grad=True)).backward()
    assert clock.time == 0


def test_parts_are_named_in_a_trace():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step(torch.ones(2))
    assert {"encoder", "decoder"} <= {event.name for event in profile.events()}
