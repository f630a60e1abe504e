"""An operation takes at least the time of its arithmetic, of its reads and writes, and of its start."""

from __future__ import annotations

import pytest

from video_llama.planning.speed import LAUNCH, SHARE, expected_seconds, seconds_at_roof
from video_llama.planning.tracing import Trace, Work
from video_llama.runners.device_peaks import Card

CARD = Card(half=100e12, single=10e12, memory_gb=24, bandwidth=1e12)


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (Work(flops=1e12, n_bytes=10**6, in_half=True), 0.01),
        (Work(flops=1e12, n_bytes=10**6, in_half=False), 0.1),
        (Work(flops=1e9, n_bytes=10**11, in_half=True), 0.1),
    ],
    ids=["arithmetic", "arithmetic in 32 bits", "bandwidth"],
)
def test_an_operation_takes_what_limits_it(work: Work, seconds: float) -> None:
    trace = Trace(works=[work, work])
    assert seconds_at_roof(trace, CARD) == pytest.approx(2 * seconds)
    assert expected_seconds(trace, CARD) == pytest.approx(2 * seconds / SHARE)


def test_a_small_operation_takes_the_time_to_start_it() -> None:
    assert expected_seconds(Trace(works=[Work(0, 4, in_half=True)] * 10), CARD) == pytest.approx(10 * LAUNCH)
