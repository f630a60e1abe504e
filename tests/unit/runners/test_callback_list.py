"""Callbacks from outside take part in a run: their hooks, their metrics, their saved state and their errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.runners.runs import logged, losses, runner, trained
from video_llama.checkpoints.io import read_checkpoint
from video_llama.common.errors import TrainingError
from video_llama.common.registry import CALLBACKS
from video_llama.runners.callback import Callback
from video_llama.runners.callback_configs import NoSettings
from video_llama.runners.config import RunConfig


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

    def on_end(self, run, error):
        self.lines.append(f"end at {run.state.step}" + (f" after {error}" if error else ""))

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


def test_the_hooks_of_a_callback_are_called_in_order(decoder, tmp_path):
    run = trained(decoder, tmp_path, iters_per_epoch=1, callbacks=(DiaryConfig(word="hi"),))
    lines = run.callbacks.callbacks["diary"].lines
    assert [line for line in lines if "saved" not in line] == [
        "hi: start at 0 of 2",
        "before 0 with 4", "after 0: 4",
        "before 1 with 4", "after 1: 8",
        "end at 2",
    ]  # fmt: skip
    saved = [line for line in lines if "saved" in line]
    assert saved == ["saved checkpoint_step000001.pth", "saved checkpoint_step000002.pth"]
    assert lines.index("after 0: 4") < lines.index(saved[0])  # written in the background, at the end at the latest
    assert lines.index("after 1: 8") < lines.index(saved[1]) < lines.index("end at 2")


def test_the_state_of_a_callback_is_saved_under_its_name_and_includes_the_last_step(decoder, tmp_path):
    trained(decoder, tmp_path / "one", max_epoch=1, callbacks=(DiaryConfig(),))
    path = tmp_path / "one" / "checkpoint_step000003.pth"
    assert read_checkpoint(path)["callbacks"]["diary"]["steps"] == 3
    run = trained(decoder, tmp_path / "two", resume_ckpt_path=str(path), callbacks=(DiaryConfig(),))
    diary = run.callbacks.callbacks["diary"]
    assert diary.steps == 6
    assert diary.lines[:2] == ["loaded [3.0, 3.0]", "hello: start at 3 of 6"]


def test_a_callback_that_a_resumed_run_lacks_is_reported_and_its_state_dropped(decoder, tmp_path, caplog):
    trained(decoder, tmp_path / "with", callbacks=(DiaryConfig(),))
    path = str(tmp_path / "with" / "checkpoint_step000003.pth")
    with caplog.at_level("INFO"):
        trained(decoder, tmp_path / "without", resume_ckpt_path=path)
    assert "the checkpoint holds a state of 'diary', which is not in this run" in caplog.text
    assert read_checkpoint(tmp_path / "without" / "checkpoint_step000006.pth")["callbacks"].keys() == {"spikes"}
    assert losses(tmp_path / "without") == losses(tmp_path / "with")[3:]


def test_a_callback_that_is_new_in_a_resumed_run_starts_without_a_state(decoder, tmp_path):
    trained(decoder, tmp_path / "without")
    path = str(tmp_path / "without" / "checkpoint_step000003.pth")
    run = trained(decoder, tmp_path / "with", resume_ckpt_path=path, callbacks=(DiaryConfig(),))
    assert run.callbacks.callbacks["diary"].lines[0] == "hello: start at 3 of 6"
    assert read_checkpoint(tmp_path / "with" / "checkpoint_step000006.pth")["callbacks"]["diary"]["steps"] == 3
    assert losses(tmp_path / "with") == losses(tmp_path / "without")[3:]


def test_a_callback_that_cannot_load_its_state_stops_the_run_and_is_named(decoder, tmp_path):
    trained(decoder, tmp_path / "one", max_epoch=1, callbacks=(DiaryConfig(),))
    path = str(tmp_path / "one" / "checkpoint_step000003.pth")
    Diary.load_state_dict, before = (lambda self, state: state["pages"]), Diary.load_state_dict
    try:
        with pytest.raises(TrainingError, match="'diary' failed in load_state_dict: KeyError: 'pages'"):
            trained(decoder, tmp_path / "two", resume_ckpt_path=path, callbacks=(DiaryConfig(),))
    finally:
        Diary.load_state_dict = before


def test_a_callback_that_only_observes_does_not_change_the_numbers(decoder, tmp_path):
    trained(decoder, tmp_path / "with", callbacks=(DiaryConfig(),))
    trained(decoder, tmp_path / "without")
    assert losses(tmp_path / "with") == losses(tmp_path / "without")


def measuring(name: str, measure: Any) -> Any:
    """Register a callback whose ``metrics`` is a function of the run and the step; return its Config."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def metrics(self: Callback, run: Any, step: Any) -> Any:
        return measure(run, step)

    CALLBACKS.register(name)(type(name.title(), (Callback,), {"metrics": metrics, "Config": Config}))
    return Config()


