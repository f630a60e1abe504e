"""Tokens that a folder adds beside a SentencePiece model, wherever it lists them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.decoders import CHATML
from tests.unit.prompts.tokenizer_folders import (
    FOLDERS,
    IM,
    LLAMA,
    N,
    added_in_tokenizer_json,
    decoder_entries,
    llama,
    write_json,
    write_tokenizer_json,
)
from video_llama.common.errors import WeightsError
from video_llama.prompts.chat_template import chat_template
from video_llama.prompts.labels import encode
from video_llama.prompts.rendering import conversation
from video_llama.prompts.special_tokens import AddedToken, read_tokenizer_files
from video_llama.prompts.tokenizer import HuggingFaceTokenizer, SentencePieceTokenizer, load_tokenizer


def ids_of(folder: Path, text: str) -> list[int]:
    return [token.id for token in load_tokenizer(folder).encode(text)]


@pytest.mark.parametrize("name", [name for name in FOLDERS if name.startswith("ChatML")])
def test_added_tokens_are_read_wherever_they_are_listed(name: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(FOLDERS[name](tmp_path / "folder"))
    assert [t.id for t in tokenizer.encode("<|im_start|>a<|im_end|>")][:: len(tokenizer.encode("a")) + 1] == [N, N + 1]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (1, N + 1, N + 2)
    text = tokenizer.decode([1, N, *(t.id for t in tokenizer.encode("a cat")), N + 1])
    assert text.replace("> ", ">") == "<|im_start|>a cat<|im_end|>"


@pytest.mark.parametrize("name", FOLDERS)
def test_the_chat_template_of_the_folder_is_used(name: str, tmp_path: Path) -> None:
    folder = FOLDERS[name](tmp_path / "folder")
    tokenizer = load_tokenizer(folder)
    template = chat_template(folder, tokenizer)
    encoded = encode(conversation(template, template.training, [("Q", "a cat")], []), tokenizer, {})
    assert encoded.labels[-1] == tokenizer.encode(template.end_sym)[-1].id == tokenizer.eos_id


def test_llama_1_and_2_keep_the_sentencepiece_reader_beside_a_tokenizer_json(tmp_path: Path) -> None:
    write_tokenizer_json(llama(tmp_path), {})
    assert isinstance(load_tokenizer(tmp_path), SentencePieceTokenizer)


def test_padding_makes_no_other_tokenizer_of_llamas(tmp_path: Path) -> None:
    write_json(llama(tmp_path, pad_token="[PAD]"), "added_tokens.json", {"[PAD]": N})
    write_tokenizer_json(tmp_path, {"[PAD]": N})
    tokenizer = load_tokenizer(tmp_path)
    assert isinstance(tokenizer, SentencePieceTokenizer)
    assert tokenizer.vocab_size == N, "some decoders have no embedding for it"


def test_a_tokenizer_json_that_agrees_with_the_model_is_used(tmp_path: Path) -> None:
    assert isinstance(load_tokenizer(added_in_tokenizer_json(tmp_path)), HuggingFaceTokenizer)


def test_a_tokenizer_json_that_disagrees_with_the_model_is_reported_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = added_in_tokenizer_json(tmp_path) / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["merges"] = content["model"]["merges"][:20]
    file.write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    assert isinstance(tokenizer, SentencePieceTokenizer)
    assert tokenizer.eos_id == N + 1
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{tmp_path}: tokenizer.json and tokenizer.model disagree")


@pytest.mark.parametrize("name", ["GemmaTokenizer", "InternLM2Tokenizer", "MistralTokenizer", "CodeLlamaTokenizer", ""])
def test_a_lone_sentencepiece_model_is_read_whatever_class_it_names(name: str, tmp_path: Path) -> None:
    plain = ids_of(llama(tmp_path / "llama"), " two  spaces 猫")
    assert ids_of(llama(tmp_path / "other", tokenizer_class=name), " two  spaces 猫") == plain


def test_a_start_token_that_the_settings_leave_out_is_left_out(tmp_path: Path) -> None:
    assert load_tokenizer(llama(tmp_path, add_bos_token=False)).bos_id is None


@pytest.mark.parametrize(
    "named", [{}, {"eos_token": ""}, {"eos_token": None}, {"bos_token": "</s>", "unk_token": "</s>"}]
)
def test_early_conversions_of_llama_keep_its_own_start_and_end(named: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(llama(tmp_path, **named))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 0)


def test_white_space_beside_a_token_may_belong_to_it(tmp_path: Path) -> None:
    llama(tmp_path, added_tokens_decoder=decoder_entries(IM, rstrip=True, lstrip=True))
    assert ids_of(tmp_path, "a  <|im_end|> \n b") == ids_of(tmp_path, "a<|im_end|>b")


def test_an_added_word_is_found_in_all_texts(tmp_path: Path) -> None:
    llama(tmp_path, added_tokens_decoder=decoder_entries({"<h1>": N}, special=False), chat_template=CHATML)
    tokens = load_tokenizer(tmp_path).encode("a <h1> cat", literal=[(0, 10)])
    assert [t.id for t in tokens].count(N) == 1


def test_a_token_is_special_if_any_file_says_so(tmp_path: Path) -> None:
    llama(tmp_path, added_tokens_decoder=decoder_entries({"<a>": N, "<b>": N + 1, "<c>": N + 2}, special=False))
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write_json(tmp_path, "tokenizer_config.json", {**settings, "extra_special_tokens": {"image": "<a>"}})
    write_json(tmp_path, "special_tokens_map.json", {"additional_special_tokens": [{"content": "<b>"}]})
    added = read_tokenizer_files(tmp_path).added
    assert added == {"<a>": AddedToken(N), "<b>": AddedToken(N + 1), "<c>": AddedToken(N + 2, special=False)}


def test_one_of_several_chat_templates_is_the_default(tmp_path: Path) -> None:
    programs = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "{{ tools }}"}]
    entries = decoder_entries(IM)
    llama(tmp_path, added_tokens_decoder=entries, eos_token="<|im_end|>", chat_template=programs)
    assert chat_template(tmp_path, load_tokenizer(tmp_path)).end_sym == "<|im_end|>"


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("added_tokens.json", b"{", r"added_tokens\.json: not valid JSON"),
        ("added_tokens.json", b"[]", r"added_tokens\.json: expected a JSON object, found a list"),
        ("added_tokens.json", b'{"<a>": "b"}', "its added tokens are not readable"),
        ("special_tokens_map.json", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("tokenizer.json", b'{"added_tokens": [{"id": 3}]}', "its added tokens are not readable .*'content'"),
    ],
)
def test_a_file_of_added_tokens_that_is_not_readable_is_named(
    file: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    (llama(tmp_path) / file).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{tmp_path}.*{reason}|{reason}"):
        load_tokenizer(tmp_path)


def test_a_model_file_of_another_kind_is_ignored_beside_a_tokenizer_json(tmp_path: Path) -> None:
    FOLDERS["byte-level"](tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    assert isinstance(load_tokenizer(tmp_path), HuggingFaceTokenizer)


def test_a_lone_model_file_of_another_kind_is_named(tmp_path: Path) -> None:
    shutil.copy(LLAMA, tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    write_json(tmp_path, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    with pytest.raises(WeightsError, match=r"tokenizer\.model: not a SentencePiece model"):
        load_tokenizer(tmp_path)
