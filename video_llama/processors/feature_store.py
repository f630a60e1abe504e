"""Features of files on disk: what frozen encoders made of a file once, no epoch and no run computes again.

Features are stored only if reading the file drew no random number, so that they follow from the file, its processor and its
encoders alone. These make up the key: a changed file, setting or weight gives another one, and nothing stored can be stale.

Shapes: N media items, T frames, S segments.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from video_llama import __version__
from video_llama.common.errors import DataError, VideoLlamaError
from video_llama.common.file_part import file_part
from video_llama.common.modalities import MediaKind, SoundUse
from video_llama.common.types import Media, MediaGroup, StoreAs

log = logging.getLogger(__name__)

FEATURES = "features"
"""Name of the tensor in a file of the store. A file without it says that a part is absent, such as sound from a silent film."""


class FeatureStore:
    """A folder of features, which any number of processes and runs may share.

    Args:
        folder: made if it is not there.
        encoders: a digest of the frozen encoders of each kind of media; see ``VideoLLaMA.encoder_keys``. Media of other
            kinds are not stored.
    Raises:
        DataError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, encoders: Mapping[MediaKind, str]) -> None:
        self.folder, self.encoders = Path(folder), encoders
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

    def entry(self, path: str | Path, processors: Mapping[MediaKind, Any], *how: Hashable) -> StoredFile:
        """Look up what is stored of a file.

        Args:
            path: the file.
            processors: what reads each part of it, in the order of the prompt; an image counts as video.
            how: whatever else decides what is read.
        """
        file = file_key(path)
        keys = {kind: self._key(file, kind, processor, how) for kind, processor in processors.items()}
        return StoredFile(self, keys, {kind: None if key is None else self._get(key) for kind, key in keys.items()})

    def encode(
        self, groups: Sequence[MediaGroup], encode: Callable[[Sequence[MediaGroup]], Sequence[MediaGroup]]
    ) -> tuple[MediaGroup, ...]:
        """Encode what is not encoded yet, and store the features that are to be kept.

        Returns:
            Groups as if all media had been encoded together, so that dropout in the branches draws the same numbers.
        """
        done = encode(groups)
        for raw, group in zip(groups, done, strict=True):
            for place, features in zip(raw.store_as, group.data, strict=False):  # none, where nothing is kept
                if place is not None:
                    self._put(place, features)
        return _joined(done)

    def put_absent(self, key: str) -> None:
        """Store that a part of a file is not there."""
        self._write(key, {}, {})

    def _key(self, file: Hashable | None, kind: MediaKind, processor: Any, how: tuple[Hashable, ...]) -> str | None:
        """Return the key of a part of a file. None: there is no such file, or the part is not stored."""
        encoder, config = self.encoders.get(kind), getattr(processor, "config", None)
        if file is None or encoder is None or config is None:
            return None
        name = f"{type(processor).__module__}.{type(processor).__qualname__}"
        return hashlib.sha256(repr((__version__, file, kind, name, config, how, encoder)).encode()).hexdigest()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.safetensors"

    def _get(self, key: str) -> tuple[Media, ...] | None:
        """Return the features under a key: none if the part is absent; None if nothing, or nothing whole, is stored."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                if FEATURES not in file.keys():  # noqa: SIM118  # not a mapping
                    return ()
                features, times = file.get_tensor(FEATURES), tuple(json.loads(about["times"]))
        except (FileNotFoundError, SafetensorError):
            return None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        kind: Any = about["kind"]
        return (Media(kind, features, about["message"], times, encoded=True),)

    def _put(self, place: StoreAs, features: Tensor) -> None:
        about = {"kind": place.kind, "message": place.message, "times": json.dumps(place.times)}
        self._write(place.key, {FEATURES: features.detach().cpu().contiguous()}, about)

    def _write(self, key: str, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
        """Write a file at once. It is not synced: one that a crash cuts short is not read."""
        path = self._path(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(exist_ok=True)
            save_file(tensors, temporary, about or None)
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise DataError(f"{self.folder}: features cannot be stored: {error}") from error


@dataclass(frozen=True)
class StoredFile:
    """What a store holds of one file, by kind of media."""

    store: FeatureStore
    keys: Mapping[MediaKind, str | None]
    known: Mapping[MediaKind, tuple[Media, ...] | None]

    @property
    def media(self) -> list[Media] | None:
        """The features of all parts of the file; None: some are missing, and the file must be read."""
        if any(part is None for part in self.known.values()):
            return None
        return [media for part in self.known.values() for media in part or ()]

    @property
    def sound(self) -> SoundUse:
        """What was done with the sound of a file that is stored; nothing is stored of a damaged one."""
        return "ignored" if "audio" not in self.known else "used" if self.known["audio"] else "absent"

    def kept(self, media: Sequence[Media]) -> list[Media]:
        """Return what was read of the file, with features in place of what is known, and the rest marked for the store.

        Args:
            media: everything that the file has of the parts, read without drawing random numbers.
        """
        found: list[Media] = []
        for kind, known in self.known.items():
            key, read = self.keys[kind], [item for item in media if _part(item) == kind]
            if known is None and key is not None and not read:
                self.store.put_absent(key)
            found += read if known is None else known
        return [self._marked(item) for item in found]

    def _marked(self, media: Media) -> Media:
        key = self.keys[_part(media)]
        if key is None or media.encoded:
            return media
        return replace(media, store_as=StoreAs(key, media.kind, media.message, media.times))


def file_key(path: str | Path, *how: Hashable) -> Hashable | None:
    """Return a key for the content of a file and the way it is read; None: there is no such file."""
    within = () if (part := file_part(path)) is None else (part.start, part.size)
    path = path if part is None else part.file
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # the latter on a null character
        return None
    return (os.path.realpath(path), stat.st_size, stat.st_mtime_ns, *within, *how)


def _part(media: Media) -> MediaKind:
    """Return the part of a file that a medium is: images and clips have the same encoders."""
    return "video" if media.kind == "image" else media.kind


def _joined(groups: Sequence[MediaGroup]) -> tuple[MediaGroup, ...]:
    """Join encoded groups of one kind and length, items and groups in the order of rows and slots, as ``collate`` has them."""
    alike: dict[tuple[MediaKind, torch.Size], list[MediaGroup]] = defaultdict(list)
    for group in groups:
        alike[group.kind, group.data.shape[1:]].append(group)
    joined = []
    for (kind, _), parts in alike.items():
        rows, slots = (torch.cat([getattr(part, name) for part in parts]) for name in ("rows", "slots"))
        places = list(zip(rows.tolist(), (-slots).tolist(), strict=True))
        order = sorted(range(len(places)), key=places.__getitem__)
        data = torch.cat([part.data for part in parts])
        joined.append((places[order[0]], MediaGroup(kind, data[order], rows[order], slots[order], encoded=True)))
    return tuple(group for _, group in sorted(joined, key=lambda pair: pair[0]))
