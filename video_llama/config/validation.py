"""Plain data to typed Configs: pydantic checks the values, and its errors become our messages."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from functools import cache, partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, GetCoreSchemaHandler, Strict, TypeAdapter, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError, core_schema

from video_llama.common.errors import UnknownName
from video_llama.common.registry import Registry, did_you_mean, nearest
from video_llama.config.fields import UNSET, Constraint, ExistingPath, Registered, RegisteredKeys
from video_llama.config.hints import (
    bounds,
    describe,
    fixed_length,
    kind_of,
    mark,
    split,
    takes_mapping,
    takes_null,
    takes_text,
)
from video_llama.config.interpolation import BROKEN, Unset
from video_llama.config.problems import KeyPath, Problems
from video_llama.config.serialize import remember_name

NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
"""A number that YAML 1.1 may read as a string."""


@dataclass
class Context:
    """What validation needs to know of one section, and what it finds."""

    has_files: bool = True
    """Whether the section's files must exist and its values be set."""
    unset: dict[KeyPath, str] = field(default_factory=dict)
    """For each key whose value is ``???``: the key that holds it."""
    untyped: int = 0
    """Values so far that are not of their field's type, being unset or broken."""


def validate(hint: Any, value: Any, path: KeyPath, problems: Problems, context: Context) -> Any:
    """Return ``value`` as the type that ``hint`` describes; None if it has problems, which are added to ``problems``."""
    try:
        return _adapter(hint).validate_python(value, context=context)
    except ValidationError as error:
        for problem in _problems(error):
            where = (*path, *problem.loc)
            if problem.unknown_key:
                problems.add_unknown(where, problem.near)
            else:
                problems.add(where, problem.text)
        return None


class _Problem(NamedTuple):
    """A problem on its way through pydantic, which puts the keys around it before ``loc``."""

    loc: KeyPath
    text: str
    near: str | None = None
    """The key that an unknown one probably misspells."""
    unknown_key: bool = False


def _error(*problems: _Problem) -> ValidationError:
    return ValidationError.from_exception_data(
        "config",
        [
            InitErrorDetails(type=PydanticCustomError("ours", "{text}", p._asdict()), loc=p.loc, input=None)
            for p in problems
        ],
    )


def _problems(error: ValidationError) -> list[_Problem]:
    return [
        _Problem(**{**d["ctx"], "loc": d["loc"]})
        for d in error.errors(include_url=False, include_input=False)
        if d["type"] == "ours"
    ]


def _wrong(hint: Any, value: Any) -> ValidationError:
    bare, _ = split(hint)
    choices = [choice for choice in get_args(bare) if isinstance(choice, str)] if get_origin(bare) is Literal else []
    near = did_you_mean(value, choices) if isinstance(value, str) else ""
    return _error(_Problem((), f"expected {kind_of(hint)}, got {describe(value)}{'.' if near else ''}{near}"))


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(_strict(hint))


def _strict(hint: Any) -> Any:
    """Return the type hint of a Config field as one that pydantic checks without converting values."""
    bare, marks = split(hint)
    kind, args = get_origin(bare) or bare, get_args(bare)
    rules: list[Any] = [_after(m) if isinstance(m, Constraint) else m for m in marks]
    choice = next((m for m in marks if isinstance(m, Registered | RegisteredKeys)), None)
    inner: Any
    if choice is not None:
        build: Any = _registered if isinstance(choice, Registered) else _registered_keys
        inner, rules = Annotated[Any, AfterValidator(partial(build, choice))], []
    elif kind is Any:
        inner = Annotated[Any, AfterValidator(_free)]
    elif kind in (Union, UnionType):
        some = tuple(arm for arm in args if arm is not NoneType)
        inner = _strict(some[0]) if len(some) == 1 else Annotated[Any, _OneOf(bare, some)]
    elif kind is Literal:
        inner = Annotated[Any, AfterValidator(_literal(bare))]
    elif isinstance(kind, type) and is_dataclass(kind):
        inner = Annotated[Any, _Config(kind)]
    elif fixed_length(hint) is not None:
        inner = tuple[tuple(_strict(arg) for arg in args)]  # type: ignore[misc]
    elif kind is tuple:
        inner = tuple[_strict(args[0] if args else Any), ...]  # type: ignore[misc]
    elif kind is list:
        inner = list[_strict(args[0] if args else Any)]  # type: ignore[misc]
    elif kind is dict:
        inner = dict[str, _strict(args[1] if args else Any)]  # type: ignore[misc]
    elif kind is float:
        inner = Annotated[float, Strict(), BeforeValidator(_number)]
    elif kind in (bool, int, str):
        inner = Annotated[kind, Strict()]
    else:
        raise TypeError(f"a Config field cannot have the type {hint}")
    for rule in (*rules, _Field(hint)):
        inner = Annotated[inner, rule]
    return inner


