"""YAML text to plain data, with the location of every key."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from video_llama.common.errors import ConfigError
from video_llama.config.problems import KeyPath, Problems, dotted

MERGE_TAG = "tag:yaml.org,2002:merge"
TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"
PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))


_HINTS = {
    "found '?'": "inside { } or [ ], write '???' with its quotes",
    "'\\t'": "indent with spaces, not tabs",
    "found '<scalar>'": "nothing may follow the closing quote of a value",
    "found '<block mapping start>'": "indent this key like the others of its block",
    "mapping values are not allowed": "indent this key like the others of its block, or quote a value that contains ': '",
}
"""What to do about PyYAML's messages, by words in them."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a date stays a string."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML declares it so)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP_TAG]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass
class _Reader:
    """Builds data from YAML nodes; notes in ``problems`` the line of each key, and keys given twice."""

    loader: _Loader
    problems: Problems
    lines: list[str]
    _open: set[int] = field(default_factory=set)

    def value(self, node: Node, path: KeyPath) -> Any:
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        if id(node) in self._open:
            raise yaml.MarkedYAMLError(problem="an anchor that contains itself", problem_mark=node.start_mark)
        self._open.add(id(node))
        data = self.mapping(node, path) if isinstance(node, MappingNode) else self.sequence(node, path)
        self._open.remove(id(node))
        return data

    def scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        """Return the value of a scalar; note one that is null only because YAML reads its text as something else."""
        value = self.loader.construct_object(node)
        if value is None and not node.value:
            mark = node.start_mark
            rest = self.lines[mark.line][mark.column :].lstrip() if mark.line < len(self.lines) else ""
            if rest.startswith(("#", "&")):
                self.problems.swallowed[path] = rest[0]
        return value

    def sequence(self, node: Node, path: KeyPath) -> list[Any]:
        self.problems.locations |= {(*path, index): _line(item) for index, item in enumerate(node.value)}
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        # The first of several merged mappings wins, and the mapping's own keys win over all of them.
        for base in reversed(_bases(node)):
            merged |= self.value(base, path)
        own: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == MERGE_TAG:
                continue
            line = _line(key_node)
            if not isinstance(key_node, ScalarNode):
                self.problems.add_line(line, f"{dotted(path)}: a key must be a plain word")
                continue
            key: str = key_node.value  # as written, so that a key such as `no` stays a word
            here = (*path, key)
            if key in own:
                self.problems.add_line(line, f"{dotted(here)}: given twice, on lines {own[key]} and {line}")
            own[key] = self.problems.locations[here] = line
            merged[key] = self.value(value_node, here)
        return merged


def _bases(node: MappingNode) -> list[Node]:
    """Return the mappings that ``<<`` merges into a mapping."""
    bases: list[Node] = []
    for key_node, value_node in node.value:
        if key_node.tag == MERGE_TAG:
            bases += value_node.value if isinstance(value_node, SequenceNode) else [value_node]
    for base in bases:
        if not isinstance(base, MappingNode):
            raise yaml.MarkedYAMLError(problem="<< takes a mapping, or a list of them", problem_mark=base.start_mark)
    return bases


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def parse_yaml(text: str, problems: Problems) -> Any:
    """Return the data of one YAML document, None for an empty one; note in ``problems`` what is found on the way."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _Reader(loader, problems, text.splitlines()).value(node, ())
    finally:
        loader.dispose()


def parse_plain(text: str) -> Any:
    """Return a null, truth value or number that YAML writes without quotes, or the text, unchanged.

    Times (1:30) and numbers that start with 0 (010) are texts here; YAML 1.1 would turn them into 90 and 8.
    """
    word = text.strip()
    loader = _Loader("")
    try:
        tag = loader.resolve(ScalarNode, word, (True, False))
        if tag not in PLAIN_TAGS or (text and not word) or re.search(r":|^[+-]?0[\d_]", word):
            return text
        return loader.construct_object(ScalarNode(tag, word))
    except ValueError:  # such as 0x_
        return text
    finally:
        loader.dispose()


def read_yaml(problems: Problems) -> dict[str, Any]:
    """Read the YAML of ``problems``, and note there where its keys are.

    Raises:
        ConfigError: the file is not there, is not YAML, or holds no mapping, so that nothing else can be checked.
    """
    try:
        with open(problems.file, encoding="utf-8-sig") as file:
            data = parse_yaml(file.read(), problems)
    except FileNotFoundError:
        raise ConfigError([f"{problems.file}: no such file"]) from None
    except OSError as error:
        raise ConfigError([f"{problems.file}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{problems.file}: not UTF-8 text (byte {error.start})"]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError([syntax_problem(problems.file, error)]) from None
    if data is None:
        raise ConfigError([f"{problems.file}: the file is empty"])
    if not isinstance(data, dict):
        raise ConfigError([f"{problems.file}:1  expected a mapping of sections (model, datasets, run)"])
    return data


def syntax_problem(file: str, error: Exception) -> str:
    """Return what is wrong with text that is not YAML, and its line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        context = f" ({error.context})" if error.context else ""
        hint = next((f"; {hint}" for sign, hint in _HINTS.items() if sign in str(error.problem)), "")
        return f"{file}:{error.problem_mark.line + 1}  not valid YAML: {error.problem}{context}{hint}"
    return f"{file}: not valid YAML: {str(error).splitlines()[0]}"


def map_strings(change: Callable[[str], Any], data: Any) -> Any:
    """Return nested mappings and lists with every string value changed."""
    if isinstance(data, dict):
        return {key: map_strings(change, value) for key, value in data.items()}
    if isinstance(data, list):
        return [map_strings(change, value) for value in data]
    return change(data) if isinstance(data, str) else data
