"""A folder with merged adapters replaces the decoder and its adapters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.tiny import batch, sample
from tests.unit.models.decoder.test_lora import LORA, give_effect
from video_llama.checkpoints.io import read_weights, write_weights
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.models.decoder.lora_merge import merge_lora
from video_llama.models.video_llama import VideoLLaMA, VideoLLaMAConfig

SEEN = batch(sample("image", 1), sample("clip", 4), sample("text"))


@pytest.fixture(scope="module")
def trained(decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoLLaMA, VideoLLaMAConfig]:
    """A model with adapters, and the model section that its files make it from."""
    folder = tmp_path_factory.mktemp("trained")
    model = tiny.model(decoder, lora=LORA)
    give_effect(model)
    paths = {key: str(folder / f"{key}.safetensors") for key in ("vit_ckpt", "q_former_model", "ckpt", "ckpt_2")}
    write_weights(paths["vit_ckpt"], model.vision.state_dict())
    write_weights(paths["q_former_model"], model.qformer.state_dict())
    state = model.trainable_state()
    write_weights(paths["ckpt"], {n: t + 1 if "to_decoder" in n else t for n, t in state.items()})
    write_weights(paths["ckpt_2"], {n: t for n, t in state.items() if "to_decoder" in n})
    return model.eval(), tiny.config(decoder, lora=LORA, **paths)


def test_the_same_model_without_adapters_has_the_same_loss(trained, tmp_path):
    model, config = trained
    merge_lora(VideoLLaMA, config, tmp_path / "merged")
    paths = {"vit_ckpt": config.vit_ckpt, "q_former_model": config.q_former_model}
    paths["ckpt"] = str(tmp_path / "merged" / "branch.pth")
    plain = VideoLLaMA.from_config(tiny.config(tmp_path / "merged", **paths)).eval()
    torch.testing.assert_close(plain(SEEN).loss_sum, model(SEEN).loss_sum, rtol=1e-5, atol=1e-5)
    assert plain.trainable_state().keys() == read_weights(tmp_path / "merged" / "branch.pth").keys()


def test_the_folder_is_one_as_people_publish_them(decoder, trained, tmp_path):
    merge_lora(VideoLLaMA, trained[1], tmp_path / "merged")
    names = {file.name for file in (tmp_path / "merged").iterdir()}
    assert names == {file.name for file in decoder.iterdir()} | {"branch.pth"}
    for name in ("tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (decoder / name).read_bytes()
    merged, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", decoder))
    assert {n: (t.shape, t.dtype) for n, t in merged.items()} == {n: (t.shape, t.dtype) for n, t in before.items()}
    assert {n for n, t in merged.items() if not torch.equal(t, before[n])} == {n for n in before if "_proj" in n}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").config.model_type == "llama"


@pytest.mark.parametrize("quantised", [{"low_resource": True}, {"quantization": "nf4"}])
def test_what_was_trained_quantised_is_merged_into_the_decoder_itself(trained, tmp_path, quantised):
    settings = {name: getattr(trained[1], name) for name in ("ckpt", "ckpt_2", "lora", "llama_model")}
    llama_model = Path(settings.pop("llama_model"))
    merge_lora(VideoLLaMA, tiny.config(llama_model, **settings, **quantised), tmp_path / "quantised")
    merge_lora(VideoLLaMA, tiny.config(llama_model, **settings), tmp_path / "plain")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("quantised", "plain"))
    assert all(torch.equal(t, other[name]) for name, t in one.items())


def test_a_decoder_that_is_stored_quantised_is_refused(decoder, trained, tmp_path):
    for file in decoder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((decoder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="stored quantised"):
        merge_lora(VideoLLaMA, tiny.config(tmp_path, lora=LORA, ckpt=trained[1].ckpt), tmp_path / "merged")


def test_without_adapters_there_is_nothing_to_merge(decoder, trained, tmp_path):
    branch = tmp_path / "branch.safetensors"
    write_weights(branch, {n: t for n, t in trained[0].trainable_state().items() if not n.startswith("decoder.")})
    for settings, message in (
        ({"ckpt": str(branch)}, "model.lora: is not set"),
        ({"lora": LORA}, "model.ckpt: is not set"),
        ({"lora": LORA, "ckpt": str(branch)}, f"model.ckpt: {branch} holds no adapters"),
    ):
        with pytest.raises((ConfigError, WeightsError), match=message):
            merge_lora(VideoLLaMA, tiny.config(decoder, **settings), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(trained, tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(WeightsError, match="not empty"):
        merge_lora(VideoLLaMA, trained[1], tmp_path / "taken")

    def full(*args: object) -> None:
        raise WeightsError("the disk is full")

    monkeypatch.setattr("video_llama.models.decoder.new_folder.write_checkpoint", full)
    with pytest.raises(WeightsError, match="the disk is full"):
        merge_lora(VideoLLaMA, trained[1], tmp_path / "merged")
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]
