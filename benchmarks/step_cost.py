"""What a toy step costs beside that of another revision: with everything that default settings count, check, log and save.

    python -m benchmarks.step_cost --base 192f71a

Both train the same steps in turn, each time in a new process. Prints the processor time of a step, from the start of one to the
start of the next: the mean of the shortest time that each took.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS, FIRST = 24, 3
"""Steps of a run, and how many at its start do not count."""
ROUNDS = 5


def main() -> None:
    """Compare this tree with a revision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, metavar="REV", help="git revision to compare with")
    parser.add_argument("--config", default="stage1_pretrain", help="a toy YAML that needs no checkpoint")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="for both")
    args = parser.parse_args()
    from video_llama.toy.world import write_world

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        world, base = write_world(folder / "world", n_clips=60, n_heldout=12, n_images=8), folder / "base"
        subprocess.run(["git", "worktree", "add", "--detach", str(base), args.base], cwd=ROOT, check=True)
        try:
            taken: dict[Path, list[list[float]]] = {base: [], ROOT: []}
            for turn in range(ROUNDS):
                for tree, runs in taken.items():
                    output = folder / f"run_{turn}_{tree.name}"
                    options = [f"paths.world={world}", f"run.output_dir={output}", *args.options]
                    runs.append(seconds_of_steps(tree, args.config, options, STEPS))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(base)], cwd=ROOT, check=True)
    before, now = (shortest(runs) for runs in taken.values())
    print(f"{args.base}: {1000 * before:.2f} ms a step, here: {1000 * now:.2f} ms: {100 * (now / before - 1):+.1f} %")


def shortest(runs: list[list[float]]) -> float:
    """Return the mean over steps of the shortest time that each took in several runs."""
    return statistics.mean(map(min, zip(*runs, strict=True)))


def seconds_of_steps(tree: Path, config: str, options: list[str], n: int) -> list[float]:
    """Return the processor time of each step of a run with the code of a working tree, without the first few."""
    steps = ["run.max_epoch=1", f"run.iters_per_epoch={n}", "run.warmup_steps=0"]
    words = [sys.executable, __file__, "train", "--cfg-path", f"train_configs/toy/{config}.yaml"]
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, "--options", *steps, *options], cwd=tree, env=env, check=True, stdout=subprocess.PIPE, text=True
    )
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def train() -> None:
    """Run ``video-llama train`` of the tree on PYTHONPATH, and print the time from each step to the next."""
    from video_llama.cli.main import main as video_llama
    from video_llama.runners.runner_base import RunnerBase

    started: list[float] = []
    take = RunnerBase.train_step

    def train_step(self: RunnerBase, *args: object) -> object:
        started.append(time.process_time())
        return take(self, *args)  # type: ignore[arg-type]

    RunnerBase.train_step = train_step  # type: ignore[method-assign, assignment]
    code = video_llama(sys.argv[1:])
    print(json.dumps([b - a for a, b in pairwise(started[FIRST:])]))
    sys.exit(code)


if __name__ == "__main__":
    train() if sys.argv[1:2] == ["train"] else main()
