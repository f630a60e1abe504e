"""The output folder of a run, and the JSON-lines logs in it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError
from video_llama.common.files import replacing


@dataclass(frozen=True)
class RunOutput:
    """Where a run writes: ``config.yaml``, its logs and its checkpoints."""

    folder: Path
    world: World
    """Only the first process writes what all share."""
    resolved_config: str
    """The whole YAML, defaults filled in."""

    @property
    def metrics(self) -> Path:
        """One line a step."""
        return self.folder / "metrics.jsonl"

    @property
    def bad_samples(self) -> Path:
        """The bad records that this process met."""
        return self.folder / f"bad_samples.rank{self.world.rank}.jsonl"

    def checkpoint(self, epoch: int) -> Path:
        """Path of the checkpoint at the end of an epoch."""
        return self.folder / f"checkpoint_{epoch}.pth"

    def save_config(self) -> None:
        """Write ``config.yaml``."""
        if self.world.is_main:
            (self.folder / "config.yaml").write_text(self.resolved_config, encoding="utf-8")


def open_output(folder: str | Path, world: World, resolved_config: str, resume_from: str | None = None) -> RunOutput:
    """Make the output folder of a run, or reuse it to resume the run that it holds.

    Args:
        folder: ``run.output_dir``.
        world: the processes of the run.
        resolved_config: the whole YAML, defaults filled in.
        resume_from: the checkpoint to resume from.

    Raises:
        TrainingError: the folder holds another run, or cannot be made.
    """
    output = RunOutput(Path(folder), world, resolved_config)
    resumes_here = resume_from is not None and Path(resume_from).resolve().parent == output.folder.resolve()
    if output.metrics.exists() and not resumes_here:
        raise TrainingError(
            f"run.output_dir: {folder} already holds a run. Choose another folder, move that one away, "
            "or go on with it: --options run.resume_ckpt_path=<a checkpoint in it>"
        )
    world.barrier()  # every process has checked before the first one writes
    try:
        output.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"run.output_dir: {folder} cannot be made: {error.strerror}") from error
    return output


def append_records(log: Path, records: Iterable[dict[str, Any]]) -> None:
    """Append records to a JSON-lines file, one a line; without records, no file is made."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    if lines:
        with open(log, "a", encoding="utf-8") as file:
            file.writelines(lines)


def drop_records_from(log: Path, step: int) -> None:
    """Drop the records of a step and of all later ones, which a resumed run takes again.

    A last line that a killed process left unfinished is dropped too. The file is replaced whole or not at all.

    Raises:
        TrainingError: another line is not a record.
    """
    if not log.exists():
        return
    with open(log, encoding="utf-8", errors="replace", newline="\n") as file:  # records may hold other line separators
        lines = file.readlines()
    kept = []
    for number, line in enumerate(lines, start=1):
        try:
            is_earlier = json.loads(line)["step"] < step
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise TrainingError(f"{log}:{number}: not a record of a run. Remove the line to resume here.") from error
        if is_earlier and line.endswith("\n"):
            kept.append(line)
    with replacing(log) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
