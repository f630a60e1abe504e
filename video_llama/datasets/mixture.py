"""Which record is drawn when: data sets in fixed shares, in an order decided by the seed alone.

The draw at a position of the run does not depend on the number of processes, workers or accumulation steps. A bad record is
replaced by another one, which the seed chooses; the sample carries the reason to the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from video_llama.common.errors import BadRecord, ConfigError, DecodeError, SoundDecodeError, TrainingError
from video_llama.common.registry import DATASETS
from video_llama.common.types import Replaced, Sample
from video_llama.config.serialize import registered_class
from video_llama.datasets.base import Dataset, split_of
from video_llama.processors.feature_store import FeatureStore
from video_llama.prompts.sample_spec import SampleSpec

ATTEMPTS = 10


def sample_or_replacement(dataset: Dataset, index: int, seed: list[int]) -> Sample:
    """Return the sample of a record or, if that is bad, of another record of the same data set.

    Args:
        dataset: where both come from.
        index: the record.
        seed: with the index, seeds the sample's random choices and picks the record that replaces it.
    Raises:
        TrainingError: ``ATTEMPTS`` records in a row are bad, or all of the data set.
    """
    bad: list[tuple[str, Exception]] = []
    for candidate in _candidates(index, len(dataset), np.random.default_rng([*seed, index])):
        name = f"{dataset.name}/{dataset.record_id(candidate)}"
        try:
            sample = dataset.sample(candidate, np.random.default_rng([*seed, candidate]))
        except (BadRecord, DecodeError) as error:
            bad.append((name, error))
        else:
            replaced = tuple(Replaced(was, str(e), name, isinstance(e, SoundDecodeError)) for was, e in bad)
            return replace(sample, dataset=dataset.name, replaced=replaced)
    which = f"all {len(bad)} records are bad" if len(bad) == len(dataset) else f"{len(bad)} bad records in a row"
    raise TrainingError(
        f"datasets.{dataset.name}: {which}, starting at {bad[0][0]}. The last one, {bad[-1][0]}: {bad[-1][1]}"
    )


def _candidates(index: int, n: int, rng: np.random.Generator) -> Iterator[int]:
    """Yield a record, then others to try instead, no record twice."""
    tried = {index}
    yield index
    while len(tried) < min(ATTEMPTS, n):
        other = int(rng.integers(n))
        if other not in tried:
            tried.add(other)
            yield other


_INTERLEAVING, _PASS, _SAMPLE = 1, 2, 3
"""The purpose of a random stream, so that no two are equal."""


class RecordRef(NamedTuple):
    """One record to be read: which data set, which record, and how many times it came before."""

    dataset: int
    record: int
    visit: int


class Mixture(TorchDataset[Sample]):
    """Data sets drawn in the shares of their ``sample_ratio``.

    Args:
        datasets: the data sets.
        ratios: their shares, of any sum.
        seed: decides every order and every random choice within samples.

    Raises:
        ConfigError: the shares sum to zero.
    """

    def __init__(self, datasets: Sequence[Dataset], ratios: Sequence[float], seed: int) -> None:
        if not 0 < sum(ratios) < float("inf"):
            raise ConfigError(
                [f"datasets.*.sample_ratio: {list(ratios)}; at least one must be above 0, and all finite"]
            )
        self.datasets, self.seed = datasets, seed
        decimals = [Fraction(str(ratio)) for ratio in ratios]
        self.shares = [ratio / sum(decimals) for ratio in decimals]

    def __len__(self) -> int:
        return sum(len(d) for d, share in zip(self.datasets, self.shares, strict=True) if share)

    def use(self, features: FeatureStore) -> None:
        """Take features from a store, and read only what is not in it."""
        for dataset in self.datasets:
            dataset.features = features

    def undrawn(self, n: int) -> list[str]:
        """Return the data sets that have a share, but one too small for a single draw in an epoch of n."""
        counts = _apportion(self.shares, n)
        drawn = zip(self.datasets, self.shares, counts, strict=True)
        return [dataset.name for dataset, share, count in drawn if share and not count]

    def epoch_draws(self, epoch: int, n: int) -> list[RecordRef]:
        """Return the n draws of an epoch, each data set with its exact share.

        Each data set continues its shuffled passes where the previous epoch stopped, so no record comes twice before
        every other has come once.
        """
        counts = _apportion(self.shares, n)
        chosen = np.repeat(np.arange(len(self.datasets)), counts)
        np.random.default_rng([_INTERLEAVING, self.seed, epoch]).shuffle(chosen)
        records = [self._records(d, epoch * count, count) for d, count in enumerate(counts)]
        return [RecordRef(int(d), *next(records[d])) for d in chosen]

    def _records(self, dataset: int, start: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield (record, pass) at positions start to start + count of a data set's endless shuffled passes."""
        size = len(self.datasets[dataset])
        order, last = np.empty(0, dtype=int), -1
        for position in range(start, start + count):
            nth, within = divmod(position, size)
            if nth != last:
                order, last = np.random.default_rng([_PASS, self.seed, dataset, nth]).permutation(size), nth
            yield int(order[within]), nth

    def __getitem__(self, ref: RecordRef) -> Sample:
        return sample_or_replacement(
            self.datasets[ref.dataset], ref.record, [_SAMPLE, self.seed, ref.dataset, ref.visit]
        )


