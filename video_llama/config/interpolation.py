"""``${paths.llama}``, ``${oc.env:HOME}``, ``${package}/toy`` and ``${here}/model.safetensors`` to values, through OmegaConf."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
)

from video_llama.common.registry import did_you_mean
from video_llama.config.fields import UNSET
from video_llama.config.problems import KeyPath, Problems, dotted
from video_llama.config.shipped import PACKAGE
from video_llama.config.source import map_strings

_REFERENCE = re.compile(r"\$\{([\w.\[\]-]+)\}")
_MISSING = re.compile(r"Missing mandatory value: (\S+)")


@dataclass(frozen=True)
class Unset:
    """A value that the user has still to set."""

    path: KeyPath
    """Where the value is needed."""
    origin: str
    """Dotted key that holds the ``???``."""


class _Broken:
    """A value that was already reported and must not be reported again."""


BROKEN = _Broken()


@dataclass
class Resolver:
    """Replaces each interpolation in plain data by its value, ``Unset``, or ``BROKEN``."""

    problems: Problems

    def resolve(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data with every interpolation replaced; broken ones are reported with their key."""
        # OmegaConf refuses the whole file if one text in it has bad grammar.
        parsable = map_strings(lambda text: UNSET if "${" in text and _grammar_problem(text) else text, data)
        # Shipped YAMLs name files of the package, and exported ones files beside them, whatever the working directory.
        folders = {"package": str(PACKAGE), "here": str(Path(self.problems.file).absolute().parent)}
        root = OmegaConf.create({**folders, **parsable})
        return {key: self._value(root, data, key, (key,)) for key in data}

    def _value(self, container: DictConfig | ListConfig, raw: Any, key: Any, path: KeyPath) -> Any:
        """Return the resolved value under ``key``; ``raw`` is the container as written."""
        written = raw[key]
        if written == UNSET:
            return Unset(path, dotted(path))
        if isinstance(written, dict | list):
            return self._items(container[key], written, path)
        if not isinstance(written, str) or "${" not in written:
            return written
        return self._interpolated(container, written, key, path)

    def _items(self, container: Any, raw: dict[str, Any] | list[Any], path: KeyPath) -> Any:
        if isinstance(raw, dict):
            return {key: self._value(container, raw, key, (*path, key)) for key in raw}
        return [self._value(container, raw, index, (*path, index)) for index in range(len(raw))]

    def _interpolated(self, container: DictConfig | ListConfig, written: str, key: Any, path: KeyPath) -> Any:
        if problem := _grammar_problem(written):
            return self._broken(path, written, problem)
        if len(path) > 100:
            return self._broken(path[:1], written, "refers to something that contains it")
        try:
            value = container[key]
        except InterpolationToMissingValueError as error:
            found = _MISSING.search(str(error))
            return Unset(path, found.group(1) if found else dotted(path))
        except OmegaConfBaseException as error:
            return self._broken(path, written, _reason(error, container))
        if origin := ", ".join(_REFERENCE.findall(written)):
            self.problems.origins[path] = origin
        if isinstance(value, DictConfig | ListConfig):
            return self._items(value, OmegaConf.to_container(value, resolve=False), path)  # type: ignore[arg-type]
        return value

    def _broken(self, path: KeyPath, written: str, problem: str) -> _Broken:
        self.problems.add(path, f"cannot resolve {written}: {problem}")
        return BROKEN


def _grammar_problem(text: str) -> str | None:
    try:
        OmegaConf.create({"value": text})
    except GrammarParseError as error:
        return str(error).splitlines()[0]
    return None


def _reason(error: OmegaConfBaseException, container: DictConfig | ListConfig) -> str:
    """Return OmegaConf's message on one line, with the nearest key where a key was not found."""
    message = str(error).splitlines()[0]
    if not isinstance(error, InterpolationKeyError):
        return message.partition(" raised while resolving interpolation: ")[2].strip('"') or message
    wanted = message.split("'")[1]
    parent, _, name = wanted.rpartition(".")
    root = container._get_root()
    block = OmegaConf.select(root, parent, throw_on_missing=False) if parent else root
    known = [str(key) for key in block] if isinstance(block, DictConfig) else []
    prefix = f"{parent}." if parent else ""
    near = did_you_mean(name, known).replace("Did you mean ", f"Did you mean {prefix}")
    if not near and wanted in os.environ:
        near = f" The environment variable is ${{oc.env:{wanted}}}."
    return f"there is no key {wanted}.{near}"
