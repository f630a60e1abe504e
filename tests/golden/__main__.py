"""Golden losses of the toy stages: ``make golden`` compares this tree's training numbers with the recorded ones.

Each stage trains for 20 steps in one process and one thread, without dropout, on a small toy world. On the kind of CPU and the
torch version that ``losses.json`` names, every loss must be bit-identical; elsewhere, kernels differ and the bound is
``TOLERANCE``. For a bit-exact comparison on any machine, name a revision: ``python -m tests.golden --base main~3``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_name("losses.json")
STEPS = 20
TOLERANCE = 1e-4
"""Relative; twenty steps of training amplify the last bits of a matrix product."""

COMMON = [
    "run.max_epoch=1",
    f"run.iters_per_epoch={STEPS}",
    "run.warmup_steps=5",
    "run.batch_size_train=8",
    "run.seed=0",
    "model.qformer.dropout=0.0",
]
MIXED = [
    "datasets.plain.name=llava_instruct",
    "datasets.plain.vis_processor.train={name: blip2_image_eval, image_size: 64}",
    "datasets.plain.sample_ratio=20",
    "datasets.webvid.vis_processor.train={name: alpro_video_eval, n_frms: 2, image_size: 64}",
    "datasets.webvid.text_processor.train={name: blip_caption}",
    "datasets.webvid.sample_ratio=30",
    "datasets.cc_sbu_align.vis_processor.train={name: blip2_image_eval, image_size: 64}",
    "datasets.cc_sbu_align.text_processor.train={name: blip_caption}",
    "datasets.cc_sbu_align.sample_ratio=20",
    "model.prompt_path=prompts/alignment_image.txt",
    "model.audio_source=both",
    "run.accum_grad_iters=2",
]
"""Captions of clips and images, and plain text, beside the instructions of the stage for both branches."""


def main() -> int:
    """Compare, or write the record; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the record")
    parser.add_argument("--base", metavar="REV", help="compare with this git revision, run here, not with the record")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = _world(Path(folder))
        found = {"platform": _platform(), "losses": _losses(ROOT, world, Path(folder) / "runs")}
        if args.write:
            RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(f"wrote {RECORD}")
            return 0
        expected = _of_revision(args.base, world, Path(folder)) if args.base else json.loads(RECORD.read_text("utf-8"))
    return _compare(found, expected)


def _platform() -> dict[str, str]:
    """What decides the last bits of a loss, beside the code."""
    import torch

    cpu = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "torch": torch.__version__,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "cpu": cpu[0] if cpu else "",
    }


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


def _world(folder: Path) -> Path:
    """Write the toy world, and a file of dialogues without media."""
    from video_llama.toy.world import write_world

    world = write_world(folder / "world", n_clips=60, n_heldout=12, n_images=8)
    talk = [
        {"conversations": [{"from": "human", "value": f"Say {word}."}, {"from": "gpt", "value": word}]}
        for word in ("red", "blue", "green", "left", "right")
    ]
    (world / "plain.json").write_text(json.dumps(talk), encoding="utf-8")
    return world


def _losses(root: Path, world: Path, runs: Path) -> dict[str, list[float]]:
    """Train every stage with the code of a working tree."""
    losses: dict[str, list[float]] = {}

    def stage(name: str, config: str, *options: str) -> str:
        words = [sys.executable, "train.py", "--cfg-path", f"train_configs/toy/{config}.yaml", "--options"]
        words += [f"paths.world={world}", *COMMON, *options, f"run.output_dir={runs / name}"]
        print(f"{name}: {STEPS} steps", flush=True)
        env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=root, env=env, check=False, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr}")
        lines = (runs / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses[name] = [json.loads(line)["loss"] for line in lines]
        return str(next((runs / name).glob("checkpoint_*.pth")))

    stage1 = stage("stage1", "stage1_pretrain")
    stage2 = stage("stage2", "stage2_finetune", f"paths.stage1={stage1}")
    sound = stage("audio_on_sound", "audiobranch_finetune")
    stage("audio_on_frames", "audiobranch_finetune", "model.audio_source=frames")
    start = [f"paths.stage2={stage2}", f"paths.audiobranch={sound}"]
    stage("both_branches", "both_branches_finetune", *start)
    files = [
        f"datasets.plain.build_info={{anno_dir: {world}/plain.json, videos_dir: {world}}}",
        f"datasets.webvid.build_info={{anno_dir: {world}/webvid/filter_annotation, videos_dir: {world}/webvid/videos}}",
        f"datasets.cc_sbu_align.build_info.storage={world}/cc3m",
    ]
    stage("mixed_media", "both_branches_finetune", *start, *MIXED, *files)
    return losses


def _of_revision(revision: str, world: Path, folder: Path) -> dict[str, object]:
    tree = folder / "base"
    subprocess.run(["git", "worktree", "add", "--detach", str(tree), revision], cwd=ROOT, check=True)
    try:
        return {"platform": _platform(), "losses": _losses(tree, world, folder / "base_runs")}
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def _compare(found: dict, expected: dict) -> int:
    exact = found["platform"] == expected["platform"]
    if not exact:
        print(f"recorded on {expected['platform']}; this is {found['platform']}: compared to {TOLERANCE} relative")
    different = found["losses"].keys() ^ expected["losses"].keys()
    for name in found["losses"].keys() & expected["losses"].keys():
        # not strict: a run with too few losses is reported below
        pairs = list(zip(found["losses"][name], expected["losses"][name], strict=False))
        same = [a == b if exact else abs(a - b) <= TOLERANCE * abs(b) for a, b in pairs]
        if not all(same) or len(pairs) != STEPS:
            step = same.index(False) if not all(same) else len(pairs)
            detail = f": {pairs[step][0]!r}, expected {pairs[step][1]!r}" if step < len(pairs) else ""
            print(f"{name} differs from step {step} on{detail}")
            different |= {name}
    print(
        "FAILED"
        if different
        else f"{len(found['losses'])} runs of {STEPS} steps: {'bit-identical' if exact else 'equal'}"
    )
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
