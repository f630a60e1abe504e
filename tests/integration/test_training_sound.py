"""``train.py`` with an audio branch on the toy world, and chat with the trained model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.integration.conftest import losses
from video_llama.checkpoints.io import read_checkpoint, write_weights
from video_llama.models.encoders.imagebind import ImageBind

STAGE_1, STAGE_2 = "train_configs/toy/stage1_pretrain.yaml", "train_configs/toy/stage2_finetune.yaml"
SHORT = ["run.max_epoch=1", "run.iters_per_epoch=2", "run.warmup_steps=0", "run.batch_size_train=4"]
TRUNK = "{embed_dim: 16, depth: 2, num_heads: 2}"
ALONE = ["model.frozen_video_Qformer=true", "model.frozen_llama_proj=true"]
WITHOUT_FRAME_ENCODER = ["model.vit_ckpt=null", "model.q_former_model=null"]


@pytest.fixture(scope="module")
def audio_options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that give a toy YAML a tiny random ImageBind and an audio branch."""
    path = tmp_path_factory.mktemp("imagebind") / "imagebind.safetensors"
    write_weights(path, {f"audio_encoder.{n}": t for n, t in ImageBind(tiny.IMAGEBIND).state_dict().items()})
    encoder = (
        f"{{name: imagebind_huge, audio: {TRUNK}, vision: {TRUNK}, image_size: 32, patch_size: 16, out_embed_dim: 12}}"
    )
    return [
        "model.equip_audio_branch=true",
        f"model.audio_encoder={encoder}",
        f"model.imagebind_ckpt_path={path}",
        "model.audio_segments=2",
        "model.num_audio_query_token=2",
        "model.frozen_audio_Qformer=false",
    ]


def parts(checkpoint: Path) -> set[str]:
    return {name.split(".")[0] for name in read_checkpoint(checkpoint)["model"]}


def test_both_branches_train_resume_and_chat(world, tmp_path, audio_options, train, command):
    common = [f"paths.world={world}", *audio_options, "model.audio_source=both", *SHORT]
    result = train(STAGE_1, *common, f"run.output_dir={tmp_path / '1'}")
    assert result.code == 0, result.err
    stage1 = tmp_path / "1/checkpoint_step000002.pth"
    assert parts(stage1) == {"video_branch", "audio_branch"}
    stage2 = [*common, f"paths.stage1={stage1}", "run.max_epoch=2"]
    assert train(STAGE_2, *stage2, f"run.output_dir={tmp_path / 'straight'}").code == 0
    before, after = (read_checkpoint(p)["model"] for p in (stage1, tmp_path / "straight/checkpoint_step000004.pth"))
    assert {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])} == parts(stage1)
    resume = f"run.resume_ckpt_path={tmp_path / 'straight/checkpoint_step000002.pth'}"
    assert train(tmp_path / "straight/config.yaml", resume, f"run.output_dir={tmp_path / 'resumed'}").code == 0
    assert losses(tmp_path / "resumed") == losses(tmp_path / "straight")[2:]
    clip = sorted((world / "heldout/videos").glob("*.mp4"))[0]
    words = ["--video", clip, "--question", "What is it?", "--max-new-tokens", 2, "--json"]
    trained = f"model.ckpt={tmp_path / 'straight/checkpoint_step000004.pth'}"
    code, out, err = command("chat", "--cfg-path", tmp_path / "straight/config.yaml", *words, "--options", trained)
    assert code == 0, err
    assert json.loads(out)["sound"] == "used"


@pytest.mark.parametrize("source", ["frames", "sound"])
def test_the_audio_branch_alone_trains_without_the_weights_of_the_frame_encoder(
    world, tmp_path, audio_options, train, source
):
    data = ["datasets.cc_sbu_align.sample_ratio=0"] if source == "sound" else []  # its images have no sound
    options = [
        f"paths.world={world}",
        *audio_options,
        *ALONE,
        *WITHOUT_FRAME_ENCODER,
        f"model.audio_source={source}",
        *SHORT,
        *data,
    ]
    result = train(STAGE_1, *options, f"run.output_dir={tmp_path}")
    assert result.code == 0, result.err
    assert parts(tmp_path / "checkpoint_step000002.pth") == {"audio_branch"}
    assert all(loss > 0 for loss in losses(tmp_path))
    assert not (tmp_path / "bad_samples.jsonl").exists()
