"""Any causal language model can be the decoder: one line of a YAML selects it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.decoders import FAMILIES, write_decoder
from tests.integration.conftest import losses
from video_llama.checkpoints.io import read_weights
from video_llama.cli.train import train
from video_llama.common.types import Media, MediaGroup, slot_id
from video_llama.conversation.chat import Chat
from video_llama.models.video_llama import VideoLLaMA

STAGE_1 = "train_configs/toy/stage1_pretrain.yaml"
SHORT = ["run.max_epoch=1", "run.iters_per_epoch=2", "run.warmup_steps=0", "run.batch_size_train=2"]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[VideoLLaMA]:
    """The models that a test has built."""
    models: list[VideoLLaMA] = []
    build = VideoLLaMA.from_config

    def record(*args: Any) -> VideoLLaMA:
        models.append(build(*args))
        return models[-1]

    monkeypatch.setattr(VideoLLaMA, "from_config", record)
    return models


@torch.no_grad()
def logits(model: VideoLLaMA, chat: Chat, media: Media) -> torch.Tensor:
    """A model's logits for the tokens after a clip."""
    slots = [slot_id(0)] * chat.engine.spec.tokens_per_slot["video"]
    ids = torch.tensor([[*slots, *(token.id for token in chat.engine.spec.tokenizer.encode("It is red. 你好"))]])
    group = MediaGroup("video", media.data[None], torch.tensor([0]), torch.tensor([slot_id(0)]))
    return model.decoder.lm(inputs_embeds=model.embed_prompt(ids, [group])).logits


def train_and_chat(folder: Path, world: Path, built: list[VideoLLaMA], *options: str) -> dict[str, torch.Tensor]:
    """Train two steps, ask about a clip, and compare the model in chat with the trained one.

    Returns:
        The content of the checkpoint.
    """
    train(STAGE_1, [f"paths.world={world}", f"run.output_dir={folder}", *options, *SHORT])
    assert len(losses(folder)) == 2
    chat = Chat.from_config(folder / "config.yaml", [f"model.ckpt={folder / 'checkpoint_step000002.pth'}"], "cpu")
    media = chat.upload(video=sorted((world / "heldout/videos").glob("*.mp4"))[0]).frames
    for question in ("What is it?", "图中是什么颜色？"):
        assert isinstance(chat.ask(question, max_new_tokens=5), str)
    trained, loaded = (logits(model.eval(), chat, media) for model in built)
    assert torch.equal(trained, loaded)
    return read_weights(folder / "checkpoint_step000002.pth")


@pytest.mark.parametrize("family", FAMILIES)
def test_each_decoder_family_trains_and_chats_with_the_same_weights(family, world, tmp_path, root, built):
    decoder = write_decoder(tmp_path / "decoder", family)
    options = [f"model.llama_model={decoder}", f"model.model_type={FAMILIES[family].template}"]
    state = train_and_chat(tmp_path / "run", world, built, *options)
    assert all(name.startswith("video_branch.") for name in state)


@pytest.mark.parametrize("setting", ["model.low_resource=true", "model.quantization=int8", "model.quantization=nf4"])
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_a_quantised_decoder_trains_and_chats_with_the_same_weights(family, setting, world, tmp_path, root, built):
    decoder = write_decoder(tmp_path / "decoder", family)
    state = train_and_chat(tmp_path / "run", world, built, f"model.llama_model={decoder}", setting)
    assert all(name.startswith("video_branch.") for name in state)
    for model in built:
        kinds = {type(layer).__name__ for layer in model.decoder.lm.modules()}
        assert kinds & {"Linear8bitLt", "Linear4bit"} == {"Linear4bit" if "nf4" in setting else "Linear8bitLt"}
        rest = [*model.vision.parameters(), *model.qformer.parameters(), *model.video_branch.parameters()]
        assert {p.dtype for p in rest} == {torch.float32}


@pytest.mark.parametrize("quantization", ["null", "int8", "nf4"])
@pytest.mark.parametrize("family", ["llama", "gpt_neox", "phi"])
def test_a_decoder_with_adapters_trains_and_chats_with_the_same_weights(
    family, quantization, world, tmp_path, root, built
):
    decoder = write_decoder(tmp_path / "decoder", family)
    options = [f"model.llama_model={decoder}", "model.lora.r=4", f"model.quantization={quantization}"]
    state = train_and_chat(tmp_path / "run", world, built, *options)
    adapters = {name: t for name, t in state.items() if name.startswith("decoder.lm.")}
    assert adapters
    assert all(".lora_" in name for name in adapters)
    assert any(bool(t.any()) for name, t in adapters.items() if ".lora_B." in name)
    assert any(name.startswith("video_branch.") for name in state)


def test_a_run_with_adapters_resumes(world, tmp_path, root):
    decoder = write_decoder(tmp_path / "decoder", "llama")
    options = [f"paths.world={world}", f"model.llama_model={decoder}", "model.lora={r: 4, dropout: 0.1}", *SHORT]
    options += ["run.max_epoch=2", "run.init_lr=0.01"]
    train(STAGE_1, [*options, f"run.output_dir={tmp_path / 'straight'}"])
    resume = f"run.resume_ckpt_path={tmp_path / 'straight/checkpoint_step000002.pth'}"
    train(STAGE_1, [*options, f"run.output_dir={tmp_path / 'resumed'}", resume])
    assert losses(tmp_path / "resumed") == losses(tmp_path / "straight")[2:]
