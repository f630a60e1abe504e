"""Limits on questions and generation settings."""

from __future__ import annotations

import pytest

from video_llama.common.errors import VideoLlamaError
from video_llama.demo.limits import PageLimits


@pytest.mark.parametrize("question", ["", "  \n", None, 3, ["x"]])
def test_an_empty_question_is_refused(question):
    with pytest.raises(VideoLlamaError, match="The question is empty: type one first"):
        PageLimits().check_question(question)


def test_a_question_over_the_limit_is_refused():
    assert PageLimits().check_question("x" * 4000)
    with pytest.raises(VideoLlamaError, match="The question has 4001 characters; the limit is 4000"):
        PageLimits().check_question("x" * 4001)


def test_a_question_is_returned_unchanged():
    assert PageLimits().check_question(" <b>Why?</b> ") == " <b>Why?</b> "


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((11, 0, 9), "num_beams: 11; the limit is 10"),
        ((1, 0, 1001), "max_new_tokens: 1001; the limit is 1000"),
        ((1, 0, 10**400), "max_new_tokens: 10{400}; the limit is 1000"),
        ((0, 0, 9), "num_beams: 0; expected a whole number, at least 1"),
        (("2", 0, 9), "num_beams: '2'; expected a whole number"),
        ((None, 0, 9), "num_beams: None; expected a whole number"),
        ((True, 0, 9), "num_beams: True; expected a whole number"),
        ((1, -1, 9), "temperature: -1; expected 0, or a number from"),
        ((1, float("nan"), 9), "temperature: nan; expected 0, or a number from"),
        ((1, 0, 0), "max_new_tokens: 0; expected a whole number, at least 1"),
        ((1, 0, 9.5), "max_new_tokens: 9.5; expected a whole number"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(values, message):
    with pytest.raises(VideoLlamaError, match=message):
        PageLimits().check_settings(*values)


def test_settings_at_their_limits_are_accepted():
    settings = PageLimits().check_settings(10, 0.5, 1000)
    assert (settings.num_beams, settings.temperature, settings.max_new_tokens) == (10, 0.5, 1000)
