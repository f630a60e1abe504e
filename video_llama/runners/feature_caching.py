"""Fills a store of features with what the frozen encoders make of the files of some data sets.

First it is listed which records have files of which something is missing; then processes read these, and this one encodes. Of
several ranks, each has the files whose digests fall to it, so that none is encoded twice.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from video_llama.common.distributed import World
from video_llama.common.types import MediaGroup, slot_id
from video_llama.datasets.base import Dataset
from video_llama.processors.feature_shards import GrowingShards
from video_llama.processors.feature_source import stored_as
from video_llama.processors.stored_features import FeaturesFile, StoredFeatures
from video_llama.runners.data_survey import Line, Survey, Task
from video_llama.runners.feature_listing import CHUNK, Listing, Raw, Reading

log = logging.getLogger(__name__)

TRIAL = 32
"""Records by which the size and the time of all are estimated."""


@dataclass(frozen=True)
class Estimate:
    """What the first records say of those that are left."""

    records: int
    """Left to this process."""
    bytes_each: float
    seconds_each: float
    """To read and encode the files of a record, once for each view."""
    load_seconds_each: float
    """To read their features, once for each view."""

    def break_even(self, records: int, views: float, draws_per_epoch: float) -> float:
        """Return the epochs after which storing has saved more time than it takes; infinite if it never does.

        Args:
            records: of all processes.
            views: stored of each file.
            draws_per_epoch: samples with files.
        """
        saved = draws_per_epoch * (self.seconds_each - self.load_seconds_each) / views
        return records * self.seconds_each / saved if saved > 0 else float("inf")


class FeatureCaching:
    """Stores the features of the files of some data sets.

    Args:
        datasets: the data sets.
        encode: the model's ``encode_frozen``.
        store: where features go.
        world: the ranks that share the files.
        workers: processes that read.
        batch_size: media that are encoded at once.
        read_timeout: seconds after which a file is given up.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        encode: Callable[[Sequence[MediaGroup]], Sequence[MediaGroup]],
        store: GrowingShards,
        world: World,
        *,
        workers: int,
        batch_size: int,
        read_timeout: float,
    ) -> None:
        self.datasets, self.encode, self.store, self.world = datasets, encode, store, world
        self.workers, self.batch_size, self.read_timeout = workers, batch_size, read_timeout
        self.drawn: set[str] = set()
        """What reads files at random, as JSON."""
        self.bad: list[str] = []
        """Why records cannot be read."""
        self.n_malformed = 0
        """Records without files that could be read."""
        self.n_bytes = 0
        """What has been stored."""

    def tasks(self) -> list[Task]:
        """Return the records with files of which something is missing, each file once."""
        chunks = [Task(n, start) for n, dataset in enumerate(self.datasets) for start in range(0, len(dataset), CHUNK)]
        numbers = {dataset.name: n for n, dataset in enumerate(self.datasets)}
        known: set[int] = set()
        found: list[Task] = []
        with self._bar(len(chunks), "listing files", "chunk") as bar:
            for line in self._survey(Listing(self.store, self.world), chunks):
                self._note(line)
                for record, digests in line.get("found", ()):
                    if not known.issuperset(digests):
                        known.update(digests)
                        found.append(Task(numbers[line["dataset"]], record))
                bar.update()
        return sorted(found)

    def run(self, tasks: Sequence[Task], tell: Callable[[Estimate], None]) -> None:
        """Read and encode the files of some records, and store the features.

        Args:
            tasks: the records.
            tell: called with an estimate when the first ones are done, if others are left.
        Raises:
            DataError: the store cannot be written.
            TrainingError: files are read at random, other than in views.
        """
        try:
            self._run(tasks, tell)
        except KeyboardInterrupt:
            self.store.flush()
            if self.world.is_main:
                print("stopped; the same command goes on from here", file=sys.stderr)
            raise
        self.store.flush()

    def _run(self, tasks: Sequence[Task], tell: Callable[[Estimate], None]) -> None:
        started = time.perf_counter()
        known: set[tuple[Any, ...]] = set()
        pending: list[Raw] = []
        with self._bar(len(tasks), "encoding", "record") as bar:
            for n, line in enumerate(self._survey(Reading(self.store), tasks), 1):
                self._note(line)
                for raw in line.get("raw", ()):
                    if raw.identity not in known:  # else another record of this file was read at the same time
                        known.add(raw.identity)
                        pending.append(raw)
                if len(pending) >= self.batch_size or n in (TRIAL, len(tasks)):
                    self._store(pending)
                    pending = []
                bar.update()
                if n == TRIAL < len(tasks):
                    tell(self._estimate(len(tasks) - n, time.perf_counter() - started))

    def _store(self, pending: Sequence[Raw]) -> None:
        """Encode media, those of one shape together, and store their features."""
        alike: dict[Any, list[Raw]] = defaultdict(list)
        for raw in pending:
            if raw.data is None:
                self._add(raw.place.key, StoredFeatures())
            else:
                alike[raw.place.about["kind"], raw.data.shape].append(raw)
        for (kind, _), items in alike.items():
            for start in range(0, len(items), self.batch_size):
                batch = items[start : start + self.batch_size]
                data = torch.stack([torch.from_numpy(raw.data) for raw in batch])
                rows = torch.arange(len(batch))
                group = MediaGroup(kind, data, rows, torch.full_like(rows, slot_id(0)))
                (done,) = self.encode([group.mapped(lambda tensor: tensor.to(self.world.device))])
                for raw, features in zip(batch, done.data.cpu(), strict=True):
                    self._add(raw.place.key, stored_as(raw.place, features.clone()))

    def _add(self, key: str, stored: StoredFeatures) -> None:
        self.store.add(key, stored)
        self.n_bytes += stored.n_bytes

    def _note(self, line: Line) -> None:
        self.drawn |= set(line.get("drawn", ()))
        self.n_malformed += line.get("malformed", 0)
        if "bad" in line:
            reason = line["bad"]
            self.bad.append(
                reason if isinstance(reason, str) else f"{reason['path'] or reason['id']}: {reason['reason']}"
            )

    def _estimate(self, left: int, seconds: float) -> Estimate:
        path = self.store.flush()
        started = time.perf_counter()
        file = FeaturesFile(path) if path is not None else None
        for key in [] if file is None else file.keys():
            if (stored := file.get(key)) is not None and stored.features is not None:  # type: ignore[union-attr]
                stored.features.clone()
        loading = time.perf_counter() - started
        return Estimate(left, self.n_bytes / TRIAL, seconds / TRIAL, loading / TRIAL)

    def _bar(self, total: int, doing: str, unit: str) -> Any:
        return tqdm(
            total=total,
            desc=doing if self.world.size == 1 else f"{doing}, process 1 of {self.world.size}",
            unit=unit,
            disable=not self.world.is_main,
            mininterval=0.2 if sys.stderr.isatty() else 10,  # a log file needs a line now and then
        )

    def _survey(self, work: Callable[[Dataset, int], Line], tasks: Sequence[Task]) -> Iterator[Line]:
        return Survey(self.datasets, self.workers, self.read_timeout, work)(iter(tasks))
