"""JSON Schema of everything that a YAML may hold, for editors and validators."""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter

from video_llama.common.registry import Registry
from video_llama.config.fields import UNSET, Constraint, Registered, RegisteredKeys, RegisteredName
from video_llama.config.hints import default_of, fixed_length, mark, split, takes_null
from video_llama.config.loader import SECTIONS, JobConfig
from video_llama.config.serialize import plain
from video_llama.config.validation import NUMBER

Schema = dict[str, Any]

_REFERENCE: Schema = {
    "type": "string",
    "pattern": r"^\?\?\?$|\$\{",
    "description": "??? (to be set before use), or a reference such as ${paths.llama}.",
}


def json_schema() -> Schema:
    """Return a JSON Schema (draft 2020-12) of a YAML: its sections, registered names, and each field with its docstring.

    Values may be ``???`` or hold ``${...}`` anywhere. The names are those registered at the time: import the modules of
    a plugin first to include its names, since a name that the schema does not list is an error, with ``imports`` too.
    """
    schemas = _Schemas()
    docs = field_docs(JobConfig)
    sections = {name: {**schemas.value(hint), "description": docs[name]} for name, hint in SECTIONS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "video_llama configuration",
        "type": "object",
        "properties": {
            "imports": {**schemas.value(list[str] | None), "description": docs["imports"]},
            "paths": {"description": "Free values, for other keys to refer to: ${paths.llama}."},
            **sections,
        },
        "required": ["model"],
        "additionalProperties": False,
        "$defs": {"reference": _REFERENCE, **schemas.defs},
    }


def field_docs(cls: type[Any]) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, on one line; inherited fields included."""
    docs: dict[str, str] = {}
    for owner in reversed([c for c in cls.__mro__ if is_dataclass(c)]):
        try:
            source = inspect.getsource(owner)
        except (OSError, TypeError):  # a class that was not written in a file
            continue
        (tree,) = ast.parse(textwrap.dedent(source)).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for statement, below in pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                docs.pop(statement.target.id, None)
                if (
                    isinstance(below, ast.Expr)
                    and isinstance(below.value, ast.Constant)
                    and isinstance(below.value.value, str)
                ):
                    docs[statement.target.id] = " ".join(below.value.value.split())
    return docs


class _Schemas:
    """Schemas of type hints; those of Configs are shared, in ``defs``."""

    def __init__(self) -> None:
        self.defs: dict[str, Schema] = {}

    def value(self, hint: Any) -> Schema:
        """Return the schema of a value: what its type says, or a reference."""
        schema = self._typed(hint)
        if takes_null(hint):
            schema = {"if": {"type": "null"}, "else": schema}
        return schema if schema in ({}, {"type": "string"}) else {"if": {"$ref": "#/$defs/reference"}, "else": schema}

    def _typed(self, hint: Any) -> Schema:
        bare, marks = split(hint)
        kind, args = get_origin(bare) or bare, get_args(bare)
        for found in marks:
            if isinstance(found, Registered):
                return self._registered(found)
            if isinstance(found, RegisteredKeys):
                return self._registered_keys(found.registry)
            if isinstance(found, RegisteredName):
                return {"enum": found.registry.names()}
        if kind is Any:
            return {}
        if kind in (Union, UnionType):
            arms = [self._typed(arm) for arm in args if arm is not NoneType]
            return arms[0] if len(arms) == 1 else {"anyOf": arms}
        if kind is Literal:
            return {"enum": list(args)}
        if isinstance(kind, type) and is_dataclass(kind):
            return self._config(kind)
        if (size := fixed_length(hint)) is not None:
            return {
                "type": "array",
                "prefixItems": [self.value(arg) for arg in args],
                "minItems": size,
                "maxItems": size,
            }
        leaf: Any = list if kind is tuple else kind
        for rule in marks:
            leaf = leaf if isinstance(rule, Constraint) else Annotated[leaf, rule]
        schema: Schema = TypeAdapter(leaf).json_schema()
        if kind is float:  # YAML 1.1 reads 1e-4 as a string
            schema |= {"type": ["number", "string"], "pattern": f"^{NUMBER}$"}
        if kind in (list, tuple) and args:
            schema["items"] = self.value(args[0])
        if kind is dict and args:
            schema["additionalProperties"] = self.value(args[1])
        return schema

    def _config(self, cls: type[Any], name_key: str | None = None, *, partial: bool = False) -> Schema:
        """Return a reference to the schema of a Config; ``partial``: one whose absent keys have values."""
        name = ":".join(filter(None, (f"{cls.__module__}.{cls.__qualname__}", name_key, "partial" * partial)))
        if name not in self.defs:
            self.defs[name] = {}  # a Config may hold another of its class
            hints, docs = typing.get_type_hints(cls, include_extras=True), field_docs(cls)
            members = [f for f in fields(cls) if f.init]
            properties = {f.name: self._member(f, hints[f.name], docs.get(f.name)) for f in members}
            required = [
                f.name for f in members if default_of(f) is MISSING and not getattr(mark(hints[f.name]), "default", 0)
            ]
            self.defs[name] = {
                "type": "object" if required and not partial else ["object", "null"],
                "description": inspect.getdoc(cls) or "",
                "properties": ({name_key: {}} if name_key else {}) | properties,
                "required": [] if partial else required,
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{name}"}

    def _member(self, member: Field[Any], hint: Any, doc: str | None) -> Schema:
        default = default_of(member)
        if is_dataclass(default) and mark(hint) is None:
            schema: Schema = {"if": {"$ref": "#/$defs/reference"}, "else": self._config(type(default), partial=True)}
        else:
            schema = self.value(hint)
        schema |= {"description": doc} if doc else {}
        if default not in (MISSING, UNSET):
            schema["default"] = plain(hint, default)
        return schema

    def _registered(self, choice: Registered) -> Schema:
        key, registry = choice.key, choice.registry
        names = {"enum": registry.names()}
        branches = [
            {
                "if": {"properties": {key: {"const": name}}, "required": [key] if name != choice.default else []},
                "then": self._named(registry, name, key),
            }
            for name in registry
        ]
        mapping = {
            "type": "object" if choice.default is None else ["object", "null"],
            "properties": {
                key: {
                    "if": {"$ref": "#/$defs/reference"},
                    "else": {**names, "description": f"The {registry.kind}, by registered name."},
                }
            },
            "required": [key] if choice.default is None else [],
            "allOf": branches,
        }
        return {"if": {"type": "string"}, "then": names, "else": mapping}

    def _registered_keys(self, registry: Registry[Any]) -> Schema:
        by_name = self._registered(Registered(registry, key="name"))
        entries = {
            name: {"if": {"required": ["name"]}, "then": by_name, "else": self._named(registry, name, "name")}
            for name in registry
        }
        return {"type": "object", "minProperties": 1, "properties": entries, "additionalProperties": by_name}

    def _named(self, registry: Registry[Any], name: str, key: str) -> Schema:
        config = registry.config(name)
        return self._config(config, key) if config is not None else {}
