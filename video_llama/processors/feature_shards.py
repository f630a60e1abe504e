"""A store of features that ``video-llama cache-features`` wrote: safetensors shards, an index and a manifest.

Shards are written whole, by any number of processes. ``manifest.json`` names them with their sizes, the index file, and the
encoders and readers whose features they hold. It is replaced last, so that a store is as it was until all that is new is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from video_llama import __version__
from video_llama.common.errors import DataError, TrainingError
from video_llama.common.files import replacing
from video_llama.common.types import Media
from video_llama.processors.feature_source import FeatureSource, StoredFile, class_of, selects_frames, settings_of
from video_llama.processors.stored_features import FeaturesFile, StoredFeatures, write_features

MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the files."""
AGAIN = "Run video-llama cache-features with this YAML again: it adds what is missing"
_ENTRY = np.dtype([("key", "<u8"), ("shard", "<u4")])
"""An item of the index: the first 8 bytes of a key, and the number of the shard that holds it."""


@dataclass(kw_only=True)
class Manifest:
    """What is in a store."""

    encoders: dict[str, dict[str, Any]]
    """What the frozen encoders are, by kind of media; see ``models.stored_encoders``."""
    readers: list[dict[str, Any]] = field(default_factory=list)
    """What read the files; see ``reader_of``."""
    shards: dict[str, int] = field(default_factory=dict)
    """Name and size in bytes of each shard, in the order of the index."""
    index: str | None = None
    """Name of the index. None: the store is not complete."""
    version: str = __version__
    format: int = FORMAT

    @property
    def digests(self) -> dict[Any, str]:
        """The digest of the encoders of each kind of media."""
        return {kind: about["digest"] for kind, about in self.encoders.items()}

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a store.

        Raises:
            DataError: there is none, or it cannot be read.
        """
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            manifest = cls(**content)
        except FileNotFoundError as error:
            raise DataError(f"{folder}: no {MANIFEST}: not a store that video-llama cache-features wrote") from error
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
        if manifest.format != FORMAT or manifest.version != __version__:
            raise DataError(
                f"{folder}: written by video_llama {manifest.version} in format {manifest.format}; this is {__version__} with "
                f"format {FORMAT}, which may read files differently. Write it anew with video-llama cache-features"
            )
        return manifest

    def write(self, folder: Path) -> None:
        """Replace the manifest of a store."""
        with replacing(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def _reads_alike(stored: Mapping[str, Any], processor: Any) -> bool:
    """Return whether a processor reads what the stored one did; the number of frames of one that selects them is free."""
    return not _changed(stored, processor)


def _changed(stored: Mapping[str, Any], processor: Any) -> dict[str, Any]:
    """Return the settings of a processor that are not the stored ones."""
    free = {"n_frms"} if selects_frames(processor) and not stored["draws"] else set()
    now = reader_of(processor)["settings"]
    return {key: value for key, value in now.items() if key not in free and stored["settings"].get(key) != value}


def _differing(stored: Mapping[str, Any], processor: Any) -> str:
    return ", ".join(
        f"{key} {stored['settings'].get(key)} (here {value})" for key, value in _changed(stored, processor).items()
    )


def reader_of(processor: Any) -> dict[str, Any]:
    """Return the name of a processor, and the settings that decide what it reads."""
    return json.loads(
        json.dumps({"name": class_of(processor), "settings": settings_of(processor.config)}, default=repr)
    )


class _InShards(FeatureSource):
    """Features in shards of a folder, found through an index."""

    def __init__(self, folder: Path, encoders: Mapping[Any, str], names: Sequence[str], index: NDArray[Any]) -> None:
        super().__init__(encoders)
        self.folder, self._names, self._index = folder, names, index

    def pieces(self, key: str) -> Sequence[StoredFeatures]:
        """Return what is stored under a key.

        Raises:
            TrainingError: a shard cannot be read.
        """
        short = _short(key)
        start, stop = (int(np.searchsorted(self._index["key"], short, side)) for side in ("left", "right"))
        found = (self._shard(int(number)).get(key) for number in self._index["shard"][start:stop])
        return [stored for stored in found if stored is not None]

    def _shard(self, number: int) -> FeaturesFile:
        path = self.folder / self._names[number]
        try:
            return _opened(path)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{path}: cannot be read: {error}") from error


class FeatureShards(_InShards):
    """The features in a complete store.

    Args:
        folder: the store.
    Raises:
        DataError: it is no store, not complete, of another version, or one of its files is missing or cut short.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.manifest = Manifest.read(folder)
        if self.manifest.index is None:
            raise DataError(f"{folder}: not complete: video-llama cache-features has not finished. Run it again")
        _check_sizes(folder, self.manifest.shards)
        path = folder / self.manifest.index
        try:
            index = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}. {AGAIN}") from error
        super().__init__(folder, self.manifest.digests, list(self.manifest.shards), index)

    def __reduce__(self) -> tuple[type[FeatureShards], tuple[Path]]:
        return FeatureShards, (self.folder,)  # loader processes that are not forked map the index themselves

    def check(self, reader: str, processor: Any, views: int | None) -> None:
        """Refuse a processor that reads other files, other frames or other views than are stored; see ``FeatureSource``."""
        same = [one for one in self.manifest.readers if one["name"] == class_of(processor)]
        matching = [one for one in same if _reads_alike(one, processor)]
        if not matching:
            stored = "; ".join(_differing(one, processor) for one in same) or ", ".join(
                sorted({one["name"].rpartition(".")[2] for one in self.manifest.readers})
            )
            raise DataError(
                f"{reader}: {type(processor).__name__}, whose settings are not those in {self.folder}. Stored: {stored}. {AGAIN}"
            )
        stored_views = max((one["views"] or 0 for one in matching if one["draws"]), default=None)
        if stored_views is not None and (views is None or views > stored_views):
            raise DataError(
                f"{reader}: views: {'null' if views is None else views}; {self.folder} has {stored_views} views of each file, as "
                f"{type(processor).__name__} draws frames or crops at random. Set views: {stored_views}, or run "
                "video-llama cache-features with more"
            )

    def read(self, stored: StoredFile, read: Callable[[], list[Media]], rng: np.random.Generator) -> list[Media]:
        """Raise what reading the file raises or, if it can be read, that its features are missing.

        Raises:
            BadRecord, DecodeError: the file cannot be read, so nothing of it could be stored.
            TrainingError: it can.
        """
        read()
        kinds = ", ".join(kind for kind, part in stored.parts.items() if not part.is_whole)
        raise TrainingError(
            f"{stored.path}: its features ({kinds}) are not in {self.folder}. Either they were never stored, or the file has "
            f"changed since then, or other frames of it are read. {AGAIN}"
        )


