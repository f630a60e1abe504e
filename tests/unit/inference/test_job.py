"""A job from Python: what is asked again, what is not, and what is refused. As a command: tests/integration/test_infer.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evaluation.models import engine as build
from video_llama.common.errors import OutputError
from video_llama.conversation.batching import File, FileQuestion
from video_llama.conversation.engine import Engine
from video_llama.conversation.settings import GenerationSettings
from video_llama.inference.items import BadLine, Item
from video_llama.inference.job import InferenceJob


def item(id: str | int, clip: str = "a.mp4", question: str = "What is it?") -> Item:
    return Item(id, FileQuestion(File("video", clip), question))


ITEMS = [item(1), item("two", "b.mp4"), BadLine(None, "line 3: not JSON"), BadLine(None, "line 4: not JSON"), item(5)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return build(tmp_path_factory.mktemp("decoder"))


def job(tmp_path: Path, items: Any = ITEMS, **settings: Any) -> InferenceJob:
    settings = {"model_key": "m", "settings": GenerationSettings(max_new_tokens=6), **settings}
    return InferenceJob(items=items, output=tmp_path / "out" / "a.jsonl", **settings)


def no_engine() -> Engine:
    pytest.fail("the model was built")


def test_outcomes_are_what_the_file_says(engine, tmp_path):
    outcomes = job(tmp_path).run(lambda: engine)
    lines = [json.loads(line) for line in (tmp_path / "out/a.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [1, "two", None, None, 5]
    assert outcomes.answers == {line["id"]: line["answer"] for line in lines if "answer" in line}
    assert list(outcomes.errors) == [(None, "line 3: not JSON"), (None, "line 4: not JSON")]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_answered_questions_need_no_model(engine, tmp_path, batch_size):
    first = job(tmp_path).run(lambda: engine)
    assert job(tmp_path, batch_size=batch_size).run(no_engine) == first


def test_new_questions_are_added_to_the_answers_there_are(engine, tmp_path, capsys):
    job(tmp_path).run(lambda: engine)
    assert len(job(tmp_path, [*ITEMS, item(6, "c.mp4")]).run(lambda: engine).answers) == 4
    assert "3 of 6 questions are answered already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [{"model_key": "other"}, {"settings": GenerationSettings(max_new_tokens=5)}, {"items": ITEMS[1:]}]
)
def test_answers_to_something_else_are_not_overwritten(engine, tmp_path, change):
    job(tmp_path).run(lambda: engine)
    before = (tmp_path / "out/a.jsonl").read_bytes()
    with pytest.raises(OutputError, match="holds something else already"):
        job(tmp_path, **change).run(no_engine)
    assert (tmp_path / "out/a.jsonl").read_bytes() == before


def test_a_question_of_another_kind_of_file_is_another_question(engine, tmp_path):
    class Mirrored(File):
        """The same fields, read in another way."""

    first = [Item(1, FileQuestion(File("video", "a.mp4"), "What is it?"))]
    other = [Item(1, FileQuestion(Mirrored("video", "a.mp4"), "What is it?"))]
    job(tmp_path, first).run(lambda: engine)
    with pytest.raises(OutputError, match="holds something else already"):
        job(tmp_path, other).run(no_engine)
