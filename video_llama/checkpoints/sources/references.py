"""What a Config may name as weights: a path, known weights, or a reference to the hub. Imports no torch."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from video_llama.checkpoints.sources.hub import HubReference, commit_of, fetch, find, is_offline, offline_problem
from video_llama.checkpoints.sources.known import KnownWeights, find_known, near_name
from video_llama.common.cache import home
from video_llama.common.errors import DownloadError, WeightsError
from video_llama.config.fields import UNSET, ExistingPath
from video_llama.config.hints import arms, split
from video_llama.config.serialize import changed


@dataclass(frozen=True)
class WeightsSource(ExistingPath):
    """Weights: a path, which must exist; ``file``: also a known name or ``hf://org/name/file``; ``dir``: also ``org/name``."""

    def problem(self, value: str) -> str | None:
        """Return what is missing, or cannot be had while offline. Nothing is fetched."""
        source = parse(value)
        if isinstance(source, KnownWeights) and self.kind != "dir":
            return None if source.path else source.missing
        if isinstance(source, HubReference) and (source.file is None) == (self.kind == "dir"):
            return offline_problem(source) if is_offline() and find(source) is None else None
        problem = super().problem(value)
        return problem and problem + self._advice(value)

    def _advice(self, value: str) -> str:
        hub = "hf://org/name" if self.kind == "dir" else "hf://org/name/file"
        if value.startswith(("hf://", "http://", "https://")):
            return f". What is on the hub is written {hub}"
        if self.kind == "dir":
            return f". To take it from the hub: hf://{value}" if value.count("/") == 1 else ""
        near = near_name(value)
        return f".{near}" if near else ""


Source = Path | KnownWeights | HubReference


def parse(text: str) -> Source:
    """Return what a text names. A path that exists comes first."""
    if os.path.exists(text):
        return Path(text)
    return find_known(text) or HubReference.parse(text) or Path(text)


def find_local(text: str) -> Path | None:
    """Return where the weights that a text names are on this machine; None if they are not downloaded. Nothing is fetched."""
    source = parse(text)
    if isinstance(source, Path):
        return source
    return source.path if isinstance(source, KnownWeights) else find(source)


def local_path(text: str, key: str) -> Path:
    """Return where the weights that a text names are on this machine. Nothing is fetched.

    Args:
        text: see ``WeightsSource``.
        key: dotted key of the setting, for messages.
    Raises:
        WeightsError: they are not downloaded.
    """
    if (path := find_local(text)) is None:
        known = find_known(text)
        reason = (
            known.missing if known else "no such path, and not in the hub's cache yet; training and chat download it"
        )
        raise WeightsError(f"{key}: {text}: {reason}")
    return path


def fetched(config: Any, recorded: Mapping[str, Any] | None = None, key: str = "model") -> Any:
    """Download what a Config names on the hub; return it with the commit of each reference, and default weights named.

    Known weights are not downloaded here.

    Args:
        config: of the model section, or within it.
        recorded: the same section of an earlier run. What it has at a commit is taken at that commit, unless the config names
            a revision.
        key: dotted key of the Config, for messages.
    Raises:
        DownloadError: something cannot be had.
    """
    recorded = recorded or {}
    new = {name: default for name, default in _defaults(config).items() if getattr(config, name) is None}
    for name, value in [*_sources(config), *new.items()]:
        new[name] = _pinned(value, recorded.get(name), f"{key}.{name}")
    for member in fields(config):
        if is_dataclass(value := getattr(config, member.name)):
            inner = recorded.get(member.name)
            new[member.name] = fetched(value, inner if isinstance(inner, dict) else None, f"{key}.{member.name}")
    return changed(config, **new)


def _pinned(text: str, before: Any, key: str) -> str:
    """Fetch what is on the hub, and return the text with its commit; return other texts as they are."""
    source = parse(text)
    if isinstance(source, KnownWeights) and (hub := source.hub) and (path := source.path):
        return str(replace(hub, revision=commit_of(path, hub.file or "")))
    if not isinstance(source, HubReference):
        return text
    earlier = HubReference.parse(before) if isinstance(before, str) else None
    if source.revision is None and earlier and (earlier.repo, earlier.file) == (source.repo, source.file):
        source = earlier
    try:
        return str(fetch(source, home() / "hub"))
    except DownloadError as error:
        raise DownloadError(f"{key}: {error}") from error


def hub_references(config: Any, key: str = "model") -> Iterator[tuple[str, HubReference]]:
    """Yield the dotted key and the reference of what a Config, or one within it, names on the hub."""
    for name, value in weights_sources(config, key):
        if isinstance(source := parse(value), HubReference):
            yield name, source


def weights_sources(config: Any, key: str = "model") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the text of the weights in use that a Config, or one within it, names."""
    yield from ((f"{key}.{name}", value) for name, value in _sources(config))
    for member in fields(config):
        if is_dataclass(value := getattr(config, member.name)):
            yield from weights_sources(value, f"{key}.{member.name}")


def _sources(config: Any) -> list[tuple[str, str]]:
    """Return name and value of the fields of a Config that name weights which are used."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    marks = {name: _mark(hint) for name, hint in hints.items()}
    used = [n for n, m in marks.items() if m and _is_used(m, config)]
    values = {name: getattr(config, name, None) for name in used}
    return [(name, value) for name, value in values.items() if isinstance(value, str) and value != UNSET]


def _is_used(mark: WeightsSource, config: Any) -> bool:
    without = mark.only_with is not None and not getattr(config, mark.only_with)
    return not without and not (mark.unless and getattr(config, mark.unless))


def _mark(hint: Any) -> WeightsSource | None:
    """Return how the type of a field is marked, if it names weights."""
    marks = (mark for arm in (hint, *arms(hint)) for mark in split(arm)[1])
    return next((mark for mark in marks if isinstance(mark, WeightsSource)), None)


def _defaults(config: Any) -> dict[str, str]:
    """Return the known weights that serve where a Config leaves their key out."""
    return config.default_weights() if hasattr(config, "default_weights") else {}
