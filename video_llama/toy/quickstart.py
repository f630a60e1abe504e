"""``make quickstart``: write the toy world, train both stages on it, report what the model learned.

Everything goes through the files and commands of a full-size run: YAMLs, ``torchrun train.py``, checkpoints, chat.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from video_llama.common.config import load_config
from video_llama.common.errors import DataError, VideoLlamaError
from video_llama.toy.language import CHANCE
from video_llama.toy.report import write_report
from video_llama.toy.world import write_world

PROCESSES = 2
EVAL_CONFIG = "eval_configs/toy.yaml"


def main() -> int:
    """Run everything; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--clips", type=int, default=3000, help="training clips to write")
    parser.add_argument("--heldout", type=int, default=216, help="clips of held-out combinations to ask about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of both stages"
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
    """Write the world, train, evaluate, report; returns what ``report.json`` holds."""
    started = time.monotonic()
    claim(output_dir)
    say("1/5  writing the toy world")
    world = write_world(
        output_dir / "world", n_clips=n_clips, n_heldout=n_heldout, n_images=max(1, n_clips // 5), seed=seed
    )

    say("2/5  stage 1: captions tell colour, shape and motion")
    common = [f"paths.world={world}", f"run.seed={seed}", *options]
    stage1 = train("stage1_pretrain", output_dir / "stage1", common)
    say("3/5  stage 2: instructions add size, and another way of answering")
    stage2 = train("stage2_finetune", output_dir / "stage2", [*common, f"paths.stage1={stage1['checkpoint']}"])

    say("4/5  asking about combinations of shape, colour and motion that no training clip showed")
    questions, examples = evaluate(world, stage1["checkpoint"], stage2["checkpoint"])

    say("5/5  report")
    report = {
        "questions": questions,
        "stages": {"stage1": stage1, "stage2": stage2},
        "seed": seed,
        "clips": n_clips,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(write_report(output_dir, report, examples), flush=True)
    example = examples[0]
    ask_once(world / "heldout" / "videos" / example["video"], example["question"], stage2["checkpoint"])
    return report


def claim(output_dir: Path) -> None:
    """Take a new or empty folder, or an earlier quickstart's, whose stages are then trained anew.

    Raises:
        DataError: the folder holds something else.
    """
    marker = output_dir / ".quickstart"
    if output_dir.exists() and any(output_dir.iterdir()) and not marker.exists():
        raise DataError(f"--output-dir: {output_dir} holds something else than a quickstart. Choose another folder.")
    output_dir.mkdir(parents=True, exist_ok=True)
    marker.touch()


def say(what: str) -> None:
    """Print a heading."""
    print(f"\n== {what}", flush=True)


def train(config: str, folder: Path, options: list[str]) -> dict[str, Any]:
    """Train one stage through ``torchrun``; returns its losses, time and last checkpoint."""
    shutil.rmtree(folder, ignore_errors=True)  # an earlier quickstart's
    started = time.monotonic()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={PROCESSES}"]
    command += ["train.py", "--cfg-path", f"train_configs/toy/{config}.yaml"]
    command += ["--options", *options, f"run.output_dir={folder}"]
    threads = max(1, (os.cpu_count() or 1) // PROCESSES)
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "first_loss": metrics[0]["loss"],
        "last_loss": metrics[-1]["loss"],
        "steps": len(metrics),
        "seconds": round(time.monotonic() - started, 1),
        "checkpoint": str(folder / f"checkpoint_{metrics[-1]['epoch']}.pth"),
    }


def evaluate(world: Path, stage1: str, stage2: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ask every held-out question; returns the figures by kind, and a few answered clips."""
    from video_llama.conversation.chat import Chat  # slow to import
    from video_llama.evaluation.questions import accuracy, answer_all, read_questions

    batch_size = load_config("train_configs/toy/stage2_finetune.yaml", need=("run",)).run.batch_size_eval
    questions = read_questions(world / "heldout" / "questions.json")
    videos = world / "heldout" / "videos"
    chat = Chat.from_config(EVAL_CONFIG, [f"model.ckpt={stage2}"])
    answers = answer_all(chat, questions, videos, batch_size=batch_size)
    full = accuracy(questions, answers)
    blank = accuracy(questions, answer_all(chat, questions, videos, batch_size=batch_size, blank=True))
    chat = Chat.from_config(EVAL_CONFIG, [f"model.ckpt={stage1}"])
    after_stage1 = accuracy(questions, answer_all(chat, questions, videos, batch_size=batch_size))
    figures = {
        kind: {
            "full": full[kind],
            "blank_video": blank[kind],
            "chance": CHANCE[kind],
            "n": sum(q.kind == kind for q in questions),
            "after_stage1": after_stage1[kind],
        }
        for kind in CHANCE
    }
    clips = sorted({q.video for q in questions})
    shown = set(clips[:: max(1, len(clips) // 4)][:4])
    examples = [
        {"video": q.video, "question": q.question, "answer": answers[q.id], "expected": q.answer}
        for q in questions
        if q.video in shown
    ]
    return figures, examples


def ask_once(video: Path, question: str, checkpoint: str) -> None:
    """Ask one question through the command that a user would type."""
    command = ["chat", "--cfg-path", EVAL_CONFIG, "--video", str(video), "--question", question]
    command += ["--options", f"model.ckpt={checkpoint}"]
    print(f'\n$ video-llama {" ".join(command[:6])} "{question}" {" ".join(command[7:])}', flush=True)
    subprocess.run([sys.executable, "-m", "video_llama.cli.main", *command], check=True)


if __name__ == "__main__":
    sys.exit(main())
