"""Callbacks from outside take part in a run: what they are handed, what is saved of them, what their errors say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.runners.runs import losses, runner, trained
from video_llama.checkpoints.io import read_checkpoint
from video_llama.common.errors import TrainingError
from video_llama.common.registry import CALLBACKS
from video_llama.runners.callback import Callback
from video_llama.runners.config import NoSettings, RunConfig


@dataclass(frozen=True, kw_only=True)
class DiaryConfig:
    word: str = "hello"


class Diary(Callback):
    """Notes what is called with what."""

    Config = DiaryConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.lines: list[str] = []
        self.steps = 0

    def on_start(self, run):
        self.lines.append(f"{self.config.word}: start at {run.state.step} of {run.total_steps}")

    def before_step(self, run, batches):
        self.lines.append(f"before {run.state.step} with {sum(len(b.ids) for b in batches)}")

    def after_step(self, run, metrics):
        self.steps += 1
        self.lines.append(f"after {metrics.step}: {run.state.samples}")

    def on_save(self, run, path):
        assert path.exists()
        self.lines.append(f"saved {path.name}")

    def on_end(self, run):
        self.lines.append(f"end at {run.state.step}")

    def state_dict(self):
        return {"steps": self.steps, "tensor": torch.ones(2) * self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]
        self.lines.append(f"loaded {state['tensor'].tolist()}")


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    with CALLBACKS.scoped():
        CALLBACKS.register("diary")(Diary)
        yield


def failing(hook: str, error: Exception) -> type[Callback]:
    """Register a callback that fails in one of its methods."""

    def fail(*_: Any) -> None:
        raise error

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    return CALLBACKS.register("faulty")(type("Faulty", (Callback,), {hook: fail, "Config": Config}))


def test_a_callback_is_called_at_every_turn_of_a_run(decoder, tmp_path):
    run = trained(decoder, tmp_path, iters_per_epoch=1, callbacks=(DiaryConfig(word="hi"),))
    assert run.callbacks.callbacks["diary"].lines == [
        "hi: start at 0 of 2",
        "before 0 with 4", "after 0: 4", "saved checkpoint_0.pth",
        "before 1 with 4", "after 1: 8", "saved checkpoint_1.pth",
        "end at 2",
    ]  # fmt: skip


def test_its_state_is_saved_by_its_name_with_the_step_that_was_just_taken(decoder, tmp_path):
    trained(decoder, tmp_path / "one", max_epoch=1, callbacks=(DiaryConfig(),))
    path = tmp_path / "one" / "checkpoint_0.pth"
    assert read_checkpoint(path)["callbacks"]["diary"]["steps"] == 3
    run = trained(decoder, tmp_path / "two", resume_ckpt_path=str(path), callbacks=(DiaryConfig(),))
    diary = run.callbacks.callbacks["diary"]
    assert diary.steps == 6
    assert diary.lines[:2] == ["loaded [3.0, 3.0]", "hello: start at 3 of 6"]


def test_a_run_resumes_with_a_callback_more_or_less(decoder, tmp_path):
    trained(decoder, tmp_path / "with", max_epoch=1, callbacks=(DiaryConfig(),))
    trained(decoder, tmp_path / "without", max_epoch=1)
    for one, other in (("with", ()), ("without", (DiaryConfig(),))):
        path = str(tmp_path / one / "checkpoint_0.pth")
        trained(decoder, tmp_path / f"after {one}", resume_ckpt_path=path, callbacks=other)
    assert losses(tmp_path / "after with") == losses(tmp_path / "after without")


def test_a_callback_that_only_watches_changes_no_number(decoder, tmp_path):
    trained(decoder, tmp_path / "with", callbacks=(DiaryConfig(),))
    trained(decoder, tmp_path / "without")
    assert losses(tmp_path / "with") == losses(tmp_path / "without")


@pytest.mark.parametrize(
    "hook", ["__init__", "on_start", "before_step", "after_step", "on_save", "on_end", "state_dict"]
)
def test_an_error_in_a_callback_stops_the_run_with_its_name_and_its_line(decoder, tmp_path, hook):
    faulty = failing(hook, ValueError("no such luck"))
    with pytest.raises(
        TrainingError, match=rf"run.callbacks: 'faulty' failed in {hook}: ValueError: no such luck"
    ) as e:
        trained(decoder, tmp_path, callbacks=(faulty.Config(),))
    assert f"({__file__}:" in str(e.value)
    assert isinstance(e.value.__cause__, ValueError)


def test_a_callback_may_stop_the_run_with_an_error_of_its_own(decoder, tmp_path):
    faulty = failing("after_step", TrainingError("the loss has been flat for 100 steps"))
    with pytest.raises(TrainingError, match="'faulty' failed in after_step: the loss has been flat for 100 steps"):
        trained(decoder, tmp_path, callbacks=(faulty.Config(),))


def test_callbacks_end_when_the_run_fails_and_the_first_error_is_reported(decoder, tmp_path):
    faulty = failing("on_end", ValueError("on the way out"))
    run = runner(decoder, tmp_path, callbacks=(DiaryConfig(), faulty.Config()))
    run.train_step = lambda batches: (_ for _ in ()).throw(TrainingError("the first"))
    with pytest.raises(TrainingError, match="the first"):
        run.train()
    assert run.callbacks.callbacks["diary"].lines[-1] == "end at 0"


@pytest.mark.parametrize(
    ("state", "kind"), [(np.float64(1), "float64"), ([{"a": object()}], "object"), ({(1, 2): {1}}, "set")]
)
def test_a_state_that_a_checkpoint_could_not_be_read_with_is_refused_before_the_first_step(
    decoder, tmp_path, state, kind
):
    Diary.state_dict, before = (lambda self: {"x": state}), Diary.state_dict
    try:
        with pytest.raises(TrainingError, match=rf"'diary' failed in state_dict: TypeError: holds a {kind}"):
            trained(decoder, tmp_path, callbacks=(DiaryConfig(),))
    finally:
        Diary.state_dict = before
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ((DiaryConfig(), DiaryConfig(word="again")), "'diary' is listed 2 times; each callback runs once"),
        ((NoSettings(),), "'console' is part of every run; leave it out"),
    ],
)
def test_a_callback_that_is_there_already_is_refused(callbacks, message):
    if isinstance(callbacks[0], NoSettings):
        object.__setattr__(callbacks[0], "_registered_name", "console")
    config = RunConfig(init_lr=0.1, max_epoch=1, batch_size_train=1, output_dir="out", callbacks=callbacks)
    assert list(config.check()) == [("callbacks", message)]
