"""Records that a model is validated on: each exactly once, in one order, the same each time."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from video_llama.common.errors import BadRecord, DecodeError
from video_llama.common.registry import DATASETS
from video_llama.common.types import Batch, Sample
from video_llama.config.serialize import registered_class
from video_llama.datasets.base import Dataset, split_of
from video_llama.datasets.collate import collate
from video_llama.datasets.permutation import permuted
from video_llama.datasets.quarantine import Quarantine, sample_of
from video_llama.prompts.sample_spec import SampleSpec

_ORDER, _SAMPLE = 4, 5
"""The purpose of a random stream; ``mixture`` has others."""


@dataclass(frozen=True)
class Unreadable:
    """A record that is left out, and why."""

    sample_id: str
    reason: str


class HeldOut(TorchDataset[Sample | Unreadable]):
    """Records of a data set in a shuffled order that depends on their number alone, so that any first part is a fair sample.

    The random choices within a sample, such as its prompt, follow from its id.

    Args:
        dataset: where they come from.
        limit: how many of them at most; None: all.
    """

    def __init__(self, dataset: Dataset, limit: int | None = None) -> None:
        self.dataset, self.name = dataset, dataset.name
        self.n = len(range(len(dataset))[:limit])

    def __len__(self) -> int:
        return self.n

    @property
    def quarantine(self) -> Quarantine | None:
        """What is known to be unreadable."""
        return self.dataset.quarantine

    def __getitem__(self, position: int) -> Sample | Unreadable:
        record = permuted(position, len(self.dataset), (_ORDER, len(self.dataset)))
        sample_id = f"{self.name}/{self.dataset.record_id(record)}"
        try:
            return sample_of(self.dataset, record, np.random.default_rng([_SAMPLE, zlib.crc32(sample_id.encode())]))
        except (BadRecord, DecodeError) as error:
            return Unreadable(sample_id, str(error))

    def batches(self, size: int, rank: int, processes: int) -> list[list[int]]:
        """Return the positions in each batch of a process. Batches are the same for any number of processes."""
        whole = [list(range(start, min(start + size, len(self)))) for start in range(0, len(self), size)]
        return whole[rank::processes]


def collate_readable(samples: Sequence[Sample | Unreadable], pad_id: int) -> tuple[Batch | None, list[Unreadable]]:
    """Return the batch of the samples that could be read, None if there are none, and the others."""
    readable = [sample for sample in samples if isinstance(sample, Sample)]
    left_out = [sample for sample in samples if isinstance(sample, Unreadable)]
    return (collate(readable, pad_id) if readable else None), left_out


def build_held_out(configs: Mapping[str, Any], spec: SampleSpec, split: str) -> list[Dataset]:
    """Read the annotations of the data sets of a split.

    Raises:
        ConfigError, DataError: see ``Dataset``.
    """
    chosen = {name: config for name, config in configs.items() if split_of(config) == split}
    return [registered_class(DATASETS, config)(config, spec, name) for name, config in chosen.items()]
