"""What is no config of a causal language model is refused by name, and nothing that a folder brings is run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, LlamaConfig, MambaConfig, MptConfig, OPTConfig, PreTrainedConfig, T5Config

from video_llama.common.errors import WeightsError
from video_llama.models.decoder.folder import DecoderFolder


def read_config(path: Path) -> Any:
    return DecoderFolder(path, key="model.llama_model").config


def saved(config: PreTrainedConfig, folder: Path) -> DecoderFolder:
    config.save_pretrained(folder)
    return DecoderFolder(folder)


def write(folder: Path, **content: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config.json: not valid JSON"),
        ("", "config.json: an empty file. Download it again."),
        ("<!DOCTYPE html><title>Sign in</title>", "config.json: a web page, not the file itself"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "config.json: a git-lfs pointer.*git lfs pull"),
        ("[]", "names no model_type"),
        ('{"hidden_size": 16}', "names no model_type"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "config.json is no valid config: .*hidden_size"),
    ],
)
def test_a_config_that_cannot_be_read_is_named_with_the_reason(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=f"model.llama_model: {tmp_path}.*{message}"):
        read_config(tmp_path)


def test_what_is_no_model_folder_is_told_as_what_it_is(tmp_path):
    (tmp_path / "decoder.bin").touch()
    for path, message in (
        (tmp_path, "no config.json in this folder"),
        (tmp_path / "decoder.bin", "a file; expected a Hugging Face model folder"),
        (tmp_path / "none", "no such folder"),
    ):
        with pytest.raises(WeightsError, match=f"model.llama_model: {path}: {message}"):
            read_config(path)


@pytest.mark.parametrize("settings", [{}, {"auto_map": {"AutoConfig": "configuration_novel.NovelConfig"}}])
def test_an_architecture_that_the_library_does_not_know_is_refused_and_its_code_not_run(tmp_path, settings):
    (tmp_path / "configuration_novel.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    with pytest.raises(WeightsError, match=r"transformers [\d.]+ does not know the architecture 'novel'") as caught:
        read_config(write(tmp_path, model_type="novel", **settings))
    assert ("auto_map" in str(caught.value)) == bool(settings)
    assert not (tmp_path / "was_run").exists()


def test_code_for_an_architecture_that_the_library_knows_is_not_run_either(tmp_path):
    (tmp_path / "configuration_mine.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    auto_map = {"AutoConfig": "configuration_mine.MineConfig"}
    assert isinstance(read_config(write(tmp_path, model_type="llama", auto_map=auto_map)), LlamaConfig)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (T5Config(architectures=["T5ForConditionalGeneration"]), "an encoder-decoder"),
        (BertConfig(architectures=["BertForMaskedLM"]), "BertForMaskedLM"),
        (LlamaConfig(architectures=["LlamaForSequenceClassification"]), "LlamaForSequenceClassification"),
    ],
)
def test_a_model_that_is_not_causal_is_refused(tmp_path, config, found):
    config.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=f"{tmp_path} is {found}, not a causal language model"):
        read_config(tmp_path)


@pytest.mark.parametrize("names", [None, ["LlamaForCausalLM"], ["LLaMAForCausalLM"]])
def test_early_and_silent_configs_of_llama_are_taken(tmp_path, names):
    assert read_config(write(tmp_path, model_type="llama", architectures=names)).model_type == "llama"


def test_the_longest_sequence_goes_by_many_names(tmp_path):
    assert saved(LlamaConfig(max_position_embeddings=77), tmp_path).max_context == 77
    assert saved(MptConfig(max_seq_len=78), tmp_path).max_context == 78
    assert saved(MambaConfig(), tmp_path).max_context == sys.maxsize


def test_the_width_is_that_of_the_embeddings(tmp_path):
    assert saved(LlamaConfig(hidden_size=96), tmp_path).width == 96
    assert saved(OPTConfig(hidden_size=24, word_embed_proj_dim=12), tmp_path).width == 12


def test_a_message_has_the_key_only_where_a_setting_names_the_folder(tmp_path):
    with pytest.raises(WeightsError, match=f"^{tmp_path}: no config.json"):
        _ = DecoderFolder(tmp_path).config
    with pytest.raises(WeightsError, match=f"^model.llama_model: {tmp_path}: no config.json"):
        _ = DecoderFolder(tmp_path, key="model.llama_model").config
