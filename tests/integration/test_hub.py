"""Commands whose YAML names things on the hub, against a small hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import video_llama.toy
from tests.hub_server import Hub, folder_files, hub_serving, use
from tests.integration.conftest import ROOT, Result
from video_llama.checkpoints.io import read_checkpoint

WEIGHTS = Path(video_llama.toy.__file__).parent / "weights"
DECODER = "org/toy-decoder"
STAGE_1 = "toy/stage1_pretrain"
ONE_STEP = ["run.iters_per_epoch=1", "run.batch_size_train=2", "run.warmup_steps=0", "run.num_workers=0"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the toy decoder."""
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path / "home"))
    with hub_serving(Hub()) as running:
        running.push(DECODER, folder_files(WEIGHTS / "decoder"))
        use(running, tmp_path / "hub", monkeypatch)
        yield running


@pytest.fixture
def stage_1(command: Callable[..., Result], world: Path, tmp_path: Path) -> Callable[..., Result]:
    """One step of stage 1 for each epoch, with the decoder of the hub."""

    def run(name: str, *options: str, decoder: str = DECODER) -> Result:
        settings = [f"paths.world={world}", f"model.llama_model={decoder}", f"run.output_dir={tmp_path / name}"]
        return command("train", "--cfg-path", STAGE_1, "--options", *settings, *ONE_STEP, *options)

    return run


def decoder_of(run: Path) -> str:
    return str(yaml.safe_load((run / "config.yaml").read_text())["model"]["llama_model"])


def test_a_run_records_the_commit_of_its_decoder_and_goes_on_with_it(hub, stage_1, tmp_path):
    old = hub.branches[DECODER, "main"]
    assert stage_1("a", "run.max_epoch=1").code == 0
    assert decoder_of(tmp_path / "a") == f"{DECODER}@{old}"
    saved = yaml.safe_load(read_checkpoint(tmp_path / "a" / "checkpoint_step000001.pth")["config"])
    assert saved["model"]["llama_model"] == f"{DECODER}@{old}"

    new = hub.push(DECODER, {**folder_files(WEIGHTS / "decoder"), "README.md": b"a newer version"})
    resume = f"run.resume_ckpt_path={tmp_path / 'a' / 'checkpoint_step000001.pth'}"
    moved = stage_1("b", "run.max_epoch=2", resume, decoder=f"{DECODER}@main")
    assert moved.code == 1
    assert f'model.llama_model: "{DECODER}@{old}" in the checkpoint, "{DECODER}@{new}" now' in moved.err
    went_on = stage_1("c", "run.max_epoch=2", resume)
    assert "run.max_epoch: 1 in the checkpoint, 2 now" in went_on.err
    assert DECODER not in went_on.err
    assert "HTTP Request" not in went_on.err
    assert decoder_of(tmp_path / "a") == f"{DECODER}@{old}"
    assert stage_1("d", "run.max_epoch=1").code == 0
    assert decoder_of(tmp_path / "d") == f"{DECODER}@{new}"


def test_chat_answers_with_a_decoder_and_a_branch_of_the_hub_as_with_files(hub, command, world):
    clip = next((world / "heldout" / "videos").glob("*.mp4"))
    ask = ["chat", "--cfg-path", "toy", "--video", clip, "--question", "What shape is it?"]
    hub.push("org/branches", {"toy/branch.safetensors": (WEIGHTS / "branch.safetensors").read_bytes()})
    names = [f"model.llama_model={DECODER}", "model.ckpt=hf://org/branches/toy/branch.safetensors"]
    from_hub = command(*ask, "--options", *names)
    assert from_hub.code == 0, from_hub.err
    assert from_hub.out == command(*ask).out


