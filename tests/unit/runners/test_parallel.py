"""What ``run.parallel`` asks for, next to settings that exclude it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests import tiny
from video_llama.common.distributed import World
from video_llama.common.errors import ConfigError
from video_llama.models.sharding import Sharding
from video_llama.models.video_llama import VideoLLaMA
from video_llama.runners.config import RunConfig
from video_llama.runners.parallel import sharding_of
from video_llama.runners.parallel_config import ParallelConfig

TWO = World(0, 2, torch.device("cpu"))
BOTH = ParallelConfig(vision="shard", decoder="shard")


class Foreign:
    """A model class that knows nothing of sharding."""

    @classmethod
    def from_config(cls, config: Any, device: torch.device) -> Foreign:
        raise NotImplementedError


def found(
    decoder, world=TWO, model_class=VideoLLaMA, *, frozen=True, generates=False, **settings: Any
) -> Sharding | None:
    run = {"init_lr": 0.1, "max_epoch": 1, "batch_size_train": 1, "output_dir": "out", "device": "cpu", "amp": False}
    job: Any = SimpleNamespace(model=tiny.config(decoder, frozen_llama=frozen), run=RunConfig(**run | settings))
    return sharding_of(job, model_class, world, generates=generates)


def test_the_parts_that_are_sharded_are_those_that_the_config_names(decoder):
    assert found(decoder) is None
    sharding = found(decoder, parallel=ParallelConfig(decoder="shard"), amp=True, amp_dtype="bf16")
    assert sharding == Sharding(TWO, frozenset({"decoder"}), torch.bfloat16)


def test_one_process_holds_everything_and_a_warning_says_so(decoder, caplog):
    assert found(decoder, World(0, 1, torch.device("cpu")), parallel=BOTH) is None
    assert "run.parallel.decoder, run.parallel.vision: shard has no effect: one process trains alone" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"parallel": BOTH, "generates": True},
            r"run\.parallel\.decoder, .*: shard, but the validation generates answers",
        ),
        ({"parallel": BOTH, "feature_store": "store"}, r"run\.parallel\.vision: shard, but with run\.feature_store"),
        (
            {"parallel": BOTH, "model_class": Foreign},
            r"run\.parallel\..*: shard, but Foreign\.from_config takes no shard",
        ),
        (
            {"frozen": False, "amp": True, "amp_dtype": "fp16"},
            r"run\.amp_dtype: fp16, but model\.frozen_llama is false",
        ),
    ],
)
def test_settings_that_exclude_it_are_named(decoder, settings, message):
    device = "cuda" if "amp_dtype" in settings else "cpu"
    with pytest.raises(ConfigError, match=message):
        found(decoder, **settings, device=device)
