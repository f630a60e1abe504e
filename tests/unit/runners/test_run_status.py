"""The state of runs, from their files alone; their report and their curves."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.unit.runners.runs import losses, trained
from video_llama.cli.main import main
from video_llama.common.errors import Preempted, TrainingError
from video_llama.runners import curves
from video_llama.runners.folder_lock import is_held
from video_llama.runners.run_report import write_report
from video_llama.runners.run_status import read_log, runs_below, smoothed, status
from video_llama.runners.sessions import facts, read_sessions, recorded


def written(folder: Path, error: BaseException | None = None, **about: Any) -> Path:
    """A run of six steps that ended so."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "metrics.jsonl").exists():
        lines = [{"step": i, "loss": 3.0 - i / 4, "samples_per_second": 10.0 + i} for i in range(6)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    expected = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with expected, recorded(folder, processes=2) as session:
        session.add(first_step=0, total_steps=8, **about)
        if error is not None:
            raise error
    return folder


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (None, "done", ""),
        (Preempted("SIGTERM: saved after step 6"), "preempted", "SIGTERM: saved after step 6"),
        (TrainingError("the loss is nan\nand more"), "failed", "the loss is nan"),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt"),
    ],
)
def test_a_run_has_the_state_in_which_it_ended(tmp_path, error, state, reason):
    found = status(written(tmp_path, error), held=False)
    assert (found.state, found.reason, found.step, found.total_steps) == (state, reason, 6, 8)
    assert found.samples_per_second == 12.5


def test_a_run_that_was_killed_did_not_write_its_end(tmp_path):
    code = "import os, sys, pathlib\nfrom video_llama.runners.sessions import recorded\n"
    code += "with recorded(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert read_sessions(tmp_path)[0]["state"] == "running"
    found = status(tmp_path, held=is_held(tmp_path))
    assert (found.state, found.step) == ("failed", 0)
    assert "killed" in found.reason


def test_a_run_whose_folder_a_process_holds_is_running(tmp_path):
    code = "import sys, pathlib\nfrom video_llama.runners.folder_lock import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(written(tmp_path, TrainingError("before")))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert status(tmp_path, held=is_held(tmp_path)).state == "running"
        process.communicate("")
    assert status(tmp_path, held=is_held(tmp_path)).state == "failed"


def test_a_resumed_run_keeps_what_its_earlier_sessions_wrote(tmp_path):
    written(tmp_path, Preempted("stopped"))
    written(tmp_path)
    assert [s["state"] for s in read_sessions(tmp_path)] == ["preempted", "done"]
    assert status(tmp_path, held=False).state == "done"


def test_a_full_disk_does_not_stop_a_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with recorded(tmp_path):
        pass
    assert "cannot be written (No space left); the run goes on" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sessions": 3}', '{"sessions": [1]}'])
def test_an_unreadable_file_is_a_run_that_wrote_nothing(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    assert read_sessions(tmp_path) == []


def test_torn_lines_of_a_log_are_left_out(tmp_path):
    (tmp_path / "log").write_text('{"step": 0}\n{"step": 1, "lo\n\nnull\n{"step": 2}\n{"st')
    assert [record["step"] for record in read_log(tmp_path / "log")] == [0, 2]


# The best metric


def test_without_a_validation_the_best_is_the_lowest_mean_loss(tmp_path):
    best = status(written(tmp_path), held=False).best
    assert best == ("loss over 6 steps", pytest.approx(2.375), 6)


def test_with_a_validation_it_is_its_loss(tmp_path):
    lines = [
        {"step": 2, "val/loss": 2.0, "val/webvid/loss": 1.0},
        {"step": 4, "val/loss": 1.5},
        {"step": 6, "val/loss": 1.75},
    ]
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert status(written(tmp_path), held=False).best == ("val/loss", 1.5, 4)


@pytest.mark.parametrize(("mode", "value"), [("max", 0.9), (None, 0.9), ("min", 0.1)])
def test_a_metric_that_the_run_is_judged_by_comes_first(tmp_path, mode, value):
    lines = [{"step": i, "val/loss": 1.0, "val/score": score} for i, score in enumerate((0.5, 0.9, 0.1))]
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = status(written(tmp_path, best={"metric": "val/score", "mode": mode}), held=False)
    assert found.best is not None
    assert found.best[:2] == ("val/score", value)


def test_a_smoothed_curve_is_the_mean_over_the_last_values():
    assert smoothed([(0, 4.0), (1, 2.0), (2, 6.0)], 2) == [(0, 4.0), (1, 3.0), (2, 4.0)]


# The command


def test_the_command_lists_the_runs_of_a_folder_with_their_states(tmp_path, capsys):
    written(tmp_path / "a" / "one")
    written(tmp_path / "two", TrainingError("the loss is nan"))
    (tmp_path / "empty").mkdir()
    assert runs_below(tmp_path) == [tmp_path / "a/one", tmp_path / "two"]
    assert main(["runs", str(tmp_path)]) == 0
    header, one, two = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "state", "step", "best", "samples/s", "reason"]
    assert one.split()[:3] == ["a/one", "done", "6/8"]
    assert two.split()[:3] == ["two", "failed", "6/8"]
    assert two.endswith("the loss is nan")


def test_the_curves_of_all_runs_are_in_one_picture(tmp_path, capsys, decoder):
    for name, rate in (("slow", 1e-3), ("fast", 1e-2)):
        trained(decoder, tmp_path / name, init_lr=rate, min_lr=1e-4, max_epoch=1)
    assert main(["runs", str(tmp_path), "--compare"]) == 0
    assert capsys.readouterr().out.endswith(f"{tmp_path}/compare.png\n")
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize(("name", "message"), [("gone", "no such folder"), ("empty", "no run in it or below")])
def test_a_folder_without_runs_is_an_error(tmp_path, capsys, name, message):
    (tmp_path / "empty").mkdir()
    assert main(["runs", str(tmp_path / name)]) == 1
    assert message in capsys.readouterr().err


def test_without_matplotlib_a_comparison_names_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(curves, "can_draw", lambda: False)
    assert main(["runs", str(written(tmp_path)), "--compare"]) == 1
    assert "pip install 'video_llama[plot]'" in capsys.readouterr().err


# The report


def test_the_report_says_how_the_run_ended_what_it_was_trained_on_and_what_it_cost(decoder, tmp_path):
    with recorded(tmp_path, processes=1) as session:
        run = trained(decoder, tmp_path)
        session.add(**facts(run))
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "**done** at step 6 of 6" in text
    assert "| made_up | 10 | 24 | 144 |" in text
    assert "- 24 samples" in text
    assert "![curves](curves.png)" in text
    assert "- torch 2" in text
    assert f"Best loss over 6 steps: {sum(losses(tmp_path)) / 6:.4g}, after step 6." in text
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000


def test_without_matplotlib_the_report_has_no_picture_and_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr("video_llama.runners.run_report.can_draw", lambda: False)
    write_report(written(tmp_path))
    assert (
        "No picture: the curves need matplotlib: pip install 'video_llama[plot]'."
        in (tmp_path / "report.md").read_text()
    )
    assert not (tmp_path / "curves.png").exists()


def test_a_run_that_failed_before_its_first_step_has_a_report(tmp_path):
    with pytest.raises(TrainingError), recorded(tmp_path, processes=1):
        raise TrainingError("no such file")
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "**failed** at step 0: no such file" in text
    assert "Bad records: 0 of 0 drawn were replaced.\n" in text
