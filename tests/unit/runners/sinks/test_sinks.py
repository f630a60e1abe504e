"""Metrics and answers in TensorBoard, W&B and trackio; a sink that does not work never stops a run."""

from __future__ import annotations

import logging
import struct
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.unit.runners.runs import interrupted_after, logged, losses, runner, trained
from video_llama.common.registry import SINKS
from video_llama.runners.callback_configs import TensorBoardConfig, TrackioConfig, WandbConfig
from video_llama.runners.sink import Sink

EVENTS = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def events(folder: Path) -> Any:
    found = EVENTS.EventAccumulator(str(folder / "tensorboard"), size_guidance={EVENTS.SCALARS: 0})
    found.Reload()
    return found


@dataclass(frozen=True)
class Answer:
    """As ``run.eval_questions`` gives it."""

    id: str
    question: str
    answer: str
    picture: str | None


@dataclass(frozen=True)
class Found:
    """What a validation found."""

    step: int
    metrics: dict[str, float | None]
    answers: tuple[Answer, ...]


def validated(folder: Path) -> Found:
    Image.new("RGB", (8, 6), "red").save(folder / "frames.png")
    answers = (Answer("a", "What moves?", "A ball.", "frames.png"), Answer("b", "And now?", "Nothing.", None))
    return Found(6, {"val/loss": 1.5, "val/nan": None}, answers)


# TensorBoard


def test_tensorboards_own_reader_reads_every_metric_of_every_step(decoder, tmp_path):
    trained(decoder, tmp_path, sinks=(TensorBoardConfig(),))
    found = events(tmp_path)
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [
        (step, pytest.approx(loss)) for step, loss in enumerate(losses(tmp_path))
    ]
    assert {"lr", "grad_norm", "samples_per_second", "by_dataset/made_up/loss"} <= set(found.Tags()["scalars"])


def test_a_resumed_run_leaves_no_step_twice_in_tensorboard(decoder, tmp_path):
    killed = runner(decoder, tmp_path, sinks=(TensorBoardConfig(),))
    interrupted_after(killed, 5)
    trained(decoder, tmp_path, sinks=(TensorBoardConfig(),), resume="auto")  # goes on from step 3
    assert [event.step for event in events(tmp_path).Scalars("loss")] == list(range(6))


def test_tensorboard_gets_the_metrics_and_answers_of_a_validation(decoder, tmp_path):
    run = runner(decoder, tmp_path, sinks=(TensorBoardConfig(),))
    sinks = run.callbacks.callbacks["sinks"]
    sinks.on_start(run.run())
    sinks.after_validation(run.run(), validated(tmp_path))
    sinks.on_end(run.run(), None)
    found = events(tmp_path)
    assert [event.value for event in found.Scalars("val/loss")] == [1.5]
    assert found.Tags()["images"] == ["answers/a"]
    assert {"answers/a/text_summary", "answers/b/text_summary"} <= set(found.Tags()["tensors"])


# W&B


@pytest.fixture
def no_server(monkeypatch) -> None:
    """W&B's client finds nobody at its address."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def recorded(folder: Path) -> list[dict[str, str]]:
    """The rows in the offline folder of W&B: a log in LevelDB's format, of protocol buffers."""
    pb2 = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    rows = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, record, start = path.read_bytes(), b"", 7  # after the header of the file
        while start + 7 <= len(data):
            if 32768 - start % 32768 < 7:  # the rest of a block is padding
                start += 32768 - start % 32768
            _, size, kind = struct.unpack("<IHB", data[start : start + 7])
            record += data[start + 7 : start + 7 + size]
            start += 7 + size
            if kind in (1, 4):  # whole, or the last part
                parsed = pb2.Record()
                parsed.ParseFromString(record)
                record = b""
                if parsed.WhichOneof("record_type") == "history":
                    rows.append({"/".join(i.nested_key) or i.key: i.value_json for i in parsed.history.item})
    return rows


@pytest.mark.usefixtures("no_server")
def test_the_offline_folder_of_wandb_holds_every_step(decoder, tmp_path):
    trained(decoder, tmp_path, sinks=(WandbConfig(mode="offline"),))
    rows = [row for row in recorded(tmp_path) if "loss" in row]
    assert [float(row["loss"]) for row in rows] == losses(tmp_path)
    assert [int(row["step"]) for row in rows] == list(range(6))


@pytest.mark.usefixtures("no_server")
def test_without_a_login_wandb_goes_offline_and_says_so_once(decoder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="video_llama"):
        trained(decoder, tmp_path, sinks=(WandbConfig(),))
    (said,) = [r.getMessage() for r in caplog.records if "run.sinks" in r.getMessage()]
    assert "goes on offline" in said
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in said
    assert len(losses(tmp_path)) == 6
    assert [path.name for path in tmp_path.glob("wandb/offline-run-*/*.wandb")]


# trackio


def test_trackio_gets_every_step_of_a_run_named_after_its_folder(decoder, tmp_path, monkeypatch):
    calls: list[Any] = []
    fake: Any = types.ModuleType("trackio")
    fake.init = lambda **how: calls.append(("init", how["project"], how["name"], how["resume"]))
    fake.log = lambda values, step: calls.append((step, values["loss"]))
    fake.finish = lambda: calls.append("finish")
    monkeypatch.setitem(sys.modules, "trackio", fake)
    monkeypatch.delitem(sys.modules, "video_llama.runners.sinks.trackio_sink", raising=False)
    with SINKS.scoped():
        trained(decoder, tmp_path / "my_run", sinks=(TrackioConfig(),))
    assert calls[0] == ("init", "video_llama", "my_run", "allow")
    assert calls[1:-1] == list(enumerate(losses(tmp_path / "my_run")))
    assert calls[-1] == "finish"


# Sinks that do not work


@pytest.fixture
def registry() -> Iterator[None]:
    with SINKS.scoped():
        yield


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("fails", ["__init__", "scalars", "close"])
def test_a_sink_that_fails_is_reported_once_and_the_run_goes_on(decoder, tmp_path, caplog, fails):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def fail(*_: Any) -> None:
        raise OSError("no route\nto host")

    works = {name: lambda *_: None for name in ("__init__", "scalars", "close")}
    SINKS.register("broken")(type("Broken", (Sink,), {**works, fails: fail, "Config": Config}))
    with caplog.at_level(logging.WARNING, logger="video_llama"):
        trained(decoder, tmp_path, sinks=(Config(),))
    said = [r.getMessage() for r in caplog.records if "run.sinks" in r.getMessage()]
    assert said == ["run.sinks: broken failed, and the run goes on without it: OSError: no route to host"]
    assert len(logged(tmp_path)) == 6


def test_a_sink_that_is_not_installed_is_reported_once_with_how_to_install_it(decoder, tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.delitem(sys.modules, "video_llama.runners.sinks.trackio_sink", raising=False)
    with SINKS.scoped(), caplog.at_level(logging.WARNING, logger="video_llama"):
        SINKS._entries.pop("trackio", None)
        trained(decoder, tmp_path, sinks=(TrackioConfig(),))
    (said,) = [r.getMessage() for r in caplog.records if "run.sinks" in r.getMessage()]
    assert "trackio cannot be used" in said
    assert "pip install 'video_llama[trackio]'" in said
    assert len(logged(tmp_path)) == 6


def test_what_is_sent_does_not_change_the_numbers(decoder, tmp_path):
    trained(decoder, tmp_path / "with", sinks=(TensorBoardConfig(),))
    trained(decoder, tmp_path / "without")
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
