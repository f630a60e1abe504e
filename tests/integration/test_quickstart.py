"""``make quickstart``, small: its files, its output, and that a second run gives the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.integration.conftest import ROOT
from video_llama.common.errors import DataError
from video_llama.processors.media import MediaReader
from video_llama.toy import quickstart
from video_llama.toy.language import CHANCE, SOUND_CHANCE
from video_llama.toy.quickstart import claim

pytestmark = pytest.mark.slow

SHORT = ["run.iters_per_epoch=3", "run.max_epoch=1", "run.warmup_steps=0", "run.batch_size_train=4"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a small quickstart, and what it printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    words = [sys.executable, "-m", "video_llama.toy.quickstart", "--output-dir", str(folder)]
    words += ["--clips", "100", "--heldout", "12", "--options", *SHORT]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder, result.stdout


@pytest.fixture(scope="module")
def report(first: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((first[0] / "report.json").read_text())


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what depends on the machine's speed or on the folder."""
    stages = {
        name: {key: value for key, value in stage.items() if key not in ("seconds", "checkpoint")}
        for name, stage in report["stages"].items()
    }
    return {**report, "stages": stages, "seconds": None}


def test_the_report_has_each_kind_of_question_with_and_without_frames(report):
    assert report["vision"].keys() == CHANCE.keys()
    for kind, row in report["vision"].items():
        assert_row(row, {"full", "blank_video", "after_stage1", "with_sound"}, n=12, chance=CHANCE[kind])


def test_the_report_has_the_sound_question_for_each_way_of_training_it(report):
    assert report["sound"].keys() == {"on sound", "on frames", "on frames, audio_scale 1"}
    for row in report["sound"].values():
        assert_row(row, {"full", "silence", "other_sound"}, n=12, chance=SOUND_CHANCE["sound"])


def test_the_report_has_the_questions_that_need_sound_with_either_input_removed(report):
    assert report["both"].keys() == SOUND_CHANCE.keys()
    for kind, row in report["both"].items():
        assert_row(row, {"full", "silence", "other_sound", "blank_video"}, n=24, chance=SOUND_CHANCE[kind])


def assert_row(row: dict[str, float], columns: set[str], n: int, chance: float) -> None:
    assert row.keys() == columns | {"n", "chance"}
    assert (row["n"], row["chance"]) == (n, chance)
    assert all(0 <= row[column] <= 1 for column in columns)


def test_the_report_has_the_losses_and_the_time_of_each_stage(report):
    stages = {"stage1", "stage2", "audio_on_sound", "audio_on_frames", "both_branches"}
    assert report["stages"].keys() == stages
    for stage in report["stages"].values():
        assert {"first_loss", "last_loss", "seconds"} <= stage.keys()
        assert stage["steps"] == 3
        assert stage["first_loss"] > 0
        assert stage["seconds"] > 0
        assert Path(stage["checkpoint"]).is_file()


def test_the_report_is_a_text_and_a_picture(first):
    text = (first[0] / "report.md").read_text()
    assert all(f"| {kind} | 12 |" in text for kind in CHANCE)
    assert all(f"| {kind} | 24 |" in text for kind in SOUND_CHANCE)
    with Image.open(first[0] / "report.png") as picture:
        assert min(picture.size) > 300


def test_it_prints_the_report_and_an_answer_of_the_chat_command(first):
    folder, out = first
    assert (folder / "report.md").read_text() in out
    question = out[out.index("$ video-llama chat") :].splitlines()
    assert str(folder / "world/heldout/videos/heldout_0000.mp4") in question[0]
    assert question[1].startswith("> ")
    assert question[2]


@pytest.mark.usefixtures("one_thread")
def test_the_same_seed_gives_the_same_figures_and_all_models_share_what_is_read(first, report, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(quickstart, "ask_once", lambda *_: None)  # the first run has tested it
    decoded, reads = MediaReader._decoded, Counter[Any]()

    def counted(self: MediaReader, kind: Any, path: Any, *rest: Any) -> Any:
        if self.features is not None:  # black frames are made without it
            reads[kind, self.audio and self.audio.config.n_segments if kind == "audio" else None, path] += 1
        return decoded(self, kind, path, *rest)

    monkeypatch.setattr(MediaReader, "_decoded", counted)
    again = quickstart.quickstart(shutil.copytree(first[0], tmp_path / "again"), 100, 12, 0, SHORT)
    assert figures(again) == figures(report)
    times: dict[Any, set[int]] = defaultdict(set)
    for (kind, n_segments, _), n in reads.items():
        times[kind, n_segments].add(n)
    assert times == {("video", None): {1}, ("audio", 4): {2}}  # with their sound; 2: with two values of audio_scale


def test_a_folder_with_other_content_is_refused(tmp_path):
    (tmp_path / "stage1").mkdir()
    with pytest.raises(DataError, match="contains something other than a quickstart"):
        claim(tmp_path)
    claim(tmp_path / "new")
    for name in ("world", "stage1"):
        (tmp_path / "new" / name).mkdir()
    (tmp_path / "new" / "report.json").touch()
    claim(tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {".quickstart", "world"}
