"""What replaces a bad record: another record of its data set, which the seed chooses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from video_llama.common.errors import BadRecord, DecodeError, TrainingError
from video_llama.common.types import Replaced, Sample
from video_llama.datasets.base import Dataset
from video_llama.datasets.quarantine import Entry, sample_of

ATTEMPTS = 10


def sample_or_replacement(dataset: Dataset, index: int, seed: list[int]) -> Sample:
    """Return the sample of a record or, if that is bad, of another record of the same data set.

    Whether a record is known to be bad already makes no difference to what replaces it.

    Args:
        dataset: where both come from.
        index: the record.
        seed: with the index, seeds the sample's random choices and picks the record that replaces it.
    Raises:
        TrainingError: ``ATTEMPTS`` records in a row are bad, or all of the data set.
    """
    bad: list[tuple[str, BadRecord | DecodeError]] = []
    for candidate in _candidates(index, len(dataset), np.random.default_rng([*seed, index])):
        name = f"{dataset.name}/{dataset.record_id(candidate)}"
        try:
            sample = sample_of(dataset, candidate, np.random.default_rng([*seed, candidate]))
        except (BadRecord, DecodeError) as error:
            bad.append((name, error))
        else:
            return replace(sample, dataset=dataset.name, replaced=tuple(_replaced(was, e, name) for was, e in bad))
    which = f"all {len(bad)} records are bad" if len(bad) == len(dataset) else f"{len(bad)} bad records in a row"
    raise TrainingError(
        f"datasets.{dataset.name}: {which}, starting at {bad[0][0]}. The last one, {bad[-1][0]}: {bad[-1][1]}"
    )


def _replaced(sample_id: str, error: BadRecord | DecodeError, by: str) -> Replaced:
    entry = Entry.of(sample_id, error)
    return Replaced(sample_id, entry.reason, by, path=entry.path, error=entry.error, read_as=entry.read_as)


def _candidates(index: int, n: int, rng: np.random.Generator) -> Iterator[int]:
    """Yield a record, then others to try instead, no record twice."""
    tried = {index}
    yield index
    while len(tried) < min(ATTEMPTS, n):
        other = int(rng.integers(n))
        if other not in tried:
            tried.add(other)
            yield other
