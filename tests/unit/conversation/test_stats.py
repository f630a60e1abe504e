"""What an answer took."""

from __future__ import annotations

import pytest

from video_llama.conversation.stats import AnswerStats


@pytest.mark.parametrize(
    ("tokens", "first", "total", "rate"), [(11, 1.0, 3.0, 5.0), (1, 1.0, 1.0, None), (9, 2.0, 2.0, None)]
)
def test_the_rate_is_that_after_the_first_token(tokens, first, total, rate):
    stats = AnswerStats(100, tokens, first, total, encode_s=0.5)
    assert stats.tokens_per_s == rate
