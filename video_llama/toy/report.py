"""The quickstart's report: ``report.json`` for programs, ``report.md`` and ``report.png`` for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from video_llama.processors.decode import open_video

COLUMNS = ("full", "after_stage1", "blank_video", "chance")


def write_report(folder: Path, report: dict[str, Any], examples: Sequence[dict[str, Any]]) -> str:
    """Write the three files; returns the Markdown.

    Args:
        folder: where the quickstart ran; holds ``stage1``, ``stage2`` and ``world``.
        report: figures by question kind and by stage.
        examples: answered questions, several of each clip.
    """
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = _markdown(report)
    (folder / "report.md").write_text(text, encoding="utf-8")
    _picture(folder, report, examples)
    return text


def _markdown(report: dict[str, Any]) -> str:
    lines = [
        "# What the toy model learned",
        "",
        "Share of held-out questions answered exactly right. No training clip shows their combinations of shape,",
        "colour and motion. `blank_video`: the same questions with black frames. `after_stage1`: before instructions,",
        "when only captions were seen, which never tell the size.",
        "",
        "| question | n | full | after_stage1 | blank_video | chance |",
        "|---|---|---|---|---|---|",
    ]
    for kind, row in report["questions"].items():
        lines.append(f"| {kind} | {row['n']} | " + " | ".join(f"{row[c]:.1%}" for c in COLUMNS) + " |")
    lines += ["", "| stage | steps | first loss | last loss | seconds |", "|---|---|---|---|---|"]
    for name, stage in report["stages"].items():
        losses = f"{stage['first_loss']:.3f} | {stage['last_loss']:.3f}"
        lines.append(f"| {name} | {stage['steps']} | {losses} | {stage['seconds']} |")
    lines += ["", f"{report['seconds']} seconds in all; seed {report['seed']}. `report.png` shows it.", ""]
    return "\n".join(lines)


def _picture(folder: Path, report: dict[str, Any], examples: Sequence[dict[str, Any]]) -> None:
    clips = list(dict.fromkeys(e["video"] for e in examples))
    figure = plt.figure(figsize=(12, 3.4 + 1.9 * len(clips)), layout="constrained")
    grid = figure.add_gridspec(1 + len(clips), 2, height_ratios=[1.7, *[1] * len(clips)])
    _losses(figure.add_subplot(grid[0, 0]), folder, report)
    _bars(figure.add_subplot(grid[0, 1]), report)
    for row, clip in enumerate(clips, start=1):
        _frames(figure.add_subplot(grid[row, 0]), folder / "world" / "heldout" / "videos" / clip)
        _answers(figure.add_subplot(grid[row, 1]), [e for e in examples if e["video"] == clip])
    figure.savefig(folder / "report.png", dpi=110)
    plt.close(figure)


def _losses(axes: Axes, folder: Path, report: dict[str, Any]) -> None:
    for name in report["stages"]:
        lines = (folder / name / "metrics.jsonl").read_text().splitlines()
        axes.plot([json.loads(line)["loss"] for line in lines], label=name, linewidth=1)
    axes.set(title="loss per target token", xlabel="optimiser step", yscale="log")
    axes.legend(frameon=False)


def _bars(axes: Axes, report: dict[str, Any]) -> None:
    kinds = list(report["questions"])
    for i, column in enumerate(COLUMNS):
        heights = [report["questions"][kind][column] for kind in kinds]
        axes.bar(np.arange(len(kinds)) + 0.2 * i, heights, width=0.19, label=column)
    axes.set(title="held-out questions answered exactly right", ylim=(0, 1.25))
    axes.set_xticks(np.arange(len(kinds)) + 0.3, kinds)
    axes.legend(frameon=False, ncols=len(COLUMNS), loc="upper center", fontsize=8)


def _frames(axes: Axes, path: Path) -> None:
    video = open_video(path)
    indices = [int(i) for i in np.linspace(0, video.n_frames - 1, 6)]
    axes.imshow(np.concatenate(list(video.read(indices).numpy()), axis=1))
    axes.set_axis_off()


def _answers(axes: Axes, examples: Sequence[dict[str, Any]]) -> None:
    axes.set_axis_off()
    for line, example in enumerate(examples):
        right = example["answer"].lower() == example["expected"].lower()
        colour, mark = ("green", "") if right else ("firebrick", f"   (expected: {example['expected']})")
        text = f"{example['question']}  {example['answer']}{mark}"
        axes.text(0, 0.85 - 0.25 * line, text, color=colour, fontsize=11, transform=axes.transAxes)
