"""The report of ``check-data`` as a web page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from video_llama.cli.histogram import histogram, number
from video_llama.cli.page import figures, page, table
from video_llama.runners.survey_report import WORST, SurveyReport

TITLES = {
    "seconds": "Duration of a file, s",
    "megabytes": "Size of a file, MB",
    "short_side": "Shorter side of a frame, pixels",
    "tokens": "Length of a sample, tokens",
    "target_tokens": "Caption or answers, tokens with loss",
    "read_seconds": "Time to read a record, s",
}
OFFENDERS = {
    "read_seconds": ("Slowest to read", "s"),
    "megabytes": ("Largest files", "MB"),
    "seconds": ("Longest files", "s"),
    "tokens": ("Longest samples", "tokens"),
}
SHOWN_BAD = 500


def survey_html(name: str, report: SurveyReport) -> str:
    """Return the page of a survey of the data of a YAML."""
    title = f"Data of {Path(name).stem}"
    body = f"""<h1>{escape(title)}</h1>
<p class="lead">{_extent(report)}</p>
{_verdict(report)}
{_figures(report)}
<h2>Data sets</h2>
{_datasets(report)}
<h2>Distributions</h2>
<div class="histograms">{"".join(_histograms(report))}</div>
<h2>Records that cannot be used</h2>
{_bad(report)}
<h2>Worst offenders</h2>
<div class="two">{"".join(_offenders(report))}</div>
<h2>Duplicates</h2>
<div class="two">
<div><h3>Files with the same content</h3>{_groups(report.copies())}</div>
<div><h3>Records with the same files and answers</h3>{_groups(report.repeated())}</div>
</div>"""
    return page(title, body, "survey.css")


def _extent(report: SurveyReport) -> str:
    totals = report.totals
    which = "All" if totals["read"] == totals["records"] else f"{totals['read']:,} of"
    return f"{which} {totals['records']:,} records were read as training reads them."


def _verdict(report: SurveyReport) -> str:
    totals = report.totals
    if not totals["bad"]:
        return '<p class="verdict good">Every record that was read can be used.</p>'
    share = 100 * totals["bad"] / totals["read"]
    return (
        f'<p class="verdict bad">{totals["bad"]:,} records ({number(share)} %) cannot be used, and would be replaced '
        f"by others in training.</p>"
    )


def _figures(report: SurveyReport) -> str:
    totals = report.totals
    sounding = totals["with_sound"] + totals["without_sound"]
    usable = totals["read"] - totals["bad"]
    return figures(
        [
            ("Records read", f"{totals['read']:,}", ""),
            ("!Bad" if totals["bad"] else "Bad", f"{totals['bad']:,}", ""),
            ("Files", f"{totals['files']:,}", ""),
            ("On disk", _size(totals["bytes"]), ""),
            ("Playing time", _time(totals["milliseconds"] / 1000), ""),
            ("With sound", f"{100 * totals['with_sound'] / sounding:.0f} %" if sounding else "–", ""),
            ("Truncated", f"{100 * totals['truncated'] / usable:.1f} %" if usable else "–", ""),
        ]
    )


def _datasets(report: SurveyReport) -> str:
    def mean(values: Sequence[float]) -> str:
        return number(sum(values) / len(values)) if values else "–"

    rows = [
        [
            name,
            *(f"{count[key]:,}" for key in ("records", "read", "bad", "damaged", "truncated", "files")),
            _time(count["milliseconds"] / 1000),
            _size(count["bytes"]),
            *(mean(report.of_dataset[name][key]) for key in ("tokens", "target_tokens")),
        ]
        for name, count in report.counts.items()
    ]
    names = ["Records", "Read", "Bad", "Damaged", "Truncated", "Files", "Plays", "On disk", "Tokens", "With loss"]
    return table(["Data set", *(f"{name}#" for name in names)], rows)


def _histograms(report: SurveyReport) -> list[str]:
    return [
        f'<div class="card"><h3>{title}</h3>{histogram(report.values[measure])}</div>'
        for measure, title in TITLES.items()
        if report.values[measure]
    ]


def _bad(report: SurveyReport) -> str:
    reasons = table(
        ["Records#", "Reason*", "For example*"],
        [[f"{n:,}", reason, example] for reason, n, example in report.reasons()],
        empty="None: every record that was read can be used.",
    )
    rows = [[entry["id"], str(entry.get("path") or "–"), entry["reason"]] for entry in report.bad[:SHOWN_BAD]]
    if not rows:
        return reasons
    all_shown = len(rows) == len(report.bad)
    which = f"All {len(rows):,}" if all_shown else f"The first {SHOWN_BAD:,} of {len(report.bad):,}"
    return f"{reasons}<details><summary>{which}</summary>{table(['Record*', 'File*', 'Reason*'], rows)}</details>"


def _offenders(report: SurveyReport) -> list[str]:
    found = [
        (title, f"{unit}#", report.worst(measure)[:8])
        for measure, (title, unit) in OFFENDERS.items()
        if report.values[measure]
    ]
    if report.truncated:
        longest = [(float(n), name) for n, name in sorted(report.truncated, reverse=True)[:8]]
        found.append(("Truncated", "tokens left#", longest))
    parts = [
        f"<div><h3>{title}</h3>{table([unit, 'Name*'], [[number(value), name] for value, name in worst])}</div>"
        for title, unit, worst in found
    ]
    if report.damaged:
        rows = [[one["id"], one["damage"]] for one in report.damaged[:WORST]]
        parts.append(f"<div><h3>Used although damaged</h3>{table(['Record*', 'Damage*'], rows)}</div>")
    return parts


def _groups(groups: Sequence[Sequence[str]]) -> str:
    rows = [
        [str(len(group)), ", ".join(group[:4]) + (f" and {len(group) - 4} more" if len(group) > 4 else "")]
        for group in groups[:WORST]
    ]
    more = f"<p class=quiet>and {len(groups) - WORST:,} more groups</p>" if len(groups) > WORST else ""
    return table(["Copies#", "Names*"], rows) + more


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{number(seconds)} s"
    return f"{number(seconds / 60)} min" if seconds < 7200 else f"{number(seconds / 3600)} h"


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{number(n_bytes)} {unit}"
        n_bytes /= 1000
    return f"{number(n_bytes)} TB"
