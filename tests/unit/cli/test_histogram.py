"""Histograms of a page."""

from __future__ import annotations

import re

import pytest

from video_llama.cli.histogram import histogram, number


def bars(values: list[float]) -> list[str]:
    return re.findall("<title>(.*?)</title>", histogram(values))


def test_bars_count_all_values() -> None:
    values = [float(i**2 % 37) for i in range(500)]
    assert sum(int(title.rsplit(": ")[1].replace(",", "")) for title in bars(values)) == 500


def test_small_whole_numbers_have_a_bar_each() -> None:
    assert [title.rsplit(": ")[1] for title in bars([1, 1, 2, 4])] == ["2", "1", "1"]


def test_one_value_is_one_bar() -> None:
    assert bars([7.0] * 3) == ["6.5 to 7.5: 3"]


def test_a_long_tail_has_a_logarithmic_axis() -> None:
    assert "· log" in histogram([1, 1.5, 2, 1000])
    assert "· log" not in histogram([0, 1.5, 2, 1000])


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.12345, "0.123"), (3, "3"), (1234.5, "1,234"), (99.96, "100")])
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
