"""What ``run.parallel`` asks for: checked against the rest of the config, and turned into a ``Sharding``."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import torch

from video_llama.common.distributed import World
from video_llama.common.errors import ConfigError
from video_llama.config.loader import JobConfig
from video_llama.models.sharding import Sharding
from video_llama.runners.numerics import autocast_dtype

log = logging.getLogger(__name__)


def sharding_of(job: JobConfig, model_class: Any, world: World, *, generates: bool) -> Sharding | None:
    """Return which parts of a run's model are sharded; None: none.

    Args:
        job: the whole config.
        model_class: the class of the model section.
        world: the processes that train together.
        generates: whether the run's validation generates answers.

    Raises:
        ConfigError: a part cannot be sharded, or not trained, under the other settings.
    """
    amp_dtype = autocast_dtype(job.run, world.device)
    trained = not getattr(job.model, "frozen_llama", True)
    if trained and amp_dtype == torch.float16:
        raise ConfigError(
            [
                "run.amp_dtype: fp16, but model.frozen_llama is false: a decoder is trained in bf16, or with run.amp: false"
            ]
        )
    parts = job.run.parallel.sharded
    if not parts:
        return None
    keys = ", ".join(f"run.parallel.{part}" for part in sorted(parts))
    if world.size == 1:
        log.warning("warning: %s: shard has no effect: one process trains alone, and holds all of it", keys)
        return None
    if "sharding" not in inspect.signature(model_class.from_config).parameters:
        raise ConfigError([f"{keys}: shard, but {model_class.__name__}.from_config takes no sharding"])
    if "vision" in parts and job.run.feature_store is not None:
        raise ConfigError(
            [
                "run.parallel.vision: shard, but with run.feature_store processes run the frame encoder at their own pace, "
                "and a sharded one needs all of them at once. Set it to replicate, or leave feature_store out."
            ]
        )
    if generates:
        raise ConfigError(
            [
                f"{keys}: shard, but the validation generates answers, which processes do at their own pace, and a sharded "
                "part needs all of them at once. Leave out run.eval_questions and evaluator; losses are fine."
            ]
        )
    return Sharding(world, parts, amp_dtype)
