"""A benchmark is run as an inference job, and scored."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

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
def model(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return SimpleNamespace(key="m", engine=build(tmp_path_factory.mktemp("decoder")))


def test_answers_are_scored_and_failed_questions_are_reported(model, tmp_path):
    result = evaluate(Lengths(), model, tmp_path / "a.jsonl", settings=SHORT)
    assert result is not None
    assert sorted(result.outcomes.answers) == [0, 1, 2, 3]
    assert result.outcomes.errors == [("blank", "the question is empty")]
    assert result.scores == {"length": sum(map(len, result.outcomes.answers.values())) / 5}


def test_a_second_run_answers_nothing_again(model, tmp_path):
    class Fine(Lengths):
        def items(self) -> list[Item]:
            return super().items()[:4]

    class Unbuilt:
        key = "m"

        @property
        def engine(self) -> Engine:
            pytest.fail("the model was built")

    first = evaluate(Fine(), model, tmp_path / "a.jsonl", settings=SHORT)
    again = evaluate(Fine(), Unbuilt(), tmp_path / "a.jsonl", settings=SHORT)
    assert again == first


def test_torchs_grad_mode_is_restored(model, tmp_path):
    evaluate(Lengths(), model, tmp_path / "a.jsonl", settings=SHORT)
    assert torch.is_grad_enabled()