class GrowingShards(_InShards):
    """The features in the shards that a folder has now, and new ones that are written beside them.

    Args:
        folder: the store.
        encoders: see ``FeatureSource``.
        shard_bytes: size at which a shard is written.
        rank: of this process among those that write.
    """

    def __init__(self, folder: Path, encoders: Mapping[Any, str], shard_bytes: int, rank: int) -> None:
        names = shard_names(folder)
        super().__init__(folder, encoders, names, index_of(folder, names))
        self._shard_bytes, self._rank = shard_bytes, rank
        self._number = 1 + max((int(name.split("-")[1]) for name in names), default=-1)
        self._new: dict[str, StoredFeatures] = {}
        self._n_new_bytes = 0

    def check(self, reader: str, processor: Any, views: int | None) -> None:
        """Refuse nothing: what is missing is stored."""

    def read(self, stored: StoredFile, read: Callable[[], list[Media]], rng: np.random.Generator) -> list[Media]:
        """Read the file."""
        return read()

    def add(self, key: str, stored: StoredFeatures) -> None:
        """Store features under a key; a shard is written when it is full.

        Raises:
            DataError: it cannot be written.
        """
        self._new[key] = self._new[key].joined([stored]) if key in self._new else stored
        self._n_new_bytes += stored.n_bytes
        if self._n_new_bytes >= self._shard_bytes:
            self.flush()

    def flush(self) -> Path | None:
        """Write what has been added since the last shard, and return its path; None: nothing has.

        Raises:
            DataError: it cannot be written.
        """
        if not self._new:
            return None
        path = self.folder / f"features-{self._number:06d}-{self._rank:04d}.safetensors"
        try:
            with replacing(path) as temporary:
                write_features(temporary, self._new)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: cannot be written: {error}. What is there already is kept") from error
        self._new, self._n_new_bytes = {}, 0
        self._number += 1
        return path


def shard_names(folder: Path) -> list[str]:
    """Return the names of the shards in a folder."""
    return sorted(path.name for path in folder.glob("features-*.safetensors"))


def drop_broken(folder: Path) -> list[str]:
    """Delete what a killed process, or a broken disk, left: unfinished files and shards that are not whole.

    Returns:
        The names of the shards.
    """
    for path in folder.glob(".*.tmp"):
        path.unlink()
    broken = []
    for name in shard_names(folder):
        try:
            FeaturesFile(folder / name)
        except SafetensorError:
            (folder / name).unlink()
            broken.append(name)
    return broken


def complete(folder: Path, manifest: Manifest) -> None:
    """Index all shards in a folder, and write the manifest of the store, which is complete then.

    Raises:
        DataError: something cannot be written.
    """
    names = shard_names(folder)
    index = index_of(folder, names)
    before, name = manifest.index, f"index-{hashlib.sha256(index.tobytes()).hexdigest()[:12]}.npy"
    manifest.shards = {shard: (folder / shard).stat().st_size for shard in names}
    manifest.index = name
    try:
        with replacing(folder / name) as temporary, open(temporary, "wb") as file:
            np.save(file, index)
        manifest.write(folder)
        if before not in (None, name):
            (folder / str(before)).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}. What is there already is kept") from error


def index_of(folder: Path, names: Sequence[str]) -> NDArray[Any]:
    """Return the index of some shards, sorted by key."""
    entries = [(_short(key), shard) for shard, name in enumerate(names) for key in FeaturesFile(folder / name).keys()]  # noqa: SIM118
    index = np.array(entries, dtype=_ENTRY)
    return index[np.argsort(index["key"], kind="stable")]


def _short(key: str) -> np.uint64:
    return np.uint64(int(key[:16], 16))


def _check_sizes(folder: Path, shards: Mapping[str, int]) -> None:
    """Raise DataError for a shard that is missing or not whole."""
    for name, size in shards.items():
        path = folder / name
        try:
            found = path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: missing ({error.strerror}), and {MANIFEST} names it. {AGAIN}") from error
        if found != size:
            raise DataError(
                f"{path}: half-written or cut short: it has {found:,} bytes, and {MANIFEST} says {size:,}. {AGAIN}"
            )


@lru_cache(maxsize=512)
def _opened(path: Path) -> FeaturesFile:
    return FeaturesFile(path)
