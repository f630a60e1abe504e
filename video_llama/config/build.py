"""Plain data to typed Configs: types, names, constraints and contradictions, all reported at once."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from video_llama.common.errors import UnknownName
from video_llama.common.registry import Registry, did_you_mean, nearest
from video_llama.config.fields import UNSET, Constraint, ExistingPath, Registered, RegisteredKeys
from video_llama.config.hints import describe, kind_of, mark, split, takes_mapping, takes_null, takes_text
from video_llama.config.interpolation import BROKEN, Unset
from video_llama.config.problems import KeyPath, Report, dotted
from video_llama.config.serialize import remember_name

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FAILED = object()
"""Stands for a value that was reported; never reaches a caller of ``load_config``."""


@dataclass
class Builder:
    """Builds values by type hint; what does not fit goes to the report."""

    report: Report
    origins: Mapping[KeyPath, str]
    """Where interpolated values came from."""
    elsewhere: Sequence[str] = ()
    """Sections whose files need not be here: their paths are neither looked for nor asked for."""
    unset: list[tuple[str, KeyPath]] = field(default_factory=list)
    """Each ``???`` that was met: the key that holds it, and the key that needs it."""
    _untyped: int = 0
    """Values so far that are not of their field's type, being unset or broken."""

    def build(self, hint: Any, value: Any, path: KeyPath) -> Any:
        """Return ``value`` as the type that ``hint`` describes."""
        hint, marks = split(hint)
        if isinstance(value, Unset):
            self._untyped += not takes_text(hint)
            if path[0] not in self.elsewhere:
                self.unset.append((value.origin, path))
            return UNSET
        if value is BROKEN:
            self._untyped += 1
            return _FAILED
        if value is None and takes_null(hint):
            return None
        for found in marks:
            if isinstance(found, Registered):
                return self._registered(found, value, path)
            if isinstance(found, RegisteredKeys):
                return self._registered_keys(found.registry, value, path)
        built = self._typed(hint, value, path)
        if built is not _FAILED:
            self._constrain(marks, built, path)
        return built

    def _constrain(self, marks: tuple[Any, ...], value: Any, path: KeyPath) -> None:
        for rule in marks:
            if isinstance(rule, ExistingPath) and path[0] in self.elsewhere:
                continue
            if isinstance(rule, Constraint) and (problem := rule.problem(value)):
                self._problem(path, problem)

    def _typed(self, hint: Any, value: Any, path: KeyPath) -> Any:
        kind = get_origin(hint) or hint
        if kind is Any:
            return self._free(value, path)
        if kind in (Union, UnionType):
            return self._union(hint, value, path)
        if kind is Literal:
            return self._literal(get_args(hint), value, path)
        if isinstance(kind, type) and is_dataclass(kind):
            return self.dataclass(kind, value, path)
        if kind in (list, tuple):
            return self._sequence(kind, get_args(hint), value, path)
        if kind is dict:
            return self._dict(get_args(hint), value, path)
        if kind in (bool, int, float, str):
            return self._scalar(kind, value, path)
        raise TypeError(f"{dotted(path)}: a Config field cannot have the type {hint}")

    def _free(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return self._dict((str, Any), value, path)
        return self._sequence(list, (Any,), value, path) if isinstance(value, list) else value

    def _scalar(self, kind: type, value: Any, path: KeyPath) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        # YAML 1.1 reads 1e-4, which has no dot, as a string; so does anything that comes from the environment.
        if kind is float and isinstance(value, str) and _NUMBER.fullmatch(value):
            return float(value)
        return self._wrong(kind, value, path)

    def _literal(self, choices: tuple[Any, ...], value: Any, path: KeyPath) -> Any:
        if any(type(value) is type(choice) and value == choice for choice in choices):
            return value
        near = did_you_mean(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ""
        end = f".{near}" if near else ""
        self._problem(path, f"expected {kind_of(Literal[choices])}, got {describe(value)}{end}")
        return _FAILED

    def _sequence(self, kind: type, args: tuple[Any, ...], value: Any, path: KeyPath) -> Any:
        if not isinstance(value, list):
            return self._wrong(kind, value, path)
        if kind is list or args[1:] == (Ellipsis,) or not args:
            args = (args[0] if args else Any,) * len(value)
        if len(args) != len(value):
            self._problem(path, f"expected a list of {len(args)} values, got {len(value)}")
            return _FAILED
        return kind([self.build(arg, item, (*path, i)) for i, (arg, item) in enumerate(zip(args, value, strict=True))])

    def _dict(self, args: tuple[Any, ...], value: Any, path: KeyPath) -> Any:
        if not isinstance(value, dict):
            return self._wrong(dict, value, path)
        hint = args[1] if args else Any
        return {key: self.build(hint, item, (*path, key)) for key, item in value.items()}

    def _union(self, hint: Any, value: Any, path: KeyPath) -> Any:
        """Return the value as the first of the types that takes it; null was dealt with before."""
        arms = [arm for arm in get_args(hint) if arm is not NoneType]
        likely = [arm for arm in arms if takes_mapping(arm)] if isinstance(value, dict) else arms
        if len(arms) == 1 or len(likely) == 1:  # its own messages say more than a list of types
            return self.build((likely or arms)[0], value, path)
        problems, unset, untyped = len(self.report.problems), len(self.unset), self._untyped
        for arm in arms:
            built = self.build(arm, value, path)
            if len(self.report.problems) == problems:
                return built
            del self.report.problems[problems:], self.unset[unset:]
            self._untyped = untyped
        return self._wrong(hint, value, path)

    def dataclass(
        self, cls: type[Any], value: Any, path: KeyPath, extra_keys: tuple[str, ...] = (), base: Any = None
    ) -> Any:
        """Return a mapping as a Config; its absent keys take the values of ``base``, or the defaults of the class."""
        value = {} if value is None else value
        if not isinstance(value, dict):
            return self._wrong(dict, value, path)
        problems, untyped = len(self.report.problems), self._untyped
        hints = typing.get_type_hints(cls, include_extras=True)
        members = {f.name: f for f in fields(cls) if f.init}
        misspelt = self.unknown_keys(value, [*members, *extra_keys], path)
        given = {name: getattr(base, name) for name in members} if base is not None else {}
        for name, member in members.items():
            built = self._member(member, hints[name], value, (*path, name), required=name not in {*misspelt, *given})
            if built is not MISSING:
                given[name] = built
        if len(self.report.problems) > problems:
            return _FAILED
        config = cls(**given)
        if self._untyped == untyped:
            self._check(config, path)
        return config

    def _member(self, member: Field[Any], hint: Any, value: dict[str, Any], path: KeyPath, *, required: bool) -> Any:
        """Return one field of a Config, or MISSING to leave it at its default."""
        name = member.name
        default = member.default_factory() if member.default_factory is not MISSING else member.default
        if name in value:
            if isinstance(value[name], dict) and is_dataclass(default) and mark(hint) is None:
                return self.dataclass(type(default), value[name], path, base=default)
            return self.build(hint, value[name], path)
        if isinstance(default, str) and default == UNSET:
            return self.build(hint, Unset(dotted(path)), path)
        if default is MISSING and getattr(mark(hint), "default", None):
            return self.build(hint, {}, path)
        if default is MISSING and required:
            self._problem(path, "missing; it has no default")
            return _FAILED
        return MISSING

    def unknown_keys(self, value: dict[str, Any], known: list[str], path: KeyPath) -> set[str]:
        """Report the keys that nobody knows; return the known names that they probably meant."""
        meant = set()
        for key in value:
            if key not in known:
                near = nearest(key, known)
                meant.add(near or "")
                suggestion = f" Did you mean {dotted((*path, near))}?" if near else ""
                self.report.add((*path, key), f"unknown key.{suggestion}")
        return meant

    def _check(self, config: Any, path: KeyPath) -> None:
        unset = {where for _, where in self.unset}
        for name, message in config.check() if hasattr(config, "check") else ():
            where = (*path, *name.split("."))
            if where not in unset:
                self._problem(where, message)

    def _registered(self, choice: Registered, value: Any, path: KeyPath) -> Any:
        value = {} if value is None else {choice.key: value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            return self._wrong(dict, value, path)
        name = self._chosen_name(choice, value, path)
        rest = {key: item for key, item in value.items() if key != choice.key}
        return self._named(choice.registry, name, rest, path, (*path, choice.key), (choice.key,))

    def _chosen_name(self, choice: Registered, value: dict[str, Any], path: KeyPath) -> Any:
        if choice.key in value:
            return self.build(str, value[choice.key], (*path, choice.key))
        if choice.default is not None:
            return choice.default
        misspelt = value.get(nearest(choice.key, value) or "")
        if isinstance(misspelt, str) and misspelt in choice.registry:
            return misspelt  # the key that holds it is about to be reported as unknown
        known = ", ".join(choice.registry.names())
        self._problem((*path, choice.key), f"missing; it names the {choice.registry.kind}. Known: {known}.")
        return _FAILED

    def _registered_keys(self, registry: Registry[Any], value: Any, path: KeyPath) -> Any:
        if not value:
            self._problem(path, f"expected at least one {registry.kind}. Known: {', '.join(registry.names())}.")
            return _FAILED
        if not isinstance(value, dict):
            return self._wrong(dict, value, path)
        return {key: self._entry(registry, key, settings, (*path, key)) for key, settings in value.items()}

    def _entry(self, registry: Registry[Any], key: str, settings: Any, path: KeyPath) -> Any:
        """Return settings as the Config of the class that their ``name`` or, without one, their key names."""
        if isinstance(settings, dict) and "name" in settings:
            return self._registered(Registered(registry, key="name"), settings, path)
        return self._named(registry, key, settings, path, path, ())

    def _named(
        self, registry: Registry[Any], name: Any, settings: Any, path: KeyPath, place: KeyPath, extra: tuple[str, ...]
    ) -> Any:
        """Return settings as the Config of a registered class; ``place`` is where its name is written."""
        if name == UNSET:
            return UNSET
        config_type = None if name is _FAILED else self._config_type(registry, name, place)
        if config_type is None:
            return _FAILED
        config = self.dataclass(config_type, settings, path, extra_keys=extra)
        if config is not _FAILED:
            remember_name(config, name)
        return config

    def _config_type(self, registry: Registry[Any], name: str, place: KeyPath) -> type[Any] | None:
        if name not in registry:
            self._problem(place, str(registry.unknown(name)))
            near = nearest(name, registry)
            if near is None:
                return None
            name = near  # so that the other keys are checked too
        try:
            config_type = registry.config(name)
        except (ImportError, UnknownName) as error:
            self._problem(place, f"the {registry.kind} '{name}' cannot be imported: {error}")
            return None
        if not is_dataclass(config_type):
            self._problem(place, f"the {registry.kind} '{name}' has no dataclass named Config")
            return None
        return typing.cast(type[Any], config_type)

    def _wrong(self, hint: Any, value: Any, path: KeyPath) -> Any:
        self._problem(path, f"expected {kind_of(hint)}, got {describe(value)}")
        return _FAILED

    def _problem(self, path: KeyPath, message: str) -> None:
        origin = f" (from {self.origins[path]})" if path in self.origins else ""
        self.report.add(path, message + origin)
