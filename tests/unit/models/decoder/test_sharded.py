"""A decoder that processes share: what each reads, and what cannot be shared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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
from video_llama.models.decoder.sharded import decoder_without_values
from video_llama.models.sharding import Sharding, check_sharding

LARGE: dict[str, Any] = {
    "intermediate_size": 1536, "num_hidden_layers": 8, "vocab_size": 16_000, "num_attention_heads": 8,
}  # fmt: skip
"""44 million weights, 175 MB in fp32."""


def shared(world: World) -> Sharding:
    return Sharding(world, frozenset({"decoder"}))


def memory(key: str) -> int:
    """Return resident memory, or its peak, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def load(world: World, small: Path, folder: Path) -> float:
    """Load a decoder by shards; returns by how much the memory of this process grew at most, over the size of the decoder."""
    LanguageModel(DecoderFolder(small), torch.float32, sharding=shared(world))  # imports what it needs
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts over
    decoder = LanguageModel(DecoderFolder(folder), torch.float32, sharding=shared(world))
    return (memory("VmHWM") - before) / sum(4 * p.numel() for p in decoder.parameters())


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux to reset the peak of memory")
def test_no_process_holds_the_whole_decoder_in_memory_while_it_loads(decoder, tmp_path):
    folder = tiny.write_decoder(tmp_path / "large", width=512, **LARGE)
    shares = in_two_processes(load, tmp_path, decoder, folder)
    assert max(shares) <= 0.6
    assert min(shares) >= 0.45


def logits(world: World, folder: Path, names: list[str]) -> list[float]:
    """Return for each decoder how far its losses are off when it is shared."""
    ids = torch.arange(4, 24).view(2, 10)
    batch = (torch.ones_like(ids), ids.where(ids % 3 > 0, -100))
    found = []
    for name in names:
        whole = LanguageModel(DecoderFolder(folder / name), torch.float32)
        part = LanguageModel(DecoderFolder(folder / name), torch.float32, sharding=shared(world))
        (expected, _), (loss, _) = (one.target_loss(one.embed(ids), *batch) for one in (whole, part))
        found.append(abs(float(loss - expected)))
    return found


def test_decoders_of_many_families_can_be_shared(tmp_path):
    names = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi", "gpt_neox", "gpt2"]
    for name in names:
        (tmp_path / name).mkdir()
        decoders.write_decoder(tmp_path / name, name)
    assert in_two_processes(logits, tmp_path, tmp_path, names) == [[0.0] * len(names)] * 2


def refused(world: World, folder: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        LanguageModel(DecoderFolder(folder, "model.llama_model"), torch.float32, sharding=shared(world))
    return str(caught.value)


def test_every_process_learns_of_a_value_that_is_not_finite_in_the_share_of_one(decoder, tmp_path):
    folder = tiny.write_decoder(tmp_path / "decoder")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][-1] = torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for message in in_two_processes(refused, tmp_path, folder):
        assert "holds NaN or infinity" in message
        assert "model.norm.weight" in message


def test_a_decoder_that_cannot_be_shared_is_refused_with_the_reason(decoder, tmp_path):
    folder = tiny.write_decoder(tmp_path / "decoder")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.scale"] = tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"cannot be sharded: its files hold no tensor model\.norm\.weight"):
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
    expected = dict(loaded.named_buffers())
    assert {name: buffer.tolist() for name, buffer in bare.named_buffers()} == {
        n: b.tolist() for n, b in expected.items()
    }
