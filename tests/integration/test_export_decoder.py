"""``video-llama export-decoder`` on what ``train.py`` wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.integration.test_decoders import SHORT, STAGE_1
from video_llama.checkpoints.io import read_checkpoint
from video_llama.conversation.chat import Chat


@pytest.fixture
def run(world, tmp_path, train) -> Path:
    """A run of two steps that trains the decoder."""
    options = [f"paths.world={world}", f"run.output_dir={tmp_path / 'run'}", "model.llama_precision=auto"]
    assert train(STAGE_1, *options, "model.frozen_llama=false", "run.init_lr=0.01", *SHORT).code == 0
    return tmp_path / "run"


def test_an_exported_decoder_loads_anywhere_and_answers_with_its_branch(run, world, tmp_path, command):
    checkpoint, output = run / "checkpoint_step000002.pth", tmp_path / "exported"
    words = ["export-decoder", "--cfg-path", run / "config.yaml", "--checkpoint", checkpoint, "--output", output]
    code, out, err = command(*words)
    assert code == 0, err
    trained = read_checkpoint(checkpoint)["model"]
    exported = dict(AutoModelForCausalLM.from_pretrained(output).named_parameters())
    assert all(torch.equal(p, trained[f"decoder.lm.{name}"]) for name, p in exported.items())
    chat = Chat.from_config(run / "config.yaml", out.splitlines()[1].split(), "cpu")
    chat.upload(video=sorted((world / "heldout/videos").glob("*.mp4"))[0])
    assert isinstance(chat.ask("What is it?", max_new_tokens=2), str)

    code, out, err = command(*words)
    assert (code, out) == (1, "")
    assert f"{output}: is not empty, and nothing is overwritten" in err
    code, _, err = command(*words[:-1], tmp_path / "other", "--options", "model.frozen_llama=true")
    assert code == 1
    assert "model.frozen_llama: true: this run does not train its decoder" in err
    code, _, err = command("chat", "--cfg-path", run / "config.yaml", "--options", f"model.ckpt={checkpoint}")
    assert code == 1
    assert "Take both out with video-llama export-decoder" in err
    assert "Traceback" not in err
