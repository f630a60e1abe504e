"""From what benchmarks find to the tables of docs/performance.md."""

from __future__ import annotations

import json

import pytest

from benchmarks import report, rows
from benchmarks.minima import Times, timed
from benchmarks.rows import Row, time_rows

PAGE = """# Performance

By hand.

<!-- rows: step -->
| old |
<!-- end -->

By hand too.
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setattr(rows, "ROOT", tmp_path)
    return tmp_path


def written(*found: Row) -> None:
    rows.write("step", found)


def test_ways_take_turns():
    order: list[str] = []
    timed({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["a", "b"] * 3


def test_a_row_compares_the_shortest_times():
    times = {"original": Times((2.0, 4.0, 3.0)), "ours": Times((1.0, 9.0, 1.5))}
    original, ours = time_rows(times, "original", "s", bounds={"ours": ">= 1.25"})
    assert (original.value, original.median, original.ratio) == (2.0, 3.0, None)
    assert (ours.value, ours.median, ours.ratio, ours.holds) == (1.0, 1.5, 2.0, True)


@pytest.mark.parametrize(
    ("row", "holds"),
    [
        (Row("a", 5.0, "ms", ratio=1.2, bound=">= 1.25"), False),
        (Row("a", 5.0, "KiB", bound="<= 10"), True),
        (Row("a", None, "KiB", bound="<= 10"), None),
        (Row("a", 5.0, "KiB"), None),
    ],
)
def test_a_bound_is_on_the_ratio_and_without_one_on_the_value(row, holds):
    assert row.holds is holds


def test_a_bound_that_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="write it as"):
        Row("a", 1.0, "", bound="about 3")


def test_results_name_the_code_the_machine_and_the_versions(results):
    written(Row("ours", 1.0, "ms"))
    content = json.loads((results / "step.json").read_text())
    assert {"commit", "machine", "versions", "command", "rows"} <= content.keys()
    assert {"cpu", "cores", "torch_threads"} <= content["machine"].keys()
    assert "torch" in content["versions"]


def test_the_report_replaces_its_tables_and_nothing_else(results):
    written(Row("ours", 12.34, "ms", ratio=1.5, bound=">= 1.25"), Row("others", 100000.0, "ms"))
    page = report.filled(PAGE, results)
    assert page.startswith("# Performance\n\nBy hand.\n\n<!-- rows: step -->\n")
    assert page.endswith("<!-- end -->\n\nBy hand too.\n")
    assert "| ours | 12.3 ms | 1.50 | ≥ 1.25 |" in page
    assert "| others | 100,000 ms | | |" in page
    assert "old" not in page
    assert report.filled(page, results) == page


def test_a_claim_that_is_not_met_is_shown_as_such(results):
    written(Row("ours", 1.0, "ms", ratio=1.1, bound=">= 1.25"))
    assert "≥ 1.25: **not met**" in report.filled(PAGE, results)


def test_results_without_a_place_on_the_page_are_not_dropped(results):
    written(Row("ours", 1.0, "ms"))
    with pytest.raises(SystemExit, match="no place for step"):
        report.filled("# Performance\n", results)


def test_a_place_without_results_is_an_error(results):
    with pytest.raises(SystemExit, match=r"step\.json is missing"):
        report.filled(PAGE, results)


def test_claims_about_a_gpu_wait_until_they_are_measured(results):
    page = "<!-- rows: waiting -->\n<!-- end -->\n"
    claimed = report.GPU_CLAIMS[0]
    line = f"| {claimed.name} |"
    assert line in report.filled(page, results)
    written(Row(claimed.name, 90.0, claimed.unit))
    page += PAGE
    assert line not in report.filled(page, results).split("<!-- end -->")[0]


def test_performance_md_is_what_the_results_say():
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.filled(page, rows.RESULTS) == page, "run python -m benchmarks.report"
