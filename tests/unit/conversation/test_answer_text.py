"""The text of an answer while its tokens arrive: released text is final."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conversation.scripted import ids
from video_llama.conversation.streaming import AnswerText, overlap
from video_llama.prompts.tokenizer import UNDECODED, Tokenizer


def pieces(tokenizer: Tokenizer, tokens: list[int], *stops: str) -> list[str]:
    text = AnswerText(tokenizer, stops)
    released = [*(text.feed(token) for token in tokens), text.end()]
    assert text.text == "".join(released)
    return [piece for piece in released if piece]


TEXTS = {
    "It is red.###Human: more": "It is red.",
    " It is  red. \n\n###": "It is  red.",
    "a #, ## and #.###": "a #, ## and #.",
    "你好，世界 😀 é###x": "你好，世界 😀 é",
    "###": "",
    " \n ###": "",
    "no end": "no end",
    "almost ##": "almost ##",
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_are_the_text_before_the_end_symbol(any_tokenizer, text):
    joined = "".join(pieces(any_tokenizer, ids(any_tokenizer, text), "###"))
    decoded = any_tokenizer.decode(ids(any_tokenizer, text))  # some tokenizers change white space and signs
    assert joined == decoded.split("###")[0].strip()
    if decoded == text:
        assert joined == TEXTS[text]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_released_as_it_comes_and_no_part_of_an_end_symbol_ever_is(any_tokenizer, text):
    answer = AnswerText(any_tokenizer, ["###"])
    for token in ids(any_tokenizer, text):
        answer.feed(token)
        assert not answer.text.endswith("##") or "##" in TEXTS[text]
        assert not answer.text.endswith((UNDECODED, " ", "\n"))
    spoken = pieces(any_tokenizer, ids(any_tokenizer, "It is red and it is round"), "###")
    assert len(spoken) > 3


def test_the_end_symbol_may_be_split_into_any_tokens(any_tokenizer):
    sharp = ids(any_tokenizer, "a#")[-1:]
    tokens = [*ids(any_tokenizer, "It is red"), *sharp, *sharp, *sharp, *ids(any_tokenizer, "more")]
    assert "".join(pieces(any_tokenizer, tokens, "###")) == "It is red"


def test_the_first_of_several_stop_strings_ends_the_answer(any_tokenizer):
    tokens = ids(any_tokenizer, "It is red. Human: no ### USER: more")
    for stops, expected in [
        (("###", "USER:"), "It is red. Human: no"),
        (("USER:", "Human:"), "It is red."),
        (("\nHuman:", " no ###"), "It is red. Human:"),
        (("red", "It is red"), ""),
        (("nothing",), "It is red. Human: no ### USER: more"),
    ]:
        assert "".join(pieces(any_tokenizer, tokens, *stops)) == expected, stops


def test_tokens_after_the_end_are_ignored(any_tokenizer):
    text = AnswerText(any_tokenizer, ["###"])
    for token in [*ids(any_tokenizer, "It is red."), any_tokenizer.eos_id, *ids(any_tokenizer, "more")]:
        text.feed(token)
    assert (text.text, text.done, text.end()) == ("It is red.", True, "")


def test_a_character_is_released_whole_and_at_the_latest_with_the_next_one(any_tokenizer):
    tokens = ids(any_tokenizer, "a 😀 b")
    text = AnswerText(any_tokenizer, ["###"])
    for n, token in enumerate(tokens, 1):
        text.feed(token)
        assert UNDECODED not in text.text
        if all_or_none(any_tokenizer):  # later bytes may still change the character
            assert ("😀" in text.text) == ("😀 " in any_tokenizer.decode(tokens[:n]))
        else:
            assert ("😀" in text.text) == ("😀" in any_tokenizer.decode(tokens[:n]))


def all_or_none(tokenizer: Tokenizer) -> bool:
    """Whether one wrong byte makes U+FFFD of all bytes in a row."""
    return UNDECODED * 4 in tokenizer.decode(ids(tokenizer, "你你")[:-1])


@pytest.mark.parametrize("text", ["It is 😀", "It is 😀🀄", "🀄", "It is 🀄 red 🀄"])
def test_an_answer_cut_inside_a_character_is_what_the_tokenizer_makes_of_its_tokens(any_tokenizer, text):
    tokens = ids(any_tokenizer, text)
    stop = ids(any_tokenizer, "###")
    for n in range(1, len(tokens) + 1):
        cut = tokens[:n]
        assert "".join(pieces(any_tokenizer, cut, "###")) == any_tokenizer.decode(cut).strip()
        assert "".join(pieces(any_tokenizer, [*cut, any_tokenizer.eos_id], "###")) == any_tokenizer.decode(cut).strip()
        before_stop = any_tokenizer.decode([*cut, *stop]).split("###")[0].strip()
        assert "".join(pieces(any_tokenizer, [*cut, *stop], "###")) == before_stop
    assert "".join(pieces(any_tokenizer, tokens[:-1], "###")).endswith(UNDECODED)


def test_the_pieces_of_any_tokens_join_to_their_text(any_tokenizer):
    """Like the output of random models: invalid bytes, repeated spaces, padding, tokens that are not in the vocabulary."""
    known = [token for token in range(any_tokenizer.vocab_size + 3) if token != any_tokenizer.eos_id]
    spelled = [token for token in known if UNDECODED in any_tokenizer.decode([token])]
    chance = random.Random(0)
    for number in range(400):
        tokens = chance.choices(spelled + chance.sample(known, 20) if number % 2 else known, k=30)
        whole = any_tokenizer.decode(tokens).split("###")[0]
        assert "".join(pieces(any_tokenizer, tokens, "###")) == whole.strip()


def test_repeated_spaces_are_all_kept(any_tokenizer):
    word = ids(any_tokenizer, "a b")[-1]
    twice = any_tokenizer.decode([word, word])

    def is_space(token: int) -> bool:
        parted = any_tokenizer.decode([word, token, word])
        return len(parted) == len(twice) + 1 and parted.split() == ["b", "b"]

    spaces = [token for token in range(any_tokenizer.vocab_size) if is_space(token)]
    assert spaces
    for space in spaces:
        tokens = [word, space, space, word, space, space, space, word]
        whole = any_tokenizer.decode(tokens)
        assert "".join(pieces(any_tokenizer, tokens, "###")) == whole.strip()


@given(
    st.text(st.sampled_from("#H \né你😀ab"), max_size=40), st.lists(st.sampled_from(["###", "#H", "\n#", "你", "ab#"]))
)
def test_any_text_is_released_up_to_its_first_stop_string(tokenizer, text, stops):
    tokens = ids(tokenizer, text)
    decoded = tokenizer.decode(tokens)
    end = min([decoded.find(stop) for stop in stops if stop in decoded], default=len(decoded))
    assert "".join(pieces(tokenizer, tokens, *stops, "never")) == decoded[:end].strip()


@given(st.text("#Ha", max_size=8), st.text("#Ha", min_size=1, max_size=5))
def test_the_overlap_is_the_longest_prefix_of_a_stop_string_that_ends_the_text(text, stop):
    n = overlap(text, stop)
    assert text.endswith(stop[:n])
    assert n < len(stop)
    assert not any(text.endswith(stop[:m]) for m in range(n + 1, len(stop)))
