"""The registries of the package, their built-in names, and how packages outside add to them."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from video_llama.common.registry import Registry

PLUGIN_GROUP = "video_llama.plugins"

MODELS: Registry[Any] = Registry("model", {"video_llama": "video_llama.models.video_llama"})

DATASETS: Registry[Any] = Registry(
    "dataset",
    {
        "webvid": "video_llama.datasets.captions",
        "cc_sbu_align": "video_llama.datasets.captions",
        "llava_instruct": "video_llama.datasets.instruct",
        "webvid_instruct": "video_llama.datasets.instruct",
        "webvid_instruct_zh": "video_llama.datasets.instruct",
    },
)

PROCESSORS: Registry[Any] = Registry(
    "processor",
    {
        "alpro_video_train": "video_llama.processors.video",
        "alpro_video_eval": "video_llama.processors.video",
        "blip2_image_train": "video_llama.processors.image",
        "blip2_image_eval": "video_llama.processors.image",
        "blip_caption": "video_llama.processors.text",
        "imagebind_audio": "video_llama.processors.audio",
        "waveform_audio": "video_llama.processors.waveform",
    },
)

AUDIO_ENCODERS: Registry[Any] = Registry(
    "audio encoder",
    {
        "imagebind_huge": "video_llama.models.imagebind",
        "whisper": "video_llama.models.whisper_encoder",
    },
)

RUNNERS: Registry[Any] = Registry("runner", {"runner_base": "video_llama.runners.runner_base"})

LR_SCHEDULERS: Registry[Any] = Registry(
    "lr scheduler",
    {
        "linear_warmup_cosine_lr": "video_llama.runners.schedules",
        "linear_warmup_step_lr": "video_llama.runners.schedules",
        "constant_lr": "video_llama.runners.schedules",
    },
)


def plugin_problems() -> list[str]:
    """Load the entry points of ``video_llama.plugins``; return a line for each that fails."""
    problems = []
    for point in entry_points(group=PLUGIN_GROUP):
        try:
            point.load()
        except Exception as error:  # code of others may fail in any way; the user needs its name
            problems.append(f"entry point {point.name} = {point.value}: {_reason(error)}")
    return problems


def import_problem(module: str) -> str | None:
    """Import a module of the user; return why it cannot be imported, or None."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        hint = " (is its folder on PYTHONPATH?)" if error.name == module.split(".")[0] else ""
        return f"cannot import {module}: {_reason(error)}{hint}"
    except Exception as error:  # as above
        return f"cannot import {module}: {_reason(error)}"
    return None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
