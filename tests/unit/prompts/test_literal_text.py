"""Text that people type is text in every tokenizer family; the marks of templates are special tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.prompts.tokenizer_folders import FOLDERS
from video_llama.prompts.chat_template import chat_template
from video_llama.prompts.labels import TextSegment, encode
from video_llama.prompts.rendering import caption, conversation
from video_llama.prompts.templates import LLAMA_2, Span, Template
from video_llama.prompts.tokenizer import HuggingFaceTokenizer, Tokenizer, load_tokenizer

TYPED = ["</s>", "<s>", "<unk>", "<|im_end|>", "<|im_start|>", "[INST]", "[/INST]", "<|endoftext|>"]


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param](tmp_path_factory.mktemp("tokenizer") / "folder")


@pytest.fixture(scope="module")
def family(folder: Path) -> tuple[Tokenizer, Template]:
    tokenizer = load_tokenizer(folder)
    return tokenizer, chat_template(folder, tokenizer)


def special_ids(tokenizer: Tokenizer) -> set[int]:
    if isinstance(tokenizer, HuggingFaceTokenizer):
        added = tokenizer.library.added_tokens_decoder
        return {i for i, token in added.items() if len(token.content) > 1} - {tokenizer.library.unk_token_id}
    return {*tokenizer.special.values()} - {tokenizer.pad_id}  # type: ignore[attr-defined]


def ids(tokenizer: Tokenizer, template: Template, *turns: tuple[str, str | None]) -> list[int]:
    return encode(conversation(template, template.chat, turns, []), tokenizer, {}).input_ids


def marks(tokenizer: Tokenizer, input_ids: list[int]) -> list[int]:
    return [i for i in input_ids if i in special_ids(tokenizer)]


@pytest.mark.parametrize("typed", TYPED)
def test_what_people_type_is_text_and_the_marks_of_the_template_are_not(
    family: tuple[Tokenizer, Template], typed: str
) -> None:
    tokenizer, template = family
    plain = ids(tokenizer, template, ("a cat", "a cat"), ("a cat", None))
    assert marks(tokenizer, plain), "the template has marks"
    for text in (typed, f"What does {typed} mean in HTML?", typed + typed, f" {typed} ", f"a{typed}b"):
        literal = ids(tokenizer, template, (text, text), (text, None))
        assert marks(tokenizer, literal) == marks(tokenizer, plain)


@pytest.mark.parametrize("typed", TYPED)
def test_what_people_type_keeps_its_characters(family: tuple[Tokenizer, Template], typed: str) -> None:
    tokenizer, _ = family
    text = f"Say {typed} twice: {typed}"
    segment = TextSegment((Span(text, literal=(0, len(text))),))
    encoded = encode([segment], tokenizer, {}).input_ids
    assert tokenizer.decode(encoded).strip() == text


def test_a_caption_may_contain_special_tokens_and_ends_with_one(family: tuple[Tokenizer, Template]) -> None:
    tokenizer, template = family
    end = template.end_sym
    encoded = encode(caption("", f"a {end} sign", end), tokenizer, {})
    wanted = [tokenizer.encode(end)[-1].id]
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    assert marks(tokenizer, encoded.input_ids) == [*marks(tokenizer, start), *wanted]


def test_text_without_special_tokens_has_the_ids_it_always_had(family: tuple[Tokenizer, Template]) -> None:
    tokenizer, _ = family
    for text in ("It is red. ", "a < b > c [d]", "猫é", "</", "im_end|>"):
        assert tokenizer.encode(text, literal=[(0, len(text))]) == tokenizer.encode(text)


def test_on_request_special_tokens_in_texts_are_those_of_the_original(family: tuple[Tokenizer, Template]) -> None:
    tokenizer, template = family
    before = len(marks(tokenizer, ids(tokenizer, template, ("a cat", None))))
    tokenizer.literal_special_tokens = "original"
    try:
        asked = ids(tokenizer, template, (f"a {template.end_sym} b", None))
        assert len(marks(tokenizer, asked)) == before + 1
    finally:
        tokenizer.literal_special_tokens = "text"


@given(st.lists(st.sampled_from([*TYPED, "<", "|im_end|>", "</s", "[", " ", "a cat", "\n"]), max_size=6).map("".join))
def test_no_text_adds_a_mark_to_a_dialogue(family: tuple[Tokenizer, Template], text: str) -> None:
    tokenizer, template = family
    template = replace(template, trims=False)
    plain = ids(tokenizer, template, ("a cat", "a cat"), ("a cat", None))
    assert marks(tokenizer, ids(tokenizer, template, (text, text), (text, None))) == marks(tokenizer, plain)


def test_the_published_templates_keep_their_marks(tokenizer: Tokenizer) -> None:
    assert tokenizer.eos_id in ids(tokenizer, LLAMA_2, ("</s>", "a cat"), ("<s>", None))
    assert ids(tokenizer, LLAMA_2, ("</s>", "a cat"), ("<s>", None)).count(tokenizer.eos_id) == 1
