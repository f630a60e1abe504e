"""The processors of a model in use: from the ``inference`` section, else from the data sets of a published YAML."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from video_llama.common.registry import PROCESSORS
from video_llama.config.loader import InferenceConfig, JobConfig
from video_llama.config.serialize import registered_class, remember_name

log = logging.getLogger(__name__)

DEFAULTS = {"video": "alpro_video_eval", "image": "blip2_image_eval"}
KEPT = ("n_frms", "image_size", "video_backend", "deadline_s")
"""Settings of a training processor that hold for inference too; the others are random."""


def inference_config(job: JobConfig) -> InferenceConfig:
    """Return the settings of a YAML for inference, with no processor left open."""
    chosen = job.inference or InferenceConfig()
    video, image = (getattr(chosen, kind) or _from_datasets(job, kind) for kind in DEFAULTS)
    return with_defaults(replace(chosen, video=video, image=image), job.model.image_size)


def with_defaults(config: InferenceConfig, image_size: int) -> InferenceConfig:
    """Return the config with the default processors where it names none."""
    return replace(
        config,
        video=config.video or _default("video", image_size=image_size),
        image=config.image or _default("image", image_size=image_size),
    )


def build_processors(config: InferenceConfig) -> tuple[Any, Any]:
    """Build the processors of clips and of images."""
    video, image = (registered_class(PROCESSORS, processor)(processor) for processor in (config.video, config.image))
    return video, image


def _from_datasets(job: JobConfig, kind: str) -> Any:
    """Return the ``eval`` processor of the data sets of a kind; without one, a ``train`` processor made deterministic.

    Of several the last decides. None: there is no data set of the kind.
    """
    data_type = {"video": "video", "image": "images"}[kind]
    datasets = {name: d for name, d in job.datasets.items() if getattr(d, "data_type", None) == data_type}
    found = {name: d.vis_processor.eval for name, d in datasets.items() if d.vis_processor.eval is not None} or {
        name: _deterministic(kind, d.vis_processor.train, job.model.image_size) for name, d in datasets.items()
    }
    if len({repr(config) for config in found.values()}) > 1:
        names = ", ".join(f"datasets.{name}" for name in found)
        last = list(found)[-1]
        log.warning("%s read files differently: datasets.%s decides. Set inference.%s to choose.", names, last, kind)
    return list(found.values())[-1] if found else None


def _deterministic(kind: str, train: Any, image_size: int) -> Any:
    settings = {key: getattr(train, key) for key in KEPT if hasattr(train, key)}
    if getattr(train, "sampling", None) == "fps":
        settings |= {"sampling": "fps", "fps": train.fps}
    return _default(kind, **{"image_size": image_size, **settings})


def _default(kind: str, **settings: Any) -> Any:
    """Return the Config of the default processor of a kind."""
    config: Any = PROCESSORS.config(DEFAULTS[kind])
    built = config(**settings)
    remember_name(built, DEFAULTS[kind])  # another processor may share the Config class
    return built
