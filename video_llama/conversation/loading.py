"""What a YAML says of a model in use: the device it runs on, and how its files are read."""

from __future__ import annotations

import re
from typing import Any

import torch

from video_llama.common.distributed import process_numbers
from video_llama.common.errors import VideoLlamaError
from video_llama.common.registry import PROCESSORS
from video_llama.config.loader import JobConfig
from video_llama.config.serialize import registered_class


def device_for_use(name: str) -> torch.device:
    """Return the device called cpu, cuda (or cuda:1), or auto: a GPU where there is one.

    Of several processes that ``torchrun`` started, each has a GPU of its own, unless one is named by number.

    Raises:
        VideoLlamaError: there is no such device.
    """
    kind, _, index = name.partition(":")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise VideoLlamaError(f"device {name!r}: expected cpu, cuda, cuda:1 and so on, or auto")
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cpu" or (kind == "auto" and not n_gpus):
        return torch.device("cpu")
    n_processes, _, local_rank = process_numbers()
    wanted = local_rank if n_processes > 1 and not index else int(index or 0)
    if wanted >= n_gpus:
        shared = n_gpus and wanted == local_rank and n_processes > 1
        advice = "each process wants its own: lower --nproc_per_node" if shared else "cpu works everywhere"
        raise VideoLlamaError(f"device {name}: torch sees {n_gpus or 'no'} GPU here; {advice}")
    return torch.device("cuda", wanted)


def processors_for_use(job: JobConfig) -> tuple[Any, Any]:
    """Return the processors of clips and images that belong to a model in use.

    They are those that the YAML's data sets name for ``eval``; else those for training, without their randomness.
    """
    chosen = {"video": PROCESSORS.get("alpro_video_eval"), "images": PROCESSORS.get("blip2_image_eval")}
    built = {}
    for kind, cls in chosen.items():
        settings: dict[str, Any] = {"image_size": job.model.image_size}
        for config in job.datasets.values():
            if getattr(config, "data_type", None) != kind:  # a data set from outside need not say
                continue
            if config.vis_processor.eval is not None:
                built[kind] = registered_class(PROCESSORS, config.vis_processor.eval)(config.vis_processor.eval)
            else:
                names = ("n_frms", "image_size", "video_backend", "deadline_s")
                train = config.vis_processor.train
                settings |= {name: getattr(train, name) for name in names if hasattr(train, name)}
        built.setdefault(kind, cls(cls.Config(**settings)))
    return built["video"], built["images"]
