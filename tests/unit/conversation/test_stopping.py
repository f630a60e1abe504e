"""The criterion that ends rows: each by itself, however its stop string is split into tokens."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from tests.unit.conversation.scripted import ids
from tests.unit.prompts.fast_tokenizer import write_fast_tokenizer
from video_llama.conversation.generation import StopAtText
from video_llama.prompts.tokenizer import Tokenizer, load_tokenizer


def done(tokenizer: Tokenizer, rows: Sequence[Sequence[int]], stops: Sequence[str]) -> list[bool]:
    return StopAtText(tokenizer, stops)(torch.tensor(rows), None).tolist()


def ends_at(tokenizer: Tokenizer, tokens: list[int], *stops: str) -> int | None:
    """The number of tokens at which the criterion first ends the row."""
    ends = [n for n in range(1, len(tokens) + 1) if done(tokenizer, [tokens[:n]], stops) == [True]]
    return ends[0] if ends else None


@pytest.mark.parametrize("stops", [("###",), ("\nHuman:",), ("</end>", "###"), ("。", "END OF ANSWER")])
def test_a_row_ends_with_the_token_that_completes_a_stop_string(any_tokenizer, stops):
    text = f"The answer is a cat, or two. And more{stops[-1]} and more"
    tokens = ids(any_tokenizer, text)
    found = [any(stop in any_tokenizer.decode(tokens[:n]) for stop in stops) for n in range(1, len(tokens) + 1)]
    assert ends_at(any_tokenizer, tokens, *stops) == (found.index(True) + 1 if True in found else None)
    assert (
        True in found or any_tokenizer.decode(tokens) != text
    )  # where the tokenizer changes white space, the string is absent


def test_part_of_a_stop_string_ends_nothing(any_tokenizer):
    assert ends_at(any_tokenizer, ids(any_tokenizer, "a # and ## and Human and EN"), "###", "Human:", "END") is None


def test_a_stop_string_inside_a_token_ends_the_row(any_tokenizer):
    tokens = ids(any_tokenizer, "The shape is red")
    first = next(n for n in range(1, len(tokens) + 1) if "hap" in any_tokenizer.decode(tokens[:n]))
    assert ends_at(any_tokenizer, tokens, "hap") == first


def test_every_row_ends_by_itself(any_tokenizer):
    texts = ["the end of it ###", "a # and more #", "the end of it END", "the end of it ###"]
    longest = max(len(ids(any_tokenizer, text)) for text in texts)
    rows = [(ids(any_tokenizer, "x") * longest + ids(any_tokenizer, text))[-longest:] for text in texts]
    assert done(any_tokenizer, rows, ["###", "END"]) == [True, False, True, True]
    assert done(any_tokenizer, rows, ["END"]) == [False, False, True, False]
    assert done(any_tokenizer, rows, ["never", "to be found"]) == [False] * 4


@pytest.mark.parametrize("stop", ["<|im_end|>", "###", "<|eos|>"])
def test_an_end_symbol_is_found_whether_or_not_it_is_a_token(stop, tmp_path):
    tokenizer = load_tokenizer(write_fast_tokenizer(tmp_path, "<|im_end|>", eos_token="<|eos|>"))
    tokens = ids(tokenizer, f"the answer is a cat{stop}")
    assert ends_at(tokenizer, tokens, stop) == len(tokens)
