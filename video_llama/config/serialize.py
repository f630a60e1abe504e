"""Which registered class a Config belongs to, and a Config back as the plain data of a YAML."""

from __future__ import annotations

import typing
from dataclasses import fields, is_dataclass, replace
from typing import Any

from video_llama.common.errors import UnknownName
from video_llama.common.registry import Registry
from video_llama.config.fields import Registered, RegisteredKeys
from video_llama.config.hints import arms, is_path, mark, split

# An attribute, not a field: several names may share one Config class, and no Config needs to declare its own name.
_NAME = "_registered_name"


def remember_name(config: Any, name: str) -> None:
    """Note in a Config under which name its class was picked."""
    object.__setattr__(config, _NAME, name)


def named_as(config: Any, new: Any) -> Any:
    """Return a Config that was made from another, with the registered name of that one."""
    if (name := getattr(config, _NAME, None)) is not None:
        remember_name(new, name)
    return new


def changed(config: Any, **changes: Any) -> Any:
    """Return a Config with other values, of the same registered name."""
    if not changes:
        return config
    return named_as(config, replace(config, **changes))


def registered_name(registry: Registry[Any], config: Any) -> str:
    """Return the name whose class a Config belongs to.

    A Config that was made in Python, not loaded, is recognised by its type.

    Raises:
        UnknownName: it was made in Python and its type belongs to no registered class, or to several.
    """
    if (name := getattr(config, _NAME, None)) is not None:
        return str(name)
    owners = [name for name in registry if registry.config(name) is type(config)]
    if len(owners) != 1:
        raise UnknownName(
            f"{type(config).__qualname__} is the Config of {len(owners)} registered {registry.kind}s "
            f"({', '.join(sorted(owners))}), so it does not say which one is meant"
        )
    return owners[0]


def registered_class(registry: Registry[Any], config: Any) -> type[Any]:
    """Return the registered class that a Config belongs to, to be built from it."""
    return registry.get(registered_name(registry, config))


def plain(hint: Any, value: Any) -> Any:
    """Return a built value as the data of a YAML that builds it again."""
    found = mark(hint)
    if is_dataclass(value):
        name = {found.key: registered_name(found.registry, value)} if isinstance(found, Registered) else {}
        hints = typing.get_type_hints(type(value), include_extras=True)
        return name | {f.name: plain(hints[f.name], getattr(value, f.name)) for f in fields(value) if f.init}
    if isinstance(found, RegisteredKeys):
        return {key: _named(found.registry, key, item) for key, item in value.items()}
    if isinstance(value, dict):
        return {key: plain(_item_hint(hint, dict), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(_item_hint(hint, type(value), index), item) for index, item in enumerate(value)]
    return value


def named_paths(config: Any) -> list[str]:
    """Return the paths that are set in a Config and in those within it."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    found = []
    for member in fields(config):
        hint, value = hints[member.name], getattr(config, member.name)
        if is_dataclass(value):
            found += named_paths(value)
        elif isinstance(value, str) and is_path(hint):
            found.append(value)
    return found


def _named(registry: Registry[Any], key: str, config: Any) -> Any:
    """Return an entry of a mapping by registered name, with the name where the key is another."""
    named = getattr(config, _NAME, None) is not None or key not in registry
    name = registered_name(registry, config) if named else key  # one made in Python is of the class of its key
    return ({} if name == key else {"name": name}) | plain(Any, config)


def _item_hint(hint: Any, kind: type, index: int = 0) -> Any:
    """Return the hint of what is inside a list or mapping."""
    for arm in arms(hint):
        bare, _ = split(arm)
        args = typing.get_args(bare)
        if typing.get_origin(bare) is kind and args:
            if kind is tuple and args[1:] != (Ellipsis,):
                return args[index]
            return args[1] if kind is dict else args[0]
    return Any
