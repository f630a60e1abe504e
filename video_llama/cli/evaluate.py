"""``video-llama evaluate``: score a model on benchmarks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml

from video_llama.cli.judge import JUDGE_HELP, judge_results
from video_llama.cli.options import (
    add_batch_size_flag,
    add_generation_flags,
    generation_settings,
    job_world,
)
from video_llama.common.errors import ConfigError, OutputError
from video_llama.common.registry import BENCHMARKS, import_problem
from video_llama.config.flags import add_model_flags, model_options
from video_llama.evaluation.conditions import CONDITIONS, chosen_conditions, others

if TYPE_CHECKING:
    from video_llama.conversation.settings import GenerationSettings
    from video_llama.evaluation.benchmark import Benchmark
    from video_llama.evaluation.judges import Judge
    from video_llama.inference.model import ConfiguredModel

SHARED = ("annotations", "media_dir", "limit")
"""Flags that set a setting of each benchmark that has it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = (
        "An evaluation that was killed resumes with the same command. Under torchrun, processes with a GPU each share the "
        "questions. Benchmarks: " + ", ".join(BENCHMARKS.names()) + "."
    )
    add_model_flags(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--benchmark",
        nargs="+",
        metavar="NAME|KEY=VALUE",
        help="registered names of benchmarks, each followed by settings of its own",
    )
    what.add_argument(
        "--again",
        type=Path,
        metavar="RESULTS",
        help="repeat the evaluation of a results.json, with its settings, and compare the answers; exit code 1 if any differs",
    )
    parser.add_argument(
        "--annotations",
        metavar="PATH",
        help="folder or file of annotations; a folder NAME in it is used for that benchmark",
    )
    parser.add_argument(
        "--media-dir", metavar="DIR", help="folder of clips; a folder NAME in it is used for that benchmark"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="ask only the first N questions of each benchmark")
    parser.add_argument(
        "--conditions",
        metavar="NAMES",
        help="ask the questions also with an input removed or replaced, and report how much of the answers depends on it: "
        "comma-separated, of " + ", ".join(CONDITIONS),
    )
    parser.add_argument("--imports", nargs="*", default=[], metavar="MODULE", help="modules that register benchmarks")
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder that gets results.json, its page as report.html, and answers as NAME.jsonl",
    )
    parser.add_argument("--judge", metavar="JUDGE", help=f"after the answers, {JUDGE_HELP}")
    add_batch_size_flag(parser)
    add_generation_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Answer the questions that have no answer yet, write the results, and print the scores; return 1 if none has an answer."""
    from video_llama.cli.evaluate_again import (
        check_same,
        recorded_conditions,
        recorded_configs,
        recorded_settings,
        report_changes,
    )
    from video_llama.config.serialize import named_paths
    from video_llama.evaluation.comparison import read_results  # slow to import
    from video_llama.evaluation.judges import judge_of
    from video_llama.evaluation.results import results

    if problems := [problem for module in args.imports if (problem := import_problem(module))]:
        raise ConfigError([f"--imports: {problem}" for problem in problems])
    conditions = chosen_conditions(args.conditions) if args.conditions is not None else ()
    judge = judge_of(args.judge, args.device) if args.judge is not None else None
    model = asked_model(args)
    before = read_results(args.again) if args.again is not None else None
    settings = generation_settings(args) if before is None else recorded_settings(args, before)
    shared = {name: value for name in SHARED if (value := getattr(args, name)) is not None}
    configs = benchmark_configs(args.benchmark, shared) if before is None else recorded_configs(before, shared)
    benchmarks = {name: BENCHMARKS.get(name)(config) for name, config in configs.items()}
    for benchmark in benchmarks.values():
        benchmark.items()  # so that problems of any show before the first is answered
    if before is not None:
        check_same(before, results(model, settings, {}), benchmarks, named_paths(model.job.model))
        conditions = recorded_conditions(conditions, before)
    content = score(args, model, settings, benchmarks, conditions, judge)
    if content is None:
        return 0
    if before is not None:
        return report_changes(before, content)
    return int(not any(record["answered"] for record in content["benchmarks"].values()))


def asked_model(args: argparse.Namespace) -> ConfiguredModel:
    """Return the model that the flags name. What its YAML imports is imported, so that it can register benchmarks.

    Raises:
        VideoLlamaError: the YAML cannot be used.
    """
    from video_llama.inference.model import ConfiguredModel  # slow to import

    model = ConfiguredModel(args.cfg_path, model_options(args), args.device)
    model.key  # noqa: B018  # checks the YAML
    return model


def score(
    args: argparse.Namespace,
    model: ConfiguredModel,
    settings: GenerationSettings,
    benchmarks: Mapping[str, Benchmark],
    conditions: Sequence[str],
    judge: Judge | None = None,
) -> dict[str, Any] | None:
    """Answer the questions that have no answer yet, write the results and their pictures, and print the scores.

    Args:
        args: with ``output``, ``batch_size`` and ``device``.
        model: that answers.
        settings: of its answers.
        benchmarks: what is asked, by name.
        conditions: names of ``CONDITIONS``, ``full`` among them; empty: none besides it.
        judge: grades the answers; None: nobody does.
    Returns:
        The content of ``results.json``; None in other processes than the first.
    Raises:
        VideoLlamaError: an output cannot be written, or see ``InferenceJob.run``.
    """
    from video_llama.cli.evaluation_page import evaluation_html
    from video_llama.cli.page import write_page
    from video_llama.evaluation.benchmark import evaluate
    from video_llama.evaluation.published_benchmark import PublishedBenchmark
    from video_llama.evaluation.results import results, summary_lines, write_results

    scored = {}
    with job_world(args) as world:
        if args.output.exists() and not args.output.is_dir():
            raise OutputError(f"{args.output}: a file; name a folder")
        for name, benchmark in benchmarks.items():
            if world.is_main and isinstance(benchmark, PublishedBenchmark):
                benchmark.warn(name)
            file = args.output / f"{name}.jsonl"
            result = evaluate(
                benchmark, model, file,
                settings=settings, batch_size=args.batch_size, world=world, conditions=others(conditions),
            )  # fmt: skip
            if result is not None:
                scored[name] = (benchmark, result)
        if not world.is_main:
            return None
        content = results(model, settings, scored)
        write_results(args.output, content)
    if judge is not None:
        content = judge_results(content, judge, args.output / "results.json")
    else:
        for line in summary_lines(content):
            print(line)
    show_reliance(args.output, content)
    write_page(args.output / "report.html", evaluation_html(content))
    return content


def show_reliance(output: Path, content: Mapping[str, Any]) -> None:
    """Print and draw how answers under conditions compare, if any were asked."""
    from video_llama.evaluation.reliance_picture import can_draw, draw_reliance
    from video_llama.evaluation.reliance_table import reliance_lines

    found = {name: record["reliance"] for name, record in content["benchmarks"].items() if "reliance" in record}
    for name, reliance in found.items():
        print("", *reliance_lines(name, reliance), sep="\n")
        if can_draw():
            draw_reliance(output / f"{name}.reliance.png", name, reliance)
    if found and not can_draw():
        print("matplotlib draws pictures of these: pip install 'video_llama[plot]'", file=sys.stderr)


def benchmark_configs(words: Sequence[str], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Config of each benchmark that is named.

    Args:
        words: names, each followed by its settings as ``key=value``.
        shared: settings of all benchmarks that have them, unless they set their own.
    Raises:
        ConfigError: a word is neither a name nor a setting, a name occurs twice, a setting is wrong, or a shared one is one of
            no benchmark.
    """
    named: dict[str, list[str]] = {}
    for word in words:
        if "=" in word and named:
            named[list(named)[-1]].append(word)
        elif word not in BENCHMARKS:
            raise ConfigError([f"--benchmark: {BENCHMARKS.unknown(word)} A setting is KEY=VALUE, after the name."])
        elif word in named:
            raise ConfigError([f"--benchmark: {word} is named twice"])
        else:
            named[word] = []
    known = {name: _setting_names(name) for name in named}
    if idle := [key for key in shared if not any(key in names for names in known.values())]:
        raise ConfigError([f"--{idle[0].replace('_', '-')}: no setting of {', '.join(named)}"])
    return {
        name: benchmark_config(
            name,
            *settings,
            defaults={key: _own_part(name, value) for key, value in shared.items() if key in known[name]},
        )
        for name, settings in named.items()
    }


