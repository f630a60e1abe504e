"""What an evaluation costs beside its answers: 2,000 toy questions asked by ``infer``, by ``evaluate``, and by ``evaluate`` under six
conditions, in questions per second of processor time of the whole command.

    python -m benchmarks.evaluate [N_QUESTIONS]

The questions are on 504 clips with sound, two or six on each. All three answer in batches of 8 on one thread. Decoding and what a
condition does not change are shared between conditions, so six should take less than six times as long as one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from video_llama.cli.main import main as video_llama
from video_llama.toy.world import write_world

CONDITIONS = "silent,other_sound,black,other_video,shuffled"
"""And ``full``."""


def main() -> None:
    """Measure all three."""
    torch.set_num_threads(1)
    n_questions = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = write_world(folder / "world", n_clips=1, n_heldout=252, n_images=1)
        questions = write_questions(world / "heldout", folder / "questions.jsonl", n_questions)
        model = [
            "--cfg-path",
            "toy",
            "--device",
            "cpu",
            "--media-dir",
            str(world / "heldout/videos"),
            "--max-new-tokens",
            "24",
        ]
        evaluate = ["evaluate", *model, "--benchmark", "manifest", "prompt=<question>", "--annotations", str(questions)]
        warm_up = [*evaluate, "--output", str(folder / "warm_up"), "--limit", "8", "--conditions", "silent"]
        timed(*warm_up)  # imports, and caches of the disk
        seconds = {
            "infer": timed("infer", *model, "--input", str(questions), "--output", str(folder / "answers.jsonl")),
            "evaluate": timed(*evaluate, "--output", str(folder / "one")),
            "evaluate, 6 conditions": timed(*evaluate, "--output", str(folder / "six"), "--conditions", CONDITIONS),
        }
    for what, one in seconds.items():
        print(
            f"{what:24}{n_questions / one:7.1f} questions/s, {seconds['infer'] / one:.2f} of infer's rate, "
            f"{one / seconds['evaluate']:.2f} times the time of evaluate"
        )


def timed(*words: str) -> float:
    """Run a command, and return its seconds of processor time, which other processes change less than time on the wall."""
    start = time.process_time()
    assert video_llama(words) == 0
    return time.process_time() - start


def write_questions(heldout: Path, target: Path, n: int) -> Path:
    """Write the questions about a world's held-out clips as ``infer`` and the benchmark ``manifest`` read them."""
    rows = [
        row for name in ("questions", "sound_questions") for row in json.loads((heldout / f"{name}.json").read_text())
    ]
    rows.sort(key=lambda row: row["video"])
    keys = {"id": "id", "video": "video", "question": "question", "answer": "answer", "kind": "type"}
    lines = [json.dumps({to: row[key] for key, to in keys.items()}) for row in rows[:n]]
    target.write_text("".join(f"{line}\n" for line in lines))
    return target


if __name__ == "__main__":
    main()
