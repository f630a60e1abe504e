"""Classes from a package outside, named under ``imports:``, train and answer questions."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from tests.integration.conftest import losses
from video_llama.checkpoints.io import read_checkpoint
from video_llama.common.registry import CALLBACKS, DATASETS, LR_SCHEDULERS, MODELS, PROCESSORS
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene

CODE = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from torch import nn

from video_llama.config.fields import ExistingPath
from video_llama.common.types import Media
from video_llama.common.registry import CALLBACKS, DATASETS, LR_SCHEDULERS, MODELS, PROCESSORS
from video_llama.datasets.base import Dataset
from video_llama.datasets.instruct import InstructDataset
from video_llama.datasets.config import DatasetConfig
from video_llama.models.video_llama import VideoLLaMA, VideoLLaMAConfig
from video_llama.processors.video import AlproVideoEval
from video_llama.processors.config import VideoConfig
from video_llama.prompts.rendering import caption
from video_llama.runners.callback import Callback
from video_llama.runners.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class ScaledConfig(VideoLLaMAConfig):
    scale: Annotated[float, Ge(0)] = 1.0
    """What the branch's output is multiplied by at first."""


@MODELS.register("scaled_video_llama")
class ScaledVideoLLaMA(VideoLLaMA):
    Config = ScaledConfig

    def __init__(self, config):
        super().__init__(config)
        self.video_branch.to_decoder = nn.Sequential(self.video_branch.to_decoder, Scale(config.scale))


