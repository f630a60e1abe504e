"""A decoder that processes share: what each reads, and what cannot be shared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests import decoders, tiny
from tests.processes import in_two_processes
from video_llama.common.distributed import World
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.decoder.language_model import LanguageModel
from video_llama.models.decoder.sharded_decoder import decoder_without_values
from video_llama.models.sharding import Sharding, check_sharding

LARGE: dict[str, Any] = {
    "intermediate_size": 1536, "num_hidden_layers": 12, "vocab_size": 4_000, "num_attention_heads": 8,
}  # fmt: skip
"""45 million weights, 180 MB in fp32, no tensor of which is more than 5 % of it."""
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi", "gpt2")


class Noted(NamedTuple):
    """What one process notes."""

    memory: float
    """By how much its memory grew at most while it loaded a decoder, over the size of that decoder."""
    differences: dict[str, float]
    """How far the gradients of a shared decoder of each family are from those of a whole one, in fp32 and stored in fp16."""
    refusal: str
    """The error for a decoder with a value that is not finite."""


def load(world: World, folder: Path) -> Noted:
    """Load decoders by shards, and compute losses with them."""
    sharding = Sharding(world, frozenset({"decoder"}))
    differences = {}
    for name in FAMILIES:
        one = DecoderFolder(folder / name)
        for dtype in (torch.float32, torch.float16):
            whole, part = (LanguageModel(one, dtype, sharding=how).requires_grad_(False) for how in (None, sharding))
            if dtype == torch.float16:
                whole.compute_in_float32()
                part.compute_in_float32()
            expected, found = gradient(whole), gradient(part)
            assert expected.norm() > 0
            differences[f"{name} {dtype}"] = float((expected - found).abs().max())
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts over
    large = LanguageModel(DecoderFolder(folder / "large"), torch.float32, sharding=sharding)
    growth = memory("VmHWM") - before
    with pytest.raises(WeightsError) as refused:
        LanguageModel(DecoderFolder(folder / "broken"), torch.float32, sharding=sharding)
    return Noted(growth / sum(4 * p.numel() for p in large.parameters()), differences, str(refused.value))


def gradient(decoder: LanguageModel) -> torch.Tensor:
    """Return the gradient of a loss at the embeddings, with recomputed activations in the second of two passes."""
    ids = torch.arange(4, 24).view(2, 10)
    found = []
    for _ in range(2):
        embeds = decoder.embed(ids).detach().requires_grad_()
        decoder.target_loss(embeds, torch.ones_like(ids), ids.where(ids % 3 > 0, -100))[0].backward()
        assert embeds.grad is not None
        found.append(embeds.grad)
        decoder.recompute_activations("full")
    return torch.cat(found)


def memory(key: str) -> int:
    """Return resident memory, or its peak, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> list[Noted]:
    """What each of two processes noted."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs Linux to reset the peak of memory")
    folder = tmp_path_factory.mktemp("decoders")
    for name in FAMILIES:
        (folder / name).mkdir()
        decoders.write_decoder(folder / name, name)
    tiny.write_decoder(folder / "large", width=512, **LARGE)
    tiny.write_decoder(folder / "broken")
    tensors = load_file(folder / "broken/model.safetensors")
    tensors["model.norm.weight"][-1] = torch.nan  # in the share of the second process
    save_file(tensors, folder / "broken/model.safetensors", {"format": "pt"})
    return in_two_processes(load, folder, folder)


def test_no_process_holds_the_whole_decoder_in_memory_while_it_loads(noted):
    for process in noted:
        assert 0.45 < process.memory <= 0.6


def test_shared_decoders_of_many_families_have_the_gradients_of_whole_ones(noted):
    for process in noted:
        assert len(process.differences) == 2 * len(FAMILIES)
        assert {name: off for name, off in process.differences.items() if off} == {}


def test_every_process_learns_of_a_value_that_is_not_finite_in_the_share_of_one(noted):
    for process in noted:
        assert "holds NaN or infinity" in process.refusal
        assert "model.norm.weight" in process.refusal


def test_a_decoder_that_is_stored_otherwise_than_it_is_used_is_refused(tmp_path):
    folder = decoders.write_decoder(tmp_path, "gpt_neox")  # transformers renames its output layer
    with pytest.raises(
        WeightsError, match=r"cannot be sharded: its files hold no tensor .*parallel\.decoder: replicate"
    ):
        decoder_without_values(DecoderFolder(folder), torch.float32)


@pytest.mark.parametrize(
    ("parts", "changes", "message"),
    [
        ({"decoder"}, {"quantization": "nf4"}, r"run\.parallel\.decoder: shard, but model\.quantization asks for nf4"),
        ({"decoder"}, {"low_resource": True}, r"run\.parallel\.decoder: shard, but model\.low_resource asks for int8"),
        ({"vision"}, {"freeze_vit": False}, r"run\.parallel\.vision: shard, but model\.freeze_vit is false"),
        ({"vision"}, tiny.AUDIO_ALONE, r"run\.parallel\.vision: shard, but there is no frame encoder"),
    ],
)
def test_parts_that_cannot_be_shared_are_named(decoder, parts, changes, message):
    alone = World(0, 1, torch.device("cpu"))
    with pytest.raises(ConfigError, match=message):
        check_sharding(tiny.config(decoder, **changes), Sharding(alone, frozenset(parts)))


def test_a_decoder_without_values_has_the_buffers_of_one_that_is_loaded(decoder):
    bare = decoder_without_values(DecoderFolder(decoder), torch.float32)
    loaded = AutoModelForCausalLM.from_pretrained(decoder)
    assert all(p.is_meta for p in bare.parameters())
    expected = {name: buffer.tolist() for name, buffer in loaded.named_buffers()}
    assert {name: buffer.tolist() for name, buffer in bare.named_buffers()} == expected
