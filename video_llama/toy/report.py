"""The quickstart's report: ``report.json`` for programs, ``report.md`` and ``report.png`` for people."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from video_llama.evaluation.exact_match import is_right
from video_llama.processors.audio import SEGMENT_SECONDS, log_mel
from video_llama.processors.decode import SAMPLE_RATE, open_sound, open_video

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes

Table = dict[str, dict[str, Any]]
"""Accuracies by row and column, with the chance of a guess and the number of questions."""

ABOUT = {
    "vision": (
        "The video branch",
        "`full`: after stage 2, with the clips unchanged. `blank_video`: the same questions with black frames. "
        "`after_stage1`: before instruction tuning; captions never mention the size. `with_sound`: after training "
        "together with the audio branch, which also gets the clip's sound.",
    ),
    "sound": (
        "The audio branch alone, asked which sound it is",
        "Trained on sound, or trained only on frames, through ImageBind's vision encoder, and then used on sound. "
        "ImageBind's sound vectors have length 20, its frame vectors length 1; `audio_scale 1` scales sound to 1 as "
        "well. `silence`: silence instead of the sound. `other_sound`: the sound of a clip that sounds different; "
        "the expected answer is still the clip's own, so a model that uses the sound gets nothing right.",
    ),
    "both": (
        "Both branches, trained together",
        "`belongs`: does the sound belong to the shape? On half of the clips it is another shape's. Without one of the "
        "modalities it cannot be known, and half of the answers are right. With the sound of another clip it mostly "
        "does not belong, whatever the expected answer for the clip's own.",
    ),
}
"""Title and explanation of each table of figures."""


def write_report(folder: Path, report: dict[str, Any], examples: Sequence[dict[str, Any]]) -> str:
    """Write the three files; returns the Markdown.

    Args:
        folder: folder of the quickstart; has the world and a folder for each stage.
        report: the tables ``vision``, ``sound`` and ``both``, and the results of each stage.
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
        *_wrapped(
            "Share of held-out questions answered exactly right. No training clip shows their combinations of shape, "
            "colour and motion."
        ),
    ]
    for name, (title, about) in ABOUT.items():
        lines += ["", f"## {title}", "", *_wrapped(about), "", *_rows(report[name])]
    lines += ["", "## Training", "", "| stage | steps | first loss | last loss | seconds |", "|---|---|---|---|---|"]
    for name, stage in report["stages"].items():
        losses = f"{stage['first_loss']:.3f} | {stage['last_loss']:.3f}"
        lines.append(f"| {name} | {stage['steps']} | {losses} | {stage['seconds']} |")
    lines += ["", f"{report['seconds']} seconds in all; seed {report['seed']}. `report.png` shows it.", ""]
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 116, break_on_hyphens=False)


def _columns(table: Table) -> list[str]:
    return [column for column in next(iter(table.values())) if column != "n"]


def _rows(table: Table) -> list[str]:
    """Return a table of accuracies in Markdown."""
    columns = _columns(table)
    lines = [f"| question | n | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for kind, row in table.items():
        lines.append(f"| {kind} | {row['n']} | " + " | ".join(f"{row[c]:.1%}" for c in columns) + " |")
    return lines


def _picture(folder: Path, report: dict[str, Any], examples: Sequence[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    clips = list(dict.fromkeys(e["video"] for e in examples))
    figure = Figure(figsize=(14, 7 + 2.1 * len(clips)), layout="constrained")
    grid = figure.add_gridspec(2 + len(clips), 6, height_ratios=[1.5, 1.5, *[1] * len(clips)])
    _losses(figure.add_subplot(grid[0, :3]), folder, report)
    for place, name in ((grid[0, 3:], "vision"), (grid[1, :3], "sound"), (grid[1, 3:], "both")):
        _bars(figure.add_subplot(place), ABOUT[name][0], report[name])
    for row, clip in enumerate(clips, start=2):
        file = folder / "world" / "heldout" / "videos" / clip
        _frames(figure.add_subplot(grid[row, :3]), file)
        _spectrogram(figure.add_subplot(grid[row, 3]), file)
        _answers(figure.add_subplot(grid[row, 4:]), [e for e in examples if e["video"] == clip])
    figure.savefig(folder / "report.png", dpi=110)


def _losses(axes: Axes, folder: Path, report: dict[str, Any]) -> None:
    for name in report["stages"]:
        lines = (folder / name / "metrics.jsonl").read_text().splitlines()
        axes.plot([json.loads(line)["loss"] for line in lines], label=name, linewidth=1)
    axes.set(title="Loss per target token", xlabel="optimiser step", yscale="log")
    axes.legend(frameon=False)


def _bars(axes: Axes, title: str, table: Table) -> None:
    columns = _columns(table)
    width = 0.8 / len(columns)
    for i, column in enumerate(columns):
        heights = [row[column] for row in table.values()]
        axes.bar(np.arange(len(table)) + width * i, heights, width=0.95 * width, label=column)
    axes.set(title=title, ylabel="right", ylim=(0, 1.25))
    axes.set_xticks(np.arange(len(table)) + 0.4 - width / 2, [kind.replace(", ", ",\n") for kind in table])
    axes.legend(frameon=False, ncols=len(columns), loc="upper center", fontsize=8)


def _frames(axes: Axes, path: Path) -> None:
    video = open_video(path)
    indices = [int(i) for i in np.linspace(0, video.n_frames - 1, 6)]
    axes.imshow(np.concatenate(list(video.read(indices).numpy()), axis=1))
    axes.set_axis_off()


def _spectrogram(axes: Axes, path: Path) -> None:
    sound = open_sound(path)
    (waveform,) = sound.read([(0, min(SEGMENT_SECONDS * SAMPLE_RATE, sound.n_samples))])
    mel = log_mel(waveform)
    axes.imshow(mel[0].numpy(), origin="lower", aspect="auto", cmap="magma")
    axes.set_axis_off()


def _answers(axes: Axes, examples: Sequence[dict[str, Any]]) -> None:
    axes.set_axis_off()
    for line, example in enumerate(examples):
        right = is_right(example["answer"], example["expected"])
        colour, mark = ("green", "") if right else ("firebrick", f"   (expected: {example['expected']})")
        text = f"{example['question']}  {example['answer']}{mark}"
        axes.text(0, 0.9 - 0.17 * line, text, color=colour, fontsize=10, transform=axes.transAxes)
