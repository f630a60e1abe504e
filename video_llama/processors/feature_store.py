"""Features of files in a folder that training and use fill as they go: what is encoded once, no epoch and no run computes again.

Nothing is stored of what is drawn at random, but for a ``View``, and nothing of a damaged file.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from video_llama.common.errors import DataError, VideoLlamaError
from video_llama.common.modalities import MediaKind
from video_llama.common.types import Media, MediaGroup
from video_llama.processors.decode.damage import log_once, report_damage
from video_llama.processors.feature_source import FeatureSource, StoredFile, observed, stored_as
from video_llama.processors.stored_features import FeaturesFile, StoredFeatures, write_features
from video_llama.processors.view import View

log = logging.getLogger(__name__)


class FeatureStore(FeatureSource):
    """A folder of features, which any number of processes and runs may share, and which is filled as files are read.

    Args:
        folder: made if it is not there.
        encoders: see ``FeatureSource``.
    Raises:
        DataError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, encoders: Mapping[MediaKind, str]) -> None:
        super().__init__(encoders)
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: no folder for features: {error.strerror}") from error

    @classmethod
    def of(cls, folder: str | Path, model: Any) -> FeatureStore:
        """Open the store of a model.

        Raises:
            VideoLlamaError: the model does not say what its frozen encoders are.
        """
        if not callable(getattr(model, "encoder_keys", None)):
            raise VideoLlamaError(
                f"{folder}: features are not stored for {type(model).__name__}, which has no encoder_keys"
            )
        encoders = model.encoder_keys()
        if not encoders:
            log.warning("warning: no features are stored in %s: the model's encoders are trained", folder)
        return cls(folder, encoders)

    def check(self, reader: str, processor: Any, views: int | None) -> None:
        """Refuse nothing: what is missing is stored."""

    def pieces(self, key: str) -> Sequence[StoredFeatures]:
        """Return what is stored under a key: nothing, or one item. A file that is not whole counts as nothing."""
        path = self._path(key)
        try:
            found = FeaturesFile(path).get(key)
        except (FileNotFoundError, SafetensorError):
            return ()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        return () if found is None else (found,)

    def read(self, stored: StoredFile, read: Callable[[], list[Media]], rng: np.random.Generator) -> list[Media]:
        """Read a file, and mark what is to be stored: nothing of a damaged one, which must be reported each time."""
        content = observed(stored, read, rng)
        for report in content.damage:
            report_damage(str(stored.path), report)  # whenever the file is read
        if content.damage:
            return content.media
        if content.drawn and not isinstance(rng, View):
            names = ", ".join(sorted({type(stored.parts[kind].processor).__name__ for kind in content.drawn}))
            log_once(
                f"{names} draws frames or crops at random, so no features of its files are stored. With views: K in the "
                "data set, each file has K fixed views, which are"
            )
        return self.kept(stored, content.media, content.drawn)

    def kept(self, stored: StoredFile, media: Sequence[Media], drawn: Collection[MediaKind] = ()) -> list[Media]:
        """Return what was read of a file, with features in place of what is known, and the rest marked for the store.

        Args:
            stored: what is stored of it.
            media: everything that the file has of the parts.
            drawn: the parts that were read with random numbers.
        """
        for key in stored.absent(media):
            self._write(key, StoredFeatures())
        return stored.marked(media, drawn)

    def encode(
        self, groups: Sequence[MediaGroup], encode: Callable[[Sequence[MediaGroup]], Sequence[MediaGroup]]
    ) -> tuple[MediaGroup, ...]:
        """Encode what is not encoded yet, and store the features that are to be kept; see ``FeatureSource.encode``."""
        done = encode(groups)
        for raw, group in zip(groups, done, strict=True):
            for place, features in zip(raw.store_as, group.data, strict=False):  # none, where nothing is kept
                if place is not None:
                    self._put(place.key, stored_as(place, features))
        return super().encode(done, tuple)

    def _put(self, key: str, stored: StoredFeatures) -> None:
        frames_before = self.pieces(key) if stored.clip_times is not None else ()
        self._write(key, stored.joined(frames_before) if frames_before else stored)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.safetensors"

    def _write(self, key: str, stored: StoredFeatures) -> None:
        """Write a file at once. It is not synced: one that a crash cuts short is not read."""
        path = self._path(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(exist_ok=True)
            write_features(temporary, {key: stored})
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise DataError(f"{self.folder}: features cannot be stored: {error}") from error


def features_of(folder: str | Path | None, model: Any) -> FeatureSource | None:
    """Return where the features for the training of a model are: in place of its encoders, or in a folder; None: nowhere.

    Raises:
        VideoLlamaError: see ``FeatureStore``.
    """
    stored: FeatureSource | None = getattr(model, "stored_features", None)
    if stored is not None and folder is not None:
        log.warning("warning: run.feature_store has no effect: model.features has all features")
    if stored is not None or folder is None:
        return stored
    return FeatureStore.of(folder, model)
