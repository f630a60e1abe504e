"""Every shipped YAML is usable unchanged, and the full-size ones are the published runs."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import ROOT
from tools.toy_pretrain.imagebind import TOY_IMAGEBIND
from video_llama.config.loader import ConfigError, JobConfig, load_config
from video_llama.config.shipped import CONFIGS as PACKAGED
from video_llama.config.shipped import PACKAGE, shipped_configs
from video_llama.conversation.processors import inference_config
from video_llama.models.encoders.config import ImageBindConfig
from video_llama.runners.config import CosineConfig

CONFIGS = sorted(
    str(p.relative_to(ROOT)) for folder in ("train_configs", "eval_configs") for p in (ROOT / folder).rglob("*.yaml")
)

MODEL = {
    "image_size": 224,
    "use_grad_checkpoint": False,
    "low_resource": False,
    "max_txt_len": 320,
    "end_sym": "###",
    "prompt_template": "###Human: {} ###Assistant: ",
    "prompt_path": str(PACKAGE / "configs/prompts/alignment_image.txt"),
    "model_type": "pretrain_vicuna",
}
RUN = {
    "task": "video_text_pretrain",
    "lr_sched": CosineConfig(),
    "warmup_lr": 1e-6,
    "weight_decay": 0.05,
    "beta2": 0.999,
    "accum_grad_iters": 1,
    "seed": 42,
    "amp": True,
    "evaluate": False,
    "train_splits": ("train",),
    "device": "cuda",
    "world_size": 1,
    "dist_url": "env://",
    "distributed": True,
}
SIGHT = {
    "vit_model": "eva_clip_g",
    "drop_path_rate": 0.0,
    "vit_precision": "fp16",
    "freeze_vit": True,
    "freeze_qformer": True,
    "num_query_token": 32,
    "fusion_header_type": "seqTransf",
    "fusion_head_layers": 2,
    "max_frame_pos": 32,
    "num_video_query_token": 32,
    "frozen_video_Qformer": False,
    "frozen_llama_proj": False,
    "equip_audio_branch": False,
}
HEARING = {
    "vit_ckpt": None,
    "q_former_model": None,
    "frozen_video_Qformer": True,
    "frozen_llama_proj": True,
    "equip_audio_branch": True,
    "frozen_audio_Qformer": False,
    "audio_source": "frames",
    "audio_scale": None,
    "audio_segments": 8,
    "max_audio_pos": 8,
    "num_audio_query_token": 8,
}
STAGES = {
    "stage1_pretrain": {
        **RUN,
        "init_lr": 1e-4,
        "min_lr": 8e-5,
        "warmup_steps": 2500,
        "max_epoch": 5,
        "iters_per_epoch": 2500,
        "batch_size_train": 32,
        "num_workers": 8,
    },
    "stage2_finetune": {
        **RUN,
        "init_lr": 3e-5,
        "min_lr": 1e-5,
        "warmup_steps": 1000,
        "max_epoch": 3,
        "iters_per_epoch": 1000,
        "batch_size_train": 4,
        "num_workers": 4,
    },
}
BRANCHES = {"video_llama": SIGHT, "audiobranch": HEARING}
PUBLISHED = {
    f"train_configs/{branch}_{stage}.yaml": (run, model)
    for branch, model in BRANCHES.items()
    for stage, run in STAGES.items()
}


@pytest.fixture
def load(root: Path) -> Any:
    def loaded(file: str) -> JobConfig:
        return load_config(file, need=None, allow_unset=True)

    return loaded


def test_the_repository_ships_the_published_configurations_and_toy_ones():
    toys = ("stage1_pretrain", "stage2_finetune", "audiobranch_finetune", "both_branches_finetune")
    assert {*PUBLISHED, *(f"train_configs/toy/{name}.yaml" for name in toys)} <= {*CONFIGS}
    chats = ("toy", "video_llama_eval_only_vl", "video_llama_eval_withaudio")
    assert {f"eval_configs/{name}.yaml" for name in chats} <= {*CONFIGS}


def test_the_folders_of_the_repository_and_of_the_package_hold_the_same_files():
    assert {str(path.resolve().relative_to(ROOT)) for path in shipped_configs().values()} == {*CONFIGS}
    assert (PACKAGED / "prompts/alignment_image.txt").samefile(ROOT / "prompts/alignment_image.txt")


def test_a_shipped_configuration_loads_from_any_folder_with_the_files_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("toy").model.llama_model == str(PACKAGE / "toy/weights/decoder")
    prompts = load_config("toy/stage1_pretrain", need=None, allow_unset=True).model.prompt_path
    assert prompts == str(PACKAGE / "configs/prompts/alignment_image.txt")


def test_relative_paths_of_a_user_start_at_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.llama_model: no such directory: other"):
        load_config("toy", ["model.llama_model=other"])
    (tmp_path / "mine").mkdir()
    assert load_config("toy", ["model.llama_model=mine"]).model.llama_model == "mine"


@pytest.mark.parametrize("file", CONFIGS)
def test_check_config_finds_no_problem_in_a_shipped_configuration(file, command):
    code, out, err = command("check-config", file)
    assert (code, err) == (0, "")
    assert out.startswith(f"{file}: ok for {'training' if file.startswith('train') else 'use'}\n")


@pytest.mark.parametrize("file", CONFIGS)
def test_a_shipped_configuration_has_no_path_of_a_particular_machine(file, root):
    text = (root / file).read_text()
    assert not re.search(r"(^|[\s:'\"])(/|~|[A-Za-z]:\\)[\w.-]+/", re.sub(r"#.*", "", text))
    for value in (yaml.safe_load(text).get("paths") or {}).values():
        assert value == "???" or Path(value.replace("${package}", str(PACKAGE))).exists()


@pytest.mark.parametrize("file", CONFIGS)
def test_only_the_paths_block_has_values_to_set(file, load):
    assert all(line.startswith("paths.") for line in load(file).unset)


@pytest.mark.parametrize("file", PUBLISHED)
def test_a_full_size_run_has_the_published_hyper_parameters(file, load):
    job = load(file)
    run, model = vars(job.run), asdict(job.model)
    published, of_branch = PUBLISHED[file]
    assert {key: run[key] for key in published} == published
    assert {key: model[key] for key in MODEL | of_branch} == MODEL | of_branch
    qformer = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    assert model["qformer"] == {**qformer, "cross_attention_frequency": 2, "dropout": 0.1}


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_full_size_runs_draw_from_the_published_data_sets(load, branch):
    stage1, stage2 = (load(f"train_configs/{branch}_{stage}.yaml").datasets for stage in STAGES)
    assert {name: d.sample_ratio for name, d in stage1.items()} == {"webvid": 100, "cc_sbu_align": 50}
    assert stage2.keys() == {"cc_sbu_align", "llava_instruct", "webvid_instruct"}
    for datasets in (stage1, stage2):
        for config in datasets.values():
            assert config.vis_processor.train.image_size == 224
            assert getattr(config.vis_processor.train, "n_frms", 8) == 8


def test_the_audio_branch_is_trained_on_frames_and_used_with_sound(load):
    for stage in STAGES:
        model = load(f"train_configs/audiobranch_{stage}.yaml").model
        assert (model.modalities.video, model.modalities.audio_source) == (False, "frames")
        assert isinstance(model.audio_encoder, ImageBindConfig)
    chat = load("eval_configs/video_llama_eval_withaudio.yaml").model
    assert (chat.modalities.video, chat.modalities.audio_source) == (True, None)
    sizes = ("audio_encoder", "audio_segments", "max_audio_pos", "num_audio_query_token", "audio_scale", "qformer")
    assert [getattr(chat, key) for key in sizes] == [getattr(model, key) for key in sizes]


@pytest.mark.parametrize("stage", STAGES)
def test_the_changes_in_the_comment_of_the_audio_branch_yaml_train_both_branches(root, stage):
    file, both = f"train_configs/audiobranch_{stage}.yaml", ["frozen_video_Qformer=False", "frozen_llama_proj=False"]
    options = [f"model.{option}" for option in both]
    with pytest.raises(ConfigError, match=r"model\.vit_ckpt: (.|\n)*model\.q_former_model: "):
        load_config(file, options, need=None, allow_unset=True)
    files = ["model.vit_ckpt=???", "model.q_former_model=???"]
    together = load_config(file, [*options, *files], need=None, allow_unset=True).model
    alone = load_config(f"train_configs/video_llama_{stage}.yaml", need=None, allow_unset=True).model
    assert together.modalities.video
    assert (alone.vit_precision, together.vit_precision) == (
        "fp16",
        "auto",
    )  # the same for EVA's file, which is in fp16
    same = SIGHT.keys() - {"equip_audio_branch", "vit_precision"}
    assert {key: getattr(together, key) for key in same} == {key: getattr(alone, key) for key in same}


def test_the_chat_configurations_with_and_without_sound_differ_only_in_the_audio_branch(load):
    without, with_sound = (
        asdict(load(f"eval_configs/video_llama_eval_{kind}.yaml").model) for kind in ("only_vl", "withaudio")
    )
    assert {key for key in without if without[key] != with_sound[key]} == {
        "equip_audio_branch",
        "audio_encoder",
        "audio_channels",
        "imagebind_ckpt_path",
        "ckpt_2",
    }


def test_the_toy_runs_and_the_toy_chat_have_the_same_model(load):
    video_keys = (
        "vit_args",
        "image_size",
        "qformer",
        "num_query_token",
        "num_video_query_token",
        "max_frame_pos",
        "llama_model",
    )
    audio_keys = (
        "image_size",
        "qformer",
        "llama_model",
        "audio_encoder",
        "imagebind_ckpt_path",
        "audio_segments",
        "max_audio_pos",
        "num_audio_query_token",
        "audio_scale",
    )
    chat = asdict(load("eval_configs/toy.yaml").model)
    for file in (file for file in CONFIGS if file.startswith("train_configs/toy/")):
        config = load(file).model
        model = asdict(config)
        model["qformer"]["dropout"] = 0.0  # unused at inference
        shared = (video_keys if config.modalities.video else ()) + (audio_keys if config.equip_audio_branch else ())
        assert shared
        assert {key: model[key] for key in shared} == {key: chat[key] for key in shared}
    assert chat["audio_encoder"] == asdict(TOY_IMAGEBIND)


def test_data_set_settings_that_contradict_the_model_are_reported_with_their_lines(monkeypatch):
    monkeypatch.chdir(ROOT)
    asked = ["datasets.webvid.vis_processor.train.n_frms=64", "datasets.cc_sbu_align.num_video_query_token=3"]
    with pytest.raises(ConfigError) as caught:
        load_config("train_configs/toy/stage1_pretrain.yaml", asked, need=None, allow_unset=True)
    text = str(caught.value)
    assert "datasets.webvid.vis_processor.train.n_frms: 64 frames, but model.max_frame_pos is 32" in text
    assert "datasets.cc_sbu_align.num_video_query_token: 3, but the model has 8" in text


def test_a_training_yaml_works_for_chat_without_its_data(monkeypatch):
    monkeypatch.chdir(ROOT)
    branch = "paths.stage1=video_llama/toy/weights/branch.safetensors"
    for world in ("paths.world=no/such/folder", "paths.world=???"):
        job = load_config("train_configs/toy/stage2_finetune.yaml", [branch, world], also=("datasets",))
        video = inference_config(job).video
        assert video.n_frms == 4
    with pytest.raises(ConfigError, match=r"datasets.webvid_instruct.build_info.videos_dir: no such directory"):
        load_config("train_configs/toy/stage2_finetune.yaml", [branch, "paths.world=no/such/folder"], need=None)
