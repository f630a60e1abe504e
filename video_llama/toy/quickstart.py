"""``make quickstart``: write the toy world, train both branches on it, and report what the model learned.

It uses the files and commands of a full-size run: YAMLs, ``torchrun`` and ``video-llama train``, checkpoints, chat.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from video_llama.common.errors import DataError, VideoLlamaError
from video_llama.toy.ask import EVAL_CONFIG, Examiner
from video_llama.toy.report import write_report
from video_llama.toy.world import write_world

PROCESSES = 2
STAGES = ("stage1", "stage2", "audio_on_sound", "audio_on_frames", "both_branches")
"""Names of the runs' folders."""


def main() -> int:
    """Run the quickstart, and return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--clips", type=int, default=3000, help="training clips to write")
    parser.add_argument("--heldout", type=int, default=216, help="clips of held-out combinations to ask about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of every stage"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    try:
        quickstart(args.output_dir, args.clips, args.heldout, args.seed, args.options)
    except (VideoLlamaError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def quickstart(output_dir: Path, n_clips: int, n_heldout: int, seed: int, options: list[str]) -> dict[str, Any]:
    """Write the world, train, evaluate and report, and return the content of ``report.json``.

    Raises:
        VideoLlamaError: the folder is not free, matplotlib is missing, or a stage fails.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise VideoLlamaError("the report's picture needs matplotlib: pip install -e '.[plot]' -c constraints.txt")
    started = time.monotonic()
    claim(output_dir)
    say("1/8  writing the toy world")
    world = write_world(
        output_dir / "world", n_clips=n_clips, n_heldout=n_heldout, n_images=max(1, n_clips // 5), seed=seed
    )
    stages = train_all(output_dir, [f"paths.world={world}", f"run.seed={seed}", *options])

    say("7/8  asking about combinations of shape, colour and motion that are in no training clip")
    checkpoint = {name: stage["checkpoint"] for name, stage in stages.items()}
    examiner = Examiner(world, output_dir / "answers")
    both, seen_by_both, examples = examiner.both(checkpoint["both_branches"])
    vision = examiner.vision(checkpoint["stage1"], checkpoint["stage2"], seen_by_both)
    sound = examiner.sound(checkpoint["stage2"], checkpoint["audio_on_sound"], checkpoint["audio_on_frames"])
    report = {
        "vision": vision,
        "sound": sound,
        "both": both,
        "stages": stages,
        "seed": seed,
        "clips": n_clips,
    }

    say("8/8  report")
    report["seconds"] = round(time.monotonic() - started, 1)
    print(write_report(output_dir, report, examples), flush=True)
    example = examples[0]
    ask_once(examiner.folder / example["video"], example["question"], checkpoint["both_branches"])
    return report


def train_all(output_dir: Path, options: list[str]) -> dict[str, dict[str, Any]]:
    """Train all stages, and return the results of ``train`` by stage."""
    say("2/8  video branch, stage 1: captions give colour, shape and motion")
    stages = {"stage1": train("stage1_pretrain", output_dir / "stage1", options)}
    say("3/8  video branch, stage 2: instructions add size, and another way of answering")
    start = [f"paths.stage1={stages['stage1']['checkpoint']}"]
    stages["stage2"] = train("stage2_finetune", output_dir / "stage2", [*options, *start])
    say("4/8  audio branch: the sound of each clip")
    stages["audio_on_sound"] = train("audiobranch_finetune", output_dir / "audio_on_sound", options)
    say("5/8  audio branch, on frames: which sound belongs to the shape in them")
    on_frames = [*options, "model.audio_source=frames"]
    stages["audio_on_frames"] = train("audiobranch_finetune", output_dir / "audio_on_frames", on_frames)
    say("6/8  both branches together: does the sound belong to the shape?")
    start = [f"paths.stage2={stages['stage2']['checkpoint']}"]
    start += [f"paths.audiobranch={stages['audio_on_sound']['checkpoint']}"]
    stages["both_branches"] = train("both_branches_finetune", output_dir / "both_branches", [*options, *start])
    return stages


def claim(output_dir: Path) -> None:
    """Claim a new or empty folder, or that of an earlier quickstart, of which only the world is kept.

    Raises:
        DataError: the folder has other content.
    """
    marker = output_dir / ".quickstart"
    if output_dir.exists() and any(output_dir.iterdir()) and not marker.exists():
        raise DataError(
            f"--output-dir: {output_dir} contains something other than a quickstart. Choose another folder."
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    marker.touch()
    for old in output_dir.glob("report.*"):
        old.unlink()
    for stage in (*STAGES, "answers"):
        shutil.rmtree(output_dir / stage, ignore_errors=True)


def say(what: str) -> None:
    """Print a heading."""
    print(f"\n== {what}", flush=True)


def train(config: str, folder: Path, options: list[str]) -> dict[str, Any]:
    """Train one stage with ``torchrun``, and return its losses, time and last checkpoint."""
    started = time.monotonic()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={PROCESSES}"]
    command += ["-m", "video_llama.cli.main", "train", "--cfg-path", f"toy/{config}"]
    command += ["--options", *options, f"run.output_dir={folder}"]
    threads = max(1, (os.cpu_count() or 1) // PROCESSES)
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "first_loss": metrics[0]["loss"],
        "last_loss": metrics[-1]["loss"],
        "steps": len(metrics),
        "seconds": round(time.monotonic() - started, 1),
        "checkpoint": str(folder / f"checkpoint_step{metrics[-1]['step'] + 1:06}.pth"),
    }


def ask_once(video: Path, question: str, checkpoint: str) -> None:
    """Ask one question with the command line."""
    command = ["chat", "--cfg-path", EVAL_CONFIG, "--video", str(video), "--question", question]
    command += ["--options", f"model.ckpt={checkpoint}"]
    print(f'\n$ video-llama {" ".join(command[:6])} "{question}" {" ".join(command[7:])}', flush=True)
    subprocess.run([sys.executable, "-m", "video_llama.cli.main", *command], check=True)


if __name__ == "__main__":
    sys.exit(main())
