"""``video-llama evaluate --again``: the settings of earlier results, whether the model is the same, and which answers changed."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from video_llama.cli.options import generation_settings
from video_llama.common.errors import ConfigError, DataError
from video_llama.common.registry import BENCHMARKS
from video_llama.config.fields import Registered
from video_llama.config.problems import Problems
from video_llama.config.validation import Context, validate
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.comparison import settings_that_differ
from video_llama.evaluation.published_benchmark import PublishedBenchmark

Results = Mapping[str, Any]


def recorded_settings(args: argparse.Namespace, before: Results) -> GenerationSettings:
    """Return the generation settings of earlier results.

    Raises:
        ConfigError: a flag sets another value.
    """
    recorded = GenerationSettings(**before["generation"])
    if (given := generation_settings(args)) not in (GenerationSettings(), recorded):
        raise ConfigError(
            [f"--again: the results were made with {recorded}, and the flags say {given}. Leave them out."]
        )
    return recorded


def recorded_conditions(given: tuple[str, ...], before: Results) -> tuple[str, ...]:
    """Return the conditions of earlier results; empty: none besides ``full``.

    Raises:
        ConfigError: others are given.
    """
    recorded = next((tuple(r["reliance"]["conditions"]) for r in before["benchmarks"].values() if "reliance" in r), ())
    if given and given != recorded:
        raise ConfigError(
            [f"--again: the results have the conditions {', '.join(recorded) or 'full'}. Leave --conditions out."]
        )
    return recorded


def recorded_configs(before: Results, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Config of each benchmark of earlier results.

    Args:
        before: the results.
        shared: settings that replace those recorded, such as the folder of clips on another machine.
    Raises:
        ConfigError: a setting cannot be used here.
    """
    problems, configs = Problems("--again"), {}
    for name, record in before["benchmarks"].items():
        recorded = {key: value for key, value in (record["settings"] or {}).items() if value is not None}
        data = {
            **recorded,
            **{key: value for key, value in shared.items() if key in (record["settings"] or {})},
            "name": name,
        }
        configs[name] = validate(Annotated[Any, Registered(BENCHMARKS, key="name")], data, (name,), problems, Context())
    problems.raise_if_any()
    return configs


def check_same(before: Results, now: Results, benchmarks: Mapping[str, Any], paths: Collection[str]) -> None:
    """Raise DataError if the model or the annotations are not those of earlier results.

    Args:
        before: the earlier results.
        now: what would be recorded of the model.
        benchmarks: that would be asked.
        paths: values of the model's config that say where weights are. Those are compared by digest instead.
    """
    keys = ("config", "inference", "weights")
    problems = [
        found
        for key in keys
        for found in settings_that_differ(f"model.{key}", before["model"][key], now["model"][key])
        if found.second not in paths
    ]
    for name, benchmark in benchmarks.items():
        if isinstance(benchmark, PublishedBenchmark):
            recorded = before["benchmarks"][name].get("annotations")
            problems += settings_that_differ(f"{name}.annotations", recorded, benchmark.files.digests())
    if problems:
        shown = "\n".join(map(str, problems[:10]))
        raise DataError(f"--again: the results are of another model, or of other annotations:\n{shown}")


def report_changes(before: Results, now: Results) -> int:
    """Print which answers changed; return 1 if any did."""
    changed = 0
    for name, record in before["benchmarks"].items():
        earlier, again = (_answers(items) for items in (record["items"], now["benchmarks"][name]["items"]))
        different = [id for id in earlier.keys() | again.keys() if earlier.get(id) != again.get(id)]
        print(f"{name}: {len(earlier) - len(different)} of {len(earlier)} answers are the same")
        for id in sorted(different, key=str)[:20]:
            print(f"{name} {id}: {earlier.get(id)!r} | {again.get(id)!r}")
        changed += len(different)
    return int(changed > 0)


def _answers(items: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """Return answers by question and, if there is one, condition."""
    found = {str(item["id"]): item.get("answer") for item in items}
    for item in items:
        found |= {f"{item['id']}, {name}": there.get("answer") for name, there in item.get("conditions", {}).items()}
    return found
