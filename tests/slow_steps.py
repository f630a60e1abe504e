"""``video-llama`` with a callback that makes steps long enough to be interrupted, and says which process has which rank."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from video_llama.cli.main import main
from video_llama.common.registry import CALLBACKS
from video_llama.common.types import Batch
from video_llama.runners.callback import Callback, Run


@CALLBACKS.register("slow_steps")
class SlowSteps(Callback):
    """Sleeps before each step."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Nothing to set."""

    def on_start(self, run: Run) -> None:
        """Write the process's id."""
        (run.output.folder / f"pid.{run.world.rank}").write_text(str(os.getpid()))

    def before_step(self, run: Run, batches: Sequence[Batch]) -> None:
        """Sleep."""
        time.sleep(float(os.environ["SLOW_STEPS_S"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
