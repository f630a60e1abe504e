"""Where features of files are looked up: their keys, and what is stored of a file.

Features follow from the file, its processor, the view if it draws numbers, and the encoders. These make up the key: a changed
file, setting or weight gives another one, and nothing stored can be stale.

Shapes: N media items, T frames, S segments.
"""

from __future__ import annotations

import hashlib
import typing
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from video_llama import __version__
from video_llama.common.file_key import file_key
from video_llama.common.modalities import MediaKind, SoundUse
from video_llama.common.types import Media, MediaGroup, StoreAs
from video_llama.config.fields import Operational
from video_llama.config.hints import arms, split
from video_llama.processors.audio import SegmentProcessor
from video_llama.processors.decode.damage import collected_damage
from video_llama.processors.stored_features import StoredFeatures, media_of, missing_frames
from video_llama.processors.view import View


class FeatureSource(ABC):
    """Where the features of files are looked up.

    Args:
        encoders: a digest of the frozen encoders of each kind of media; see ``VideoLLaMA.encoder_keys``. Media of other
            kinds are not stored.
    """

    def __init__(self, encoders: Mapping[MediaKind, str]) -> None:
        self.encoders = encoders

    @abstractmethod
    def pieces(self, key: str) -> Sequence[StoredFeatures]:
        """Return what is stored under a key: several only if they are frames of one clip."""

    @abstractmethod
    def read(self, stored: StoredFile, read: Callable[[], list[Media]], rng: np.random.Generator) -> list[Media]:
        """Read a file of which something is missing here.

        Args:
            stored: what is stored of it.
            read: reads it, with random numbers from ``rng``.
        """

    def entry(
        self,
        path: str | Path,
        processors: Mapping[MediaKind, Any],
        *how: Hashable,
        rng: np.random.Generator | None = None,
    ) -> StoredFile:
        """Look up what is stored of a file.

        Args:
            path: the file.
            processors: what reads each part of it, in the order of the prompt; an image counts as video.
            how: whatever else decides what is read.
            rng: what they draw from. Only what a ``View`` draws is stored; None: they draw nothing.
        """
        file, view = file_key(path), rng.name if isinstance(rng, View) else None
        parts = {kind: self._part(file, kind, processor, how, view) for kind, processor in processors.items()}
        return StoredFile(path, parts)

    @abstractmethod
    def check(self, reader: str, processor: Any, views: int | None) -> None:
        """Refuse what does not hold the features of a processor's files.

        Args:
            reader: dotted key of the processor, for messages.
            processor: what reads the files.
            views: how many views it has of each; see ``DatasetConfig.views``.
        Raises:
            DataError: it does not.
        """

    def encode(
        self, groups: Sequence[MediaGroup], encode: Callable[[Sequence[MediaGroup]], Sequence[MediaGroup]]
    ) -> tuple[MediaGroup, ...]:
        """Encode what is not encoded yet.

        Returns:
            Groups as if all media had been encoded together, so that dropout in the branches draws the same numbers.
        """
        return _joined(encode(groups))

    def _part(
        self, file: Hashable | None, kind: MediaKind, processor: Any, how: tuple[Hashable, ...], view: str | None
    ) -> StoredPart:
        encoder, config = self.encoders.get(kind), getattr(processor, "config", None)
        if file is None or encoder is None or config is None:
            return StoredPart(processor, None)
        settings = settings_of(config)
        frames = {name: value for name, value in settings.items() if name != "n_frms"}
        common = (__version__, file, kind, class_of(processor), how, encoder)
        keys = Keys(
            _digest((*common, "frames", frames)) if selects_frames(processor) else None,
            _digest((*common, "whole", settings)),
            None if view is None else _digest((*common, "view", settings, view)),
        )
        for key in keys:
            if key is not None and (pieces := self.pieces(key)):
                return StoredPart(processor, keys, pieces, is_drawn=key == keys.view)
        return StoredPart(processor, keys)


class Keys(NamedTuple):
    """The keys under which the features of a part of a file may be."""

    frames: str | None
    """Of a clip, frame by frame, whatever their number. None: the processor does not select frames."""
    whole: str
    """Of what is read without random numbers."""
    view: str | None
    """Of what is read with those of a ``View``. None: there is none."""


class StoredPart(NamedTuple):
    """What is stored of a part of a file."""

    processor: Any
    keys: Keys | None
    """None: there is no such file, or the part is not stored."""
    pieces: Sequence[StoredFeatures] = ()
    """What is stored; several items are frames of one clip."""
    is_drawn: bool = False
    """Whether it was read with random numbers."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it is missing."""
        return bool(self.pieces) and not missing_frames(self.pieces, self.processor)


