"""``make quickstart``: write the toy world, train both branches on it, and report what the model learned.

It uses the files and commands of a full-size run: YAMLs, ``video-llama train``, checkpoints, chat. All stages and all questions
share one process and one ``FeatureStore``, so what a frozen encoder made of a clip is not computed again.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from video_llama.common.errors import DataError, VideoLlamaError
from video_llama.toy.ask import EVAL_CONFIG, Examiner
from video_llama.toy.report import write_report
from video_llama.toy.stages import STAGES, say, train_stages
from video_llama.toy.world import write_world


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
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(1)  # in models this small, threads spend their time waiting for each other
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
    features = output_dir / "features"
    stages = train_stages(
        output_dir, [f"paths.world={world}", f"run.seed={seed}", f"run.feature_store={features}", *options]
    )

    say("7/8  asking about combinations of shape, colour and motion that are in no training clip")
    checkpoint = {name: stage["checkpoint"] for name, stage in stages.items()}
    examiner = Examiner(world, output_dir / "answers", features)
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
    for stage in (*STAGES, "answers", "features"):
        shutil.rmtree(output_dir / stage, ignore_errors=True)


def ask_once(video: Path, question: str, checkpoint: str) -> None:
    """Ask one question with the command line."""
    command = ["chat", "--cfg-path", EVAL_CONFIG, "--video", str(video), "--question", question]
    command += ["--options", f"model.ckpt={checkpoint}"]
    print(f'\n$ video-llama {" ".join(command[:6])} "{question}" {" ".join(command[7:])}', flush=True)
    subprocess.run([sys.executable, "-m", "video_llama.cli.main", *command], check=True)


if __name__ == "__main__":
    sys.exit(main())
