"""A benchmark is run as an inference job, and scored."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from tests.unit.evaluation.models import engine as build
from video_llama.conversation.batching import File, FileQuestion
from video_llama.conversation.engine import Engine
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.benchmark import evaluate
from video_llama.inference.items import Item

SHORT = GenerationSettings(max_new_tokens=8)


class Lengths:
    """Scores the mean length of answers."""

    def items(self) -> list[Item]:
        return [Item(n, FileQuestion(File("video", f"clip{n}.mp4"), "What is it?")) for n in range(4)] + [
            Item("blank", FileQuestion(File("video", "clip0.mp4"), " "))
        ]

    def score(self, answers: Mapping[str | int, str]) -> dict[str, float]:
        return {"length": sum(map(len, answers.values())) / 5}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return build(tmp_path_factory.mktemp("decoder"))


def test_scores_are_of_the_answers_and_failed_questions_are_reported(engine, tmp_path):
    result = evaluate(Lengths(), lambda: engine, tmp_path / "a.jsonl", model_key="m", settings=SHORT)
    assert result is not None
    assert sorted(result.outcomes.answers) == [0, 1, 2, 3]
    assert result.outcomes.errors == [("blank", "the question is empty")]
    assert result.scores == {"length": sum(map(len, result.outcomes.answers.values())) / 5}


def test_a_second_run_answers_nothing_again(engine, tmp_path):
    class Fine(Lengths):
        def items(self) -> list[Item]:
            return super().items()[:4]

    first = evaluate(Fine(), lambda: engine, tmp_path / "a.jsonl", model_key="m", settings=SHORT)
    again = evaluate(
        Fine(), lambda: pytest.fail("the model was built"), tmp_path / "a.jsonl", model_key="m", settings=SHORT
    )
    assert again == first


def test_torch_stays_in_the_mode_it_was_in(engine, tmp_path):
    evaluate(Lengths(), lambda: engine, tmp_path / "a.jsonl", model_key="m", settings=SHORT)
    assert torch.is_grad_enabled()
