"""``train.py`` on the toy world: the same numbers however the work is split, and errors a person can read."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml

from tests.integration.conftest import ROOT, losses, torchrun
from video_llama.checkpoints.io import read_checkpoint
from video_llama.cli.train import train as run_training
from video_llama.planning import batch_search

STAGE_1 = "train_configs/toy/stage1_pretrain.yaml"
STAGE_2 = "train_configs/toy/stage2_finetune.yaml"
TWENTY = ["run.max_epoch=1", "run.iters_per_epoch=20", "run.warmup_steps=5"]
SHORT = ["run.max_epoch=1", "run.iters_per_epoch=2", "run.warmup_steps=0", "run.batch_size_train=2"]


@pytest.fixture(scope="module")
def one_process(world, tmp_path_factory):
    """The first 20 losses of stage 1 at 8 samples a step, all in one batch."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run_training(STAGE_1, [f"paths.world={world}", f"run.output_dir={folder}", "run.batch_size_train=8", *TWENTY])
    return losses(folder)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(world, tmp_path, one_process):
    torchrun(2, STAGE_1, f"paths.world={world}", f"run.output_dir={tmp_path}", "run.batch_size_train=4", *TWENTY)
    assert losses(tmp_path) == pytest.approx(one_process, rel=1e-4)
    assert len(one_process) == 20
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint_step000020.pth", "config.yaml", "curves.png", "metrics.jsonl", "report.md", "run.json",
    ]  # fmt: skip
    assert json.loads((tmp_path / "run.json").read_text())["sessions"][0]["processes"] == 2
    assert "**done** at step 20 of 20" in (tmp_path / "report.md").read_text()


def test_four_accumulated_batches_have_the_losses_of_one(world, tmp_path, one_process, train):
    split = ["run.batch_size_train=2", "run.accum_grad_iters=4"]
    assert train(STAGE_1, f"paths.world={world}", f"run.output_dir={tmp_path}", *split, *TWENTY).code == 0
    assert losses(tmp_path) == pytest.approx(one_process, rel=1e-4)


def test_a_batch_size_that_is_found_has_the_losses_of_one_that_is_set(
    world, tmp_path, one_process, train, monkeypatch, caplog
):
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(batch_search, "largest", lambda sizes, fits, world: max(n for n in sizes if n < 4 and fits(n)))
    found = ["run.batch_size_train=auto", "run.global_batch_size=8"]
    done = train(STAGE_1, f"paths.world={world}", f"run.output_dir={tmp_path / 'run'}", *found, *TWENTY)
    assert done.code == 0, done.err
    assert "batch_size_train: auto: 2, with accum_grad_iters: 4 (found now;" in caplog.text
    assert losses(tmp_path / "run") == pytest.approx(one_process, rel=1e-4)


def test_stage_2_starts_from_the_branch_of_stage_1_and_resumes_bit_for_bit(world, tmp_path, train):
    """Two epochs are one epoch and, resumed from its checkpoint, a second, bit for bit."""
    assert train(STAGE_1, f"paths.world={world}", f"run.output_dir={tmp_path / '1'}", *SHORT).code == 0
    stage2 = [
        f"paths.world={world}",
        f"paths.stage1={tmp_path / '1/checkpoint_step000002.pth'}",
        *SHORT,
        "run.max_epoch=2",
    ]
    stage2 += ["model.qformer.dropout=0.1"]
    assert train(STAGE_2, *stage2, f"run.output_dir={tmp_path / 'straight'}").code == 0
    resume = f"run.resume_ckpt_path={tmp_path / 'straight/checkpoint_step000002.pth'}"
    assert train(STAGE_2, *stage2, f"run.output_dir={tmp_path / 'resumed'}", resume).code == 0
    assert losses(tmp_path / "resumed") == losses(tmp_path / "straight")[2:]
    straight, resumed = (
        read_checkpoint(tmp_path / n / "checkpoint_step000004.pth")["model"] for n in ("straight", "resumed")
    )
    assert all(torch.equal(t, resumed[name]) for name, t in straight.items())


