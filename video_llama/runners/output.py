"""What a run leaves in its output folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from video_llama.checkpoints.io import write_checkpoint
from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError
from video_llama.common.types import Replaced


class RunOutput:
    """``config.yaml``, ``metrics.jsonl``, ``bad_samples.rank<N>.jsonl`` and ``checkpoint_<epoch>.pth``.

    Args:
        folder: the run's output folder.
        world: only the first process writes what all share.
        resume_from: a checkpoint to go on from; the folder may hold its run already.

    Raises:
        TrainingError: the folder holds another run, or cannot be made.
    """

    def __init__(self, folder: str | Path, world: World, resume_from: str | None) -> None:
        self.folder, self.world = Path(folder), world
        self.metrics = self.folder / "metrics.jsonl"
        self.bad_samples = self.folder / f"bad_samples.rank{world.rank}.jsonl"
        own = resume_from is not None and Path(resume_from).resolve().parent == self.folder.resolve()
        if self.metrics.exists() and not own:
            raise TrainingError(
                f"run.output_dir: {folder} already holds a run. Choose another folder, move that one away, "
                "or go on with it: --options run.resume_ckpt_path=<a checkpoint in it>"
            )
        world.barrier()  # every process has looked before the first one writes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"run.output_dir: {folder} cannot be made: {error.strerror}") from error

    def checkpoint(self, epoch: int) -> Path:
        """Path of an epoch's checkpoint."""
        return self.folder / f"checkpoint_{epoch}.pth"

    def save_config(self, yaml: str) -> None:
        """Write the resolved config."""
        if self.world.is_main:
            (self.folder / "config.yaml").write_text(yaml, encoding="utf-8")

    def log_metrics(self, metrics: dict[str, Any]) -> None:
        """Append one line of metrics."""
        if self.world.is_main:
            _append(self.metrics, [metrics])

    def log_replaced(self, step: int, replaced: Iterable[Replaced]) -> None:
        """Append the bad samples that this process met."""
        lines = [{"step": step, **asdict(r)} for r in replaced]
        if lines:
            _append(self.bad_samples, lines)

    def forget_from(self, step: int) -> None:
        """Drop what was logged at a step or later: a resumed run takes these steps once more."""
        for file in (self.metrics, self.bad_samples) if self.world.is_main else (self.bad_samples,):
            if file.exists():
                lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
                file.write_text("".join(s for s in lines if s.endswith("\n") and json.loads(s)["step"] < step), "utf-8")

    def save_checkpoint(self, epoch: int, content: dict[str, Any]) -> None:
        """Write an epoch's checkpoint, atomically."""
        if self.world.is_main:
            write_checkpoint(self.checkpoint(epoch), content)


def _append(path: Path, lines: list[dict[str, Any]]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
