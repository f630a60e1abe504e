"""One YAML to one typed, checked ``JobConfig``: dataclass defaults < YAML < ``--options``.

Every problem is reported at once, with its file, line and key. What a Config may say of its fields is in
``fields``; those names can be imported from here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import yaml

from video_llama.common.errors import ConfigError
from video_llama.common.registry import DATASETS, MODELS, RUNNERS, import_problem, plugin_problems
from video_llama.config.fields import (
    UNSET,
    ExistingPath,
    Registered,
    RegisteredKeys,
    RegisteredName,
)
from video_llama.config.inference_config import InferenceConfig
from video_llama.config.interpolation import Resolver
from video_llama.config.overrides import apply_options, escaped
from video_llama.config.problems import KeyPath, Problems, dotted
from video_llama.config.purposes import why_no_training
from video_llama.config.serialize import plain, registered_class, registered_name
from video_llama.config.shipped import find_config
from video_llama.config.source import map_strings, read_yaml
from video_llama.config.validation import Context, unknown_keys, validate

__all__ = [
    "UNSET",
    "ConfigError",
    "ExistingPath",
    "InferenceConfig",
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
    "inference": InferenceConfig,
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
    inference: InferenceConfig | None = None
    """How files are read when the model is used; None where the section is absent or was not asked for."""
    imports: tuple[str, ...] = ()
    """Modules of the user, imported before names are looked up."""
    unset: tuple[str, ...] = ()
    """What is still ``???``: ``paths.llama (model.llama_model)``."""
    trains: bool = True
    """Whether the file is for training, and not for use alone."""
    notes: tuple[str, ...] = ()
    """Settings without effect: ``mine.yaml:40  run.batch_size_eval: has no effect ...``."""
    warnings: tuple[str, ...] = ()
    """Settings whose effect is probably not what is meant."""
    places: Problems | None = field(default=None, repr=False)
    """Where each key is written; None for a config made in Python."""

    def warning(self, key: str, message: str) -> str:
        """Return a line for a setting whose effect only shows with the data: place, dotted key and message."""
        return f"{key}: {message}" if self.places is None else self.places.warning(key, message)

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
        return as_yaml(map_strings(escaped, self.as_dict()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobConfig) and self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]


def as_yaml(data: Mapping[str, Any]) -> str:
    """Return plain data as YAML, in its order; a value used twice is written twice."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


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
            configuration serves for chat where its data sets are not. None: the model, and all that is there; of a file
            that does not train, the sections for training are built like those of ``also``.
        also: sections that are built too where they are there; their files, and what a run needs, need not be.
        allow_unset: let ``???`` pass; the built Configs then hold that string.
    Raises:
        ConfigError: everything that is wrong, one line each, sorted by line.
    """
    problems = Problems(find_config(path))
    data = read_yaml(problems)
    apply_options(data, options, problems)
    data = Resolver(problems).resolve(data)
    misspelt = unknown_keys(data, ["imports", "paths", *SECTIONS])
    for key, near in misspelt.items():
        problems.add_unknown((key,), near)
    imports = _imports(problems, data.get("imports"))
    no_training = why_no_training(data, SECTIONS["run"])
    trains = no_training is None
    if need is None:
        also = also if trains else ("datasets", "run")
        need = ["model", *(name for name in SECTIONS if name in data and name not in ("model", *also))]
    if "run" in data and no_training and "run" not in need:
        problems.note(("run",), f"has no effect: this file is not for training ({no_training})")
    need = [*need, *(name for name in also if name in data and name not in need)]
    sections: dict[str, Any] = {}
    unset: dict[KeyPath, str] = {}
    for name, hint in SECTIONS.items():
        if name in need and name in data:
            context = Context(has_files=name not in also, may_lack=name == "run" and name in also, trains=trains)
            sections[name] = validate(hint, data[name], (name,), problems, context)
            unset |= context.unset
        elif name in need and name not in misspelt.values():
            problems.add_line(None, f"{name}: the section is missing")
    if not problems.found:
        _add_disagreements(problems, sections)
        _add_undrawn(problems, {} if "datasets" in also else sections.get("datasets", {}))
    _add_idle_options(problems, need)
    needs = _needs(unset)
    for origin, keys in needs.items() if not allow_unset else ():
        problems.add(_parsed(origin), "is ???: set it before use" + (f"; {', '.join(keys)} needs it" if keys else ""))
    problems.raise_if_any()
    unset_lines = tuple(f"{origin} ({', '.join(keys)})" if keys else origin for origin, keys in needs.items())
    needed = {name: section for name, section in sections.items() if name not in also}
    _add_warnings(problems, needed)
    _add_notes(problems, needed if trains else sections, trains)
    problems.warn_of_swallowed([*need, "imports", "paths"])
    notes, warnings = (
        tuple(text for _, text in sorted(found, key=lambda line: line[0]))
        for found in (problems.noted, problems.warned)
    )
    return JobConfig(
        **sections, imports=imports, unset=unset_lines, trains=trains, notes=notes, warnings=warnings, places=problems
    )


def _imports(problems: Problems, value: Any) -> tuple[str, ...]:
    """Import the modules that the YAML lists, and the installed plugins, so that their names are registered."""
    for plugin_problem in plugin_problems():
        problems.add_line(None, plugin_problem)
    modules = validate(list[str] | None, value, ("imports",), problems, Context()) or ()
    names = [(index, name) for index, name in enumerate(modules) if name != UNSET]
    for index, name in names:
        if problem := import_problem(name):
            problems.add(("imports", index), problem)
    return tuple(name for _, name in names)


def _add_disagreements(problems: Problems, sections: dict[str, Any]) -> None:
    """Data sets and processors may repeat what the model says, or ask for what it cannot do."""
    shared_settings: dict[str, Any] = getattr(sections.get("model"), "shared_settings", dict)()
    configs: dict[KeyPath, Any] = {("datasets", name): config for name, config in sections.get("datasets", {}).items()}
    configs[("inference",)] = sections.get("inference")
    for path, config in configs.items():
        for key, message in config.disagreements(shared_settings) if hasattr(config, "disagreements") else ():
            problems.add((*path, *key.split(".")), message)


def _add_undrawn(problems: Problems, datasets: dict[str, Any]) -> None:
    """A mixture whose shares are all 0 has nothing to draw."""
    shares = {name: getattr(config, "sample_ratio", None) for name, config in datasets.items()}
    if shares and not any(share != 0 for share in shares.values()):
        for name in shares:
            problems.add(("datasets", name, "sample_ratio"), "0, as in every data set: nothing would be drawn")


def _add_warnings(problems: Problems, sections: dict[str, Any]) -> None:
    """Warn of each setting whose effect is probably not what is meant."""
    for path, config in _configs(sections):
        for key, message in config.warnings() if hasattr(config, "warnings") else ():
            problems.warn((*path, *key.split(".")), message)


def _add_notes(problems: Problems, sections: dict[str, Any], trains: bool) -> None:
    """Note each setting that a Config accepts and has no use for."""
    for path, config in _configs(sections):
        for key, message in config.notes(trains) if hasattr(config, "notes") else ():
            problems.note((*path, *key.split(".")), message)


def _configs(sections: dict[str, Any]) -> Iterable[tuple[KeyPath, Any]]:
    """Yield the Config of each section, and of each data set, with its keys."""
    for name, section in sections.items():
        if name == "datasets":
            yield from (((name, key), config) for key, config in section.items())
        else:
            yield (name,), section


def _add_idle_options(problems: Problems, need: Sequence[str]) -> None:
    """An option for a section that is not read would be accepted and do nothing."""
    for path, location in list(problems.locations.items()):
        if isinstance(location, str) and path[0] in SECTIONS and path[0] not in need:
            problems.add(path, f"not used here, where only {', '.join(need)} is read")


def _needs(unset: dict[KeyPath, str]) -> dict[str, list[str]]:
    """Return, for each key that holds ``???``, the other keys that need it."""
    needs: dict[str, list[str]] = {origin: [] for origin in unset.values()}
    for path, origin in unset.items():
        needs[origin] += [dotted(path)] if dotted(path) != origin else []
    return needs


def _parsed(key: str) -> KeyPath:
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"[.\[\]]+", key.rstrip("]")))


class _Dumper(yaml.SafeDumper):
    """YAML without anchors: a value used twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