def test_a_run_resumed_with_changed_settings_needs_a_flag_and_lists_them(world, tmp_path, train, command, caplog):
    run = [f"paths.world={world}", *SHORT, "run.max_epoch=2"]
    assert train(STAGE_1, *run, f"run.output_dir={tmp_path / 'straight'}").code == 0
    checkpoint = tmp_path / "straight/checkpoint_step000002.pth"
    changed = ["run.init_lr=2e-3", "run.lr_sched=constant_lr", "run.min_lr=0", "run.weight_decay=0.1"]
    words = ["train", "--cfg-path", STAGE_1, "--options", *run, f"run.output_dir={tmp_path / 'resumed'}"]
    words += [f"run.resume_ckpt_path={checkpoint}", *changed]
    code, _, err = command(*words)
    assert code == 1
    lines = err.splitlines()
    assert f"error: resuming {checkpoint}: its run was another one:" in lines
    assert "  run.init_lr: 0.001 in the checkpoint, 0.002 now" in lines
    assert "  run.weight_decay: 0.05 in the checkpoint, 0.1 now" in lines
    assert [line.split(":")[0] for line in lines if "in the checkpoint" in line] == [
        "  run.lr_sched.name",
        "  run.init_lr",
        "  run.min_lr",
        "  run.weight_decay",
    ]
    assert not (tmp_path / "resumed/metrics.jsonl").exists()
    code, _, err = command(*words, "--allow-changed")
    assert code == 0, err
    assert "  run.init_lr: 0.001 in the checkpoint, 0.002 now" in caplog.text.splitlines()
    assert len(losses(tmp_path / "resumed")) == 2


def test_settings_without_effect_are_reported_before_the_run_and_by_check_config(
    world, tmp_path, train, command, caplog
):
    run = [f"paths.world={world}", "run.max_epoch=1", "run.batch_size_train=32", "run.iters_per_epoch=null"]
    run += ["run.warmup_steps=1000"]
    warning = "option --options run.warmup_steps=1000  run.warmup_steps: 1000, but the run has "
    code, out, err = command("check-config", STAGE_1, "--options", *run)
    assert (code, err) == (0, "")
    assert f"  warning: {warning}" in out
    code, _, err = train(STAGE_1, *run, f"run.output_dir={tmp_path / 'run'}")
    assert code == 0, err
    assert f"warning: {warning}" in caplog.text


def test_the_config_that_a_run_saved_starts_the_same_run(world, tmp_path, train):
    assert train(STAGE_1, f"paths.world={world}", f"run.output_dir={tmp_path / 'a'}", *SHORT).code == 0
    assert train(tmp_path / "a" / "config.yaml", f"run.output_dir={tmp_path / 'b'}").code == 0
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_the_config_and_the_checkpoint_of_a_run_are_enough_to_chat(world, tmp_path, train, command):
    assert train(STAGE_1, f"paths.world={world}", f"run.output_dir={tmp_path / 'run'}", *SHORT).code == 0
    clip = sorted((world / "heldout/videos").glob("*.mp4"))[0]
    words = ["chat", "--cfg-path", tmp_path / "run/config.yaml", "--video", clip, "--question", "What is it?", "--json"]
    code, out, err = command(*words, "--options", f"model.ckpt={tmp_path / 'run/checkpoint_step000002.pth'}")
    assert code == 0, err
    assert len(json.loads(out)["frame_times"]) == 4


