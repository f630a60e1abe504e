"""The private parts of transformers that we use are there, and do what we use them for."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, DeepseekV3Config, LlamaConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from tests import tiny
from tests.decoders import FAMILIES
from video_llama.models.decoder.transformers_internals import (
    may_be_ignored,
    may_be_missing,
    no_load_report,
    takes_rows,
)


def test_every_model_says_which_tensors_may_be_missing_or_ignored():
    assert PreTrainedModel._keys_to_ignore_on_load_missing is None
    assert PreTrainedModel._keys_to_ignore_on_load_unexpected is None


def test_some_model_ignores_a_tensor_on_purpose():
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.device("meta"):
        deepseek = AutoModelForCausalLM.from_config(DeepseekV3Config(**sizes, num_key_value_heads=2, vocab_size=8))
        llama = AutoModelForCausalLM.from_config(LlamaConfig(**sizes, vocab_size=8))
    assert may_be_ignored("model.layers.61.mlp.gate.weight", deepseek)
    assert not may_be_ignored("model.layers.61.mlp.gate.weight", llama)
    assert not may_be_missing("model.norm.weight", llama)


@pytest.fixture
def lacking(tmp_path):
    """A decoder folder without its last norm."""
    tiny.write_decoder(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path


def load_report(folder, caplog) -> bool:
    caplog.clear()
    logging.getLogger("transformers").propagate = True
    AutoModelForCausalLM.from_pretrained(folder, config=AutoConfig.from_pretrained(folder))
    return "LOAD REPORT" in caplog.text


def test_the_load_report_is_printed_and_can_be_suppressed(lacking, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    assert load_report(lacking, caplog)
    with no_load_report():
        assert not load_report(lacking, caplog)


def test_layers_of_a_llama_can_be_recomputed():
    with torch.device("meta"):
        llama = AutoModelForCausalLM.from_config(LlamaConfig(num_hidden_layers=3, vocab_size=8))
    assert sum(isinstance(module, GradientCheckpointingLayer) for module in llama.modules()) == 3


def decoder(kind: str, **changes: Any) -> Any:
    """A decoder of two layers, without values."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, num_hidden_layers=2, vocab_size=8, **changes)
        )


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_rows_of_attention_alone_can_come_and_go(family):
    layers = {} if "n_layer" in family.sizes else {"num_hidden_layers": 2}
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.architecture, **family.sizes | layers))
    assert takes_rows(lm)


ROPE = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("mamba", {}),
        ("recurrent_gemma", {}),
        ("jamba", {"num_experts": 2}),
        ("bloom", {}),
        ("phi3", {"pad_token_id": None}),
        ("llama", {"rope_parameters": ROPE}),
    ],
    ids=[
        "state",
        "recurrent blocks",
        "some layers with a state",
        "no positions",
        "its own inputs",
        "changing rotations",
    ],
)
def test_what_a_row_remembers_must_not_depend_on_the_others(kind, changes):
    assert not takes_rows(decoder(kind, **changes))