def test_a_callback_adds_metrics_to_the_line_of_each_step(decoder, tmp_path):
    added = measuring("double", lambda run, step: {"double_loss": 2 * step.loss, "taken": run.state.step})
    trained(decoder, tmp_path, callbacks=(added,))
    lines = logged(tmp_path)
    assert [line["double_loss"] for line in lines] == [2 * line["loss"] for line in lines]
    assert [line["taken"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_an_added_metric_may_be_a_tensor_and_one_that_is_not_finite_is_null(decoder, tmp_path):
    added = measuring("odd", lambda run, step: {"tensor": torch.tensor(1.5), "nan": float("nan"), "none": None})
    trained(decoder, tmp_path, callbacks=(added,))
    assert {(line["tensor"], line["nan"], line["none"]) for line in logged(tmp_path)} == {(1.5, None, None)}


def test_a_metric_may_be_left_out_of_some_steps(decoder, tmp_path):
    trained(decoder, tmp_path, callbacks=(measuring("rare", lambda run, step: {} if step.step % 2 else {"even": 1}),))
    assert ["even" in line for line in logged(tmp_path)] == [True, False] * 3


def test_added_metrics_reach_every_callback_after_the_step(decoder, tmp_path):
    seen = []
    Diary.after_step, before = (lambda self, run, metrics: seen.append(metrics.added)), Diary.after_step
    try:
        trained(decoder, tmp_path, callbacks=(DiaryConfig(), measuring("late", lambda run, step: {"a": 1})))
    finally:
        Diary.after_step = before
    assert seen == [{"a": 1.0}] * 6


def test_the_console_shows_added_metrics(decoder, tmp_path, capfd):
    trained(decoder, tmp_path, callbacks=(measuring("double", lambda run, step: {"halves": 0.5, "gap": None}),))
    assert "halves=0.5, gap=None" in capfd.readouterr().err


@pytest.mark.parametrize("taken", ["loss", "seconds", "step"])
def test_a_callback_that_logs_a_standard_metric_is_refused(decoder, tmp_path, taken):
    with pytest.raises(TrainingError, match=rf"run.callbacks: 'mine' logs '{taken}', as the runner does"):
        trained(decoder, tmp_path, callbacks=(measuring("mine", lambda run, step: {taken: 1.0}),))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_two_callbacks_that_log_the_same_metric_are_refused(decoder, tmp_path):
    both = (measuring("one", lambda run, step: {"norm": 1.0}), measuring("two", lambda run, step: {"norm": 2.0}))
    with pytest.raises(TrainingError, match=r"run.callbacks: 'two' logs 'norm', as 'one' does"):
        trained(decoder, tmp_path, callbacks=both)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"norm": "high"}, "logs 'norm' as 'high', which is not a number"),
        ({"norm": torch.ones(2)}, r"logs 'norm' as tensor\(\[1., 1.\]\), which is not a number"),
        (None, "failed in metrics: TypeError"),
    ],
)
def test_a_metric_that_is_not_a_number_is_refused(decoder, tmp_path, value, message):
    with pytest.raises(TrainingError, match=rf"run.callbacks: 'mine' {message}"):
        trained(decoder, tmp_path, callbacks=(measuring("mine", lambda run, step: value),))


@pytest.mark.parametrize(
    "hook", ["__init__", "on_start", "before_step", "metrics", "after_step", "on_save", "on_end", "state_dict"]
)
def test_an_error_in_a_callback_stops_the_run_and_names_the_callback_and_the_line(decoder, tmp_path, hook):
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
    assert run.callbacks.callbacks["diary"].lines[-1] == "end at 0 after the first"


def test_callbacks_that_have_started_end_when_another_one_cannot_start(decoder, tmp_path):
    faulty = failing("on_start", ValueError("no server"))
    run = runner(decoder, tmp_path, callbacks=(DiaryConfig(), faulty.Config()))
    with pytest.raises(TrainingError, match="'faulty' failed in on_start: ValueError: no server"):
        run.train()
    first, last = run.callbacks.callbacks["diary"].lines
    assert first == "hello: start at 0 of 6"
    assert last.startswith("end at 0 after run.callbacks: 'faulty' failed in on_start")


def test_every_callback_ends_when_the_run_fails_even_if_one_of_them_fails_again(decoder, tmp_path):
    faulty = failing("on_end", ValueError("on the way out"))
    run = runner(decoder, tmp_path, callbacks=(faulty.Config(), DiaryConfig()))
    run.train_step = lambda batches: (_ for _ in ()).throw(TrainingError("the first"))
    with pytest.raises(TrainingError, match="the first"):
        run.train()
    assert run.callbacks.callbacks["diary"].lines[-1] == "end at 0 after the first"


def test_every_callback_ends_when_the_run_is_over_even_if_one_of_them_fails(decoder, tmp_path):
    faulty = failing("on_end", ValueError("on the way out"))
    run = runner(decoder, tmp_path, callbacks=(faulty.Config(), DiaryConfig()))
    with pytest.raises(TrainingError, match="'faulty' failed in on_end: ValueError: on the way out"):
        run.train()
    assert run.callbacks.callbacks["diary"].lines[-1] == "end at 6"


@pytest.mark.parametrize(
    ("state", "kind"), [(np.float64(1), "float64"), ([{"a": object()}], "object"), ({(1, 2): {1}}, "set")]
)
def test_a_callback_state_that_could_not_be_loaded_again_is_refused_before_the_first_step(
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
def test_a_callback_that_the_run_already_has_is_refused(callbacks, message):
    if isinstance(callbacks[0], NoSettings):
        object.__setattr__(callbacks[0], "_registered_name", "console")
    config = RunConfig(init_lr=0.1, max_epoch=1, batch_size_train=1, output_dir="out", callbacks=callbacks)
    assert list(config.check()) == [("callbacks", message)]
