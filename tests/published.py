"""The published weights files: their names, shapes and number formats at full size, and files made after them.

``tests/fixtures/manifests`` holds what was listed on the original's modules, one line for the same tensor of many layers:
``{0-31}`` stands for each of these numbers, ``{0-10/2}`` for every second one. What BLIP-2's own file holds was derived
from its code, not read from the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.conftest import FIXTURES

NUMBERS = re.compile(r"\{(\d+)-(\d+)(?:/(\d+))?\}")
STRAY = ("position_ids", "inv_freq", "log_logit_scale", "text.mask")
"""How the names of buffers end that the original saved by accident."""
CONFIG = {
    "model": {"arch": "video_llama", "llama_model": "ckpt/vicuna-7b/", "freeze_vit": True, "max_txt_len": 320},
    "datasets": {"webvid": {"sample_ratio": 100}},
    "run": {"task": "video_text_pretrain", "init_lr": 1e-4, "output_dir": "output/videollama"},
}


def manifest(name: str, device: str = "meta") -> dict[str, Tensor]:
    """The tensors of a manifest, empty: on the meta device they take no memory."""
    listed = json.loads((FIXTURES / "manifests" / f"{name}.json").read_text())
    return {
        n: torch.empty(shape, dtype=getattr(torch, dtype), device=device)
        for template, (shape, dtype) in listed.items()
        for n in expanded(template)
    }


def expanded(template: str) -> Iterator[str]:
    """The names that a line of a manifest stands for."""
    if (found := NUMBERS.search(template)) is None:
        yield template
    else:
        for i in range(int(found[1]), int(found[2]) + 1, int(found[3] or 1)):
            yield template[: found.start()] + str(i) + template[found.end() :]


def eva() -> dict[str, Tensor]:
    """EVA-CLIP's own file: a block, a norm and a head more than the original keeps."""
    kept = {n.removeprefix("visual_encoder."): t for n, t in manifest("visual_encoder_ln_vision").items()}
    kept = {n: t for n, t in kept.items() if not n.startswith("ln_vision.")}
    last = {n.replace("blocks.38.", "blocks.39."): t for n, t in kept.items() if n.startswith("blocks.38.")}
    more = {"norm.weight": (1408,), "norm.bias": (1408,), "head.weight": (1024, 1408), "head.bias": (1024,)}
    return {**kept, **last, **{name: torch.empty(shape, device="meta") for name, shape in more.items()}}


def filled(tensors: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Random values for empty tensors."""
    chance = torch.Generator().manual_seed(seed)
    return {
        n: torch.randn(t.shape, generator=chance).to(t.dtype)
        if t.is_floating_point()
        else torch.arange(t.numel(), dtype=t.dtype).reshape(t.shape)
        for n, t in tensors.items()
    }


def released(tensors: Mapping[str, Tensor], epoch: int = 3) -> dict[str, Any]:
    """What the original's trainer saves around a table of tensors."""
    moments = {"step": torch.tensor(9.0), "exp_avg": torch.ones(4, 3), "exp_avg_sq": torch.ones(4, 3) / 3}
    groups = [{"lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.05, "params": [0, 1]}]
    return {
        "model": dict(tensors),
        "optimizer": {"state": {0: moments, 1: moments}, "param_groups": groups},
        "config": CONFIG,
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "growth_interval": 2000, "_growth_tracker": 7},
        "epoch": epoch,
    }


def write_released(path: Path, name: str, seed: int = 0) -> dict[str, Any]:
    """Write a full-size file with random values, as the original does, and return what is in it."""
    content = released(filled(manifest(name), seed))
    torch.save(content, path)
    return content


def stray(name: str) -> bool:
    """Whether the original saved a tensor by accident."""
    return name.endswith(STRAY)
