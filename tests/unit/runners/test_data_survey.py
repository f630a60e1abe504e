"""Every record is read once, whatever happens to the process that reads it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.datasets.folder import TIMES, FakeClip, FakeImage, Folder
from video_llama.common.errors import TrainingError
from video_llama.common.registry import PROCESSORS
from video_llama.common.types import Media
from video_llama.datasets.config import ProcessorsConfig
from video_llama.prompts.sample_spec import SampleSpec
from video_llama.runners.data_survey import Line, Survey, Task, examined, file_state
from video_llama.runners.survey_report import SurveyReport


class Treacherous(FakeClip):
    """Reads files; one that says ``stuck`` takes for ever, one that says ``deadly`` kills the process, one is a bug."""

    @dataclass(frozen=True, kw_only=True)
    class Config(FakeClip.Config):
        """Its settings."""

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        text = Path(path).read_text()
        if text == "stuck":
            time.sleep(600)
        if text == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "bug":
            raise ZeroDivisionError("of a plugin")
        if text == "broken once opened":
            rng.integers(9)
            (path.parent / "x").write_text("")  # type: ignore[union-attr]
            return super().__call__(path.parent / "none.mp4", rng)  # type: ignore[union-attr]
        return super().__call__(path, rng)


@pytest.fixture
def folder(tmp_path: Path, spec: SampleSpec) -> Iterator[Folder]:
    with PROCESSORS.scoped():
        PROCESSORS.register("treacherous")(Treacherous)
        PROCESSORS.register("fake_image")(FakeImage)
        yield Folder(tmp_path, spec)


def dataset(folder: Folder, **content: str) -> Any:
    for name, text in content.items():
        folder.clips(f"{name}.mp4", content=text)
    records = [{"video": f"{name}.mp4", "caption": f"A clip called {name}"} for name in content]
    return folder.manifest(*records, vis_processor=ProcessorsConfig(train=Treacherous.Config()))


def surveyed(data: Any, processes: int = 2, read_timeout: float = 60.0) -> dict[int, Line]:
    tasks = iter([Task(0, record) for record in range(len(data))])
    found = list(Survey([data], processes, read_timeout)(tasks))
    assert len(found) == len(data)
    return {line["record"]: json.loads(json.dumps(line)) for line in found}


def test_a_sample_is_described(folder: Folder) -> None:
    line = surveyed(dataset(folder, a=TIMES))[0]
    assert line["id"] == "mine/line 1"
    assert (line["media_tokens"], line["frames"], line["truncated"]) == (8, 2, False)
    assert 8 < line["target_tokens"] < line["tokens"]
    assert [Path(file["path"]).name for file in line["files"]] == ["a.mp4"]
    assert "bad" not in line


def test_a_process_that_is_stuck_or_dies_costs_its_record_alone(folder: Folder) -> None:
    names = {**{f"a{i}": TIMES for i in range(6)}, "stuck": "stuck", "deadly": "deadly", "z": TIMES}
    found = surveyed(dataset(folder, **names), read_timeout=1.0)
    bad = {line["bad"]["path"].rsplit("/")[-1]: line["bad"]["reason"] for line in found.values() if "bad" in line}
    assert bad == {"stuck.mp4": "not read within 1 s", "deadly.mp4": "the process that read it died by signal 9"}


def test_an_error_of_a_data_set_from_outside_is_a_bad_record(folder: Folder) -> None:
    assert surveyed(dataset(folder, a="bug"))[0]["bad"]["reason"] == "ZeroDivisionError: of a plugin"


def test_a_failure_after_numbers_were_drawn_holds_whatever_is_drawn(folder: Folder) -> None:
    data = dataset(folder, a="broken once opened", b="broken")
    drawn, opened = (examined(data, record)["bad"] for record in range(2))
    assert drawn["read_as"] is None
    assert opened["read_as"] is not None


def test_a_drawn_prompt_does_not_widen_what_a_failure_holds_for(folder: Folder) -> None:
    prompts = tuple(f"###Human: <Image><ImageHere></Image> {i} ###Assistant: " for i in range(8))
    data = dataset(folder.limited(caption_prompts=prompts), a="broken")
    assert examined(data, 0)["bad"]["read_as"] is not None


def test_a_store_that_cannot_be_reached_ends_the_survey_and_makes_no_record_bad(folder: Folder) -> None:
    def unreachable(*_: Any) -> Any:
        raise TrainingError("http://store/000000.tar: cannot be fetched")

    data = dataset(folder, a=TIMES)
    data.reader = unreachable
    with pytest.raises(TrainingError, match="cannot be fetched"):
        surveyed(data)


def test_the_state_of_a_file_changes_with_it(folder: Folder) -> None:
    file = folder.file("000000.tar", "one")
    part = f"{file}:0:3:a.mp4"
    before = file_state(str(file)), file_state(part)
    assert before[0] == before[1]
    file.write_text("three")
    assert (file_state(str(file)), file_state(part)) != before
    file.unlink()
    assert file_state(part) == []


def test_a_report_sums_up(folder: Folder) -> None:
    file = {
        "kind": "video", "bytes": 10**6, "content": "c", "width": 64, "height": 48, "seconds": 2.0, "has_sound": True
    }  # fmt: skip
    good = {
        "dataset": "a",
        "sounds": ["used"],
        "tokens": 50,
        "target_tokens": 9,
        "truncated": True,
        "answer": "x",
        "seconds": 0.1,
    }
    report = SurveyReport({"a": 4, "b": 1})
    for i, name in ((2, "1.mp4"), (1, "2.mp4"), (0, "1.mp4")):  # processes are done in any order
        report.add({**good, "record": i, "id": f"a/{i}", "files": [{"path": name, **file}]})
    bad = {"path": "/x/3.mp4", "reason": "cut short in packet 7 of its video"}
    report.add({"dataset": "b", "record": 0, "id": "b/0", "seconds": None, "files": [{"path": "/x/3.mp4"}], "bad": bad})
    found = report.as_dict()
    assert found["totals"]["read"] == 4
    assert found["datasets"]["a"]["files"] == 2
    assert found["datasets"]["a"]["bytes"] == 2 * 10**6
    assert found["datasets"]["a"]["with_sound"] == 2
    assert found["datasets"]["a"]["sound_used"] == 3
    assert found["datasets"]["b"]["bad"] == 1
    assert found["reasons"] == [{"reason": "cut short in packet 7 of its video", "records": 1, "example": "/x/3.mp4"}]
    assert found["copies"] == {"groups": 1, "largest": [["1.mp4", "2.mp4"]]}
    assert found["repeated"] == {"groups": 1, "largest": [["a/0", "a/2"]]}
    assert found["measures"]["seconds"]["n"] == 2
    assert len(found["truncated"]) == 3
