"""Curves of runs as a picture: ``curves.png`` of one, ``compare.png`` of several. Needs matplotlib, an extra."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from video_llama.common.files import replacing
from video_llama.runners.run_status import METRICS, VALIDATION, Series, read_log, series, smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = "the curves need matplotlib: pip install 'video_llama[plot]'"
POINTS = 2000
"""Most points of a curve; of a longer one every n-th."""
WINDOW = 20
"""Steps that a curve is smoothed over."""


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_run(folder: Path, path: Path) -> None:
    """Draw the loss, its parts, the learning rate, the gradient norm, the speed and the validation of a run.

    Raises:
        OSError: the file cannot be written.
    """
    log, validation = list(read_log(folder / METRICS)), list(read_log(folder / VALIDATION))
    datasets = sorted({name for record in log for name in record.get("by_dataset", {})})
    media = sorted({name for record in log for name in record.get("by_media", {})})
    parts = {name: _part(log, "by_dataset", name) for name in datasets}
    of_media = {name: _part(log, "by_media", name) for name in media}
    panels: dict[str, dict[str, Series]] = {
        "loss": {"each step": series(log, "loss"), f"over {WINDOW} steps": smoothed(series(log, "loss"), WINDOW)},
        f"loss by data set, over {WINDOW} steps": {k: smoothed(v, WINDOW) for k, v in parts.items()},
        f"loss by media, over {WINDOW} steps": {k: smoothed(v, WINDOW) for k, v in of_media.items()},
        "learning rate": {"": series(log, "lr")},
        "gradient norm": {"": series(log, "grad_norm")},
        "samples per second": {"": series(log, "samples_per_second")},
    }
    for name in dict.fromkeys(key for record in validation for key in record if key != "step"):
        panels.setdefault("validation", {})[name] = series(validation, name)
    _draw(panels, path, folder.resolve().name)


def draw_comparison(folders: Mapping[str, Path], path: Path) -> None:
    """Draw the curves of several runs together, one panel for each metric.

    Raises:
        OSError: the file cannot be written.
    """
    logs = {name: list(read_log(folder / METRICS)) for name, folder in folders.items()}
    validations = {name: list(read_log(folder / VALIDATION)) for name, folder in folders.items()}
    panels = {
        f"loss over {WINDOW} steps": {name: smoothed(series(log, "loss"), WINDOW) for name, log in logs.items()},
        "learning rate": {name: series(log, "lr") for name, log in logs.items()},
        "gradient norm": {name: series(log, "grad_norm") for name, log in logs.items()},
        "samples per second": {name: series(log, "samples_per_second") for name, log in logs.items()},
    }
    for metric in dict.fromkeys(k for log in validations.values() for record in log for k in record if k != "step"):
        panels[metric] = {name: series(log, metric) for name, log in validations.items()}
    _draw(panels, path, "")


def _part(log: Sequence[Mapping[str, Any]], group: str, name: str) -> Series:
    found = [(record["step"], record.get(group, {}).get(name, {}).get("loss")) for record in log]
    return [(step, value) for step, value in found if value is not None]


def _draw(panels: Mapping[str, Mapping[str, Series]], path: Path, title: str) -> None:
    from matplotlib.figure import Figure

    columns = 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(12, 3.2 * rows), layout="constrained")
    figure.suptitle(title)
    for i, (name, lines) in enumerate(panels.items()):
        _panel(figure.add_subplot(rows, columns, i + 1), name, lines)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _panel(axes: Axes, name: str, lines: Mapping[str, Series]) -> None:
    axes.set_title(name, fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)
    for label, points in lines.items():
        if points:
            steps, values = zip(*points[:: 1 + len(points) // POINTS], strict=True)
            faint = label == "each step"
            marker = "." if len(points) < 20 else None
            axes.plot(steps, values, label=label, linewidth=1, alpha=0.3 if faint else 1, marker=marker)
    if any(label and points for label, points in lines.items()):
        axes.legend(fontsize=7)
