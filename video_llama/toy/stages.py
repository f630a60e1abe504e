"""The stages of the quickstart's training, one after the other in this process."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from video_llama.common.errors import VideoLlamaError

STAGES = ("stage1", "stage2", "audio_on_sound", "audio_on_frames", "both_branches")
"""Names of the runs' folders."""

ONE_PROCESS = ("run.batch_size_train=32",)
"""The toy YAMLs are written for two processes; these options make the batches of one as large."""


def train_stages(output_dir: Path, options: list[str]) -> dict[str, dict[str, Any]]:
    """Train each stage with ``video-llama train``, from the checkpoints of earlier ones; return the results by stage.

    Raises:
        VideoLlamaError: a stage fails.
    """
    command = import_module("video_llama.cli.main")  # by name: imports go down only
    stages: dict[str, dict[str, Any]] = {}

    def train(name: str, config: str, *more: str) -> str:
        words = ["train", "--cfg-path", f"toy/{config}", "--options", *ONE_PROCESS, *options, *more]
        if command.main([*words, f"run.output_dir={output_dir / name}"]):
            raise VideoLlamaError(f"{name} failed")
        stages[name] = _result(output_dir / name)
        return str(stages[name]["checkpoint"])

    say("2/8  video branch, stage 1: captions give colour, shape and motion")
    stage1 = train("stage1", "stage1_pretrain")
    say("3/8  video branch, stage 2: instructions add size, and another way of answering")
    stage2 = train("stage2", "stage2_finetune", f"paths.stage1={stage1}")
    say("4/8  audio branch: the sound of each clip")
    audio = train("audio_on_sound", "audiobranch_finetune")
    say("5/8  audio branch, on frames: which sound belongs to the shape in them")
    train("audio_on_frames", "audiobranch_finetune", "model.audio_source=frames")
    say("6/8  both branches together: does the sound belong to the shape?")
    train("both_branches", "both_branches_finetune", f"paths.stage2={stage2}", f"paths.audiobranch={audio}")
    return stages


def _result(folder: Path) -> dict[str, Any]:
    """Return the losses, the time and the last checkpoint of a finished stage."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "first_loss": metrics[0]["loss"],
        "last_loss": metrics[-1]["loss"],
        "steps": len(metrics),
        "seconds": round(sum(line["seconds"] for line in metrics), 1),
        "checkpoint": str(folder / f"checkpoint_step{metrics[-1]['step'] + 1:06}.pth"),
    }


def say(what: str) -> None:
    """Print a heading."""
    print(f"\n== {what}", flush=True)
