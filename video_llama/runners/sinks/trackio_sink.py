"""trackio: a local dashboard, ``trackio show``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trackio

from video_llama.common.registry import SINKS
from video_llama.runners.callback_configs import TrackioConfig
from video_llama.runners.sink import Sink


@SINKS.register("trackio")
class Trackio(Sink):
    """Logs to a run named after the output folder; a resumed run goes on with it."""

    Config = TrackioConfig

    def __init__(self, config: TrackioConfig, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        self.run = trackio.init(
            project=config.project,
            name=config.run_name or folder.resolve().name,
            config=dict(settings),
            resume="allow",
            embed=False,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars."""
        trackio.log(dict(values), step=step)

    def show(self, step: int, name: str, text: str, picture: Path | None) -> None:
        """Log the picture with the text as its caption, or the text alone."""
        shown = trackio.Markdown(text) if picture is None else trackio.Image(str(picture), caption=text)
        trackio.log({name: shown}, step=step)

    def close(self) -> None:
        """Wait until all is written."""
        trackio.finish()
