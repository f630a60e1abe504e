"""Which record is drawn when: data sets in fixed shares, in an order decided by the seed alone.

The draw at a position of the run does not depend on the number of processes, workers or accumulation steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from video_llama.common.errors import BadRecord, ConfigError, DecodeError
from video_llama.common.registry import DATASETS
from video_llama.common.types import Sample
from video_llama.config.serialize import registered_class
from video_llama.datasets.base import Dataset, split_of
from video_llama.datasets.length_groups import BatchLimits, Length, grouped
from video_llama.datasets.permutation import scrambled, words
from video_llama.datasets.quarantine import Quarantine
from video_llama.datasets.replacement import sample_or_replacement
from video_llama.processors.feature_source import FeatureSource
from video_llama.prompts.sample_spec import SampleSpec

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
        self.quarantine: Quarantine | None = None
        decimals = [Fraction(str(ratio)) for ratio in ratios]
        self.shares = [ratio / sum(decimals) for ratio in decimals]

    def __len__(self) -> int:
        return sum(d.pass_length for d, share in zip(self.datasets, self.shares, strict=True) if share)

    def use(self, features: FeatureSource | None, quarantine: Quarantine) -> None:
        """Take features from a store, if there is one, and open no file that is known to be unreadable.

        Raises:
            DataError: what is stored is not what the data sets read.
        """
        self.quarantine = quarantine
        for dataset in self.datasets:
            dataset.quarantine = quarantine
            if features is not None:
                dataset.use(features)

    def undrawn(self, n: int) -> list[str]:
        """Return the data sets that have a share, but one too small for a single draw in an epoch of n."""
        counts = _apportion(self.shares, n)
        drawn = zip(self.datasets, self.shares, counts, strict=True)
        return [dataset.name for dataset, share, count in drawn if share and not count]

    def draws(self, epoch: int, n: int, positions: range) -> list[RecordRef]:
        """Return the draws at consecutive positions of an epoch of n, each data set with its exact share of the n.

        The k-th of the c draws of a data set comes at a random moment of the k-th of c equal parts of the epoch. So every
        stretch of an epoch has about the shares of the whole, and what came before it is known without going through it.
        Each data set continues its shuffled passes where the previous epoch stopped: no record comes twice before every
        other has come once.
        """
        counts = _apportion(self.shares, n)
        margin = len(counts) + 1  # how many draws come before a moment is known from the shares but for one of each set
        first, last = max(0, positions.start - margin), min(n, positions.stop + margin)
        parts = [(first * count // n, -(-last * count // n)) for count in counts]
        moments = sorted(moment for d, part in enumerate(parts) for moment in self._moments(epoch, d, counts[d], *part))
        before = sum(start for start, _ in parts)
        here = moments[positions.start - before : positions.stop - before]
        return [self._ref(d, epoch * counts[d] + k) for _, d, k in here]

    def _moments(self, epoch: int, dataset: int, count: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the moments of an epoch, out of 2**64, at which draws start to stop of a data set's come: (moment, set, draw)."""
        key = words((_INTERLEAVING, self.seed, epoch, dataset))[0]
        for k in range(start, stop):
            yield (((k << 32) + scrambled(k, key)) << 32) // count, dataset, k

    def _ref(self, dataset: int, draw: int) -> RecordRef:
        """Return a draw of a data set's endless shuffled passes."""
        return RecordRef(dataset, *self.datasets[dataset].drawn(draw, (_PASS, self.seed, dataset)))

    def length(self, ref: RecordRef) -> Length | None:
        """Return the size of a draw's sample, as far as it is known without its files; None: the record is bad."""
        rng = np.random.default_rng([_SAMPLE, self.seed, ref.dataset, ref.visit, ref.record])
        try:
            return self.datasets[ref.dataset].length(ref.record, rng)
        except (BadRecord, DecodeError):
            return None

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
    grouping: BatchLimits | None = None
    """Micro-batches are of samples of similar length, within these limits. None: they are as drawn."""

    @property
    def samples_per_step(self) -> int:
        """Samples of an optimiser step, over all processes."""
        return self.batch_size * self.accumulation * self.world_size


class RankBatches:
    """The micro-batches of one process, step by step.

    Args:
        mixture: what is drawn from.
        plan: how the draws are split.
        rank: the process.
        steps: the optimiser steps to go through, counted from 0 over the whole run.
    """

    def __init__(self, mixture: Mixture, plan: BatchPlan, rank: int, steps: range) -> None:
        self.mixture, self.plan, self.rank, self.steps = mixture, plan, rank, steps

    def __iter__(self) -> Iterator[list[RecordRef]]:
        for step in self.steps:
            yield from self.of(step)

    def of(self, step: int) -> list[list[RecordRef]]:
        """Return the micro-batches of a step."""
        plan, (epoch, within) = self.plan, divmod(step, self.plan.steps_per_epoch)
        n, start = plan.steps_per_epoch * plan.samples_per_step, within * plan.samples_per_step
        if plan.grouping is None:
            at_once = plan.world_size * plan.batch_size
            starts = [start + micro * at_once + self.rank * plan.batch_size for micro in range(plan.accumulation)]
            return [self.mixture.draws(epoch, n, range(first, first + plan.batch_size)) for first in starts]
        draws = self.mixture.draws(epoch, n, range(start, start + plan.samples_per_step))
        found = [self.mixture.length(draw) for draw in draws]
        known = sorted(length for length in found if length is not None)
        middle = known[len(known) // 2] if known else Length(0, 0, 0)  # for those that others will replace
        own = grouped([length or middle for length in found], plan.world_size, plan.accumulation, plan.grouping)[
            self.rank
        ]
        return [[draws[i] for i in batch] for batch in own]


def _apportion(shares: Sequence[Fraction], n: int) -> list[int]:
    """Split n into whole counts in the given shares, the largest remainders rounded up; of equal ones, the first."""
    counts = [int(share * n) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i] * n)
    for i in by_remainder[: n - sum(counts)]:
        counts[i] += 1
    return counts
