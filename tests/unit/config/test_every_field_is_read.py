"""Every setting is read somewhere: one that is not would be accepted and do nothing.

The test compares names: an unread field that shares its name with another attribute of the package is not found.
"""

from __future__ import annotations

import ast
import dataclasses
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import video_llama
from video_llama.common import registry
from video_llama.common.registry import Registry
from video_llama.config.loader import SECTIONS

CHECKS = ("check", "check_training", "notes", "warnings", "disagreements")
"""Methods that only compare settings with each other; a private ``_check_...`` is part of them."""


def configs() -> dict[str, type[Any]]:
    """Return the Config of each registered class, and those within them, by qualified name."""
    registries = [value for value in vars(registry).values() if isinstance(value, Registry)]
    found: dict[str, type[Any]] = {}
    for kind in registries:
        for name in kind:
            collect(kind.config(name), found)
    for section in SECTIONS.values():
        collect(section, found)
    return found


def collect(hint: Any, found: dict[str, type[Any]]) -> None:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint.__qualname__ not in found:
        found[hint.__qualname__] = hint
        for inner in typing.get_type_hints(hint).values():
            collect(inner, found)
    for inner in typing.get_args(hint):
        collect(inner, found)


def reads(module: ast.AST) -> set[str]:
    """Return each attribute that code reads, but for the checks of Configs.

    A module that reads settings by ``getattr(config, key)`` reads those that its tables name.
    """
    nodes = list(without_checks(module))
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    by_name = [c.args[1] for c in calls if isinstance(c.func, ast.Name) and c.func.id == "getattr"]
    names |= texts(by_name)
    if any(not isinstance(key, ast.Constant) for key in by_name):
        names |= texts(arg for call in calls for arg in call.args)
        names |= texts(node.value for node in nodes if isinstance(node, ast.Assign))
    return names


def without_checks(node: ast.AST) -> Iterator[ast.AST]:
    if not (isinstance(node, ast.FunctionDef) and (node.name in CHECKS or node.name.startswith("_check_"))):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from without_checks(child)


def texts(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.fixture(scope="module")
def read() -> set[str]:
    package = Path(video_llama.__file__).parent
    files = [*package.rglob("*.py"), *package.parent.glob("*.py")]
    return {name for file in files for name in reads(ast.parse(file.read_text(encoding="utf-8")))}


CONFIGS = configs()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_is_read_or_declared_a_published_key(name: str, read: set[str]) -> None:
    config = CONFIGS[name]
    published = set(getattr(config, "PUBLISHED", ()))
    fields = {field.name for field in dataclasses.fields(config)}
    assert fields - published - read == set()
    assert published <= fields


def test_the_walk_finds_nested_configs_and_a_field_that_only_a_check_reads_is_found() -> None:
    assert {"VideoLLaMAConfig", "QFormerConfig", "TrunkConfig", "TextProcessorConfig", "RunConfig"} <= CONFIGS.keys()
    code = (
        "def check(self):\n    return self.idle, getattr(self, 'idler')\n"
        "def build(config):\n    return config.used + getattr(config, 'named')\n"
    )
    assert reads(ast.parse(code)) == {"used", "named"}
    table = "KEYS = (Key('ckpt'), Key('ckpt_2'))\ndef read(config):\n    return [getattr(config, k) for k in KEYS]\n"
    assert reads(ast.parse(table)) == {"ckpt", "ckpt_2"}
