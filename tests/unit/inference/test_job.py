"""A job from Python: what is asked again, and what is refused. As a command: tests/integration/test_infer.py."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.conversation.scripted import Scripted, ids
from tests.unit.evaluation.models import engine as build
from video_llama.common.errors import OutputError, VideoLlamaError
from video_llama.conversation.batching import File, FileQuestion, answer_batches
from video_llama.conversation.chat import Chat
from video_llama.conversation.engine import Engine
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.conditioned_file import ConditionedFile
from video_llama.inference.items import BadLine, Item
from video_llama.inference.job import InferenceJob
from video_llama.prompts.tokenizer import UNDECODED


def item(id: str | int, clip: str = "a.mp4", question: str = "What is it?") -> Item:
    return Item(id, FileQuestion(File("video", clip), question))


ITEMS = [item(1), item("two", "b.mp4"), BadLine(None, "line 3: not JSON"), BadLine(None, "line 4: not JSON"), item(5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return SimpleNamespace(key="m", engine=build(tmp_path_factory.mktemp("decoder")))


def job(tmp_path: Path, items: Any = ITEMS, **settings: Any) -> InferenceJob:
    settings = {"model": NO_MODEL, "settings": GenerationSettings(max_new_tokens=6), **settings}
    return InferenceJob(items=items, output=tmp_path / "out" / "a.jsonl", **settings)


class Unbuilt:
    """A model that must not be needed."""

    def __init__(self, key: str = "m") -> None:
        self.key = key

    @property
    def engine(self) -> Engine:
        pytest.fail("the model was built")


NO_MODEL = Unbuilt()


def test_outcomes_equal_the_lines_of_the_output(model, tmp_path):
    outcomes = job(tmp_path, model=model).run()
    lines = [json.loads(line) for line in (tmp_path / "out/a.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [1, "two", None, None, 5]
    assert outcomes.answers == {line["id"]: line["answer"] for line in lines if "answer" in line}
    assert list(outcomes.errors) == [(None, "line 3: not JSON"), (None, "line 4: not JSON")]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_answered_questions_need_no_model(model, tmp_path, batch_size):
    first = job(tmp_path, model=model).run()
    assert job(tmp_path, batch_size=batch_size).run() == first


def test_new_questions_are_added_to_existing_answers(model, tmp_path, capsys):
    job(tmp_path, model=model).run()
    assert len(job(tmp_path, [*ITEMS, item(6, "c.mp4")], model=model).run().answers) == 4
    assert "3 of 6 questions are answered already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [{"model": Unbuilt("other")}, {"settings": GenerationSettings(max_new_tokens=5)}, {"items": ITEMS[1:]}]
)
def test_answers_to_other_questions_are_not_overwritten(model, tmp_path, change):
    job(tmp_path, model=model).run()
    before = (tmp_path / "out/a.jsonl").read_bytes()
    with pytest.raises(OutputError, match="holds something else already"):
        job(tmp_path, **change).run()
    assert (tmp_path / "out/a.jsonl").read_bytes() == before


def test_a_question_of_another_kind_of_file_is_another_question(model, tmp_path):
    class Mirrored(File):
        """The same fields, read by different processors."""

    first = [Item(1, FileQuestion(File("video", "a.mp4"), "What is it?"))]
    other = [Item(1, FileQuestion(Mirrored("video", "a.mp4"), "What is it?"))]
    job(tmp_path, first, model=model).run()
    with pytest.raises(OutputError, match="holds something else already"):
        job(tmp_path, other).run()


def test_a_job_that_requires_sound_is_refused_before_any_question_by_a_model_without_audio(model, tmp_path):
    items = [Item(1, FileQuestion(File("video", "a.mp4", use_audio=True), "What is it?"))]
    with pytest.raises(VideoLlamaError, match="the model has no audio branch"):
        job(tmp_path, items, model=model).run()
    assert not (tmp_path / "out/a.jsonl").exists()


def under(one: Item, condition: str) -> Item:
    base = one.asked.file
    file = ConditionedFile(base.kind, base.path, condition=condition, base=base)
    return Item(one.id, FileQuestion(file, one.asked.question), condition)


def test_a_question_is_asked_under_conditions_too_and_resumed(model, tmp_path):
    first, broken = item(1), Item(2, FileQuestion(File("audio", "no_audio_branch.wav"), "What?"))
    items = [first, under(first, "black"), under(first, "silent"), broken, under(broken, "black"), BadLine(3, "line 3")]
    outcomes = job(tmp_path, items, model=model).run()
    lines = [json.loads(line) for line in (tmp_path / "out/a.jsonl").read_text().splitlines()]
    assert [(line["id"], line.get("condition")) for line in lines] == [
        (1, None), (1, "black"), (1, "silent"), (2, None), (2, "black"), (3, None)
    ]  # fmt: skip
    assert outcomes.answers == {1: lines[0]["answer"]}
    black, silent = outcomes.under["black"], outcomes.under["silent"]
    assert black.answers == {1: lines[1]["answer"]} != outcomes.answers
    assert silent.answers == outcomes.answers  # there is no sound
    assert (outcomes.altered, black.altered, silent.altered) == (frozenset(), {1}, frozenset())
    assert [id for id, _ in outcomes.errors] == [2, 3]
    assert [id for id, _ in black.errors] == [2]
    assert black.reasons[2] == outcomes.reasons[2]
    assert job(tmp_path, items, model=model).run() == outcomes


def test_two_questions_with_one_id_are_refused(tmp_path):
    with pytest.raises(VideoLlamaError, match="1 ids are those of several questions, such as 1"):
        job(tmp_path, [item(1), item(2), item(1, "b.mp4")])


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_at_least_one_question(tmp_path, batch_size):
    with pytest.raises(VideoLlamaError, match=f"batch_size: {batch_size}; expected at least 1"):
        job(tmp_path, batch_size=batch_size)


def test_an_answer_cut_inside_a_character_is_its_tokens_decoded_everywhere(model, tmp_path):
    engine = model.engine
    tokens = ids(engine.spec.tokenizer, "It is 🀄")[:-1]
    decoded = engine.spec.tokenizer.decode(tokens)
    assert decoded.endswith(UNDECODED)
    short = GenerationSettings(max_new_tokens=len(tokens))
    head = engine.model.decoder.lm.lm_head

    def scripted(n_rows: int) -> None:
        engine.model.decoder.lm.lm_head = Scripted([tokens] * n_rows)

    try:
        scripted(1)
        chat = Chat(engine)
        chat.upload(video="a.mp4")
        assert chat.ask("What is it?", short) == decoded
        assert chat.session.turns[-1].answer == decoded
        scripted(1)
        assert "".join(Chat(engine).stream("What is it?", short)) == decoded
        scripted(2)
        asked = [FileQuestion(File("video", clip), "What is it?") for clip in ("a.mp4", "b.mp4")]
        assert [answer.text for _, answer in answer_batches(engine, [asked], short)] == [decoded] * 2
        scripted(2)
        outcomes = job(tmp_path, [item(1), item(2, "b.mp4")], model=model, settings=short, batch_size=2).run()
        assert outcomes.answers == {1: decoded, 2: decoded}
        assert json.loads((tmp_path / "out/a.jsonl").read_text().splitlines()[0])["answer"] == decoded
    finally:
        engine.model.decoder.lm.lm_head = head
