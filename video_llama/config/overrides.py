"""``--options a.b=value``: settings of the command line, put over those of a YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from video_llama.common.registry import did_you_mean
from video_llama.config.problems import KeyPath, Problems, dotted
from video_llama.config.source import parse_plain, parse_yaml, syntax_problem

_OPENS_YAML = ("[", "{", "'", '"')


def apply_options(data: dict[str, Any], options: Iterable[str], problems: Problems) -> None:
    """Set ``a.b=value`` of each option in the data; a mapping is merged, anything else replaced."""
    for option in options:
        key, equals, text = option.partition("=")
        path = tuple(key.replace("[", ".").replace("]", "").split("."))
        if not equals or not all(path):
            problems.add_option(option, "expected key=value, such as run.max_epoch=3")
            continue
        inner = Problems(key)
        try:
            value = option_value(text, inner)
        except (yaml.YAMLError, ValueError) as error:
            problems.add_option(option, syntax_problem(key, error))
            continue
        for place in inner.swallowed:
            inner.add(place, "reads as null")
        if inner.found:
            problems.add_option(option, "; ".join(message for _, message in inner.found))
        elif path[0] == "paths" and not _used_path(path, data):
            known = [f"paths.{name}" for name in data.get("paths") or ()]
            problems.add_option(option, f"{key}: unknown key.{did_you_mean(key, known)}")
        else:
            _assign(data, path, value, option, problems)


def text_option(key: str, text: str) -> str:
    """Return the option that sets a key to a text, whatever characters it has."""
    plain = frozenset(map(chr, range(32, 127))) - set('"\\')
    return f'{key}="' + "".join(c if c in plain else f"\\U{ord(c):08x}" for c in escaped(text)) + '"'


def system_option(text: str | None) -> list[str]:
    """Return the option that the flag ``--system`` stands for; none if it is not given."""
    return [] if text is None else [text_option("inference.system", text)]


def escaped(text: str) -> str:
    """Return a text with ``${`` written so that OmegaConf leaves it alone."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def option_value(text: str, problems: Problems) -> Any:
    """Return the value that an option sets.

    A list, a mapping or a quoted text is YAML without comments; null, true, 3 and 1e-4 are what they are in YAML. Anything
    else is a text, exactly as typed.

    Raises:
        yaml.YAMLError: it starts like a list, a mapping or a quoted text, and is none.
    """
    if not text.strip().startswith(_OPENS_YAML):
        return parse_plain(text)
    # YAML has no syntax without comments, so no '#' is shown to its parser.
    stand_in = next(char for char in map(chr, range(0xE000, 0xF900)) if char not in text)
    return _replaced(stand_in, "#", parse_yaml(text.replace("#", stand_in), problems))


def _replaced(old: str, new: str, data: Any) -> Any:
    """Return nested data with a character replaced in all its texts and keys."""
    if isinstance(data, dict):
        return {key.replace(old, new): _replaced(old, new, value) for key, value in data.items()}
    if isinstance(data, list):
        return [_replaced(old, new, value) for value in data]
    return data.replace(old, new) if isinstance(data, str) else data


def _assign(data: dict[str, Any], path: tuple[str, ...], value: Any, option: str, problems: Problems) -> None:
    here: Any = data
    walked: KeyPath = ()
    for depth, part in enumerate(path):
        index = int(part) if isinstance(here, list) and part.isdecimal() else part
        if isinstance(here, list) and not (isinstance(index, int) and index < len(here)):
            problems.add_option(option, f"{dotted(walked)}: a list of {len(here)} has no item '{part}'")
            return
        if not isinstance(here, list | dict):
            problems.add_option(option, f"{dotted(walked)}: has no keys; it is set to {here!r}")
            return
        walked = (*walked, index)
        if depth == len(path) - 1:
            _put(here, index, value, walked, option, problems)
            return
        if isinstance(here, dict) and here.get(part) is None:
            here[part] = {}
            problems.locations[walked] = option
        here = here[index]


def _put(holder: Any, key: str | int, value: Any, path: KeyPath, option: str, problems: Problems) -> None:
    there = isinstance(key, int) or key in holder
    if there and isinstance(holder[key], dict) and isinstance(value, dict):
        for name, inner in value.items():
            _put(holder[key], name, inner, (*path, name), option, problems)
        return
    holder[key] = value
    problems.move(path, option)


def _used_path(path: tuple[str, ...], data: dict[str, Any]) -> bool:
    """Return whether the file has, or refers to, a key of the free block ``paths``: a misspelt one has no effect."""
    if len(path) > 1 and path[1] in (data.get("paths") or {}):
        return True
    return re.search(re.escape("${" + ".".join(path[:2])) + r"[.}\[]", str(data)) is not None
