"""``video-llama evaluate``: score a model on a benchmark."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Annotated, Any

import yaml

from video_llama.cli.options import (
    add_batch_size_flag,
    add_generation_flags,
    add_model_flags,
    generation_settings,
    job_world,
    model_options,
)
from video_llama.common.errors import ConfigError
from video_llama.common.registry import BENCHMARKS, import_problem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = (
        "An evaluation that was killed resumes with the same command. Under torchrun, processes with a GPU each share the "
        "questions."
    )
    add_model_flags(parser)
    parser.add_argument(
        "--benchmark",
        nargs="+",
        required=True,
        metavar=("NAME", "KEY=VALUE"),
        help="registered name of the benchmark, and its settings",
    )
    parser.add_argument("--imports", nargs="*", default=[], metavar="MODULE", help="modules that register benchmarks")
    parser.add_argument("--output", required=True, type=Path, metavar="JSONL", help="file that gets the answers")
    add_batch_size_flag(parser)
    add_generation_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Answer the questions that have no answer yet, and print the scores as JSON; return 1 if no question has one."""
    from video_llama.evaluation.benchmark import evaluate  # slow to import
    from video_llama.inference.model import ConfiguredModel

    settings = generation_settings(args)
    if problems := [problem for module in args.imports if (problem := import_problem(module))]:
        raise ConfigError([f"--imports: {problem}" for problem in problems])
    model = ConfiguredModel(args.cfg_path, model_options(args), args.device)
    model.key  # noqa: B018  # checks the YAML, and imports what it names, before the benchmark is looked up
    config = benchmark_config(*args.benchmark)
    benchmark = BENCHMARKS.get(args.benchmark[0])(config)
    with job_world(args) as world:
        result = evaluate(benchmark, model, args.output, settings=settings, batch_size=args.batch_size, world=world)
    if result is None:
        return 0
    answered, failed = len(result.outcomes.answers), len(result.outcomes.errors)
    print(json.dumps({"scores": dict(result.scores), "answered": answered, "failed": failed}))
    return int(not answered)


def benchmark_config(name: str, *settings: str) -> Any:
    """Return the Config of a benchmark.

    Args:
        name: a registered name.
        settings: ``key=value``, with values as in ``--options``.
    Raises:
        ConfigError: a setting is wrong, or the name is unknown.
    """
    from video_llama.config.fields import Registered
    from video_llama.config.overrides import option_value
    from video_llama.config.problems import Problems
    from video_llama.config.validation import Context, validate

    data: dict[str, Any] = {"name": name}
    problems = Problems("--benchmark")
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise ConfigError([f"--benchmark {name}: {setting!r}: expected KEY=VALUE"])
        try:
            data[key] = option_value(value, problems)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError([f"--benchmark {name}: {key}: not YAML: {value!r}"]) from error
    config = validate(Annotated[Any, Registered(BENCHMARKS, key="name")], data, (), problems, Context())
    problems.raise_if_any()
    return config