@dataclass(frozen=True)
class StoredFile:
    """What is stored of a file, by kind of media."""

    path: str | Path
    parts: Mapping[MediaKind, StoredPart]

    @property
    def is_whole(self) -> bool:
        """Whether nothing that is read of it is missing."""
        return all(part.is_whole for part in self.parts.values())

    @property
    def media(self) -> list[Media] | None:
        """The features of all parts of the file; None: some are missing, and the file must be read."""
        return [media for kind in self.parts for media in self._known(kind)] if self.is_whole else None

    @property
    def sound(self) -> SoundUse:
        """What was done with the sound of a file that is stored."""
        if "audio" not in self.parts:
            return "ignored"
        first, *_ = self.parts["audio"].pieces
        return "absent" if first.features is None else first.about.get("sound", "used")

    @property
    def damage(self) -> list[str]:
        """What was reported when it was read."""
        reports = (
            each for part in self.parts.values() for piece in part.pieces for each in piece.about.get("damage", ())
        )
        return list(dict.fromkeys(reports))

    def absent(self, media: Sequence[Media]) -> list[str]:
        """Return the keys under which to store that the file lacks a part.

        Args:
            media: everything that the file has of the parts.
        """
        read = {_part(item) for item in media}
        lacking = (part for kind, part in self.parts.items() if kind not in read)
        return [part.keys.whole for part in lacking if part.keys is not None and not part.pieces]

    def marked(
        self, media: Sequence[Media], drawn: Collection[MediaKind] = (), damage: Sequence[str] = ()
    ) -> list[Media]:
        """Return what was read of the file, with features in place of what is known, and the rest marked for a store.

        Args:
            media: everything that the file has of the parts.
            drawn: the parts that were read with random numbers.
            damage: what was reported.
        """
        sound = next((item.sound for item in media if item.sound is not None), None)
        found: list[Media] = []
        for kind, part in self.parts.items():
            if part.is_whole:
                found += self._known(kind)
            else:
                extra: dict[str, Any] = {"damage": list(damage)} if damage else {}
                if kind == "audio" and sound == "cut":
                    extra["sound"] = sound
                found += [_marked(item, part.keys, kind in drawn, extra) for item in media if _part(item) == kind]
        return telling(found, sound)

    def _known(self, kind: MediaKind) -> tuple[Media, ...]:
        part = self.parts[kind]
        return media_of(part.pieces, part.processor)


def _marked(media: Media, keys: Keys | None, drawn: bool, extra: Mapping[str, Any]) -> Media:
    """Return a medium with the place of its features."""
    if keys is None or (drawn and keys.view is None):
        return media
    if keys.frames is not None and media.frames is not None and not drawn:
        clip = media.frames
        about = {"kind": media.kind, "frames": clip.indices, "duration": clip.duration, **extra}
        return replace(media, store_as=StoreAs(keys.frames, about, clip.times))
    about = {"kind": media.kind, "message": media.message, "times": media.times, **extra}
    return replace(media, store_as=StoreAs((drawn and keys.view) or keys.whole, about))


class Observed(NamedTuple):
    """What was read of a file, and how."""

    media: list[Media]
    drawn: frozenset[MediaKind]
    """The parts that were read with random numbers."""
    damage: list[str]
    """What was reported."""


def observed(stored: StoredFile, read: Callable[[], list[Media]], rng: np.random.Generator) -> Observed:
    """Read a file, and watch what is drawn and reported meanwhile. Segments of sound are read without random numbers."""
    before = rng.bit_generator.state
    with collected_damage() as damage:
        media = read()
    if rng.bit_generator.state == before:
        return Observed(media, frozenset(), damage)
    drawn = (kind for kind, part in stored.parts.items() if not isinstance(part.processor, SegmentProcessor))
    return Observed(media, frozenset(drawn), damage)


def stored_as(place: StoreAs, features: Tensor) -> StoredFeatures:
    """Return features with what is kept with them."""
    times = None if place.clip_times is None else torch.tensor(place.clip_times, dtype=torch.float64)
    return StoredFeatures(place.about, features.detach().cpu().contiguous(), times)


def telling(media: Sequence[Media], sound: SoundUse | None) -> list[Media]:
    """Have the last item of a clip or a sound file say what was done with its sound."""
    if not media:
        return []
    *others, last = media
    return list(media) if last.kind == "image" else [*others, replace(last, sound=sound)]


def selects_frames(processor: Any) -> bool:
    """Return whether a processor reads each frame by itself, and says by ``selected`` which ones.

    A subclass with a ``read`` of its own may mix frames, unless it has a ``selected`` too.
    """
    owner = next((cls for cls in type(processor).__mro__ if "selected" in vars(cls)), None)
    return owner is not None and type(processor).read is vars(owner).get("read")


def class_of(processor: Any) -> str:
    """Return the full name of the class of a processor."""
    return f"{type(processor).__module__}.{type(processor).__qualname__}"


def settings_of(config: Any) -> dict[str, Any]:
    """Return the settings of a processor that decide what it reads."""
    if not is_dataclass(config):
        return {"config": config}
    return {name: getattr(config, name) for name in _deciding(config.__class__)}


@cache
def _deciding(config: type[Any]) -> tuple[str, ...]:
    """Return the fields of a Config that are not ``Operational``."""
    hints = typing.get_type_hints(config, include_extras=True)
    names = [member.name for member in fields(config)]
    marks = {name: [m for arm in (hints[name], *arms(hints[name])) for m in split(arm)[1]] for name in names}
    return tuple(name for name in names if not any(isinstance(mark, Operational) for mark in marks[name]))


def _digest(what: Any) -> str:
    return hashlib.sha256(repr(what).encode(errors="surrogateescape")).hexdigest()


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
