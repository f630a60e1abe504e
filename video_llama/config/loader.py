"""One YAML to one typed, checked ``JobConfig``: dataclass defaults < YAML < ``--options``.

Every problem is reported at once, with its file, line and key. What a Config may say of its fields is in
``config_types``; those names can be imported from here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import yaml

from video_llama.common.errors import ConfigError
from video_llama.common.registry import DATASETS, MODELS, RUNNERS, import_problem, plugin_problems
from video_llama.config.build import Builder
from video_llama.config.fields import (
    UNSET,
    AtLeast,
    Between,
    Constraint,
    ExistingPath,
    Registered,
    RegisteredKeys,
    RegisteredName,
)
from video_llama.config.interpolation import Resolver
from video_llama.config.problems import KeyPath, Report, dotted
from video_llama.config.serialize import plain, registered_class, registered_name
from video_llama.config.shipped import find_config
from video_llama.config.source import apply_options, read_yaml

__all__ = [
    "UNSET",
    "AtLeast",
    "Between",
    "ConfigError",
    "Constraint",
    "ExistingPath",
    "JobConfig",
    "Registered",
    "RegisteredKeys",
    "RegisteredName",
    "load_config",
    "registered_class",
    "registered_name",
]

SECTIONS: dict[str, Any] = {
    "model": Annotated[Any, Registered(MODELS, key="arch")],
    "datasets": Annotated[dict[str, Any], RegisteredKeys(DATASETS)],
    "run": Annotated[Any, Registered(RUNNERS, key="runner", default="runner_base")],
}


@dataclass(frozen=True, eq=False)
class JobConfig:
    """What one YAML asks for. Two are equal when they say the same, wherever they came from."""

    model: Any = None
    """The model's Config; None where the section was not asked for."""
    datasets: dict[str, Any] = field(default_factory=dict)
    """The Config of each data set, by its key in the YAML."""
    run: Any = None
    """The runner's Config; None where the section was not asked for."""
    imports: tuple[str, ...] = ()
    """Modules of the user, imported before names are looked up."""
    path: str = ""
    """The YAML, as the user gave it."""
    unset: tuple[str, ...] = ()
    """What is still ``???``: ``paths.llama (model.llama_model)``."""

    def as_dict(self) -> dict[str, Any]:
        """Return the resolved configuration as plain data, defaults filled in."""
        data: dict[str, Any] = {"imports": list(self.imports)} if self.imports else {}
        for name, hint in SECTIONS.items():
            section = getattr(self, name)
            if section:
                data[name] = plain(hint, section)
        return data

    def to_yaml(self) -> str:
        """Return the resolved configuration as a YAML that loads as an equal ``JobConfig``."""
        return yaml.dump(_escaped(self.as_dict()), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobConfig) and self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]


def load_config(
    path: str | os.PathLike[str],
    options: Iterable[str] = (),
    *,
    need: Sequence[str] | None = ("model",),
    also: Sequence[str] = (),
    allow_unset: bool = False,
) -> JobConfig:
    """Read and check a YAML.

    Args:
        path: the YAML file, or the name of a shipped one.
        options: ``a.b=value`` strings that override it.
        need: sections that must be there and are built. Others are left alone, so that a checkpoint's
            configuration serves for chat where its data sets are not. None: the model, and all that is there.
        also: sections that are built too where they are there; their files need not be.
        allow_unset: let ``???`` pass; the built Configs then hold that string.
    Raises:
        ConfigError: everything that is wrong, one line each, sorted by line.
    """
    report = Report(find_config(path))
    data = read_yaml(report)
    apply_options(data, options, report)
    resolver = Resolver(report)
    data = resolver.resolve(data)
    builder = Builder(report, resolver.origins, elsewhere=also)
    misspelt = builder.unknown_keys(data, ["imports", "paths", *SECTIONS], ())
    imports = _imports(builder, data.get("imports"))
    if need is None:
        need, also = ["model"], tuple(SECTIONS)
    need = [*need, *(name for name in also if name in data and name not in need)]
    sections = {}
    for name in SECTIONS:
        if name in need and name in data:
            sections[name] = builder.build(SECTIONS[name], data[name], (name,))
        elif name in need and name not in misspelt:
            report.add_line(None, f"{name}: the section is missing")
    if not report.problems:
        _report_disagreements(report, sections)
    _report_idle_options(report, need)
    if not allow_unset:
        _report_unset(report, builder.unset)
    report.raise_if_any()
    return JobConfig(**sections, imports=imports, path=report.file, unset=_unset_lines(builder.unset))


def _imports(builder: Builder, value: Any) -> tuple[str, ...]:
    """Import the modules that the YAML lists, and the installed plugins, so that their names are registered."""
    for plugin_problem in plugin_problems():
        builder.report.add_line(None, plugin_problem)
    modules = builder.build(list[str] | None, value, ("imports",)) or ()
    if not isinstance(modules, list):
        return ()
    names = [(index, name) for index, name in enumerate(modules) if isinstance(name, str) and name != UNSET]
    for index, name in names:
        problem = import_problem(name)
        if problem:
            builder.report.add(("imports", index), problem)
    return tuple(name for _, name in names)


def _report_disagreements(report: Report, sections: dict[str, Any]) -> None:
    """Data sets may repeat what the model says, or ask for what it cannot do."""
    shared_settings: dict[str, Any] = getattr(sections.get("model"), "shared_settings", dict)()
    for name, config in sections.get("datasets", {}).items():
        for key, message in config.disagreements(shared_settings) if hasattr(config, "disagreements") else ():
            report.add(("datasets", name, *key.split(".")), message)


def _report_idle_options(report: Report, need: Sequence[str]) -> None:
    """An option for a section that is not read would be accepted and do nothing."""
    for path, place in list(report.places.items()):
        if isinstance(place, str) and path[0] in SECTIONS and path[0] not in need:
            report.add(path, f"not used here, where only {', '.join(need)} is read")


def _report_unset(report: Report, unset: list[tuple[str, KeyPath]]) -> None:
    for origin, keys in _by_origin(unset).items():
        for_others = [key for key in keys if key != origin]
        needed = f"; {', '.join(for_others)} needs it" if for_others else ""
        report.add(_parsed(origin), f"is ???: set it before use{needed}")


def _unset_lines(unset: list[tuple[str, KeyPath]]) -> tuple[str, ...]:
    return tuple(
        origin if keys == [origin] else f"{origin} ({', '.join(key for key in keys if key != origin)})"
        for origin, keys in _by_origin(unset).items()
    )


def _by_origin(unset: list[tuple[str, KeyPath]]) -> dict[str, list[str]]:
    """Return, for each key that holds ``???``, the keys that need it."""
    needs: dict[str, list[str]] = {}
    for origin, path in unset:
        needs.setdefault(origin, []).append(dotted(path))
    return needs


def _parsed(key: str) -> KeyPath:
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"[.\[\]]+", key.rstrip("]")))


class _Dumper(yaml.SafeDumper):
    """YAML without anchors: a value used twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _escaped(data: Any) -> Any:
    """Return the data with ``${`` in strings written so that OmegaConf leaves it alone."""
    if isinstance(data, dict):
        return {key: _escaped(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_escaped(value) for value in data]
    if isinstance(data, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", data)
    return data
