"""What a registered model class offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from video_llama.checkpoints.inspection import Inspection
from video_llama.checkpoints.published import NamedTensors
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.weights.fit import Fit
from video_llama.prompts.sample_spec import SampleSpec


class ModelClass(Protocol):
    """A ``torch.nn.Module`` class. What it builds is a ``TrainableModel`` and, to be talked to, a ``ChatModel``.

    Its ``Config`` may have ``shared_settings()``, the settings that data sets must agree with. For inference, it needs
    ``image_size``, the side of its frames in pixels, and ``for_inference()``, which returns the config of the model in use.
    """

    Config: type[Any]

    def from_config(self, config: Any, device: torch.device) -> nn.Module:
        """Build the model on a device and load its weights. One that takes a ``Sharding`` as ``sharding`` can be shared by
        processes (``run.parallel``)."""

    def skeleton(self, config: Any) -> nn.Module:
        """Build names and shapes on the meta device, to check a config without any weights."""

    def sample_spec(self, config: Any) -> SampleSpec:
        """Derive what data sets and conversations need, without building the model."""


@runtime_checkable
class WeightsTools(Protocol):
    """A model class that ``inspect-weights`` works with."""

    def fit_file(self, inspection: Inspection, named: NamedTensors, config: Any) -> Fit:
        """Compare a weights file with the model of a config."""

    def fit_decoder(self, decoder: DecoderFolder, config: Any) -> Fit | None:
        """Compare a decoder with the trained weights that a config names; None if it names none."""


@runtime_checkable
class AdapterTools(Protocol):
    """A model class that ``merge-lora`` works with."""

    def merge_lora(self, config: Any, output: str | Path) -> None:
        """Write a decoder folder with the config's adapters merged."""


@runtime_checkable
class DecoderTools(Protocol):
    """A model class that ``export-decoder`` works with."""

    def export_decoder(self, config: Any, checkpoint: str | Path, output: str | Path, precision: str) -> None:
        """Write the decoder of a checkpoint as a folder."""
