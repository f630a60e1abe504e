"""The tokens with loss and the positions of media, for any text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from video_llama.common.types import IGNORE_LABEL, Media, slot_id
from video_llama.prompts.labels import PLACEHOLDER, Encoded, Slot, TextSegment, clean, encode, marker, media_segments
from video_llama.prompts.rendering import caption, conversation, tagged
from video_llama.prompts.templates import BILLA, LLAMA_2, VICUNA, ZIYA, Span, Template
from video_llama.prompts.tokenizer import Tokenizer

SLOTS = {"image": 8, "video": 5}
FRAME = torch.zeros(3, 1, 1, 1, dtype=torch.uint8)
IMAGE = Media("image", FRAME)
CLIP = Media("video", FRAME, "The video contains 1 frames sampled at 0.0 seconds. ")

TROUBLE = [
    PLACEHOLDER,
    *("<Video>", "</Video>", "<Image>", "<image>", "[INST]", "[/INST]", "<<SYS>>", "{text}", "{system}"),
    *("<s>", "</s>", "<unk>", "###", "###Human:", "###Assistant:", "#", "<", "/s>"),
    *(marker(0), marker(1), "\ufdd0", "\ufdd1", "0", "\uffff", "\ufdef", "\ud83d", "\udc00", "\u2581", "\x00"),
    *(" ", "  ", "\n", "\r\n", "猫", "😀", "é", "e\u0301", "\u200b", "\u3000"),
]
"""Text of users or annotation files that has a meaning to templates, tokenizers or Unicode."""

texts = st.lists(st.sampled_from(TROUBLE) | st.text(max_size=6), max_size=6).map("".join)
TEMPLATES = [VICUNA, LLAMA_2, ZIYA, BILLA]
templates = st.sampled_from(TEMPLATES)
dialogues = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)


def dialogue(
    template: Template, turns: Sequence[tuple[str, str]], media: Sequence[Media], tokenizer: Tokenizer
) -> Encoded:
    """Encode a training dialogue as a data set does, with all media before the first question."""
    cleaned = [(clean(q), clean(a)) for q, a in turns]
    shown = "".join(tagged(item, k) for k, item in enumerate(media))
    cleaned[0] = (shown + cleaned[0][0], cleaned[0][1])
    return encode(conversation(template, template.training, cleaned, media), tokenizer, SLOTS)


def trained_runs(encoded: Encoded) -> list[list[int]]:
    """The unbroken runs of tokens that carry loss."""
    return [
        [i for i, _ in run]
        for trained, run in groupby(
            zip(encoded.input_ids, encoded.labels, strict=True), key=lambda pair: pair[1] != IGNORE_LABEL
        )
        if trained
    ]


def as_decoded(text: str) -> str:
    """What is left of a text that went through a LLaMA tokenizer and back: it has a character of its own for spaces."""
    return text.replace("\u2581", " ")


@given(templates, dialogues)
def test_exactly_the_answers_and_their_end_symbols_carry_loss(
    tokenizer: Tokenizer, template: Template, turns: list[tuple[str, str]]
) -> None:
    runs = trained_runs(dialogue(template, turns, [CLIP], tokenizer))
    answers = [clean(answer) for _, answer in turns]
    wanted = [template.training.answer.replace("{text}", a) for a in answers if a or template.training.empty is None]
    # a tokenizer drops the first space of a text when it decodes
    assert [tokenizer.decode(run) for run in runs] == [as_decoded(answer).removeprefix(" ") for answer in wanted]


@given(templates, dialogues, st.lists(st.sampled_from([IMAGE, CLIP]), max_size=3))
@example(VICUNA, [(marker(0) + marker(1), marker(0))], [IMAGE])
@example(LLAMA_2, [(PLACEHOLDER, "</s>" + PLACEHOLDER)], [CLIP, IMAGE])
def test_a_media_item_is_one_run_of_slot_ids_and_nothing_else_makes_slots(
    tokenizer: Tokenizer, template: Template, turns: list[tuple[str, str]], media: list[Media]
) -> None:
    encoded = dialogue(template, turns, media, tokenizer)
    runs = [(i, len(list(run))) for i, run in groupby(encoded.input_ids) if i < 0]
    assert runs == [(slot_id(k), SLOTS[item.kind]) for k, item in enumerate(media)]
    assert all(label == IGNORE_LABEL for i, label in zip(encoded.input_ids, encoded.labels, strict=True) if i < 0)
    assert max(encoded.input_ids) < tokenizer.vocab_size


@given(texts)
def test_no_text_can_contain_a_marker(text: str) -> None:
    cleaned = clean(text)
    assert not set(cleaned) & set(marker(0) + marker(1)) - {"0", "1"}
    assert clean(cleaned) == cleaned


def test_cleaning_leaves_every_character_that_is_text() -> None:
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0xFDD0), *range(0xFDD2, 0x11000), 0x1F600, 0x10FFFF]))
    assert clean(text) == text


@pytest.mark.parametrize("template", [VICUNA, LLAMA_2], ids=lambda t: t.name)
def test_the_space_before_an_answer_carries_loss(template: Template, tokenizer: Tokenizer) -> None:
    (run,) = trained_runs(dialogue(template, [("What is it?", "猫")], [], tokenizer))
    assert run[0] == tokenizer.encode("猫")[0].id, "the space is a token of its own before a character of bytes"


@given(templates, st.text(max_size=8), st.text(st.characters(exclude_characters="\u2581"), max_size=8))
def test_the_prompt_that_waits_for_an_answer_is_the_start_of_the_answered_one_token_by_token(
    tokenizer: Tokenizer, template: Template, question: str, answer: str
) -> None:
    open_turn, closed = (
        encode(conversation(template, template.chat, [(clean(question), text)], []), tokenizer, {}).input_ids
        for text in (None, "A" + clean(answer))
    )
    assert closed[: len(open_turn)] == open_turn


def test_an_answer_after_a_space_is_tokenised_apart_from_it(tokenizer: Tokenizer) -> None:
    encoded = dialogue(BILLA, [("Who?", "a cat")], [], tokenizer)
    (run,) = trained_runs(encoded)
    assert run == [t.id for t in tokenizer.encode("a cat</s>")]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_the_end_of_every_answer_carries_loss(template: Template, tokenizer: Tokenizer) -> None:
    runs = trained_runs(dialogue(template, [("Who?", "I."), ("Why?", "Because.")], [], tokenizer))
    assert len(runs) == 2
    assert all(tokenizer.decode(run).endswith(template.end_sym) for run in runs)


def test_every_byte_of_the_last_character_of_an_answer_carries_loss(tokenizer: Tokenizer) -> None:
    segments = [TextSegment((Span("Say: "), Span("é", trained=True), Span("猫")))]
    encoded = encode(segments, tokenizer, SLOTS)
    (run,) = trained_runs(encoded)
    assert len(run) == len("é".encode())
    assert tokenizer.decode(run) == "é"


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("first_is_the_models", [True, False])
def test_a_token_with_any_character_of_an_answer_carries_loss(
    tokenizer: Tokenizer, at: int, first_is_the_models: bool
) -> None:
    man = tokenizer.encode("\nman")[-1].id
    spans = (Span("\n"), Span("man"[:at], first_is_the_models), Span("man"[at:], not first_is_the_models))
    assert encode([TextSegment(spans)], tokenizer, SLOTS).labels[-1] == man


def test_a_dialogue_starts_with_the_start_token_which_carries_no_loss(tokenizer: Tokenizer) -> None:
    encoded = dialogue(VICUNA, [("Hello", "Hi")], [], tokenizer)
    assert encoded.input_ids[0] == tokenizer.bos_id
    assert encoded.labels[0] == IGNORE_LABEL
    assert encoded.input_ids.count(tokenizer.bos_id or 0) == 1


@given(texts)
def test_of_a_caption_sample_the_caption_and_its_end_symbol_carry_loss(tokenizer: Tokenizer, text: str) -> None:
    prompt = f"###Human: <Image>{PLACEHOLDER}</Image> Describe it. ###Assistant: "
    encoded = encode(caption(prompt, text, "###", IMAGE), tokenizer, SLOTS)
    (run,) = trained_runs(encoded)
    assert tokenizer.decode(run) == as_decoded(clean(text) + "###")
    said = tokenizer.encode(clean(text) + "###", literal=[(0, len(clean(text)))])
    assert encoded.input_ids[-len(run) :] == run == [t.id for t in said]
    assert encoded.input_ids.count(slot_id(0)) == SLOTS["image"] == sum(i < 0 for i in encoded.input_ids)


def test_a_caption_without_a_prompt_is_the_media_and_the_caption(tokenizer: Tokenizer) -> None:
    encoded = encode(caption(PLACEHOLDER, "a cat", "###", CLIP), tokenizer, SLOTS)
    text = [t.id for t in tokenizer.encode("a cat###")]
    assert encoded.input_ids == [tokenizer.bos_id, *[slot_id(0)] * SLOTS["video"], *text]


@given(st.lists(texts, min_size=1, max_size=5), st.data())
def test_markers_split_text_and_only_white_space_next_to_them_is_lost(parts: list[str], data: st.DataObject) -> None:
    parts = [clean(part) for part in parts]
    order = data.draw(st.permutations(range(len(parts) - 1)))
    text = parts[0] + "".join(marker(k) + part for k, part in zip(order, parts[1:], strict=True))
    at = data.draw(st.integers(0, len(parts[0].rstrip())))
    spans = [Span(text[:at], trained=True), Span(text[at:])]
    segments = media_segments(spans, [Slot(k, "image") for k in range(len(order))])
    assert [p.index for p in segments if isinstance(p, Slot)] == list(order)
    first, *rest = parts
    kept = [first.rstrip() if rest else first, *(part.strip() for part in rest[:-1]), *(p.lstrip() for p in rest[-1:])]
    written = [s for p in segments if isinstance(p, TextSegment) for s in p.spans]
    assert "".join(s.text for s in written) == "".join(kept)
    assert "".join(s.text for s in written if s.trained) == parts[0][:at]


def test_images_and_clips_have_different_tags_and_clips_their_times() -> None:
    assert tagged(IMAGE, 0) == f"<Image>{marker(0)}</Image>"
    assert tagged(CLIP, 1) == f"<Video>{marker(1)}</Video> {CLIP.message}"
