"""The model of a job: identified at once, built when the first question needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from video_llama.common.distributed import choose_device
from video_llama.config.loader import JobConfig
from video_llama.conversation.config_in_use import load_for_inference
from video_llama.conversation.engine import Engine
from video_llama.inference.keys import model_key


class JobModel(Protocol):
    """What a job needs of a model. A model in memory can be given as any object with these two attributes."""

    @property
    def key(self) -> str:
        """Identifies the model: answers are reused only under the same key."""

    @property
    def engine(self) -> Engine:
        """The model in use."""


@dataclass(frozen=True)
class ConfiguredModel:
    """The model of a YAML."""

    cfg_path: str
    """A file, or the name of a shipped one."""
    options: Sequence[str] = ()
    """``key=value`` overrides."""
    device: str = "auto"
    feature_store: str | Path | None = None
    """Folder of a ``FeatureStore``; None: files are read and encoded for each job."""

    @cached_property
    def key(self) -> str:
        """Identifies the config, the processors and the weights files. Raises: see ``load_for_inference``."""
        return model_key(self.job)

    @cached_property
    def engine(self) -> Engine:
        """The model, built on first use. Raises: see ``Engine.from_config``."""
        return Engine.from_job(self.job, choose_device(self.device), self.feature_store)

    @cached_property
    def job(self) -> JobConfig:
        """The config, read once, so that the key and the engine are of the same commits on the hub."""
        return load_for_inference(self.cfg_path, self.options)
