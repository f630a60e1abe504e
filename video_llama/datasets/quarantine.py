"""Bad records: each is replaced by another one, chosen by the seed, and travels with its reason to the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from video_llama.common.contracts import Replaced, Sample
from video_llama.common.errors import BadRecord, DecodeError, TrainingError
from video_llama.datasets.dataset import Dataset

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
