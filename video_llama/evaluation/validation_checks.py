"""The checks of a run's validation, from its YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from video_llama.common.errors import ConfigError, DataError
from video_llama.common.registry import BENCHMARKS, did_you_mean
from video_llama.config.loader import JobConfig
from video_llama.config.serialize import registered_class
from video_llama.conversation.engine import Engine
from video_llama.conversation.processors import inference_config
from video_llama.conversation.settings import GenerationSettings
from video_llama.datasets.base import split_of
from video_llama.datasets.held_out import HeldOut, build_held_out
from video_llama.evaluation.generated import Asker, FixedQuestions, Scores
from video_llama.inference.items import BadLine, Item, read_items
from video_llama.prompts.sample_spec import SampleSpec
from video_llama.runners.check import Check
from video_llama.runners.config import RunConfig
from video_llama.runners.held_out_loss import HeldOutLoss


class ValidationData:
    """What a run validates on, read before its model is built.

    Args:
        job: the whole config.
        spec: what the model needs of samples.

    Raises:
        ConfigError: a split has no data set, or the model cannot answer the questions that are asked.
        DataError: annotations or questions cannot be read.
    """

    def __init__(self, job: JobConfig, spec: SampleSpec) -> None:
        self.job, self.spec = job, spec
        self.config: RunConfig = job.run
        tested = self.config.test_splits if self.config.evaluate else ()
        self.splits = tuple(dict.fromkeys((*self.config.valid_splits, *tested)))
        _check_splits(self.splits, job)
        limit = None if self.config.eval_steps is None else self.config.eval_steps * self.config.eval_batch_size
        self.held_out = {
            split: [HeldOut(dataset, limit) for dataset in build_held_out(job.datasets, spec, split)]
            for split in self.splits
        }
        self.benchmarks = {
            f"{split_of(config)}/{name}": registered_class(BENCHMARKS, config.evaluator)(config.evaluator)
            for name, config in job.datasets.items()
            if split_of(config) in self.splits and getattr(config, "evaluator", None) is not None
        }
        self.questions = _questions(self.config.eval_questions) if self.config.eval_questions else []
        if self.generates and not callable(getattr(job.model, "for_inference", None)):
            raise ConfigError(
                ["model.arch: this model can only be trained: leave out evaluator and run.eval_questions, or give its "
                 "Config a for_inference"]
            )  # fmt: skip

        if self.generates and getattr(job.model, "features", None) is not None:
            raise ConfigError(
                ["model.features: answers need the encoders, which are not built: leave out evaluator and "
                 "run.eval_questions, or features"]
            )  # fmt: skip

    @property
    def generates(self) -> bool:
        """Whether answers are generated."""
        return bool(self.benchmarks or self.questions)

    def checks(self, model: Any) -> list[Check]:
        """Return the checks, of a model that is being trained."""
        return list(self._checks(model))

    def _checks(self, model: Any) -> Iterator[Check]:
        pad_id = self.spec.tokenizer.pad_id
        for split, sets in self.held_out.items():
            yield HeldOutLoss(split, sets, model, self.config, pad_id=pad_id)

        @cache
        def engine() -> Engine:
            """Return the model in training, on first use: by then it is on its device."""
            return Engine.from_model(model, inference_config(self.job))

        settings = GenerationSettings(max_new_tokens=self.config.eval_max_new_tokens)
        asker = Asker(engine, settings, self.config.eval_batch_size)
        for name, benchmark in self.benchmarks.items():
            yield Scores(name, benchmark, asker)
        if self.questions:
            yield FixedQuestions(self.questions, asker, Path(self.config.output_dir))


def _check_splits(splits: Sequence[str], job: JobConfig) -> None:
    """Raise ConfigError for a split that no data set has."""
    known = sorted({split_of(config) for config in job.datasets.values()})
    key = "valid_splits" if job.run.valid_splits else "test_splits"
    problems = [
        f"run.{key}: '{split}' is the split of no data set. Known: {', '.join(known)}.{did_you_mean(split, known)} Give "
        f"a data set split: {split}"
        for split in splits
        if split not in known
    ]
    if problems:
        raise ConfigError(problems)


def _questions(path: str) -> list[Item]:
    """Read the questions, all of which must be usable."""
    lines = read_items(path, str(Path(path).parent), None)
    if bad := [line.problem for line in lines if isinstance(line, BadLine)]:
        raise DataError(f"run.eval_questions: {path}: {bad[0]}")
    return [line for line in lines if isinstance(line, Item)]
