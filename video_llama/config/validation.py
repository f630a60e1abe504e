"""Plain data to typed Configs: pydantic checks the values, and its errors become our messages."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache, partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic import AfterValidator, BeforeValidator, Strict, TypeAdapter, ValidationError, WrapValidator
from pydantic_core import core_schema

from video_llama.common.errors import UnknownName
from video_llama.common.registry import nearest
from video_llama.config.fields import UNSET, Constraint, ExistingPath, Registered, RegisteredKeys
from video_llama.config.hints import default_of, fixed_length, is_path, mark, needed, split, takes_null, takes_text
from video_llama.config.interpolation import BROKEN, Unset
from video_llama.config.problems import KeyPath, Problems
from video_llama.config.serialize import remember_name
from video_llama.config.wording import Problem, describe, failure, problems_of, reworded, wrong_type

NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
"""A number that YAML 1.1 may read as a string."""


@dataclass
class Context:
    """What validation needs to know of one section, and what it finds."""

    has_files: bool = True
    """Whether the section's files must exist and its values be set."""
    may_lack: bool = False
    """Whether settings without a default may be missing; the built Config then holds ``???``."""
    trains: bool = True
    """Whether the file is for training, and not for use alone."""
    unset: dict[KeyPath, str] = field(default_factory=dict)
    """For each key whose value is ``???``: the key that holds it."""
    untyped: int = 0
    """Values so far that are not of their field's type, being unset or broken."""


Info = pydantic.ValidationInfo[Context]
Handler = Callable[[Any], Any]


def validate(hint: Any, value: Any, path: KeyPath, problems: Problems, context: Context) -> Any:
    """Return ``value`` as the type that ``hint`` describes; None if it has problems, which are added to ``problems``."""
    built, found = _attempt(_adapter(hint), value, context)
    for problem in found:
        if problem.kind == "unknown key":
            problems.add_unknown((*path, *problem.loc), problem.near)
        else:
            problems.add((*path, *problem.loc), problem.text)
    return built


def unknown_keys(value: Iterable[str], known: list[str]) -> dict[str, str | None]:
    """Return each key that is not known, with the known one that it probably misspells."""
    return {key: nearest(key, known) for key in value if key not in known}


def _attempt(adapter: TypeAdapter[Any], value: Any, context: Context) -> tuple[Any, list[Problem]]:
    """Return the built value, or None, and its problems."""
    try:
        return adapter.validate_python(value, context=context), []
    except ValidationError as error:
        return None, problems_of(error)


@cache
def _adapter(hint: Any, name_key: str | None = None) -> TypeAdapter[Any]:
    return TypeAdapter(_strict(hint, name_key=name_key))


def _strict(hint: Any, default: Any = None, name_key: str | None = None) -> Any:
    """Return the type hint of a Config field as one that pydantic checks without converting values.

    Args:
        hint: the type, with its marks.
        default: the default of the field. If it is a Config, a mapping takes from it what it leaves out.
        name_key: the key that chose the Config class ``hint``. It is not in the mapping any more.
    """
    bare, marks = split(hint)
    kind, args = get_origin(bare) or bare, get_args(bare)
    rules: list[Any] = [AfterValidator(partial(_rule, m)) if isinstance(m, Constraint) else m for m in marks]
    choice = next((m for m in marks if isinstance(m, Registered | RegisteredKeys)), None)
    inner: Any
    if choice is not None:
        build: Any = _registered if isinstance(choice, Registered) else _registered_keys
        inner, rules = Annotated[Any, AfterValidator(partial(build, choice))], []
    elif kind is Any:
        inner = Annotated[Any, AfterValidator(_free)]
    elif kind in (Union, UnionType):
        arms = [arm for arm in args if arm is not NoneType]
        inner = Union[tuple(_strict(arm, default) for arm in arms)]  # noqa: UP007
        if len(arms) > 1:
            inner = Annotated[inner, pydantic.Field(union_mode="left_to_right"), WrapValidator(partial(_union, bare))]
    elif kind is Literal:
        inner = Annotated[Any, AfterValidator(partial(_literal, bare))]
    elif isinstance(kind, type) and is_dataclass(kind):
        inner = Annotated[Any, _Config(kind, name_key, default if isinstance(default, kind) else None)]
    elif kind in (list, tuple, dict):
        items = args or {list: (Any,), tuple: (Any, ...), dict: (str, Any)}[kind]
        inner = kind[tuple(item if item is ... else _strict(item) for item in items)]
    elif kind is float:
        inner = Annotated[float, Strict(), BeforeValidator(_number)]
    elif kind in (bool, int, str):
        inner = Annotated[kind, Strict()]
    else:
        raise TypeError(f"a Config field cannot have the type {hint}")
    for rule in (*rules, WrapValidator(partial(_field, hint))):
        inner = Annotated[inner, rule]
    return inner