def test_infer_keeps_its_answers_until_the_decoder_on_the_hub_changes(hub, command, world, tmp_path):
    clip = next((world / "heldout" / "videos").glob("*.mp4"))
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions.write_text(json.dumps({"id": 1, "video": str(clip), "question": "What shape is it?"}))
    words = ["infer", "--cfg-path", "toy", "--options", f"model.llama_model={DECODER}"]
    words += ["--input", questions, "--output", answers]
    assert command(*words).code == 0
    first = answers.read_text()
    assert json.loads(first)["answer"]
    assert command(*words).code == 0
    hub.push(DECODER, {**folder_files(WEIGHTS / "decoder"), "README.md": b"a newer version"})
    again = command(*words)
    assert again.code == 1
    assert "holds something else already, such as answers to other questions, of another model" in again.err
    assert answers.read_text() == first


def test_check_config_downloads_nothing_and_says_what_a_run_would(hub, command, world, stage_1):
    check = ["check-config", ROOT / "train_configs" / f"{STAGE_1}.yaml", "--options", f"paths.world={world}"]
    check += [f"model.llama_model={DECODER}"]
    before = command(*check)
    assert before.code == 0
    assert f"to be downloaded from the hub: {DECODER} (model.llama_model)" in before.out
    assert hub.requests == []
    assert stage_1("a", "run.max_epoch=1").code == 0
    hub.requests.clear()
    assert "to be downloaded" not in command(*check).out
    assert hub.requests == []


def test_offline_and_not_cached_is_one_line_that_says_so(hub, command, tmp_path, monkeypatch):
    use(hub, tmp_path / "hub", monkeypatch, offline=True)
    result = command(
        "chat", "--cfg-path", "toy", "--options", f"model.llama_model={DECODER}", "--question", "What?", "--video", "x"
    )
    (line,) = result.err.strip().splitlines()
    assert f"model.llama_model: {DECODER} is not in the hub's cache" in line
    assert "HF_HUB_OFFLINE is set" in line


def test_a_yaml_that_leaves_full_size_encoders_out_needs_them_downloaded_and_names_the_command(hub, command, tmp_path):
    yaml_file = ROOT / "train_configs" / "video_llama_stage1_pretrain.yaml"
    check = ["check-config", yaml_file, "--options", "model.vit_ckpt=null", "model.q_former_model=blip2_qformer"]
    missing = command(*check)
    assert missing.code == 1
    assert "model.q_former_model: blip2_qformer is not downloaded yet" in missing.err
    assert "video-llama download blip2_qformer" in missing.err
    (tmp_path / "home" / "weights").mkdir(parents=True)
    (tmp_path / "home" / "weights" / "blip2_pretrained_flant5xxl.pth").touch()
    missing = command(*check)
    assert missing.code == 1
    assert "model.vit_ckpt=null  model.vit_ckpt: left out, so eva_clip_g is used." in missing.err
    assert "video-llama download eva_clip_g" in missing.err
    (tmp_path / "home" / "weights" / "eva_vit_g.pth").touch()
    assert command(*check).code == 0


def test_an_unknown_name_is_refused_before_anything_is_downloaded(hub, command):
    result = command("download", "video_llama/finetune-vicuna7b-v2", "eva_clip")
    assert result.code == 1
    assert (
        result.err == "error: eva_clip: no known weights. Did you mean eva_clip_g? To list them: video-llama download\n"
    )
    assert hub.requests == []


def test_without_names_the_known_weights_are_listed(command):
    lines = command("download").out.splitlines()
    assert any(line.startswith("imagebind_huge ") and "non-commercial" in line for line in lines)


@pytest.mark.slow
def test_of_the_processes_of_a_machine_one_downloads(hub, world, tmp_path):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py"]
    words += ["--cfg-path", STAGE_1, "--options", f"paths.world={world}", f"model.llama_model={DECODER}"]
    words += [*ONE_STEP, "run.max_epoch=1", f"run.output_dir={tmp_path / 'run'}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **hub.env(tmp_path / "hub")}
    result = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert hub.downloads("model.safetensors") == 1
    assert decoder_of(tmp_path / "run").startswith(f"{DECODER}@")
