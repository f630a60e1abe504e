"""Tensors that no renaming explains are refused from the headers alone; what transformers knows how to read is not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, DeepseekV3Config, LlamaConfig, MixtralConfig

from tests.decoders import FAMILIES, write_decoder
from video_llama.checkpoints.hf_folder import WeightsFolder
from video_llama.common.errors import WeightsError
from video_llama.models.decoder.folder import DecoderFolder

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("llama"), "llama")


def stored(folder: Path) -> Shapes:
    return {name: tensor.shape for name, tensor in WeightsFolder(folder).tensors.items()}


def described(folder: Path) -> Shapes:
    """What a model made of the folder's config has, but for tied weights."""
    return {name: tuple(p.shape) for name, p in DecoderFolder(folder).skeleton.named_parameters()}


def check_tensors(folder: Path, stored: Shapes) -> None:
    DecoderFolder(folder, key="model.llama_model").check_tensors(stored)


def without(shapes: Shapes, pattern: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not re.search(pattern, name)}


def renamed(shapes: Shapes, pattern: str, by: str) -> Shapes:
    return {re.sub(pattern, by, name): shape for name, shape in shapes.items()}


# Refused


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    shapes = stored(folder)
    for name, shape in described(folder).items() & shapes.items():
        with pytest.raises(WeightsError, match=rf"model.llama_model: {folder}: .* has the shape \({shape[0] + 1},"):
            check_tensors(folder, shapes | {name: (shape[0] + 1, *shape[1:])})


def test_a_missing_tensor_is_refused(folder: Path) -> None:
    shapes = described(folder)
    for name in shapes:
        with pytest.raises(WeightsError, match=rf"{folder} is not whole: [12] tensors are missing, such as "):
            check_tensors(folder, without(shapes, f"^{re.escape(name)}$"))


def test_a_missing_tensor_of_a_layer_is_refused_among_strange_ones(folder: Path) -> None:
    shapes = stored(folder) | {"adapter.scale": (1,)}
    name = next(n for n in shapes if ".1." in n)
    with pytest.raises(WeightsError, match="is not whole: 1 tensors are missing, such as"):
        check_tensors(folder, without(shapes, f"^{re.escape(name)}$"))


def test_weights_of_more_or_fewer_layers_than_the_config_has_are_refused(folder: Path) -> None:
    shapes = stored(folder)
    with pytest.raises(WeightsError, match=r"is not whole: \d+ tensors are missing, such as .*\.?1\."):
        check_tensors(folder, without(shapes, r"\.1\."))
    more = shapes | {name.replace(".1.", ".2."): shape for name, shape in shapes.items()}
    with pytest.raises(WeightsError, match=r"tensors such as .*\.2\..*, but config.json says num_hidden_layers: 2"):
        check_tensors(folder, more)


def test_sizes_that_go_together_in_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 30, "n_head": 4}))
    with pytest.raises(WeightsError, match=f"{tmp_path}/config.json describes no decoder that can be built: "):
        check_tensors(tmp_path, {})


# Not refused


@pytest.mark.parametrize(
    "as_saved",
    [
        lambda shapes, base: shapes,
        lambda shapes, base: renamed(shapes, f"^{base}.", ""),
        lambda shapes, base: renamed(shapes, "^", f"{base}."),
        lambda shapes, base: renamed(shapes, "norm", "LayerNorm"),
        lambda shapes, base: shapes | {f"{base}.layers.{i}.self_attn.rotary_emb.inv_freq": (4,) for i in (0, 1)},
        lambda shapes, base: shapes | {"other.head.weight": (4,)},
        lambda shapes, base: {name: shape[::-1] for name, shape in shapes.items()},
    ],
    ids=["plain", "no prefix", "prefix", "other names", "buffers", "strange", "transposed"],
)
def test_what_may_be_a_matter_of_names_is_not(folder: Path, as_saved: Callable[[Shapes, str], Shapes]) -> None:
    check_tensors(folder, as_saved(stored(folder), DecoderFolder(folder).skeleton.base_model_prefix))


def test_tied_weights_are_stored_once_under_either_name(tmp_path: Path) -> None:
    shapes = stored(write_decoder(tmp_path, "gemma"))
    assert "lm_head.weight" not in shapes
    check_tensors(tmp_path, renamed(shapes, "model.embed_tokens", "lm_head"))


def test_weights_stored_quantised_have_shapes_of_their_own(llama: Path, tmp_path: Path) -> None:
    how = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    content = {**json.loads((llama / "config.json").read_text()), "quantization_config": how}
    (tmp_path / "config.json").write_text(json.dumps(content))
    check_tensors(tmp_path, dict.fromkeys(stored(llama), (7, 1)))


def test_experts_that_the_library_puts_together_are_not_missing(tmp_path: Path) -> None:
    MixtralConfig(
        hidden_size=16, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, num_local_experts=2
    ).save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(MixtralConfig.from_pretrained(tmp_path))
    published = without({name: tuple(p.shape) for name, p in model.named_parameters()}, "experts")
    for i in (0, 1):
        for k in (0, 1):
            expert = f"model.layers.{i}.block_sparse_moe.experts.{k}"
            published |= {
                f"{expert}.w1.weight": (8, 16),
                f"{expert}.w2.weight": (16, 8),
                f"{expert}.w3.weight": (8, 16),
            }
    check_tensors(tmp_path, published)


def test_a_layer_that_predicts_further_tokens_is_not_one_too_many(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "first_k_dense_replace": 1}
    DeepseekV3Config(**sizes, num_nextn_predict_layers=1).save_pretrained(tmp_path)
    shapes = described(tmp_path)
    check_tensors(tmp_path, shapes | renamed(shapes, "layers.0", "layers.1"))


def test_a_full_size_config_is_no_work(tmp_path: Path) -> None:
    LlamaConfig(vocab_size=32000).save_pretrained(tmp_path)
    shapes = described(tmp_path)
    assert len(shapes) == 291
    check_tensors(tmp_path, shapes)