def _field(hint: Any, value: Any, handler: Handler, info: Info) -> Any:
    """Check a value, which may be unset whatever its type, and word pydantic's errors."""
    if isinstance(value, Unset):
        info.context.untyped += not takes_text(hint)
        return _note_unset(value, info.context)
    if value is BROKEN:
        info.context.untyped += 1
        return value
    if takes_null(hint) and (value is None or (value == "" and is_path(hint))):  # empty: none, as in the original
        return None
    size = fixed_length(hint)
    if size is not None and isinstance(value, list) and len(value) != size:
        raise failure(Problem(f"expected a list of {size} values, got {len(value)}"))
    try:
        return handler(value)
    except ValidationError as error:
        problem = reworded(error, hint, value)
        raise (failure(problem) if problem else error) from None


def _note_unset(value: Unset, context: Context) -> str:
    if context.has_files:
        context.unset[value.path] = value.origin
    return UNSET


def _rule(rule: Constraint, value: Any, info: Info) -> Any:
    if isinstance(rule, ExistingPath):
        wanted = info.context.has_files and (rule.only_with is None or bool(info.data.get(rule.only_with)))
        wanted = wanted and not (rule.unless and info.data.get(rule.unless))
    else:
        wanted = True
    if wanted and (problem := rule.problem(value)):
        raise failure(Problem(problem))
    return value


def _free(value: Any, info: Info) -> Any:
    """Return a value of any type, with what is unset inside it noted."""
    kind: Any = type(value)
    return _adapter(kind).validate_python(value, context=info.context) if kind in (dict, list) else value


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-4, which has no dot, as a string; a value from the environment is always one.
    return float(value) if type(value) is int or (isinstance(value, str) and re.fullmatch(NUMBER, value)) else value


def _literal(hint: Any, value: Any) -> Any:
    if any(type(value) is type(choice) and value == choice for choice in get_args(hint)):  # pydantic takes true for 1
        return value
    raise failure(wrong_type(hint, value))


def _union(hint: Any, value: Any, handler: Handler, info: Info) -> Any:
    try:
        return handler(value)
    except ValidationError:
        attempts = [_attempt(_adapter(arm), value, info.context)[1] for arm in get_args(hint) if arm is not NoneType]
        # What is wrong inside a value of the right type says more than a list of types.
        inside = [found for found in attempts if any(p.loc or p.kind != "wrong type" for p in found)]
        raise failure(*min(inside, key=len, default=[wrong_type(hint, value)])) from None


@dataclass(frozen=True, eq=False)
class _Config:
    """A mapping that is built as a dataclass."""

    cls: Any
    name_key: str | None = None
    """The key that chose the class. It is not in the mapping any more."""
    base: Any = None
    """A Config of the class. Absent keys take its values instead of the defaults of the class."""

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> Any:
        hints = typing.get_type_hints(self.cls, include_extras=True)
        members = {}
        for member in self._members():
            hint = hints[member.name]
            default = default_of(member) if self.base is None else getattr(self.base, member.name)
            schema = handler.generate_schema(_strict(hint, default))
            if default is MISSING and getattr(mark(hint), "default", None):
                default = {}
                schema = core_schema.with_default_schema(schema, default=default, validate_default=True)
            members[member.name] = core_schema.typed_dict_field(schema, required=default in (MISSING, UNSET))
        schema = core_schema.typed_dict_schema(members, extra_behavior="forbid")
        return core_schema.with_info_wrap_validator_function(self._validate, schema)

    def _members(self) -> list[Any]:
        return [member for member in fields(self.cls) if member.init]

    def _validate(self, value: Any, handler: Handler, info: Info) -> Any:
        if value is None and self.base is not None:
            return _adapter(self.cls).validate_python({}, context=info.context)
        value = {} if value is None else value
        if not isinstance(value, dict):
            raise failure(wrong_type(dict, value))
        if info.context.may_lack:
            value = {name: Unset((name,), name) for name in needed(self.cls)} | value
        untyped = info.context.untyped
        try:
            given = handler(value)
        except ValidationError as error:
            raise failure(*self._key_problems(error, value), *problems_of(error)) from None
        config = self.cls(**given) if self.base is None else replace(self.base, **given)
        if info.context.untyped == untyped and (found := _contradictions(config, info.context)):
            raise failure(*found)
        return config

    def _key_problems(self, error: ValidationError, value: dict[str, Any]) -> list[Problem]:
        known = [member.name for member in self._members()] + ([self.name_key] if self.name_key else [])
        unknown = unknown_keys(value, known)
        missing = [d["loc"] for d in error.errors() if d["type"] == "missing" and d["loc"][0] not in unknown.values()]
        found = [Problem("", (key,), "unknown key", near) for key, near in unknown.items()]
        return found + [Problem("missing; it has no default", loc) for loc in missing]


