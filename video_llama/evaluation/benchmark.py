"""What a benchmark is, and how a model is scored on one: an inference job of its questions, then its own scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from video_llama.common.distributed import World
from video_llama.conversation.settings import GenerationSettings
from video_llama.inference.items import Item
from video_llama.inference.job import ALONE, InferenceJob, Outcomes
from video_llama.inference.model import JobModel


class Benchmark(Protocol):
    """Questions with known answers, and a way to score answers. Registered in ``BENCHMARKS``, and built from its ``Config``."""

    def items(self) -> Sequence[Item]:
        """Return the questions, each with an id of its own.

        Raises:
            DataError: the annotations cannot be read.
        """

    def score(self, answers: Mapping[str | int, str]) -> Mapping[str, float]:
        """Return scores by name. A question without an answer counts as wrong."""


@dataclass(frozen=True)
class BenchmarkResult:
    """Scores, and the outcomes they are computed from."""

    scores: Mapping[str, float]
    outcomes: Outcomes


def evaluate(
    benchmark: Benchmark,
    model: JobModel,
    output: Path,
    *,
    settings: GenerationSettings | None = None,
    batch_size: int = 8,
    world: World = ALONE,
) -> BenchmarkResult | None:
    """Answer a benchmark's questions and score the answers. Killed and started again, it resumes.

    Args:
        benchmark: its questions and scorer.
        model: such as ``ConfiguredModel("toy")``.
        output: JSONL file that gets the answers.
        settings: of all answers; None: greedy.
        batch_size: questions answered at once, by each process.
        world: the processes that share the questions.
    Returns:
        The result; None in other processes than the first.
    Raises:
        VideoLlamaError: see ``InferenceJob.run``.
    """
    job = InferenceJob(
        items=benchmark.items(),
        output=output,
        model=model,
        settings=settings or GenerationSettings(),
        batch_size=batch_size,
    )
    outcomes = job.run(world)
    return BenchmarkResult(benchmark.score(outcomes.answers), outcomes) if world.is_main else None
