"""Bad records: each is replaced by another one, chosen by the seed, and travels with its reason to the log."""

from __future__ import annotations

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
        TrainingError: ``ATTEMPTS`` records in a row are bad.
    """
    chance = np.random.default_rng([*seed, index])
    replaced: tuple[Replaced, ...] = ()
    wanted = index
    for _ in range(ATTEMPTS):
        try:
            sample = dataset.sample(index, np.random.default_rng([*seed, index]))
        except (BadRecord, DecodeError) as error:
            bad, reason = index, str(error)
            index = int(chance.integers(len(dataset)))
            name = f"{dataset.name}/{dataset.record_id(bad)}"
            replaced += (Replaced(name, reason, f"{dataset.name}/{dataset.record_id(index)}"),)
        else:
            return replace(sample, replaced=replaced)
    raise TrainingError(
        f"datasets.{dataset.name}: {ATTEMPTS} bad records in a row, starting at {dataset.record_id(wanted)}. "
        f"The last one: {replaced[-1].reason}"
    )
