"""A resumed run whose settings changed: what alters training is listed with both values, and refused unless allowed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from video_llama.checkpoints.io import write_checkpoint
from video_llama.common.errors import TrainingError
from video_llama.config.loader import JobConfig
from video_llama.datasets.config import CCSBUAlignConfig, FilesConfig, ProcessorsConfig, WebVidConfig
from video_llama.models.config import QFormerConfig, VideoLLaMAConfig
from video_llama.processors.config import ImageTrainConfig, VideoTrainConfig
from video_llama.runners.callback_configs import BestConfig
from video_llama.runners.changes import changed_settings, check_changes
from video_llama.runners.config import ConstantConfig, RunConfig, StepDecayConfig

IMAGES = CCSBUAlignConfig(vis_processor=ProcessorsConfig(train=ImageTrainConfig()))
CLIPS = WebVidConfig(
    vis_processor=ProcessorsConfig(train=VideoTrainConfig()), build_info=FilesConfig(anno_dir="a", videos_dir="v")
)
JOB = JobConfig(
    model=VideoLLaMAConfig(llama_model="llm"),
    datasets={"webvid": CLIPS, "cc_sbu_align": IMAGES},
    run=RunConfig(init_lr=1e-4, max_epoch=2, batch_size_train=4, output_dir="out"),
)


def with_run(**settings: Any) -> JobConfig:
    return replace(JOB, run=replace(JOB.run, **settings))


def with_model(**settings: Any) -> JobConfig:
    return replace(JOB, model=replace(JOB.model, **settings))


def with_clips(**settings: Any) -> JobConfig:
    return replace(JOB, datasets={**JOB.datasets, "webvid": replace(CLIPS, **settings)})


def changes(now: JobConfig, before: JobConfig = JOB) -> list[str]:
    return list(changed_settings(before.to_yaml(), now))


@pytest.mark.parametrize(
    ("now", "change"),
    [
        (with_run(init_lr=2e-5), "run.init_lr: 0.0001 in the checkpoint, 2e-05 now"),
        (with_run(min_lr=1e-5), "run.min_lr: 0.0 in the checkpoint, 1e-05 now"),
        (with_run(weight_decay=0.1), "run.weight_decay: 0.05 in the checkpoint, 0.1 now"),
        (with_run(warmup_steps=3), "run.warmup_steps: 0 in the checkpoint, 3 now"),
        (with_run(beta2=0.9), "run.beta2: 0.999 in the checkpoint, 0.9 now"),
        (with_run(max_grad_norm=1.0), "run.max_grad_norm: 0.0 in the checkpoint, 1.0 now"),
        (with_run(amp=False), "run.amp: true in the checkpoint, false now"),
        (with_run(max_epoch=3), "run.max_epoch: 2 in the checkpoint, 3 now"),
        (with_run(seed=7), "run.seed: 42 in the checkpoint, 7 now"),
        (with_run(iters_per_epoch=5), "run.iters_per_epoch: null in the checkpoint, 5 now"),
        (with_run(accum_grad_iters=2), "run.accum_grad_iters: 1 in the checkpoint, 2 now"),
        (
            with_run(lr_sched=ConstantConfig()),
            'run.lr_sched.name: "linear_warmup_cosine_lr" in the checkpoint, "constant_lr" now',
        ),
        (with_model(qformer=QFormerConfig(dropout=0.0)), "model.qformer.dropout: 0.1 in the checkpoint, 0.0 now"),
        (with_model(label_mask="original"), 'model.label_mask: "answers" in the checkpoint, "original" now'),
        (with_model(vit_args={"depth": 2}), "model.vit_args.depth: absent in the checkpoint, 2 now"),
        (with_clips(sample_ratio=2.0), "datasets.webvid.sample_ratio: 1.0 in the checkpoint, 2.0 now"),
        (
            with_clips(vis_processor=ProcessorsConfig(train=VideoTrainConfig(n_frms=4))),
            "datasets.webvid.vis_processor.train.n_frms: 8 in the checkpoint, 4 now",
        ),
        (
            replace(JOB, datasets={"cc_sbu_align": IMAGES, "webvid": CLIPS}),
            "datasets: in the order webvid, cc_sbu_align in the checkpoint, cc_sbu_align, webvid now",
        ),
    ],
)
def test_a_setting_that_alters_training_is_listed_with_both_values(now: JobConfig, change: str) -> None:
    assert changes(now) == [change]


@pytest.mark.parametrize(
    "now",
    [
        JOB,
        with_run(output_dir="elsewhere"),
        with_run(resume_ckpt_path="out/checkpoint_step000003.pth"),
        with_run(num_workers=0),
        with_run(device="cpu"),
        with_run(world_size=2),
        with_run(max_bad_fraction=0.5),
        with_run(batch_size_eval=3),
        with_model(llama_model="moved/llm", vit_ckpt="eva.pth", ckpt="stage1.pth", prompt_path="p.txt"),
        with_model(use_grad_checkpoint=True),
        with_clips(build_info=FilesConfig(anno_dir="b", videos_dir="w")),
        with_clips(model_type="vicuna", tokenizer_name="moved/llm"),
        with_clips(vis_processor=ProcessorsConfig(train=VideoTrainConfig(deadline_s=5.0))),
        replace(JOB, inference=None),
        replace(JOB, datasets={**JOB.datasets, "val": replace(CLIPS, split="val")}),
        with_run(valid_splits=("val",), eval_every=3, best=BestConfig(metric="val/loss")),
    ],
)
def test_paths_and_settings_of_how_a_run_goes_are_not_listed(now: JobConfig) -> None:
    assert changes(now) == []


def test_every_change_is_listed() -> None:
    now = replace(with_run(init_lr=1.0, weight_decay=0.0), model=replace(JOB.model, num_query_token=16))
    assert [line.split(":")[0] for line in changes(now)] == ["model.num_query_token", "run.init_lr", "run.weight_decay"]


def test_a_data_set_that_comes_or_goes_is_listed() -> None:
    fewer = replace(JOB, datasets={"webvid": CLIPS})
    (gone,), (new,) = changes(fewer), changes(JOB, before=fewer)
    assert gone.startswith("datasets.cc_sbu_align: {")
    assert gone.endswith("} in the checkpoint, absent now")
    assert new.startswith("datasets.cc_sbu_align: absent in the checkpoint, {")


def test_the_settings_of_a_schedule_are_listed() -> None:
    before, now = (with_run(lr_sched=StepDecayConfig(lr_decay_rate=rate)) for rate in (0.5, 0.9))
    assert changes(now, before) == ["run.lr_sched.lr_decay_rate: 0.5 in the checkpoint, 0.9 now"]


def test_a_setting_that_an_older_version_did_not_have_counts_only_if_it_was_set() -> None:
    old = yaml.safe_load(JOB.to_yaml())
    del old["run"]["beta2"]
    assert list(changed_settings(yaml.safe_dump(old, sort_keys=False), JOB)) == []
    assert list(changed_settings(yaml.safe_dump(old, sort_keys=False), with_run(beta2=0.9))) == [
        "run.beta2: absent in the checkpoint, 0.9 now"
    ]


def test_changes_are_refused_unless_they_are_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "checkpoint_step000003.pth"
    write_checkpoint(path, {"model": {}, "config": JOB.to_yaml()})
    now = with_run(init_lr=1.0, weight_decay=0.0)
    check_changes(path, JOB, allowed=False)
    with pytest.raises(TrainingError) as caught:
        check_changes(path, now, allowed=False)
    assert str(caught.value).splitlines() == [
        f"resuming {path}: its run was another one:",
        "  run.init_lr: 0.0001 in the checkpoint, 1.0 now",
        "  run.weight_decay: 0.05 in the checkpoint, 0.0 now",
        "Restore this, or resume with what is new: --allow-changed",
    ]
    with caplog.at_level(logging.INFO):
        check_changes(path, now, allowed=True)
    assert "run.init_lr: 0.0001 in the checkpoint, 1.0 now" in caplog.text