@dataclass(frozen=True)
class _Field:
    """Lets a value of any type be unset, and words pydantic's errors."""

    hint: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_wrap_validator_function(self._validate, handler(source))

    def _validate(self, value: Any, handler: Callable[[Any], Any], info: ValidationInfo[Context]) -> Any:
        context = info.context
        if isinstance(value, Unset):
            context.untyped += not takes_text(self.hint)
            return _note_unset(value, context)
        if value is BROKEN:
            context.untyped += 1
            return value
        if value is None and takes_null(self.hint):
            return None
        size = fixed_length(self.hint)
        if size is not None and isinstance(value, list) and len(value) != size:
            raise _error(_Problem((), f"expected a list of {size} values, got {len(value)}"))
        try:
            return handler(value)
        except ValidationError as error:
            raise self._worded(error, value) from None

    def _worded(self, error: ValidationError, value: Any) -> ValidationError:
        """Return pydantic's errors about the value itself as ours; those about its items are ours already."""
        for detail in error.errors(include_url=False, include_input=False):
            kind, limits = detail["type"], detail.get("ctx", {})
            if kind == "ours":
                continue
            if kind.endswith("_type"):
                return _wrong(self.hint, value)
            if kind.startswith(("greater_than", "less_than")):
                got = _number(value) if split(self.hint)[0] is float else value
                return _error(_Problem((), f"must be {bounds(self.hint)}, got {got}"))
            if "min_length" in limits or "max_length" in limits:
                limit = f"least {limits['min_length']}" if "min_length" in limits else f"most {limits['max_length']}"
                noun = "characters" if isinstance(value, str) else "items"
                return _error(_Problem((), f"must have at {limit} {noun}, got {len(value)}"))
            return _error(_Problem((), f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {describe(value)}"))
        return error


def _note_unset(value: Unset, context: Context) -> str:
    if context.has_files:
        context.unset[value.path] = value.origin
    return UNSET


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-4, which has no dot, as a string; a value from the environment is always one.
    return float(value) if type(value) is int or (isinstance(value, str) and re.fullmatch(NUMBER, value)) else value


def _literal(hint: Any) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:  # pydantic takes true for 1
        if any(type(value) is type(choice) and value == choice for choice in get_args(hint)):
            return value
        raise _wrong(hint, value)

    return check


def _after(rule: Constraint) -> Any:
    def check(value: Any, info: ValidationInfo[Context]) -> Any:
        if isinstance(rule, ExistingPath) and not info.context.has_files:
            return value
        if problem := rule.problem(value):
            raise _error(_Problem((), problem))
        return value

    return AfterValidator(check)


def _free(value: Any, info: ValidationInfo[Context]) -> Any:
    """Return a value of any type, with what is unset inside of it noted."""
    if isinstance(value, dict | list):
        hint = dict[str, Any] if isinstance(value, dict) else list[Any]
        return _adapter(hint).validate_python(value, context=info.context)
    return value


@dataclass(frozen=True)
class _OneOf:
    """A union without null: the first type that takes the value."""

    hint: Any
    arms: tuple[Any, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        choices = [(handler.generate_schema(_strict(arm)), str(i)) for i, arm in enumerate(self.arms)]
        schema = core_schema.union_schema(choices, mode="left_to_right")  # type: ignore[arg-type]
        return core_schema.no_info_wrap_validator_function(self._validate, schema)

    def _validate(self, value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            likely = [arm for arm in self.arms if takes_mapping(arm)] if isinstance(value, dict) else self.arms
            if len(likely) != 1:
                raise _wrong(self.hint, value) from None
            index = str(self.arms.index(likely[0]))  # its own messages say more than a list of types
            found = [p for p in _problems(error) if p.loc[:1] == (index,)]
            raise _error(*(p._replace(loc=p.loc[1:]) for p in found)) from None


class _Over(dict[str, Any]):
    """A mapping whose absent keys take the values of a Config instead of the defaults of its class."""

    base: Any = None


@dataclass(frozen=True)
class _Config:
    """A mapping that is built as a dataclass."""

    cls: type[Any]
    name_key: str | None = None
    """The key, already taken out of the mapping, that picked the class."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        hints = typing.get_type_hints(self.cls, include_extras=True)
        members = {
            f.name: core_schema.typed_dict_field(
                handler.generate_schema(_strict(hints[f.name])), required=_default(f) in (MISSING, UNSET)
            )
            for f in fields(self.cls)
            if f.init
        }
        schema = core_schema.typed_dict_schema(members, extra_behavior="forbid")
        return core_schema.with_info_wrap_validator_function(self._validate, schema)

    def _validate(self, value: Any, handler: Callable[[Any], Any], info: ValidationInfo[Context]) -> Any:
        value = {} if value is None else value
        if not isinstance(value, dict):
            raise _wrong(dict, value)
        base, untyped = getattr(value, "base", None), info.context.untyped
        try:
            given = handler(self._completed(value, base))
        except ValidationError as error:
            raise _error(*self._key_problems(error, value, base)) from None
        config = replace(base, **given) if base is not None else self.cls(**given)
        if info.context.untyped == untyped:
            _check(config)
        return config

    def _completed(self, value: dict[str, Any], base: Any) -> dict[str, Any]:
        """Return the mapping with what its nested blocks take from the defaults, and the blocks it need not have."""
        hints = typing.get_type_hints(self.cls, include_extras=True)
        value = dict(value)
        for member in fields(self.cls):
            name, choice = member.name, mark(hints[member.name])
            default = _default(member) if base is None else getattr(base, name)
            if choice is None and is_dataclass(default) and isinstance(value.get(name), dict):
                value[name] = _Over(value[name])
                value[name].base = default
            if default is MISSING and getattr(choice, "default", None):
                value.setdefault(name, {})
        return value

    def _key_problems(self, error: ValidationError, value: dict[str, Any], base: Any) -> list[_Problem]:
        known = [f.name for f in fields(self.cls) if f.init] + ([self.name_key] if self.name_key else [])
        unknown = unknown_keys(value, known)
        given = {*unknown.values(), *(known if base is not None else ())}
        found = [_Problem((key,), "", near, unknown_key=True) for key, near in unknown.items()]
        for detail in error.errors(include_url=False, include_input=False):
            if detail["type"] == "ours":
                found.append(_Problem(**{**detail["ctx"], "loc": detail["loc"]}))
            elif detail["type"] == "missing" and detail["loc"][0] not in given:
                found.append(_Problem(detail["loc"], "missing; it has no default"))
        return found


def _default(member: Field[Any]) -> Any:
    return member.default_factory() if member.default_factory is not MISSING else member.default


def _check(config: Any) -> None:
    """Raise what contradicts itself in a Config, but for settings that are still to be set."""
    found = []
    for name, message in config.check() if hasattr(config, "check") else ():
        value = config
        for part in name.split("."):
            value = getattr(value, part, None)
        if value != UNSET:
            found.append(_Problem(tuple(name.split(".")), message))
    if found:
        raise _error(*found)


def _registered(choice: Registered, value: Any, info: ValidationInfo[Context]) -> Any:
    value = {} if value is None else {choice.key: value} if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise _wrong(dict, value)
    name = value.get(choice.key, choice.default)
    if isinstance(name, Unset):
        return _note_unset(name, info.context)
    if name is BROKEN:
        return name
    settings = {key: item for key, item in value.items() if key != choice.key}
    if isinstance(name, str):
        return _named(choice.registry, name, settings, info.context, at=(choice.key,), name_key=choice.key)
    if choice.key in value:
        raise _error(_Problem((choice.key,), f"expected a string, got {describe(name)}"))
    misspelt = value.get(nearest(choice.key, value) or "")
    if isinstance(misspelt, str) and misspelt in choice.registry:  # the key that holds it is reported as unknown
        return _named(choice.registry, misspelt, settings, info.context, at=(choice.key,), name_key=choice.key)
    known = ", ".join(choice.registry.names())
    raise _error(_Problem((choice.key,), f"missing; it names the {choice.registry.kind}. Known: {known}."))


def _registered_keys(choice: RegisteredKeys, value: Any, info: ValidationInfo[Context]) -> Any:
    registry, by_name = choice.registry, Registered(choice.registry, key="name")
    if not value:
        raise _error(_Problem((), f"expected at least one {registry.kind}. Known: {', '.join(registry.names())}."))
    if not isinstance(value, dict):
        raise _wrong(dict, value)
    built, found = {}, []
    for key, settings in value.items():
        try:
            if isinstance(settings, dict) and "name" in settings:
                built[key] = _registered(by_name, settings, info)
            else:
                built[key] = _named(registry, key, settings, info.context)
        except ValidationError as error:
            found += [p._replace(loc=(key, *p.loc)) for p in _problems(error)]
    if found:
        raise _error(*found)
    return built


def _named(
    registry: Registry[Any], name: str, settings: Any, context: Context, at: KeyPath = (), name_key: str | None = None
) -> Any:
    """Return settings as the Config of a registered class; ``at`` is where its name is written."""
    found: list[_Problem] = []
    near: str | None = name
    if name not in registry:
        found.append(_Problem(at, str(registry.unknown(name))))
        near = nearest(name, registry)  # so that the other keys are checked too
    if near is None:
        raise _error(*found)
    try:
        config_type = registry.config(near)
    except (ImportError, UnknownName) as error:
        raise _error(*found, _Problem(at, f"the {registry.kind} '{near}' cannot be imported: {error}")) from None
    if not is_dataclass(config_type):
        raise _error(*found, _Problem(at, f"the {registry.kind} '{near}' has no dataclass named Config"))
    try:
        config = _config_adapter(config_type, name_key).validate_python(settings, context=context)
    except ValidationError as error:
        raise _error(*found, *_problems(error)) from None
    if found:
        raise _error(*found)
    if config != UNSET and config is not BROKEN:
        remember_name(config, name)
    return config


@cache
def _config_adapter(cls: type[Any], name_key: str | None) -> TypeAdapter[Any]:
    return TypeAdapter(Annotated[Any, _Config(cls, name_key), _Field(cls)])


def unknown_keys(value: Mapping[str, Any], known: list[str]) -> dict[str, str | None]:
    """Return each key that is not known, with the known one that it probably misspells."""
    return {key: nearest(key, known) for key in value if key not in known}
