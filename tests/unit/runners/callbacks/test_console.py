"""The progress line: running means, the share of waiting, and memory."""

from __future__ import annotations

import math
import re

import pytest

from tests.unit.runners.runs import trained
from video_llama.runners.callbacks.console import Smoothed


def test_the_line_shows_how_the_run_goes(decoder, tmp_path, capfd):
    trained(decoder, tmp_path)
    line = capfd.readouterr().err
    assert re.search(r"6/6 \[\d\d:\d\d<\d\d:\d\d", line), "time taken and time left"
    assert re.search(r"loss=\d\.\d{3}, lr=\d\.\de-\d\d, samples/s=[\d.e+]+, data=\d+%, memory=\d+\.\dGB", line)


def test_a_running_mean_starts_at_the_first_value_and_forgets_old_ones():
    mean = Smoothed()
    mean.update(loss=8.0)
    assert mean["loss"] == 8.0
    for _ in range(200):
        mean.update(loss=2.0)
    assert mean["loss"] == pytest.approx(2.0, abs=1e-3)


def test_a_value_that_is_not_a_number_does_not_spoil_the_mean():
    mean = Smoothed()
    mean.update(loss=4.0)
    mean.update(loss=math.nan)
    assert mean["loss"] == 4.0