def _contradictions(config: Any, context: Context) -> list[Problem]:
    """Return what contradicts itself in a Config, but for settings that are still to be set."""
    checks = ["check", *(["check_training"] if context.trains else []), *(["check_files"] if context.has_files else [])]
    found = []
    for name, message in (each for check in checks if hasattr(config, check) for each in getattr(config, check)()):
        path, value = name.split("."), config
        for part in path:
            value = getattr(value, part, None)
        if value != UNSET:
            found.append(Problem(message, tuple(path)))
    return found


def _registered(choice: Registered, value: Any, info: Info) -> Any:
    """Return a mapping as the Config of the registered class that it names."""
    registry, key = choice.registry, choice.key
    value = {} if value is None else {key: value} if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise failure(wrong_type(dict, value))
    name = value.get(key, choice.default)
    if isinstance(name, Unset):
        return _note_unset(name, info.context)
    if name is BROKEN:
        return name
    if key in value and not isinstance(name, str):
        raise failure(Problem(f"expected a string, got {describe(name)}", (key,)))
    if name is None:
        name = value.get(nearest(key, value) or "")  # the misspelt key that holds it is reported as unknown
        if not isinstance(name, str) or name not in registry:
            known = ", ".join(registry.names())
            raise failure(Problem(f"missing; it names the {registry.kind}. Known: {known}.", (key,)))
    settings = {other: item for other, item in value.items() if other != key}
    return _named(choice, name, (key,), settings, info)


def _registered_keys(choice: RegisteredKeys, value: Any, info: Info) -> Any:
    """Return a mapping of Configs, each of the class that its key or its ``name`` names."""
    registry, by_name = choice.registry, Registered(choice.registry, key="name")
    if not value:
        raise failure(Problem(f"expected at least one {registry.kind}. Known: {', '.join(registry.names())}."))
    if not isinstance(value, dict):
        raise failure(wrong_type(dict, value))
    built, found = {}, []
    for key, settings in value.items():
        has_name = isinstance(settings, dict) and by_name.key in settings
        build = partial(_registered, by_name) if has_name else partial(_named, by_name, key, ())
        try:
            built[key] = build(settings, info)
        except ValidationError as error:
            found += [problem._replace(loc=(key, *problem.loc)) for problem in problems_of(error)]
    if found:
        raise failure(*found)
    return built


def _named(choice: Registered, name: str, at: KeyPath, settings: Any, info: Info) -> Any:
    """Return settings as the Config of a registered class, whose name is written under the key ``at``."""
    registry = choice.registry
    found = [] if name in registry else [Problem(str(registry.unknown(name)), at)]
    near = name if name in registry else nearest(name, registry)  # so that the other keys are checked too
    if near is None:
        raise failure(*found)
    try:
        config_type = registry.config(near)
    except (ImportError, UnknownName) as error:
        raise failure(*found, Problem(f"the {registry.kind} '{near}' cannot be imported: {error}", at)) from None
    if not is_dataclass(config_type):
        raise failure(*found, Problem(f"the {registry.kind} '{near}' has no dataclass named Config", at))
    config, inside = _attempt(_adapter(config_type, choice.key), settings, info.context)
    if found or inside:
        raise failure(*found, *inside)
    if is_dataclass(config):
        remember_name(config, name)
    return config
