"""What a benchmark is, and how a model is scored on one: an inference job of its questions, then its own scorer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from video_llama.common.distributed import World, join_apart
from video_llama.conversation.file import File
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.conditions import others
from video_llama.evaluation.partners import partners, under_conditions
from video_llama.inference.items import Item
from video_llama.inference.job import InferenceJob, Outcomes
from video_llama.inference.model import JobModel

log = logging.getLogger(__name__)


class Benchmark(Protocol):
    """Questions with known answers, and a way to score answers. Registered in ``BENCHMARKS``, and built from its ``Config``."""

    def items(self) -> Sequence[Item]:
        """Return the questions, each with an id of its own.

        Raises:
            DataError: the annotations cannot be read.
        """

    def score(self, answers: Mapping[str | int, str]) -> Mapping[str, float]:
        """Return scores by name. A question without an answer counts as wrong."""


@runtime_checkable
class WithReferences(Protocol):
    """A benchmark that says what is right."""

    def references(self) -> Mapping[str | int, Sequence[str]]:
        """Return the right answers to its questions, by id, as far as they are known."""


@dataclass(frozen=True)
class BenchmarkResult:
    """Scores, and the outcomes they are computed from."""

    scores: Mapping[str, float]
    outcomes: Outcomes
    """Those under other conditions are in ``outcomes.under``."""
    partners: Mapping[str | int, File | None] = field(default_factory=dict)
    """The file whose frames or sound replace those of a question's, under conditions that need one."""


def evaluate(
    benchmark: Benchmark,
    model: JobModel,
    output: Path,
    *,
    settings: GenerationSettings | None = None,
    batch_size: int = 8,
    world: World | None = None,
    conditions: Sequence[str] = (),
) -> BenchmarkResult | None:
    """Answer a benchmark's questions and score the answers. Killed and started again, it resumes.

    Args:
        benchmark: its questions and scorer.
        model: such as ``ConfiguredModel("toy")``.
        output: JSONL file that gets the answers.
        settings: of all answers; None: greedy.
        batch_size: questions answered at once, by each process.
        world: the processes that share the questions; None: those that ``torchrun`` started.
        conditions: names of ``CONDITIONS`` under which the questions are asked too.
    Returns:
        The result; None in other processes than the first.
    Raises:
        DataError: a condition needs another file, and there is none.
        VideoLlamaError: see ``InferenceJob.run``.
    """
    items = benchmark.items()
    partner_of = partners(items, benchmark.references() if isinstance(benchmark, WithReferences) else {})
    job = InferenceJob(
        items=under_conditions(items, others(conditions), partner_of),
        output=output,
        model=model,
        settings=settings or GenerationSettings(),
        batch_size=batch_size,
    )
    joined = world or join_apart(torch.device("cpu"))
    try:
        outcomes = job.run(joined)
    finally:
        if world is None:
            joined.close()
    if not joined.is_main:
        return None
    if outcomes.errors:
        n_failed, n_asked, first = len(outcomes.errors), len(items), outcomes.errors[0][1]
        log.warning("%d of %d questions have no answer, and count as wrong; the first: %s", n_failed, n_asked, first)
    for name, there in outcomes.under.items():
        if (n_more := len(there.errors) - len(outcomes.errors)) > 0:
            log.warning(
                "under %s, %d more have none, and are left out; the last: %s", name, n_more, there.errors[-1][1]
            )
    return BenchmarkResult(benchmark.score(outcomes.answers), outcomes, partner_of)