def test_a_clip_that_cannot_be_read_is_replaced_and_listed(world, tmp_path, train):
    mine = shutil.copytree(world, tmp_path / "world")
    for clip in sorted((mine / "webvid/videos").rglob("*.mp4"))[:20]:
        clip.write_bytes(clip.read_bytes()[:500])
    run = [f"paths.world={mine}", f"run.output_dir={tmp_path / 'run'}", *SHORT, "run.batch_size_train=8"]
    assert train(STAGE_1, *run).code == 0
    bad = [json.loads(line) for line in (tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()]
    assert bad
    for line in bad:
        assert line["id"].startswith("webvid/")
        assert line["path"].startswith(str(mine / "webvid/videos"))


# Errors


def test_every_mistake_in_a_yaml_is_reported_at_once_with_its_line(world, tmp_path, train, root):
    config = yaml.safe_load((root / STAGE_1).read_text())
    config["paths"]["world"] = str(world)
    config["model"]["arch"] = "video_lama"
    config["run"]["max_epcoh"] = config["run"].pop("max_epoch")
    config["run"]["batch_size_train"] = "many"
    config["datasets"]["webvid"]["vis_processor"]["train"]["name"] = "alpro_vido_eval"
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    lines = {text.split(":")[0].strip(): n for n, text in enumerate(file.read_text().splitlines(), start=1)}

    code, out, err = train(file, f"run.output_dir={tmp_path / 'run'}")
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    for key, says in {
        "arch": "model.arch: 'video_lama' is not a registered model. Known: video_llama. Did you mean video_llama?",
        "max_epcoh": "run.max_epcoh: unknown key. Did you mean run.max_epoch?",
        "batch_size_train": "run.batch_size_train: expected",
    }.items():
        assert any(
            line.removeprefix("error: ").startswith(f"{file}:{lines[key]} ") and says in line
            for line in err.splitlines()
        ), err
    assert "Did you mean alpro_video_eval?" in err
    assert not (tmp_path / "run").exists()


def test_a_missing_file_is_named_with_its_key(world, tmp_path, train):
    run = [f"paths.world={world}", f"run.output_dir={tmp_path / 'run'}"]
    code, _, err = train(STAGE_1, *run, "model.vit_ckpt=/none/eva.pth")
    assert code == 1
    assert "model.vit_ckpt: no such file: /none/eva.pth" in err
    code, _, err = train(STAGE_1, "paths.world=/none", f"run.output_dir={tmp_path / 'run'}")
    assert code == 1
    assert "datasets.webvid.build_info.anno_dir" in err
    assert "/none/webvid/filter_annotation" in err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("run.device=cuda", "run.device: cuda, but torch sees no GPU"),
        ("run.world_size=2", "run.world_size: 2, but torchrun started 1"),
        ("datasets.webvid.vis_processor.train.n_frms=33", "n_frms: 33 frames, but model.max_frame_pos is 32"),
        ("datasets.cc_sbu_align.vis_processor.train.image_size=32", "image_size: 32, but model.image_size is 64"),
        ("model.vit_model=timm/vit_tinny", "timm has no model named 'vit_tinny'"),
        ("model.num_query_token=4", "qformer.safetensors does not fit"),
        ("model.frozen_llama_proj=true", None),
    ],
)
def test_a_setting_that_cannot_work_is_explained_in_one_line(world, tmp_path, train, monkeypatch, option, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = [f"paths.world={world}", f"run.output_dir={tmp_path / 'run'}", *SHORT]
    if message is None:
        branch = "model.ckpt=${paths.weights}/branch.safetensors"
        option, message = [option, "model.frozen_video_Qformer=true", branch], "nothing to train"
    code, _, err = train(STAGE_1, *run, *([option] if isinstance(option, str) else option))
    assert code == 1
    assert message in err
    assert "Traceback" not in err


def test_training_does_not_overwrite_a_folder_that_holds_a_run(world, tmp_path, train):
    run = [f"paths.world={world}", f"run.output_dir={tmp_path}", *SHORT]
    assert train(STAGE_1, *run).code == 0
    before = losses(tmp_path)
    code, _, err = train(STAGE_1, *run)
    assert code == 1
    assert err.splitlines()[-1].startswith(f"error: run.output_dir: {tmp_path} already holds a run.")
    assert losses(tmp_path) == before
