"""Exports of the toy model whose frozen weights are files on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import video_llama.toy
from video_llama.config.loader import JobConfig
from video_llama.conversation.config_in_use import load_for_inference
from video_llama.conversation.processors import inference_config
from video_llama.sharing.export import export

WEIGHTS = Path(video_llama.toy.__file__).parent / "weights"
FILES = {
    "vit_ckpt": "vision.safetensors",
    "q_former_model": "qformer.safetensors",
    "imagebind_ckpt_path": "imagebind.safetensors",
    "llama_model": "decoder",
    "ckpt": "branch.safetensors",
}


class Toy:
    """Copies of the toy weights, to be changed by a test."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(WEIGHTS, folder)
        self.folder = folder

    def path(self, key: str) -> Path:
        """Where the copy for a key of the model section lies."""
        return self.folder / FILES[key]

    def options(self, *keys: str) -> list[str]:
        """Options that name the copies for some keys; for all if none is given."""
        return [f"model.{key}={self.path(key)}" for key in keys or FILES]

    def job(self, *options: str) -> JobConfig:
        """The toy model with the copies, for inference."""
        return job("toy", *self.options(), *options)


def job(cfg_path: str | Path, *options: str) -> JobConfig:
    """A model as ``video-llama export`` loads it."""
    loaded = load_for_inference(cfg_path, options)
    return replace(loaded, inference=inference_config(loaded))


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "weights")


@pytest.fixture
def exported(toy: Toy, tmp_path: Path) -> Callable[..., Path]:
    """Export the copies, and return the folder."""

    def run(layout: Any = "bundle", *options: str, **how: Any) -> Path:
        export(toy.job(*options), tmp_path / layout, layout, **how)
        return tmp_path / layout

    return run
