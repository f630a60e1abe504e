"""Weights & Biases, online or offline."""

from __future__ import annotations

import html
import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from video_llama.common.registry import SINKS
from video_llama.runners.callback_configs import WandbConfig
from video_llama.runners.sink import Sink

log = logging.getLogger(__name__)

INIT_SECONDS = 30
"""How long a run waits for the server before it starts."""


@SINKS.register("wandb")
class Wandb(Sink):
    """Logs to a run whose id is kept in the output folder, so that a resumed run goes on with it."""

    Config = WandbConfig

    def __init__(self, config: WandbConfig, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        logging.getLogger("wandb").propagate = False  # it has a file of its own, debug.log
        known = folder / "wandb" / "id"
        known.parent.mkdir(exist_ok=True)
        if not known.exists():
            known.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
        how: dict[str, Any] = {
            "project": config.project,
            "name": config.run_name or folder.resolve().name,
            "id": known.read_text(encoding="utf-8"),
            "resume": "allow",
            "dir": str(folder),
            "config": dict(settings),
            "settings": wandb.Settings(init_timeout=INIT_SECONDS, silent=True, console="off"),
        }
        try:
            self.run = wandb.init(mode=config.mode, **how)
        except wandb.Error as error:
            if config.mode == "offline":
                raise
            log.warning(
                "run.sinks: wandb: not online (%s); the run goes on offline. Afterwards: wandb sync %s/wandb/offline-run-*",
                " ".join(str(error).split()), folder,
            )  # fmt: skip
            self.run = wandb.init(mode="offline", **how)
        self.run.define_metric("*", step_metric="step")  # W&B's own step cannot go back, as a resumed run does

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars."""
        self.run.log({**values, "step": step})

    def show(self, step: int, name: str, text: str, picture: Path | None) -> None:
        """Log the picture with the text as its caption, or the text alone."""
        as_html = f"<pre>{html.escape(text)}</pre>"
        shown: Any = wandb.Html(as_html) if picture is None else wandb.Image(str(picture), caption=text)
        self.run.log({name: shown, "step": step})

    def close(self) -> None:
        """Wait until all is sent or written."""
        self.run.finish()
