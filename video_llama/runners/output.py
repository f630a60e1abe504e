"""The output folder of a run: its files, and whether a run may start or go on in it."""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from video_llama.checkpoints.io import read_checkpoint
from video_llama.checkpoints.shards_folder import check_shards
from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError, WeightsError
from video_llama.common.files import replacing
from video_llama.datasets.quarantine import LEDGER
from video_llama.runners.run_status import METRICS

log = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r"checkpoint_step(\d+)\.pth")


@dataclass(frozen=True)
class RunOutput:
    """Where a run writes: ``config.yaml``, its logs and its checkpoints."""

    folder: Path
    world: World
    """Only the first process writes what all share."""
    resolved_config: str
    """The whole YAML, defaults filled in."""
    resume_from: Path | None = None
    """The checkpoint that the run goes on from; None: it starts."""

    @property
    def metrics(self) -> Path:
        """One line a step."""
        return self.folder / METRICS

    @property
    def bad_samples(self) -> Path:
        """The ledger of bad records, of all processes."""
        return self.folder / LEDGER

    @property
    def bad_steps(self) -> Path:
        """The steps that were skipped, with their samples."""
        return self.folder / "bad_steps.jsonl"

    @property
    def samples(self) -> Path:
        """The ids of this process's samples, one line a step, with ``run.log_samples``."""
        return self.folder / f"samples.rank{self.world.rank}.jsonl"

    def trace(self, step: int) -> Path:
        """Path of this process's trace of the steps from this one on."""
        return self.folder / f"trace_step{step:06}.rank{self.world.rank}.json"

    def checkpoint(self, step: int) -> Path:
        """Path of the checkpoint after so many steps."""
        return self.folder / f"checkpoint_step{step:06}.pth"

    @property
    def best_checkpoint(self) -> Path:
        """Path of the checkpoint that ``run.best`` chooses."""
        return self.folder / "checkpoint_best.pth"

    def checkpoints(self) -> dict[int, Path]:
        """Return the checkpoints in the folder by their steps, in this order."""
        found = {path: _CHECKPOINT.fullmatch(path.name) for path in self.folder.glob("checkpoint_step*.pth")}
        return dict(sorted((int(match[1]), path) for path, match in found.items() if match))

    def save_config(self) -> None:
        """Write ``config.yaml``.

        Raises:
            TrainingError: it cannot be written.
        """
        if self.world.is_main:
            try:
                with replacing(self.folder / "config.yaml") as temporary:
                    temporary.write_text(self.resolved_config, encoding="utf-8")
            except OSError as error:
                raise TrainingError(f"run.output_dir: {self.folder} cannot be written: {error.strerror}") from error


def open_output(
    folder: str | Path,
    world: World,
    resolved_config: str,
    *,
    resume_ckpt_path: str | None = None,
    auto: bool = False,
) -> RunOutput:
    """Make the output folder of a run, or reuse it to go on with the run that it holds.

    Args:
        folder: ``run.output_dir``.
        world: the processes of the run.
        resolved_config: the whole YAML, defaults filled in.
        resume_ckpt_path: the checkpoint to resume from.
        auto: resume from the newest complete checkpoint of the folder instead, if it has one.

    Raises:
        TrainingError: the folder holds another run, or nothing to go on from, or cannot be made.
    """
    start = Path(resume_ckpt_path) if resume_ckpt_path else None
    output = RunOutput(Path(folder), world, resolved_config, start)
    _check_and_prepare(output, auto)
    newest = world.broadcast_object(_newest(output) if auto and world.is_main else None)
    if newest is None:
        if auto and start is None and world.is_main:
            log.info("run.resume: auto: %s has no checkpoint yet, so the run starts", folder)
        return output
    if world.is_main:
        log.info("run.resume: auto: going on from %s", newest)
    return RunOutput(output.folder, world, resolved_config, newest)


def _check_and_prepare(output: RunOutput, auto: bool) -> None:
    """Check that the folder may be used, and make it."""
    start, folder = output.resume_from, output.folder
    resumes_here = start is not None and start.resolve().parent == folder.resolve()
    if output.metrics.exists() and not resumes_here and not auto:
        raise TrainingError(
            f"run.output_dir: {folder} already holds a run. Go on with it: --options run.resume=auto; or choose another "
            "folder, or move that one away."
        )
    if start is not None and resumes_here and not auto:
        step = next((step for step, path in output.checkpoints().items() if path.name == start.name), None)
        later = [path.name for other, path in output.checkpoints().items() if step is not None and other > step]
        if later:
            raise TrainingError(
                f"run.resume_ckpt_path: {start} is followed by {', '.join(later)}, which a run from there would mix with its "
                "own. Move them away, or choose another run.output_dir."
            )
    output.world.barrier()  # every process has checked before the first one writes
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if output.world.is_main:
            for left in folder.glob(".checkpoint_*.tmp"):  # a killed run was writing it
                remove = shutil.rmtree if left.is_dir() else Path.unlink
                remove(left)
    except OSError as error:
        raise TrainingError(f"run.output_dir: {folder} cannot be made: {error.strerror}") from error


def _newest(output: RunOutput) -> Path | None:
    """Return the newest checkpoint that can be read, and report newer ones that cannot.

    Raises:
        TrainingError: there are checkpoints, but none that can be read.
    """
    damaged: list[str] = []
    for path in reversed(output.checkpoints().values()):
        try:
            check_shards(path, read_checkpoint(path))
        except WeightsError as error:
            log.warning("%s", error)
            damaged.append(path.name)
        else:
            return path
    if damaged:
        raise TrainingError(
            f"run.resume: auto: {output.folder} has no checkpoint that can be read: {', '.join(damaged)}. To start over, "
            "move them away."
        )
    return None
