"""The original's labels are ours plus the template's words that it trains by mistake, for any dialogue."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from video_llama.common.types import IGNORE_LABEL, Media
from video_llama.prompts.labels import Encoded, encode
from video_llama.prompts.original_mask import measured_lengths, measured_texts, original_labels
from video_llama.prompts.rendering import conversation, tagged
from video_llama.prompts.templates import LLAMA_2, ORIGINAL_TEMPLATES, VICUNA, Template
from video_llama.prompts.tokenizer import Tokenizer

SLOTS = {"image": 3, "video": 3}
CLIP = Media("video", torch.zeros(3, 1, 1, 1, dtype=torch.uint8), "The video contains 1 frames. ")

texts = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=12)
dialogues = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)


def both(template: Template, said: list[tuple[str, str]], tokenizer: Tokenizer) -> tuple[Encoded, Encoded]:
    """A dialogue about a clip with our labels and with the original's."""
    turns = [(tagged(CLIP, 0) + said[0][0], said[0][1]), *said[1:]]
    ours = encode(conversation(template, template.training, turns, [CLIP]), tokenizer, SLOTS)
    return ours, original_labels(template, ours, turns, [CLIP], tokenizer, SLOTS)


@given(dialogues)
def test_under_vicuna_the_words_around_the_answers_are_trained_as_well(
    tokenizer: Tokenizer, said: list[tuple[str, str]]
) -> None:
    ours, theirs = both(VICUNA, said, tokenizer)
    assert theirs.input_ids == ours.input_ids
    assert all(label in (i, IGNORE_LABEL) for i, label in zip(theirs.input_ids, theirs.labels, strict=True))
    pairs = list(zip(ours.labels, theirs.labels, strict=True))
    assert all(their == our for our, their in pairs if our != IGNORE_LABEL)
    more = [their for our, their in pairs if our == IGNORE_LABEL != their]
    words = ["##", "#"] + len(said) * ["##", "#", "As", "s", "is", "ta", "nt", ":"]
    assert [tokenizer.decode([i]) for i in more] == words


@given(dialogues)
def test_under_llama_2_the_labels_are_ours(tokenizer: Tokenizer, said: list[tuple[str, str]]) -> None:
    ours, theirs = both(LLAMA_2, said, tokenizer)
    assert theirs == ours


def test_the_measured_texts_are_the_dialogue_without_its_last_symbol(tokenizer: Tokenizer) -> None:
    turns = [("Q1", "A1"), ("Q2", "A2")]
    whole = "".join(span.text for span in VICUNA.render(VICUNA.training, turns))
    assert "".join(span.text for span in measured_texts(turns)) + "###" == whole
    assert measured_lengths(turns, [], tokenizer, SLOTS)[0] == len([tokenizer.bos_id, *tokenizer.encode("\n\n")])


@pytest.mark.parametrize("template", ORIGINAL_TEMPLATES, ids=lambda t: t.name)
def test_media_never_carry_loss(template: Template, tokenizer: Tokenizer) -> None:
    _, theirs = both(template, [("Who?", "I.")], tokenizer)
    assert theirs.input_ids.count(-1) == SLOTS["video"]
    assert min(label for label in theirs.labels if label != IGNORE_LABEL) >= 0
