"""``video-llama check-data``: open every file of a run's data, and report what is in it and what cannot be used."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from video_llama.cli.job_data import add_config_flags, load_data_config
from video_llama.common.errors import OutputError, VideoLlamaError

if TYPE_CHECKING:
    from video_llama.config.loader import JobConfig
    from video_llama.datasets.base import Dataset
    from video_llama.runners.data_survey import Line, Task
    from video_llama.runners.survey_report import SurveyReport

RECORDS, REPORT, PAGE = "records.jsonl", "report.json", "report.html"
"""Files in the output folder: what is known about each record, so that it is read once; and the report."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config_flags(parser)
    parser.add_argument(
        "--sample", type=int, metavar="N", help="read at most N records of each data set, drawn at random"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where the report goes (default: check_data in the run's output_dir)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that read (default: one for each processor core, 16 at most)",
    )
    parser.add_argument(
        "--deadline", type=float, metavar="S", help="give up on a file after S seconds (default: run.read_timeout)"
    )
    parser.add_argument(
        "--write-ledger",
        action="store_true",
        help="list the files that cannot be used in the run's bad_samples.jsonl, so that training does not open them",
    )
    parser.add_argument(
        "--retry", action="store_true", help="empty the run's bad_samples.jsonl, and read again what could not be used"
    )


def run(args: argparse.Namespace) -> int:
    """Read the records that are not known yet, and write the report; return 1 if some cannot be used.

    Raises:
        VideoLlamaError: the config or its data cannot be used, or the report cannot be written.
    """
    for flag, value in (("--sample", args.sample), ("--workers", args.workers), ("--deadline", args.deadline)):
        if value is not None and not value > 0:
            raise VideoLlamaError(f"{flag}: {value}; expected more than 0")
    job, spec = load_data_config(args.cfg_path, args.options)

    from video_llama.common.registry import DATASETS  # these are slow to import
    from video_llama.config.serialize import registered_class
    from video_llama.datasets.quarantine import LEDGER, Quarantine
    from video_llama.runners.data_survey import Survey
    from video_llama.runners.folder_lock import locked

    datasets = [registered_class(DATASETS, config)(config, spec, name) for name, config in job.datasets.items()]
    folder = args.output or Path(job.run.output_dir, "check_data")
    ledger = Path(job.run.output_dir, LEDGER)
    setting = "run.output_dir" if args.output is None else "--output"
    with locked(folder, setting), locked(ledger.parent) if args.retry or args.write_ledger else nullcontext():
        journal = Journal(folder / RECORDS, _fingerprint(job, datasets))
        if args.retry:
            print(f"{ledger}: {Quarantine(ledger).retry()} lines dropped, {journal.forget_bad()} records to read again")
        wanted = list(_tasks(datasets, args.sample))
        survey = Survey(datasets, args.workers or min(16, os.cpu_count() or 1), args.deadline or _read_timeout(job.run))
        report = _read(survey, journal, wanted)
        _write_report(folder, args.cfg_path, report)
        if args.write_ledger:
            _write_ledger(folder / LEDGER, ledger, report)
    _print_summary(report, folder)
    return 1 if report.bad else 0


class Journal:
    """What is known about the records read so far, one per line, so that a killed command resumes after them.

    Args:
        path: the file.
        key: identifies the data and how it is read.

    Raises:
        OutputError: the file belongs to other data, or cannot be read or written.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        try:
            if not path.exists():
                self._replace([{"data": key}])
            lines = path.read_bytes().split(b"\n")
            found = [json.loads(line) for line in lines[:-1]]
            if lines[-1]:  # a killed command was writing it
                self._replace(found)
        except (OSError, ValueError) as error:
            raise OutputError(f"{path}: cannot be used: {error}. Remove it, or name another --output") from error
        if not found or found[0].get("data") != key:
            raise OutputError(
                f"{path}: is about other data, or data that is read in another way: the YAML or an annotation file has "
                "changed. Remove it, or name another --output"
            )
        self.lines: list[Line] = list({(line["dataset"], line["record"]): line for line in found[1:]}.values())

    def forget_bad(self) -> int:
        """Drop the records that cannot be used, and return their number."""
        good = [line for line in self.lines if "bad" not in line]
        dropped = len(self.lines) - len(good)
        self._replace([json.loads(self.path.read_bytes().split(b"\n", 1)[0]), *good])
        self.lines = good
        return dropped

    def append(self, lines: Iterator[Line]) -> Iterator[Line]:
        """Write lines as they come, and pass them on.

        Raises:
            OutputError: they cannot be written.
        """
        try:
            with open(self.path, "a", encoding="utf-8", errors="surrogateescape", buffering=1) as file:
                for line in lines:
                    file.write(json.dumps(line) + "\n")
                    yield line
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _replace(self, lines: Sequence[Line]) -> None:
        _write_lines(self.path, lines)


def _write_lines(path: Path, lines: Sequence[Line]) -> None:
    """Replace a file by one of JSON lines."""
    from video_llama.cli.page import write_page

    write_page(path, "".join(json.dumps(line) + "\n" for line in lines))


def _tasks(datasets: Sequence[Dataset], sample: int | None) -> Iterator[Task]:
    """Yield the records to read; of a sample of N, the first N of one order, so that a larger one contains it."""
    from video_llama.datasets.permutation import permuted
    from video_llama.runners.data_survey import Task

    for number, dataset in enumerate(datasets):
        n = len(dataset)
        if sample is None or sample >= n:
            yield from (Task(number, record) for record in range(n))
        else:
            yield from (Task(number, permuted(position, n, (0,))) for position in range(sample))


def _read(survey: Any, journal: Journal, wanted: Sequence[Task]) -> SurveyReport:
    """Read the wanted records that are not known yet, with a progress bar, and return a report on all that are wanted."""
    from tqdm import tqdm

    from video_llama.runners.survey_report import SurveyReport

    report = SurveyReport({dataset.name: len(dataset) for dataset in survey.datasets})
    names = [dataset.name for dataset in survey.datasets]
    known = {(line["dataset"], line["record"]): line for line in journal.lines}
    left = []
    for task in wanted:
        line = known.get((names[task.dataset], task.record))
        if line is not None and _holds(line):
            report.add(line)
        else:
            left.append(task)
    bar = tqdm(total=len(wanted), initial=len(wanted) - len(left), unit="record", disable=None, file=sys.stderr)
    try:
        with bar:
            for line in journal.append(survey(iter(left))):
                report.add(line)
                bar.set_postfix(bad=len(report.bad), refresh=False)
                bar.update()
    except KeyboardInterrupt:
        print(f"stopped after {bar.n} of {bar.total} records; the same command goes on", file=sys.stderr)
        raise
    return report


def _holds(line: Line) -> bool:
    """Return whether what is known about a record still holds: its files are as they were."""
    from video_llama.runners.data_survey import file_state

    if "bad" in line and not line["files"]:
        return False  # no file was opened, so reading it again takes no time
    return all(file_state(file["path"]) == file["state"] for file in line["files"])


def _fingerprint(job: JobConfig, datasets: Sequence[Dataset]) -> str:
    """Return a digest of the data and of how it is read."""
    from video_llama import __version__

    config = job.as_dict()
    said = [__version__, config["model"], config["datasets"], [dataset.digest() for dataset in datasets]]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _read_timeout(run_config: Any) -> float:
    """Return ``run.read_timeout``; for the run of a runner from outside that has none, its default."""
    from video_llama.runners.config import RunConfig

    return float(getattr(run_config, "read_timeout", RunConfig.read_timeout))


def _write_report(folder: Path, name: str, report: SurveyReport) -> None:
    from video_llama.cli.page import write_page
    from video_llama.cli.survey_page import survey_html

    write_page(folder / REPORT, json.dumps(report.as_dict(), indent=1) + "\n")
    write_page(folder / PAGE, survey_html(name, report))


def _write_ledger(own: Path, ledger: Path, report: SurveyReport) -> None:
    """Add the records that cannot be used to the ledger of the run."""
    from video_llama.datasets.quarantine import Quarantine

    _write_lines(own, report.bad)
    print(f"{ledger}: {Quarantine(ledger).prepare(own)} lines")


def _print_summary(report: SurveyReport, folder: Path) -> None:
    for name, count in report.counts.items():
        extra = "".join(f", {count[key]:,} {key}" for key in ("damaged", "truncated") if count[key])
        print(f"{name}: {count['read']:,} of {count['records']:,} records read, {count['bad']:,} bad{extra}")
    for reason, n, example in report.reasons()[:10]:
        print(f"  {n:,} × {reason}  ({example})")
    print(folder / PAGE)
