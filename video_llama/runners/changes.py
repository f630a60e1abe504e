"""What differs between a checkpoint's run and the one that resumes it: settings above all."""

from __future__ import annotations

import json
import logging
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from video_llama.checkpoints.io import read_checkpoint
from video_llama.checkpoints.sources.hub import HubReference
from video_llama.common.errors import TrainingError
from video_llama.config.fields import ExistingPath, Operational
from video_llama.config.hints import arms, default_of, split
from video_llama.config.loader import JobConfig
from video_llama.config.problems import KeyPath, dotted
from video_llama.config.serialize import plain

log = logging.getLogger(__name__)

SECTIONS = ("model", "datasets", "run")
"""The sections that decide what is learnt."""

_ABSENT = object()


def check_changes(path: Path, job: JobConfig, *, allowed: bool) -> None:
    """Compare the config in a checkpoint with that of the run that resumes.

    Args:
        path: the checkpoint.
        job: the config of the run that resumes.
        allowed: log the changes instead of refusing them.
    Raises:
        TrainingError: settings that alter training differ, and that is not allowed.
        WeightsError: the file is not a checkpoint.
    """
    saved = read_checkpoint(path).get("config")
    if saved is not None:  # else the runner says what is missing
        refuse_unless_allowed(path, list(changed_settings(saved, job)), allowed=allowed)


def refuse_unless_allowed(path: Path, changes: Sequence[str], *, allowed: bool) -> None:
    """List what has changed since a checkpoint was written.

    Raises:
        TrainingError: something has, and that is not allowed.
    """
    if not changes:
        return
    listed = "\n".join(f"  {change}" for change in changes)
    if not allowed:
        raise TrainingError(
            f"resuming {path}: its run was another one:\n{listed}\n"
            "Restore this, or resume with what is new: --allow-changed"
        )
    log.info("resuming %s with changes:\n%s", path, listed)


def recorded_model(run: Any, *, auto: bool) -> dict[str, Any] | None:
    """Return the model section of the run that goes on, as its files have it; None if there is none.

    Args:
        run: the ``run`` section.
        auto: the run may go on in its output folder.
    Raises:
        WeightsError: ``resume_ckpt_path`` is not a checkpoint.
    """
    config = Path(run.output_dir, "config.yaml")
    if auto and config.is_file():
        saved: Any = config.read_text(encoding="utf-8")
    elif run.resume_ckpt_path is not None:
        saved = read_checkpoint(run.resume_ckpt_path).get("config")
    else:
        return None
    return (yaml.safe_load(saved) or {}).get("model") if isinstance(saved, str) else None


def changed_settings(saved: str, job: JobConfig) -> Iterator[str]:
    """Yield a line for each setting that alters training and is not what it was: key, old and new value.

    Paths (but not commits of what is on the hub), and fields that are ``Operational`` or published without effect, are left
    out. A setting that an older version did not have counts if it is not the default.

    Args:
        saved: the resolved YAML of the run before.
        job: the config of the run now.
    """
    old, new = (_trained_on(yaml.safe_load(text) or {}) for text in (saved, job.to_yaml()))
    for section in SECTIONS:
        yield from _changes(getattr(job, section), old.get(section), new.get(section), (section,))
    before, now = (list(data.get("datasets") or {}) for data in (old, new))
    if before != now and sorted(before) == sorted(now):
        yield f"datasets: in the order {', '.join(before)} in the checkpoint, {', '.join(now)} now"


def _trained_on(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config without the data sets that are only validated on."""
    datasets = config.get("datasets") or {}
    return config | {"datasets": {name: one for name, one in datasets.items() if one.get("split", "train") == "train"}}


def _changes(config: Any, old: Any, new: Any, path: KeyPath) -> Iterator[str]:
    """Yield the changes in the value at ``path``, whose Config is given if it has one."""
    if isinstance(old, dict) and isinstance(new, dict):
        skipped, defaults = _skipped(config), _defaults(config)
        for key in [*new, *(key for key in old if key not in new)]:
            before, now = (data.get(key, _ABSENT) for data in (old, new))
            if key in skipped:
                yield from _other_version(before, now, (*path, key))
                continue
            if before is _ABSENT and key in defaults and defaults[key] == now:
                continue
            inner = config.get(key) if isinstance(config, dict) else getattr(config, key, None)
            yield from _changes(inner, before, now, (*path, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, now) in enumerate(zip(old, new, strict=True)):
            inner = config[index] if isinstance(config, list | tuple) else None
            yield from _changes(inner, before, now, (*path, index))
    elif old != new:
        yield f"{dotted(path)}: {_shown(old)} in the checkpoint, {_shown(new)} now"


def _other_version(before: Any, now: Any, path: KeyPath) -> Iterator[str]:
    """Yield the change from one commit of a model or file of the hub to another one; paths may change."""
    found = [HubReference.parse(value) if isinstance(value, str) else None for value in (before, now)]
    if all(one is not None and one.revision for one in found) and found[0] != found[1]:
        yield f"{dotted(path)}: {_shown(before)} in the checkpoint, {_shown(now)} now"


def _skipped(config: Any) -> set[str]:
    """Return the fields of a Config that do not alter training."""
    if not is_dataclass(config):
        return set()
    hints = typing.get_type_hints(type(config), include_extras=True)
    marks = {name: [m for arm in (hint, *arms(hint)) for m in split(arm)[1]] for name, hint in hints.items()}
    free = {name for name, found in marks.items() if any(isinstance(m, ExistingPath | Operational) for m in found)}
    return free | set(getattr(config, "PUBLISHED", ()))


def _defaults(config: Any) -> dict[str, Any]:
    """Return the defaults of a Config's fields, as a YAML has them."""
    if not is_dataclass(config):
        return {}
    hints = typing.get_type_hints(type(config), include_extras=True)
    return {member.name: plain(hints[member.name], default_of(member)) for member in fields(config)}


def _shown(value: Any) -> str:
    """Return a value on one line."""
    return "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
