"""``weights.json`` of an export: the digests of all tensors of its model, those of its parents included, and where those are from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from video_llama import __version__
from video_llama.checkpoints.sources.hub import HubReference
from video_llama.checkpoints.sources.known import KnownWeights
from video_llama.checkpoints.sources.references import parse
from video_llama.common.errors import WeightsError
from video_llama.common.files import read_json
from video_llama.config.fields import UNSET
from video_llama.config.shipped import PACKAGE
from video_llama.sharing.digests import combined, file_digests, tensor_digests
from video_llama.sharing.parts import Part

INVENTORY = "weights.json"
FORMAT = "video_llama export/1"
_IN_CACHE = re.compile(r"/models--(?P<org>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})(/(?P<file>.+))?$")
"""A path in the cache of ``huggingface_hub``."""
_SHOWN = 3
"""Differences that an error lists for a part."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a part is from."""

    key: str
    """Dotted key below the model section."""
    name: str
    """Name of the file or folder; of published weights, what ``video-llama download`` calls them."""
    source: str
    """What a config writes for it; ``???`` if nothing leads to it from another machine."""
    repo_id: str | None = None
    revision: str | None = None
    """Commit, branch or tag."""
    file: str | None = None
    """Path in the repository."""

    @property
    def where(self) -> str:
        """Where it is to be had, in words."""
        parts = [self.repo_id or self.name, self.file, self.revision and f"revision {self.revision}"]
        return ", ".join(part for part in parts if part)

    @classmethod
    def of(cls, key: str, text: str) -> Origin:
        """Return the origin of what a config names.

        A path does not leave this machine, unless it is in the hub's cache, and so tells the repository, or below the package.
        """
        source = parse(text)
        if isinstance(source, HubReference):
            repository = {"repo_id": source.repo, "revision": source.revision, "file": source.file}
            return cls(key=key, name=source.repo, source=text, **repository)
        if isinstance(source, KnownWeights):
            return cls(key=key, name=source.name, source=source.name)
        path = Path(os.path.abspath(source))
        if cached := _IN_CACHE.search(path.as_posix()):
            reference = HubReference(f"{cached['org']}/{cached['name']}", cached["file"], cached["commit"])
            return cls.of(key, str(reference) if reference.file else f"hf://{reference}")
        if path.is_relative_to(PACKAGE):
            name = path.relative_to(PACKAGE).as_posix()
            return cls(key=key, name=f"{name} of video_llama", source=f"${{package}}/{name}")
        return cls(key=key, name=path.name, source=UNSET)


@dataclass(frozen=True)
class Recorded:
    """A part of the model as it was exported."""

    tensors: dict[str, str]
    """Digest of each tensor."""
    files: dict[str, str]
    """Digest of each file beside the tensors that decides what the part computes."""
    origin: Origin
    held: bool
    """Whether the export holds it, and not its digests alone."""

    @property
    def sha256(self) -> str:
        """One digest for all of it."""
        return combined({**self.tensors, **self.files})


@dataclass(frozen=True)
class Inventory:
    """The content of ``weights.json``."""

    layout: str
    parts: dict[str, Recorded]
    """By the key of the model section."""
    written: dict[str, str] = field(default_factory=dict)
    """The export's other files, and the digest of each."""

    def write(self, folder: Path) -> None:
        """Write ``weights.json``."""
        parts = {key: {"sha256": part.sha256, **asdict(part)} for key, part in self.parts.items()}
        content = {
            "format": FORMAT,
            "video_llama": __version__,
            "layout": self.layout,
            "parts": parts,
            "written": self.written,
        }
        (folder / INVENTORY).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Inventory:
        """Read ``weights.json``.

        Raises:
            WeightsError: it is missing, of another kind or of a newer version.
        """
        path = folder / INVENTORY
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("format"), str):
            raise WeightsError(f"{path}: is not of a folder that video-llama export wrote")
        if content["format"] != FORMAT:
            raise WeightsError(
                f"{path}: written in format {content['format']}; this version reads {FORMAT}. Update video_llama."
            )
        try:
            parts = {key: _recorded(part) for key, part in content["parts"].items()}
            return cls(content["layout"], parts, dict(content["written"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"{path}: damaged: {error!r}. Download or export the folder again.") from error

    def verify(self, parts: Mapping[str, Part], named: Mapping[str, str], folder: Path) -> None:
        """Compare all tensors that a model uses with those that it was exported with.

        Args:
            parts: what the model is made of now.
            named: what the config names for each part, for messages.
            folder: of the export, for messages.
        Raises:
            WeightsError: a part is another one; names it, its first tensors that differ, and where the right one is from.
        """
        problems = []
        with tqdm(
            total=sum(part.n_bytes for part in parts.values()), desc="verifying", unit="B", unit_scale=True
        ) as bar:
            for key, part in parts.items():
                recorded = self.parts.get(key)
                if recorded is None:
                    problems.append(f"model.{key}: {named.get(key, key)}: {folder} was exported without it")
                elif found := _differences(recorded, *part_digests(part, bar)):
                    text = named.get(recorded.origin.key, key)
                    problems.append(_line(text, recorded, found, folder))
        if problems:
            raise WeightsError("\n".join(problems))


def part_digests(part: Part, bar: tqdm) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digests of a part's tensors, and of its other files; the bar advances by its bytes."""
    return tensor_digests(part.sizes, part.read, bar), file_digests(part.folder) if part.folder else {}


def _recorded(part: Mapping[str, Any]) -> Recorded:
    return Recorded(dict(part["tensors"]), dict(part["files"]), Origin(**part["origin"]), bool(part["held"]))


def _differences(recorded: Recorded, tensors: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
    """Return a clause for each file and tensor that is in use and is not the recorded one.

    Recorded tensors that are not in use are no difference: a part of the model may be switched off, and a decoder's
    tied weights may be stored once. Whether the model is complete is checked where it is built.
    """
    return [
        *(f"{name} {_how(name, recorded.files)}" for name in _changed(recorded.files, files)),
        *(f"{name} is missing" for name in sorted(recorded.files.keys() - files.keys())),
        *(f"{name} {_how(name, recorded.tensors)}" for name in _changed(recorded.tensors, tensors)),
    ]


def _changed(recorded: Mapping[str, str], found: Mapping[str, str]) -> Iterable[str]:
    return (name for name, digest in found.items() if recorded.get(name) != digest)


def _how(name: str, recorded: Mapping[str, str]) -> str:
    return "differs" if name in recorded else "was not there"


def _line(named: str, recorded: Recorded, found: list[str], folder: Path) -> str:
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    origin = recorded.origin
    what = f"model.{origin.key}: {named} is not what {folder} was exported with: {', '.join(found[:_SHOWN])}{more}. "
    if recorded.held:
        return what + "The folder has been changed: download or export it again."
    return what + f"Use {origin.where}. What was trained with it answers wrongly with anything else."
