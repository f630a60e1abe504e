"""The original's ``apply_delta.py`` on a small LLaMA and a delta: the same model, to the bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.parity.conftest import Reference
from video_llama.checkpoints.delta.delta import apply_delta, invert_delta
from video_llama.prompts.tokenizer import load_tokenizer

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BUFFER = "rotary_emb.inv_freq"
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Made:
    """The original's result, and where our result and the inputs are."""

    facts: dict[str, Any]
    tensors: dict[str, Tensors]
    """Recorded facts about ``base``, ``delta`` and ``target``."""
    folder: Path

    @property
    def ours(self) -> Tensors:
        return load_file(self.folder / "target" / "model.safetensors")


@pytest.fixture(scope="module")
def made(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Our target, from the base and the delta of the reference."""
    folder = tmp_path_factory.mktemp("delta")
    facts = reference.read("data/apply_delta.json")
    tensors: dict[str, Tensors] = {"base": {}, "delta": {}, "target": {}}
    for name, tensor in load_file(reference.folder / "data" / "apply_delta.safetensors").items():
        role, _, name = name.partition("/")
        tensors[role][name] = tensor
    for role in ("base", "delta"):
        (folder / role).mkdir()
        save_file(tensors[role], folder / role / "model.safetensors")
        config = {**facts["target_config"], "vocab_size": len(tensors[role][EMBEDDING])}
        (folder / role / "config.json").write_text(json.dumps(config))
        for file in reference.tokenizer.iterdir():
            shutil.copyfile(file, folder / role / file.name)
    pad = {"[PAD]": len(tensors["base"][EMBEDDING])}
    (folder / "delta" / "added_tokens.json").write_text(json.dumps(pad))
    (folder / "delta" / "generation_config.json").write_text("{}")
    apply_delta(folder / "base", folder / "delta", folder / "target")
    return Made(facts, tensors, folder)


def test_every_tensor_equals_the_originals(made: Made) -> None:
    measured = made.tensors["target"]
    assert made.ours.keys() == measured.keys() == made.facts["check"].keys()
    for name, tensor in made.ours.items():
        fact = made.facts["check"][name]
        assert fact["equals_base_plus_delta"]
        assert (str(tensor.dtype), list(tensor.shape)) == (fact["dtype"], fact["shape"])
        assert tensor.dtype == measured[name].dtype
        assert torch.equal(tensor, measured[name]), name


def test_the_rows_of_the_added_token_are_the_deltas(made: Made) -> None:
    known = len(made.tensors["base"][EMBEDDING])
    for name in (EMBEDDING, HEAD):
        assert len(made.ours[name]) > known
        assert torch.equal(made.ours[name][known:], made.tensors["delta"][name][known:])


def test_the_same_files_are_written_except_for_the_weights_format(made: Made) -> None:
    theirs = set(made.facts["target_files"])
    assert {file.name for file in (made.folder / "target").iterdir()} == (theirs - {"pytorch_model.bin"}) | {
        "model.safetensors"
    }


def test_the_config_is_that_of_the_target(made: Made) -> None:
    theirs = made.facts["target_config"]
    ours = json.loads((made.folder / "target" / "config.json").read_text())
    assert ours == theirs
    rows, width = made.ours[EMBEDDING].shape
    layers = [name for name in made.ours if name.endswith("mlp.up_proj.weight")]
    frequencies = [tensor for name, tensor in made.ours.items() if name.endswith(BUFFER)]
    assert ours["vocab_size"] == rows
    assert ours["hidden_size"] == width
    assert ours["num_hidden_layers"] == len(layers)
    assert ours["intermediate_size"] == len(made.ours[layers[0]])
    assert ours["num_attention_heads"] == width // (2 * len(frequencies[0]))
    tokenizer = load_tokenizer(made.folder / "target")
    assert (ours["bos_token_id"], ours["eos_token_id"]) == (tokenizer.bos_id, tokenizer.eos_id)
    assert ours["torch_dtype"] == str(made.ours[EMBEDDING].dtype).removeprefix("torch.")


def test_the_target_loads_as_a_decoder(made: Made) -> None:
    model, loading = AutoModelForCausalLM.from_pretrained(made.folder / "target", output_loading_info=True)
    assert not any(loading.values())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, made.tensors["target"][name]), name
    with safe_open(made.folder / "target" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_inverting_restores_the_base_to_fp16_rounding(made: Made) -> None:
    invert_delta(made.folder / "target", made.folder / "delta", made.folder / "back")
    back = load_file(made.folder / "back" / "model.safetensors")
    base, target = made.tensors["base"], made.tensors["target"]
    assert back.keys() == base.keys()
    for name, tensor in base.items():
        size = torch.maximum(tensor.float().abs(), target[name][: len(tensor)].float().abs())
        assert back[name].shape == tensor.shape
        assert bool(((back[name].float() - tensor.float()).abs() <= 2**-10 * size).all()), name
