"""A model without the layers of its decoder makes the same prompts as the whole one."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import decoders, tiny
from video_llama.common.errors import ConfigError, VideoLlamaError, WeightsError
from video_llama.common.types import Batch
from video_llama.models.decoder.config import LoRAConfig
from video_llama.models.decoder.embedding_alone import EmbeddingAlone
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.decoder.language_model import LanguageModel
from video_llama.models.precision import NumberFormat
from video_llama.models.video_llama import VideoLLaMA

FP32 = NumberFormat(torch.float32, torch.float32)
IDS = torch.tensor([[1, 5, -1, 7]])


@pytest.mark.parametrize("family", decoders.FAMILIES)
def test_every_family_embeds_as_with_its_layers(family, tmp_path):
    folder = DecoderFolder(decoders.write_decoder(tmp_path, family))
    alone, whole = EmbeddingAlone(folder, FP32), LanguageModel(folder, torch.float32)
    assert torch.equal(alone.embed(IDS), whole.embed(IDS))
    assert (alone.width, alone.max_context) == (whole.width, whole.max_context)
    assert len(list(alone.parameters())) == 1


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("computed", [torch.float32, None])
@pytest.mark.parametrize("family", ["llama", "gemma", "gemma2"])
def test_it_embeds_in_the_number_format_of_the_decoder(family, stored, computed, tmp_path):
    folder = DecoderFolder(decoders.write_decoder(tmp_path, family))
    whole = LanguageModel(folder, stored).requires_grad_(False)
    alone = EmbeddingAlone(folder, NumberFormat(stored, computed or stored))
    if computed is not None:
        whole.compute_in_float32()
    assert torch.equal(alone.embed(IDS), whole.embed(IDS))
    assert alone.lm.dtype == whole.lm.dtype == alone.embed(IDS).dtype
    assert alone.lm.embedding._parameters["weight"].dtype == stored


def test_a_prompt_is_that_of_the_whole_model(tmp_path):
    decoder = tiny.write_decoder(tmp_path / "decoder")
    trained = tiny.model(decoder, **tiny.AUDIO)
    torch.save({"model": trained.trainable_state()}, tmp_path / "branch.pth")
    config = tiny.config(decoder, **tiny.AUDIO, ckpt=str(tmp_path / "branch.pth"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = VideoLLaMA.from_config(config).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        alone = VideoLLaMA.for_prompts(config).eval()
    batch: Batch = tiny.batch(tiny.sample("a", 4), tiny.sample("b", 1, tiny.sound(2)))
    with torch.no_grad():
        expected = whole.embed_prompt(batch.input_ids, batch.media)
        assert torch.equal(alone.embed_prompt(batch.input_ids, batch.media), expected)
    layers = sum(p.numel() for name, p in whole.named_parameters() if ".layers." in name and name.startswith("decoder"))
    assert sum(p.numel() for p in alone.parameters()) <= sum(p.numel() for p in whole.parameters()) - layers


def test_it_does_not_pretend_to_answer(tmp_path):
    alone = EmbeddingAlone(DecoderFolder(tiny.write_decoder(tmp_path)), FP32)
    with pytest.raises(VideoLlamaError, match="runs elsewhere"):
        alone.lm.generate(inputs_embeds=torch.zeros(1, 2, 16))
    with pytest.raises(VideoLlamaError, match="runs elsewhere"):
        alone.lm(inputs_embeds=torch.zeros(1, 2, 16))


def test_a_decoder_with_adapters_is_not_what_its_folder_holds(tmp_path):
    config = tiny.config(tiny.write_decoder(tmp_path), lora=LoRAConfig(r=2))
    with pytest.raises(ConfigError, match=r"model.lora: .*video-llama merge-lora"):
        VideoLLaMA.for_prompts(config)


def test_an_embedding_that_is_broken_or_missing_is_named(tmp_path):
    folder = tiny.write_decoder(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = "model.embed_tokens.weight"
    broken = tensors[name].clone()
    broken[3, 3] = torch.nan
    save_file({**tensors, name: broken}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=rf"{folder}: the token embedding .*NaN"):
        EmbeddingAlone(DecoderFolder(folder), FP32)
    save_file({**tensors, name: broken[:-1].clone()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"holds no token embedding of the shape \(560, 16\)"):
        EmbeddingAlone(DecoderFolder(folder), FP32)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"holds no token embedding"):
        EmbeddingAlone(DecoderFolder(folder), FP32)
