"""Which files of data sets have features that are not stored yet, and reading these, in the processes of a ``Survey``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from video_llama.common.distributed import World
from video_llama.common.errors import BadRecord, DecodeError, TrainingError
from video_llama.common.modalities import Modalities
from video_llama.common.types import Media, StoreAs
from video_llama.datasets.base import Dataset
from video_llama.datasets.quarantine import Quarantine, sample_of
from video_llama.processors.expected_media import expected_training_media
from video_llama.processors.feature_shards import reader_of
from video_llama.processors.feature_source import FeatureSource, StoredFile, observed
from video_llama.processors.media import training_parts
from video_llama.processors.span import Span
from video_llama.processors.stored_features import StoredFeatures, missing_frames
from video_llama.processors.view import View
from video_llama.runners.data_survey import Line

CHUNK = 256
"""Records that are listed at a time."""
_CACHING = 7
"""The purpose of a random stream; ``mixture``, ``held_out`` and ``data_survey`` have others."""


@dataclass(frozen=True)
class Raw:
    """What is to be encoded, and where its features go."""

    place: StoreAs
    data: Any
    """Array of one medium, as in ``Media``; of a clip only the frames that are missing. None: the file lacks the part."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """Differs between any two that must both be stored."""
        return (self.place.key[:16], *self.place.about.get("frames", ()))


class Listing:
    """Finds the records of a data set with files of which something is missing.

    Args:
        store: what is stored.
        world: the ranks that share the files.
    """

    def __init__(self, store: FeatureSource, world: World) -> None:
        self.store, self.world = store, world

    def __call__(self, dataset: Dataset, start: int) -> Line:
        """List the records of a chunk: number, and digests of files that are this rank's."""
        found, n_malformed = [], 0
        drawn: set[str] = set()
        unopened = copy(dataset)
        unopened.quarantine = None
        for record in range(start, min(start + CHUNK, len(dataset))):
            digests: list[int] = []

            def note(
                path: Path,
                vis_processor: Any,
                modalities: Modalities,
                audio_processor: Any,
                rng: np.random.Generator,
                span: Span | None,
                features: Any,
                digests: list[int] = digests,
            ) -> list[Media]:
                parts = training_parts(vis_processor, modalities, audio_processor)
                readers = [reader_of(processor) for processor in parts.values()]
                digest = _digest((str(path), span, readers))
                if digest % self.world.size == self.world.rank:
                    views = [View(path, view) for view in range(n_views(dataset))]
                    stored = [self.store.entry(path, parts, "in training", span, rng=view) for view in views]
                    drawn.update(_json(part.processor) for part in stored[0].parts.values() if part.is_drawn)
                    if not all(each.is_whole for each in stored):
                        digests.append(digest)
                return expected_training_media(path, vis_processor, modalities, audio_processor, rng, span)

            unopened.reader = note
            try:
                unopened.sample(record, np.random.default_rng([_CACHING, record]))
            except (BadRecord, DecodeError):
                n_malformed += 1
            if digests:
                found.append((record, digests))
        return {"dataset": dataset.name, "found": found, "malformed": n_malformed, "drawn": sorted(drawn)}


class _Noting(FeatureSource):
    """Notes what of a file is to be encoded.

    Args:
        store: what is stored.
        reader: dotted key of what reads the files, for messages.
    """

    def __init__(self, store: FeatureSource, reader: str) -> None:
        super().__init__(store.encoders)
        self.store, self.reader = store, reader
        self.raw: list[Raw] = []
        self.drawn: set[str] = set()

    def check(self, reader: str, processor: Any, views: int | None) -> None:
        """Refuse nothing: what is missing is stored."""

    def pieces(self, key: str) -> Sequence[StoredFeatures]:
        """Return what is stored under a key."""
        return self.store.pieces(key)

    def read(self, stored: StoredFile, read: Callable[[], list[Media]], rng: np.random.Generator) -> list[Media]:
        """Read a file, and note what is missing of it.

        Raises:
            TrainingError: it is read at random.
        """
        content = observed(stored, read, rng)
        if content.drawn and not isinstance(rng, View):
            names = ", ".join(sorted({type(stored.parts[kind].processor).__name__ for kind in content.drawn}))
            raise TrainingError(
                f"{self.reader}: {names} draws frames or crops at random for each sample, which cannot be stored. Set "
                f"{self.reader.rpartition('.')[0]}.views: K, for K views of each file, or choose a processor that draws nothing"
            )
        media = stored.marked(content.media, content.drawn, content.damage)
        self.raw += [Raw(*_missing(item, stored)) for item in media if item.store_as is not None]
        self.raw += [Raw(StoreAs(key, {}), None) for key in stored.absent(content.media)]
        self.drawn.update(_json(stored.parts[kind].processor) for kind in content.drawn)
        return media


class Reading:
    """Reads the files of a record, all views of them.

    Args:
        store: what is stored.
    """

    def __init__(self, store: FeatureSource) -> None:
        self.store = store

    def __call__(self, dataset: Dataset, record: int) -> Line:
        """Return what is to be encoded, and why the record cannot be read, if so."""
        line: Line = {"dataset": dataset.name, "record": record}
        noting = _Noting(self.store, f"datasets.{dataset.name}.vis_processor")
        opened = copy(dataset)
        opened.features = noting
        opened.quarantine = dataset.quarantine = dataset.quarantine or Quarantine()
        for view in range(n_views(dataset)):
            if getattr(dataset.config, "views", None):
                opened.view = lambda path, _, view=view: View(path, view)  # type: ignore[method-assign,misc]
            try:
                sample_of(opened, record, np.random.default_rng([_CACHING, record]))
            except (BadRecord, DecodeError) as error:
                line["bad"] = str(error)
            if not noting.drawn:
                break
        return {**line, "raw": noting.raw, "drawn": sorted(noting.drawn)}


def n_views(dataset: Dataset) -> int:
    """Return how many views a data set has of each file."""
    return getattr(dataset.config, "views", None) or 1


def _missing(media: Media, stored: StoredFile) -> tuple[StoreAs, Any]:
    """Return where features of a medium go, and what is to be encoded: of a clip, only the frames that are not stored."""
    place, data = media.store_as, media.data.numpy()
    assert place is not None
    part = stored.parts["video" if media.kind == "image" else media.kind]
    if place.clip_times is None or not part.pieces:
        return place, np.ascontiguousarray(data)
    frames = missing_frames(part.pieces, part.processor)
    rows = [place.about["frames"].index(frame) for frame in frames]
    return replace(place, about={**place.about, "frames": frames}), np.ascontiguousarray(data[:, rows])


def _json(processor: Any) -> str:
    return json.dumps(reader_of(processor), sort_keys=True)


def _digest(what: Any) -> int:
    return int.from_bytes(
        hashlib.blake2b(repr(what).encode(errors="surrogateescape"), digest_size=8).digest(), "little"
    )