def build_mixture(configs: Mapping[str, Any], spec: SampleSpec, seed: int) -> Mixture:
    """Read the annotations of the data sets that are trained on, and mix them.

    Raises:
        ConfigError, DataError: see ``Dataset`` and ``Mixture``.
    """
    configs = {name: config for name, config in configs.items() if split_of(config) == "train"}
    datasets = [registered_class(DATASETS, config)(config, spec, name) for name, config in configs.items()]
    return Mixture(datasets, [config.sample_ratio for config in configs.values()], seed)


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How the samples of an epoch are split over steps, processes and forward passes."""

    batch_size: int
    """Samples of a micro-batch."""
    accumulation: int
    """Micro-batches of a step, on each process."""
    world_size: int
    """Processes."""
    steps_per_epoch: int
    """Optimiser steps of an epoch."""

    @property
    def samples_per_step(self) -> int:
        """Samples of an optimiser step, over all processes."""
        return self.batch_size * self.accumulation * self.world_size


class RankBatches(Sampler[list[RecordRef]]):
    """The micro-batches of one process.

    Args:
        mixture: what is drawn from.
        plan: how the draws are split.
        rank: the process.
        steps: the optimiser steps to go through, counted from 0 over the whole run.
    """

    def __init__(self, mixture: Mixture, plan: BatchPlan, rank: int, steps: range) -> None:
        self.mixture, self.plan, self.rank, self.steps = mixture, plan, rank, steps

    def __iter__(self) -> Iterator[list[RecordRef]]:
        plan = self.plan
        for epoch, steps in groupby(self.steps, key=lambda step: step // plan.steps_per_epoch):
            draws = self.mixture.epoch_draws(epoch, plan.steps_per_epoch * plan.samples_per_step)
            for step in steps:
                for micro in range(plan.accumulation):
                    nth = (step % plan.steps_per_epoch) * plan.accumulation + micro
                    start = (nth * plan.world_size + self.rank) * plan.batch_size
                    yield draws[start : start + plan.batch_size]

    def __len__(self) -> int:
        return len(self.steps) * self.plan.accumulation


def _apportion(shares: Sequence[Fraction], n: int) -> list[int]:
    """Split n into whole counts in the given shares, the largest remainders rounded up; of equal ones, the first."""
    counts = [int(share * n) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i] * n)
    for i in by_remainder[: n - sum(counts)]:
        counts[i] += 1
    return counts
