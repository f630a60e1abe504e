"""Multiple choice on the toy model: by letter and by likelihood, as a job like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import ROOT, Result
from tests.unit.conversation.test_likelihood import one_by_one
from video_llama.conversation.engine import Engine
from video_llama.inference.journal import Journal
from video_llama.toy.language import MOVES
from video_llama.toy.scene import COLOURS, MOTIONS, SHAPES

TOY = "eval_configs/toy.yaml"
OPTIONS = {
    "colour": [f"It is {colour}." for colour in COLOURS],
    "shape": [f"It is a {shape}." for shape in SHAPES],
    "motion": [f"It {MOVES[motion]}." for motion in MOTIONS],
}


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """A test set on held-out clips, with the sentences that the toy model answers with as options."""
    file = tmp_path_factory.mktemp("choices") / "test.jsonl"
    asked = [q for q in json.loads((world / "heldout/questions.json").read_text()) if q["kind"] in OPTIONS]
    lines = [
        {"id": q["id"], "video": q["video"], "question": q["question"], "type": q["kind"]}
        | {"options": OPTIONS[q["kind"]], "answer": q["answer"]}
        for q in asked[:24]
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


@pytest.fixture
def evaluate(command, loaded, monkeypatch, questions, world) -> Callable[..., Result]:
    """``video-llama evaluate --benchmark manifest SETTINGS`` with a model that is already loaded."""
    monkeypatch.setattr(Engine, "from_job", lambda *args: loaded)
    return lambda output, *settings: command(*words(questions, world, output, *settings))


def words(questions: Path, world: Path, output: Path, *settings: str) -> list[object]:
    return [
        "evaluate", "--cfg-path", TOY, "--benchmark", "manifest", *settings, "--annotations", questions,
        "--media-dir", world / "heldout/videos", "--output", output, "--max-new-tokens", "12",
    ]  # fmt: skip


def results(output: Path) -> dict[str, Any]:
    return json.loads((output / "results.json").read_text(encoding="utf-8"))["benchmarks"]["manifest"]


@pytest.mark.parametrize("choose", ["letter", "likelihood", "likelihood_per_token"])
def test_letter_and_likelihood_are_right_on_a_toy_set(evaluate, tmp_path, choose):
    """The toy model names no letters, but an answer that is an option names its letter."""
    prompt = ["prompt=<question>"] if choose == "letter" else []
    code, _, err = evaluate(tmp_path / "out", f"choose={choose}", *prompt)
    assert code == 0, err
    found = results(tmp_path / "out")
    assert found["prompt"] == "<question>"
    assert found["scores"]["accuracy"]["value"] == 1
    assert found["scores"]["accuracy"]["by"]["type"].keys() == OPTIONS.keys()


def test_each_option_has_its_value_which_is_that_of_a_forward_pass_of_its_own(evaluate, loaded, tmp_path, world):
    assert evaluate(tmp_path / "out", "choose=likelihood").code == 0
    for item in results(tmp_path / "out")["items"][:6]:
        file = loaded.encode_file("video", world / "heldout/videos" / item["clip"])
        answered = [loaded.answered(item["prompt"], file, option) for option in item["options"]]
        exact = [one_by_one(loaded, answer) for answer in answered]
        computed = loaded.likelihoods(loaded.answer_scorer(), answered)
        assert [one.log_likelihood for one in computed] == pytest.approx(exact, abs=1e-5, rel=0)
        assert item["log_likelihoods"] == pytest.approx(exact, abs=1e-4, rel=0)
        assert item["n_tokens"] == [one.n_tokens for one in computed]
        assert item["answer"] == item["options"][item["log_likelihoods"].index(max(item["log_likelihoods"]))]


def test_other_batches_and_a_restart_give_the_same_bytes(evaluate, tmp_path, monkeypatch, capfd):
    assert evaluate(tmp_path / "whole", "choose=likelihood").code == 0
    appended: list[int] = []
    original = Journal.append

    def append(journal, records) -> None:
        if len(appended) == 5:
            raise KeyboardInterrupt
        appended.append(len(records))
        original(journal, records)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append)
        assert evaluate(tmp_path / "parts", "choose=likelihood").code == 130
    code, _, err = evaluate(tmp_path / "parts", "choose=likelihood", "--batch-size", "3")
    assert code == 0, err
    assert "5 of 24 questions are answered already" in err
    assert (tmp_path / "parts/results.json").read_bytes() == (tmp_path / "whole/results.json").read_bytes()
    assert (tmp_path / "parts/manifest.jsonl").read_bytes() == (tmp_path / "whole/manifest.jsonl").read_bytes()


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(evaluate, one_thread, questions, world, tmp_path):
    assert evaluate(tmp_path / "whole", "choose=likelihood").code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    asked = words(questions, world, tmp_path / "two", "choose=likelihood")
    done = subprocess.run(
        [*launcher, "-m", "video_llama.cli.main", *map(str, asked), "--device", "cpu"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "two/results.json").read_bytes() == (tmp_path / "whole/results.json").read_bytes()


def test_options_are_compared_under_each_condition(evaluate, tmp_path):
    assert evaluate(tmp_path / "out", "choose=likelihood", "--conditions", "full,black,silent").code == 0
    found = results(tmp_path / "out")
    for item in found["items"]:
        under = item["conditions"]
        assert under["black"]["log_likelihoods"] != item["log_likelihoods"]
        assert under["silent"]["answer"] == item["answer"]
        for there in (item, *under.values()):
            assert there["answer"] == item["options"][there["log_likelihoods"].index(max(there["log_likelihoods"]))]
    rows = found["reliance"]["all"]
    assert rows["full"]["value"] == rows["silent"]["value"] == 1
    assert rows["black"]["value"] < 0.6


def test_answers_chosen_in_another_way_are_not_overwritten(evaluate, tmp_path):
    assert evaluate(tmp_path / "out", "choose=likelihood").code == 0
    code, _, err = evaluate(tmp_path / "out", "choose=likelihood_per_token")
    assert (code, "holds something else already" in err) == (1, True)


@pytest.mark.parametrize(
    ("line", "setting", "message"),
    [
        (
            '{"video": "a.mp4", "question": "What?", "answer": "x"}',
            "choose=likelihood",
            "have no options to choose from",
        ),
        ("", "choose=likeliest", "expected one of letter, likelihood, likelihood_per_token"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_built(
    evaluate, monkeypatch, questions, tmp_path, line, setting, message
):
    monkeypatch.setattr(Engine, "from_job", lambda *args: pytest.fail("the model was built"))
    (tmp_path / "test.jsonl").write_text(line)
    code, _, err = evaluate(tmp_path / "out", setting, f"annotations={tmp_path / 'test.jsonl'}")
    assert (code, message in err) == (1, True), err
