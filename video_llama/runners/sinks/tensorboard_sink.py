"""TensorBoard: event files in the folder ``tensorboard`` of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from video_llama.common.registry import SINKS
from video_llama.runners.callback_configs import TensorBoardConfig
from video_llama.runners.sink import Sink

FLUSH_SECONDS = 30


@SINKS.register("tensorboard")
class TensorBoard(Sink):
    """Writes events; those of steps that a resumed run takes again are marked to be left out."""

    Config = TensorBoardConfig

    def __init__(self, config: Any, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None, flush_secs=FLUSH_SECONDS)
        as_yaml = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
        self.writer.add_text("config", f"```yaml\n{as_yaml}```", step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def show(self, step: int, name: str, text: str, picture: Path | None) -> None:
        """Write a text, and the picture under the same name."""
        self.writer.add_text(name, text, step)
        if picture is not None:
            with Image.open(picture) as image:
                self.writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()
