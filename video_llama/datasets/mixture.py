"""Which record is drawn when: data sets in fixed shares, in an order that only the seed decides.

The draw at a position of the run does not depend on the number of processes, workers or accumulation steps. A bad record is
replaced by another one, chosen by the seed, and travels with its reason to the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from video_llama.common.errors import BadRecord, ConfigError, DecodeError, TrainingError
from video_llama.common.types import Replaced, Sample
from video_llama.datasets.base import Dataset

ATTEMPTS = 10


def sample_or_replacement(dataset: Dataset, index: int, seed: list[int]) -> Sample:
    """Return the sample of a record or, if that is bad, of another record of the same data set.

    Args:
        dataset: where both come from.
        index: the record.
        seed: with the index, decides all chance in the sample and which record replaces it.
    Raises:
        TrainingError: ``ATTEMPTS`` records in a row are bad, or all that the data set has.
    """
    bad: list[tuple[str, str]] = []
    for candidate in _candidates(index, len(dataset), np.random.default_rng([*seed, index])):
        name = f"{dataset.name}/{dataset.record_id(candidate)}"
        try:
            sample = dataset.sample(candidate, np.random.default_rng([*seed, candidate]))
        except (BadRecord, DecodeError) as error:
            bad.append((name, str(error)))
        else:
            return replace(sample, replaced=tuple(Replaced(was, reason, name) for was, reason in bad))
    those = f"all {len(bad)} records are bad" if len(bad) == len(dataset) else f"{len(bad)} bad records in a row"
    raise TrainingError(
        f"datasets.{dataset.name}: {those}, starting at {bad[0][0]}. The last one, {bad[-1][0]}: {bad[-1][1]}"
    )


def _candidates(index: int, n: int, chance: np.random.Generator) -> Iterator[int]:
    """Yield a record and then others to try in its place, no record twice."""
    tried = {index}
    yield index
    while len(tried) < min(ATTEMPTS, n):
        other = int(chance.integers(n))
        if other not in tried:
            tried.add(other)
            yield other


_INTERLEAVING, _PASS, _SAMPLE = 1, 2, 3
"""What a random stream is for, so that no two are the same."""


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
        ConfigError: the shares do not add up to anything.
    """

    def __init__(self, datasets: Sequence[Dataset], ratios: Sequence[float], seed: int) -> None:
        if not 0 < sum(ratios) < float("inf"):
            raise ConfigError(
                [f"datasets.*.sample_ratio: {list(ratios)}; at least one must be above 0, and all finite"]
            )
        self.datasets, self.seed = datasets, seed
        self.shares = np.asarray(ratios, dtype=float) / sum(ratios)

    def __len__(self) -> int:
        return sum(len(d) for d, share in zip(self.datasets, self.shares, strict=True) if share)

    def epoch_draws(self, epoch: int, n: int) -> list[RecordRef]:
        """Return the n draws of an epoch, each data set with its exact share.

        Each data set goes on through its own shuffled passes where the epoch before left off, so no record comes
        twice before every other came once.
        """
        counts = _apportion(self.shares, n)
        chosen = np.repeat(np.arange(len(self.datasets)), counts)
        np.random.default_rng([_INTERLEAVING, self.seed, epoch]).shuffle(chosen)
        records = [self._records(d, epoch * int(c), int(c)) for d, c in enumerate(counts)]
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


class RankBatches(Sampler[list[RecordRef]]):
    """The micro-batches of one process, over all epochs that are still to come.

    Args:
        mixture: what is drawn from.
        batch_size: samples of a micro-batch.
        accumulation: micro-batches of a step, on each process.
        rank: this process.
        world_size: number of processes.
        steps_per_epoch: optimiser steps of an epoch.
        epochs: which epochs to go through.
    """

    def __init__(
        self,
        mixture: Mixture,
        *,
        batch_size: int,
        accumulation: int,
        rank: int,
        world_size: int,
        steps_per_epoch: int,
        epochs: range,
    ) -> None:
        self.mixture, self.batch_size, self.accumulation = mixture, batch_size, accumulation
        self.rank, self.world_size = rank, world_size
        self.steps_per_epoch, self.epochs = steps_per_epoch, epochs

    def __iter__(self) -> Iterator[list[RecordRef]]:
        size, world = self.batch_size, self.world_size
        global_batch = size * world * self.accumulation
        for epoch in self.epochs:
            draws = self.mixture.epoch_draws(epoch, self.steps_per_epoch * global_batch)
            for micro in range(self.steps_per_epoch * self.accumulation):
                start = (micro * world + self.rank) * size
                yield draws[start : start + size]

    def __len__(self) -> int:
        return len(self.epochs) * self.steps_per_epoch * self.accumulation


def _apportion(shares: np.ndarray, n: int) -> np.ndarray:
    """Split n into whole counts in the given shares, the largest remainders rounded up."""
    exact = shares * n
    counts = np.floor(exact).astype(int)
    largest = np.argsort(counts - exact, kind="stable")[: n - counts.sum()]
    counts[largest] += 1
    return counts
