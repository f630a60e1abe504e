"""Tokenizers from LLaMA's own files, or through transformers for any other decoder, and folders without one."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FIXTURES
from tests.unit.prompts.fast_tokenizer import write_fast_tokenizer
from video_llama.common.errors import WeightsError
from video_llama.common.types import IGNORE_LABEL
from video_llama.prompts.labels import encode
from video_llama.prompts.rendering import conversation
from video_llama.prompts.templates import VICUNA
from video_llama.prompts.tokenizer import HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer, load_tokenizer

LLAMA = FIXTURES / "reference/text/tokenizer"

whole_texts = st.text(max_size=20).filter(lambda text: "\u2581" not in text)


@pytest.fixture(scope="module")
def qwen_like(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Names an end but no start, padding or unknown token."""
    return load_tokenizer(write_fast_tokenizer(tmp_path_factory.mktemp("qwen"), eos_token="<|end|>"))


def spelling(folder: Path, **settings: Any) -> Path:
    """Copy the LLaMA tokenizer with another ``tokenizer_config.json``."""
    folder.mkdir(exist_ok=True)
    shutil.copy(LLAMA / "tokenizer.model", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@given(whole_texts)
def test_a_text_survives_a_llama_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode([t.id for t in tokenizer.encode(text)]) == text


@given(whole_texts)
def test_a_text_survives_a_byte_level_tokenizer(qwen_like: Tokenizer, text: str) -> None:
    assert qwen_like.decode([t.id for t in qwen_like.encode(text)]) == text


@given(st.lists(st.sampled_from(["</s>", "<s>", " ", "猫", "é", "a cat"]), max_size=8).map("".join))
def test_offsets_cover_a_text_from_start_to_end(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert (tokens[0].start, tokens[-1].end) == (0, len(text)) if text else not tokens
    assert all(a.end == b.start for a, b in pairwise(tokens))


def test_special_tokens_in_a_text_are_recognised_and_the_text_after_them_is_encoded_alone(tokenizer: Tokenizer) -> None:
    cat = [t.id for t in tokenizer.encode("cat")]
    assert [t.id for t in tokenizer.encode("cat</s>cat<s>cat")] == [
        *cat,
        tokenizer.eos_id,
        *cat,
        tokenizer.bos_id,
        *cat,
    ]


def test_decoding_shows_the_end_and_hides_start_and_padding(tokenizer: Tokenizer) -> None:
    cat = [t.id for t in tokenizer.encode("cat")]
    assert tokenizer.decode([tokenizer.bos_id, *cat, tokenizer.eos_id, tokenizer.pad_id, tokenizer.pad_id]) == "cat</s>"


def test_ids_beyond_the_vocabulary_decode_to_nothing(tokenizer: Tokenizer) -> None:
    cat = [t.id for t in tokenizer.encode("cat")]
    assert tokenizer.decode([tokenizer.vocab_size, *cat, tokenizer.vocab_size + 31]) == "cat"


def test_the_numbers_of_the_special_tokens_are_read_from_the_model(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (1, 2, 0, 480)


@pytest.mark.parametrize("name", ["LlamaTokenizer", "LlamaTokenizerFast", "LLaMATokenizer"])
def test_every_spelling_of_the_llama_tokenizer_is_read_from_its_sentencepiece_model(name: str, tmp_path: Path) -> None:
    assert isinstance(load_tokenizer(spelling(tmp_path, tokenizer_class=name)), SentencePieceTokenizer)


def test_a_lone_sentencepiece_model_is_a_llama_tokenizer(tmp_path: Path) -> None:
    shutil.copy(LLAMA / "tokenizer.model", tmp_path)
    assert isinstance(load_tokenizer(tmp_path), SentencePieceTokenizer)


def test_a_decoder_of_another_family_uses_its_own_tokenizer(tmp_path: Path) -> None:
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    folder = write_fast_tokenizer(tmp_path, starts=True, **special)
    tokenizer = load_tokenizer(str(folder))
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    assert tokenizer.bos_id is not None
    ids = [t.id for t in tokenizer.encode("a cat")]
    assert max(ids) < tokenizer.vocab_size
    assert tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id]) == "a cat</s>"


def test_a_start_token_that_the_tokenizer_does_not_put_first_is_not_put_first(tmp_path: Path) -> None:
    named = load_tokenizer(write_fast_tokenizer(tmp_path, bos_token="<s>", eos_token="</s>"))
    assert named.bos_id is None


def test_without_a_padding_token_the_end_token_fills_batches_and_still_shows(qwen_like: Tokenizer) -> None:
    assert qwen_like.bos_id is None
    assert qwen_like.pad_id == qwen_like.eos_id
    assert qwen_like.decode([qwen_like.eos_id]) == "<|end|>"


@pytest.mark.parametrize("answer", ["the answer", "猫", " é ", "", "a\ncat", "<|end|>", "😀😀"])
def test_under_a_byte_level_tokenizer_too_the_answer_and_its_space_carry_loss(
    qwen_like: Tokenizer, answer: str
) -> None:
    turns = [("what is it?", answer), ("猫?", "the cat")]
    encoded = encode(conversation(VICUNA, VICUNA.training, turns, []), qwen_like, {})
    labels = [label for label in encoded.labels if label != IGNORE_LABEL]
    assert qwen_like.decode(labels) == f" {answer}\n### the cat\n###"


def test_a_folder_without_a_tokenizer_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no tokenizer here .*Point model.llama_model at") as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"{tmp_path}.*names no eos_token"):
        load_tokenizer(write_fast_tokenizer(tmp_path, unk_token="<unk>"))


def test_a_sentencepiece_model_without_a_start_token_is_refused(tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a cat", "a dog", "the cat and the dog"] * 20),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=14,
        bos_id=-1,
        minloglevel=2,
    )
    with pytest.raises(WeightsError, match=r"tokenizer\.model.*start"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 499723\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>Sign in", "web page"),
        (b"\x00\x01\x02\x03" * 100, "not a SentencePiece model"),
    ],
)
def test_a_broken_sentencepiece_model_is_named_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(WeightsError, match=f"{tmp_path}/tokenizer.model: .*{reason}"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("content", "reason"), [("{", "not valid JSON"), ("version https://git-lfs", "git lfs pull")])
def test_a_broken_tokenizer_config_is_named_with_the_reason(tmp_path: Path, content: str, reason: str) -> None:
    spelling(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError, match=f"tokenizer_config.json: .*{reason}"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_transformers_cannot_load_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WeightsError, match=f"{tmp_path}: its tokenizer cannot be loaded"):
        load_tokenizer(tmp_path)
