"""Writes the tables of ``docs/performance.md`` from ``benchmarks/results``.

    python -m benchmarks.report [--check]

Only lines between ``<!-- rows: NAME -->`` and ``<!-- end -->`` are replaced; everything else there is written by hand. ``waiting``
names the table of claims that have no value yet. ``--check`` changes nothing, and fails if the file is out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.gpu_claims import GPU_CLAIMS
from benchmarks.rows import RESULTS, ROOT, Row, read

PAGE = ROOT / "docs" / "performance.md"
REGION = re.compile(r"(<!-- rows: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Update the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    args = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = filled(before, RESULTS)
    if args.check:
        sys.exit(f"{PAGE.name} is out of date: run python -m benchmarks.report" if after != before else 0)
    PAGE.write_text(after, encoding="utf-8")


def filled(page: str, results: Path) -> str:
    """Return the page with its tables made anew.

    Raises:
        SystemExit: a benchmark has results but no place on the page, or a place but no results.
    """
    places = {name for _, name, _ in REGION.findall(page)}
    files = {path.stem: path for path in results.glob("*.json")}
    if homeless := sorted(files.keys() - places):
        sys.exit(
            f"{PAGE.name} has no place for {', '.join(homeless)}: add '<!-- rows: {homeless[0]} -->' and '<!-- end -->'"
        )
    if empty := sorted(places - files.keys() - {"waiting"}):
        sys.exit(f"{PAGE.name} has a place for {empty[0]}, but {results}/{empty[0]}.json is missing: run the benchmark")

    def table_of(found: re.Match[str]) -> str:
        start, name, end = found.groups()
        lines = waiting(files) if name == "waiting" else table(files[name])
        return start + "\n".join(["", *lines, ""]) + "\n" + end

    return REGION.sub(table_of, page)


def table(path: Path) -> list[str]:
    """Return the lines of a benchmark's table, and of where it was measured."""
    content, rows = read(path)
    machine, versions = content["machine"], content["versions"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['torch_threads']} threads"
    if "gpu" in machine:
        where = f"{machine['gpus']} × {machine['gpu']}, {where}"
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return [*lines_of(rows), "", f"`{content['command']}`, revision {content['commit']}. {where}; {packages}."]


def lines_of(rows: list[Row]) -> Iterator[str]:
    """Yield the lines of a table; columns that no row fills are left out."""
    columns = {
        "": [row.name for row in rows],
        "value": ["not measured" if row.value is None else f"{number(row.value)} {row.unit}".strip() for row in rows],
        "median": ["" if row.median is None else number(row.median) for row in rows],
        "ratio": ["" if row.ratio is None else f"{row.ratio:.2f}" for row in rows],
        "claim": ["" if row.bound is None else claim(row) for row in rows],
    }
    kept = {head: cells for head, cells in columns.items() if any(cells)}  # the first head is empty
    yield line(kept)
    yield "|" + "---|" * len(kept)
    yield from map(line, zip(*kept.values(), strict=True))


def line(cells: Iterable[str]) -> str:
    """Return a line of a table."""
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def claim(row: Row) -> str:
    """Return what is claimed of a row, and whether it is met."""
    assert row.bound is not None
    text = row.bound.replace(">=", "≥").replace("<=", "≤")
    return text if row.holds is not False else f"{text}: **not met**"


def number(value: float) -> str:
    """Return a number with about three digits: 12,345, 123, 12.3, 1.23, 0.0123."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def waiting(files: dict[str, Path]) -> list[str]:
    """Return the claims about a GPU that no result covers."""
    covered = {row.name for path in files.values() for row in read(path)[1] if row.value is not None}
    left = [row for row in GPU_CLAIMS if row.name not in covered]
    if not left:
        return ["Nothing: every claim has been measured."]
    return [
        "| | claim |",
        "|---|---|",
        *(f"| {row.name} | {claim(row)} {row.unit} |".replace("  ", " ") for row in left),
    ]


if __name__ == "__main__":
    main()