def _setting_names(name: str) -> set[str]:
    config = BENCHMARKS.config(name)
    return {field.name for field in fields(config)} if config is not None else set()


def _own_part(name: str, value: Any) -> Any:
    """Return the folder of a benchmark's name within a shared folder, if there is one."""
    return str(Path(value) / name) if isinstance(value, str) and (Path(value) / name).is_dir() else value


def benchmark_config(name: str, *settings: str, defaults: Mapping[str, Any] | None = None) -> Any:
    """Return the Config of a benchmark.

    Args:
        name: a registered name.
        settings: ``key=value``, with values as in ``--options``.
        defaults: settings that these replace.
    Raises:
        ConfigError: a setting is wrong, or the name is unknown.
    """
    from video_llama.config.fields import Registered
    from video_llama.config.overrides import option_value
    from video_llama.config.problems import Problems
    from video_llama.config.validation import Context, validate

    data: dict[str, Any] = {"name": name, **(defaults or {})}
    problems = Problems("--benchmark")
    for setting in settings:
        key, _, value = setting.partition("=")
        try:
            data[key] = option_value(value, problems)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError([f"--benchmark {name}: {key}: not YAML: {value!r}"]) from error
    config = validate(Annotated[Any, Registered(BENCHMARKS, key="name")], data, (), problems, Context())
    problems.raise_if_any()
    return config