class Scale(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(nn.init.constant_(nn.Linear(1, 1).bias.data, scale))

    def forward(self, x):
        return x * self.scale


@dataclass(frozen=True, kw_only=True)
class Files:
    anno_dir: Annotated[str, ExistingPath(kind="file")]


@dataclass(frozen=True, kw_only=True)
class LinesConfig(DatasetConfig):
    build_info: Files | None = None


@DATASETS.register("lines")
class Lines(Dataset):
    """One "clip.mp4: what it shows" a line."""

    Config = LinesConfig

    def read_records(self):
        return [line.split(": ") for line in Path(self.source).read_text().splitlines()]

    def record_id(self, index):
        return self.records[index][0]

    def sample(self, index, rng):
        clip, text = self.records[index]
        media = self.vis_processor(Path(self.source).parent / clip, rng)
        return self.tokenized(index, caption(self.context.caption_prompts[0], text, self.context.template.end_sym, media), [media])


@DATASETS.register("riddles")
class Riddles(InstructDataset):
    """Text alone."""

    Config = LinesConfig

    def sample(self, index, rng):
        return self.instruct(index, [(self.records[index]["riddle"], self.records[index]["solution"])], [])


@PROCESSORS.register("backwards")
class Backwards(AlproVideoEval):
    """A clip from its end to its beginning."""

    Config = VideoConfig

    def __call__(self, path, rng):
        media = super().__call__(path, rng)
        return Media("video", media.frames.flip(1), media.message, media.times)


@dataclass(frozen=True, kw_only=True)
class HalvingConfig:
    every: Annotated[int, Ge(1)] = 10
    """Steps between two halvings."""


@LR_SCHEDULERS.register("halving_lr")
class Halving(Schedule):
    Config = HalvingConfig

    def after_warmup(self, step):
        return self.context.init_lr * 0.5 ** (step // self.config.every)


@dataclass(frozen=True, kw_only=True)
class LossLimitConfig:
    limit: Annotated[float, Ge(0)]
    """The run stops above this loss."""


@CALLBACKS.register("loss_limit")
class LossLimit(Callback):
    """Notes the largest loss so far, and stops a run that goes astray."""

    Config = LossLimitConfig
    largest = 0.0

    def after_step(self, run, metrics):
        self.largest = max(self.largest, metrics.loss)
        if metrics.loss > self.config.limit:
            raise ValueError(f"a loss of {metrics.loss:.1f}")

    def state_dict(self):
        return {"largest": self.largest}

    def load_state_dict(self, state):
        self.largest = state["largest"]
'''

YAML = """
imports: [my_package.everything]
model:
  arch: scaled_video_llama
  scale: 2.0
  llama_model: {decoder}
  llama_precision: fp32
  vit_args: {{embed_dim: 16, depth: 2, num_heads: 2, patch_size: 16, mlp_ratio: 2.0}}
  vit_precision: fp32
  freeze_vit: false
  freeze_qformer: false
  image_size: 32
  qformer: {{hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32}}
  num_video_query_token: 3
datasets:
  lines:
    build_info: {{anno_dir: {folder}/lines.txt}}
    vis_processor: {{train: {{name: backwards, n_frms: 4, image_size: 32}}}}
  riddles:
    build_info: {{anno_dir: {folder}/riddles.json}}
    vis_processor: {{train: {{name: backwards, n_frms: 4, image_size: 32}}}}
run:
  init_lr: 1e-3
  max_epoch: 1
  iters_per_epoch: 2
  batch_size_train: 2
  num_workers: 0
  amp: false
  device: cpu
  output_dir: {folder}/run
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder: a package, a YAML, a clip and its annotation, some riddles."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "everything.py").write_text(CODE)
    (tmp_path / "lines.txt").write_text("clip.mp4: a red ring\n")
    (tmp_path / "riddles.json").write_text(
        json.dumps([{"riddle": "What has a neck but no head?", "solution": "A bottle."}])
    )
    write_clip(tmp_path / "clip.mp4", Scene("ring", "red", "left", "large", 0))
    tiny.write_decoder(tmp_path / "decoder")
    (tmp_path / "mine.yaml").write_text(YAML.format(decoder=tmp_path / "decoder", folder=tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))  # what PYTHONPATH does
    with contextlib.ExitStack() as stack:
        for registry in (MODELS, DATASETS, PROCESSORS, LR_SCHEDULERS, CALLBACKS):
            stack.enter_context(registry.scoped())
        yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


def test_classes_of_a_package_outside_train_two_steps(mine, train):
    code, _, err = train(mine / "mine.yaml")
    assert code == 0, err
    assert len(losses(mine / "run")) == 2
    scale = read_checkpoint(mine / "run" / "checkpoint_0.pth")["model"]["video_branch.to_decoder.1.scale"]
    assert scale.item() == pytest.approx(2.0, abs=0.01)
    assert scale.item() != 2.0


def test_text_alone_trains_without_a_crash(mine, train):
    code, _, err = train(mine / "mine.yaml", "datasets.lines.sample_ratio=0")
    assert code == 0, err


def test_a_callback_and_a_schedule_take_part_in_a_run_with_their_settings(mine, train):
    options = ["run.callbacks=[{name: loss_limit, limit: 1000}]", "run.lr_sched={name: halving_lr, every: 1}"]
    code, _, err = train(mine / "mine.yaml", *options)
    assert code == 0, err
    checkpoint = read_checkpoint(mine / "run" / "checkpoint_0.pth")
    assert checkpoint["callbacks"] == {"loss_limit": {"largest": max(losses(mine / "run"))}}
    lines = [json.loads(line) for line in (mine / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines] == [1e-3, 5e-4]
    resume = [f"run.resume_ckpt_path={mine / 'run' / 'checkpoint_0.pth'}", "run.max_epoch=2"]
    code, _, err = train(mine / "run" / "config.yaml", f"run.output_dir={mine / 'resumed'}", *resume)
    assert code == 0, err
    largest = read_checkpoint(mine / "resumed" / "checkpoint_1.pth")["callbacks"]["loss_limit"]["largest"]
    assert largest == max(losses(mine / "run") + losses(mine / "resumed"))


def test_an_error_in_a_callback_stops_the_run_with_its_name(mine, train):
    code, _, err = train(mine / "mine.yaml", "run.callbacks=[{name: loss_limit, limit: 0}]")
    assert code == 1
    message = err.splitlines()[-1]
    assert message.startswith("run.callbacks: 'loss_limit' failed in after_step: ValueError: a loss of ")
    assert "my_package/everything.py:" in message


def test_one_can_talk_to_a_model_from_outside(mine, train, command):
    assert train(mine / "mine.yaml")[0] == 0
    words = ["chat", "--cfg-path", mine / "mine.yaml", "--video", mine / "clip.mp4", "--question", "What is it?"]
    words += ["--options", f"model.ckpt={mine / 'run' / 'checkpoint_0.pth'}"]
    code, out, err = command(*words, "--max-new-tokens", 4, "--json")
    assert code == 0, err
    assert len(json.loads(out)["answers"]) == 1


def test_its_settings_are_checked_like_those_of_the_package(mine, train, command):
    code, _, err = train(
        mine / "mine.yaml",
        "model.scale=-1",
        "model.skale=1",
        "datasets.lines.build_info.anno_dir=/none",
        "run.callbacks=[{name: loss_limit}, {name: loss_limt, limit: 1}]",
        "run.lr_sched={name: halving_lr, evry: 2}",
    )
    assert code == 1
    assert "model.scale: must be at least 0" in err
    assert "model.skale: unknown key. Did you mean model.scale?" in err
    assert "datasets.lines.build_info.anno_dir: no such file: /none" in err
    assert "run.callbacks[0].limit: missing" in err
    assert "run.callbacks[1].name: 'loss_limt' is not a registered callback" in err
    assert "Did you mean loss_limit?" in err
    assert "run.lr_sched.evry: unknown key. Did you mean run.lr_sched.every?" in err
    assert command("check-config", mine / "mine.yaml").code == 0


def test_a_module_that_is_not_there_is_named_with_its_line(mine, train):
    file = mine / "mine.yaml"
    file.write_text(file.read_text().replace("my_package.everything", "my_pakage.everything"))
    code, _, err = train(file)
    assert code == 1
    assert f"{file}:2" in err
    assert "cannot import my_pakage.everything" in err
    assert "PYTHONPATH" in err
