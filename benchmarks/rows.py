"""What benchmarks find: rows in a JSON file each, ``benchmarks/results/NAME.json``, with the commit, the machine and the versions.

``python -m benchmarks.report`` writes the tables of ``docs/performance.md`` from these files.
"""

from __future__ import annotations

import json
import operator
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.minima import Times
from video_llama.common.versions import versions_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "transformers", "timm", "peft", "bitsandbytes", "decord", "av", "liger-kernel")
"""Packages whose versions are recorded, if they are installed."""
UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6}


@dataclass(frozen=True)
class Row:
    """One finding.

    Raises:
        ValueError: ``bound`` is not of the form ``>= 1.25``.
    """

    name: str
    value: float | None
    """None: not measured yet; the report says what it waits for."""
    unit: str
    median: float | None = None
    """Of the rounds, where ``value`` is their minimum."""
    ratio: float | None = None
    """How it compares with the baseline; above 1 is better."""
    bound: str | None = None
    """What is claimed of the ratio, or, without one, of the value: ``>= 1.25`` or ``<= 10``."""

    def __post_init__(self) -> None:
        if self.bound is not None and _BOUND.fullmatch(self.bound) is None:
            raise ValueError(f"bound {self.bound!r} of row {self.name!r}: write it as '>= 1.25' or '<= 10'")

    @property
    def holds(self) -> bool | None:
        """Whether the bound holds; None: there is no bound, or no value yet."""
        found = self.value if self.ratio is None else self.ratio
        if self.bound is None or found is None:
            return None
        sign, limit = self.bound.split()
        return {">=": operator.ge, "<=": operator.le}[sign](found, float(limit))


_BOUND = re.compile(r"(>=|<=) \d+(\.\d+)?")


def time_rows(
    times: Mapping[str, Times], baseline: str, unit: str = "ms", bounds: Mapping[str, str] | None = None
) -> list[Row]:
    """Return a row for each way, with how many times as fast as the baseline it is by the minima.

    Args:
        times: of each way.
        baseline: the way that the others are compared with.
        unit: s, ms or µs.
        bounds: claims about the ratios, by way.
    """
    scale, slowest = UNITS[unit], times[baseline].minimum
    return [
        Row(
            name,
            found.minimum * scale,
            unit,
            median=found.median * scale,
            ratio=None if name == baseline else slowest / found.minimum,
            bound=(bounds or {}).get(name),
        )
        for name, found in times.items()
    ]


def write(name: str, rows: Sequence[Row], command: str | None = None) -> None:
    """Print rows, and write them to ``benchmarks/results``.

    Args:
        name: of the benchmark, and of its table in the report.
        rows: what it found.
        command: what runs it; None: ``python -m benchmarks.NAME``.
    """
    content = {
        "benchmark": name,
        "command": command or f"python -m benchmarks.{name}",
        "commit": _commit(),
        "machine": machine(),
        "versions": versions_of(PACKAGES),
        "rows": [asdict(row) for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for row in rows:
        print(shown(row))
    print(f"written to {path.relative_to(ROOT)}")


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Return what ``write`` wrote: all of it, and its rows."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content, [Row(**row) for row in content["rows"]]


def shown(row: Row) -> str:
    """Return a row as a line of a terminal."""
    value = "not measured" if row.value is None else f"{row.value:.4g} {row.unit}"
    median = "" if row.median is None else f" (median {row.median:.4g})"
    ratio = "" if row.ratio is None else f"  {row.ratio:.2f}×"
    claim = "" if row.bound is None else f"  claimed {row.bound}: {'met' if row.holds else 'NOT MET'}"
    return f"{row.name:46} {value}{median}{ratio}{claim}"


def machine() -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    import torch

    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": platform.system(),
    }
    if torch.cuda.is_available():
        found |= {"gpu": torch.cuda.get_device_name(), "gpus": torch.cuda.device_count()}
    return found


def _cpu_name() -> str:
    """Return the processor's name, with the instructions that decide the speed of half precision."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = set((re.search(r"^flags\s*: (.*)$", text, re.MULTILINE) or [""])[0].split())
    wide = [
        label for flag, label in (("avx512f", "AVX-512"), ("avx512_bf16", "bf16"), ("amx_bf16", "AMX")) if flag in flags
    ]
    return ", ".join([name[1] if name else platform.machine(), *wide])


def _commit() -> str:
    """Return the revision, marked if code of the product or of the benchmarks differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "video_llama", "benchmarks/*.py")
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
