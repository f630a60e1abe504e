"""A run on the toy world that validates: losses, scores and answers of held-out clips, the same from one process or two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.integration.conftest import ROOT, losses, torchrun

STAGE_1 = "train_configs/toy/stage1_pretrain.yaml"
STILL = ["run.init_lr=0", "run.min_lr=0", "run.warmup_lr=-1", "run.warmup_steps=0"]
"""Options of a run that does not move its weights, which would differ in the last bits between one process and two."""


@pytest.fixture(scope="module")
def config(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage 1 with questions on held-out clips: as instructions, as a benchmark and as fixed questions."""
    folder = tmp_path_factory.mktemp("validation")
    questions = json.loads((world / "heldout" / "questions.json").read_text())[:10]
    instructions = [{"video": q["video"], "QA": [{"q": q["question"], "a": q["answer"]}]} for q in questions]
    (folder / "instructions.json").write_text(json.dumps(instructions))
    (folder / "questions.json").write_text(json.dumps(questions))
    clip = str(world / "heldout" / "videos" / questions[0]["video"])
    asked = [
        {"id": n, "video": clip, "question": q} for n, q in (("colour", "What colour is it?"), ("shape", "What is it?"))
    ]
    (folder / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    data: dict[str, Any] = yaml.safe_load((ROOT / STAGE_1).read_text())
    data["paths"]["world"] = str(world)
    data["datasets"]["heldout"] = {
        "name": "webvid_instruct",
        "split": "val",
        "build_info": {
            "anno_dir": str(folder / "instructions.json"),
            "videos_dir": str(world / "heldout" / "videos"),
        },
        "vis_processor": {"train": {"name": "alpro_video_eval", "n_frms": 4, "image_size": 64}},
        "evaluator": {
            "name": "exact_match",
            "questions": str(folder / "questions.json"),
            "videos_dir": str(world / "heldout" / "videos"),
        },
    }
    data["run"] |= {
        "max_epoch": 1,
        "iters_per_epoch": 3,
        "warmup_steps": 1,
        "batch_size_train": 4,
        "batch_size_eval": 3,
        "valid_splits": ["val"],
        "eval_every": 2,
        "eval_questions": str(folder / "asked.jsonl"),
        "eval_max_new_tokens": 8,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(data))
    return folder / "config.yaml"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_losses_scores_and_answers_are_logged_and_training_is_not_affected(config, tmp_path, train, caplog):
    caplog.set_level("INFO")
    run = train(config, f"run.output_dir={tmp_path / 'run'}", "run.best.metric=val/heldout/colour")
    assert run.code == 0, run.err
    assert [line["step"] for line in lines(tmp_path / "run" / "validation.jsonl")] == [2, 3]
    (first, _) = lines(tmp_path / "run" / "validation.jsonl")
    kinds = {q["kind"] for q in json.loads((config.parent / "questions.json").read_text())}
    assert first.keys() == {"step", "val/loss", "val/heldout/loss", *(f"val/heldout/{kind}" for kind in kinds)}
    assert first["val/loss"] == first["val/heldout/loss"] > 0
    answers = lines(tmp_path / "run" / "answers.jsonl")
    assert [(a["step"], a["id"]) for a in answers] == [(2, "colour"), (2, "shape"), (3, "colour"), (3, "shape")]
    picture = Image.open(tmp_path / "run" / answers[0]["picture"])
    assert picture.size == (4 * 64, 64)
    assert picture.getextrema() != ((0, 0), (0, 0), (0, 0))
    assert f"What colour is it? {answers[0]['answer']}" in caplog.text
    plain = ["run.valid_splits=[]", "run.eval_questions=null", f"run.output_dir={tmp_path / 'plain'}"]
    plain += ["run.eval_every=null", "run.batch_size_eval=null", "run.eval_max_new_tokens=128"]
    assert train(config, *plain).code == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "plain")


@pytest.mark.slow
def test_two_processes_find_what_one_finds(config, tmp_path, train):
    assert train(config, f"run.output_dir={tmp_path / 'one'}", *STILL).code == 0
    torchrun(2, str(config), f"run.output_dir={tmp_path / 'two'}", "run.batch_size_train=2", *STILL)
    for name in ("validation.jsonl", "answers.jsonl"):
        assert lines(tmp_path / "two" / name) == lines(tmp_path / "one" / name)


def test_evaluate_trains_nothing_and_adds_test_splits(config, tmp_path, train):
    options = [f"run.output_dir={tmp_path}", "run.evaluate=true", "run.valid_splits=[]", "run.test_splits=[val]"]
    assert train(config, *options, "run.eval_steps=1").code == 0
    (found,) = lines(tmp_path / "evaluation.jsonl")
    assert found["step"] == 0
    assert found["val/heldout/loss"] > 0
    assert [answer["id"] for answer in found["answers"]] == ["colour", "shape"]
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["run.valid_splits=[vall]"], "run.valid_splits: 'vall' is the split of no data set. Known: train, val. Did you mean val?"),
        (["run.evaluate=true", "run.valid_splits=[]", "run.eval_questions=null"], "run.evaluate: true, but there is nothing"),
        (["run.early_stop.metric=val/los", "run.early_stop.patience=2"], "'val/los' is not measured. Known: val/heldout/loss"),
        (["run.eval_questions=README.md"], "README.md: no line can be used"),
        (["run.early_stop.metric=val/loss"], "run.early_stop.patience"),
    ],
)  # fmt: skip
def test_what_cannot_be_validated_is_refused(config, tmp_path, train, options, message):
    result = train(config, f"run.output_dir={tmp_path}", *options)
    assert result.code == 1
    assert message in result.err
    assert "Traceback" not in result.err
