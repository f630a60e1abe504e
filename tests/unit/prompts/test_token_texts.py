"""The text that each token adds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from video_llama.prompts.token_texts import token_texts
from video_llama.prompts.tokenizer import Tokenizer


@pytest.mark.parametrize("text", ["A red ring, twice.\n###", "naïve 狗 🐕 end", "  two  spaces"])
def test_joined_they_are_the_text(text: str, tokenizer: Tokenizer) -> None:
    ids = [token.id for token in tokenizer.encode(text)]
    texts = token_texts(ids, tokenizer)
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode(ids)


@given(st.text(max_size=20))
def test_no_text_breaks_them(tokenizer: Tokenizer, text: str) -> None:
    ids = [token.id for token in tokenizer.encode(text)]
    assert "".join(token_texts(ids, tokenizer)) == tokenizer.decode(ids)


def test_a_character_of_several_tokens_is_the_text_of_the_last(tokenizer: Tokenizer) -> None:
    ids = [token.id for token in tokenizer.encode("🐕")]
    texts = token_texts(ids, tokenizer)
    assert texts[-1] == "🐕"
    assert set(texts[:-1]) <= {""}


def test_a_start_token_has_none(tokenizer: Tokenizer) -> None:
    assert tokenizer.bos_id is not None
    ids = [tokenizer.bos_id, *(token.id for token in tokenizer.encode("cat"))]
    assert token_texts(ids, tokenizer)[0] == ""
