"""``video-llama``: run one command, and turn its errors into messages and exit codes."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from types import ModuleType
from typing import NamedTuple

from video_llama import __version__
from video_llama.common.errors import Preempted, VideoLlamaError
from video_llama.common.garbage import exit_without_collection
from video_llama.common.registry import import_problem


class Command(NamedTuple):
    """A command: its module has ``add_arguments(parser)`` and ``run(args) -> exit code``."""

    module: str
    help: str


COMMAND_GROUP = "video_llama.commands"

COMMANDS = {
    "configs": Command("video_llama.cli.configs", "list the configurations that ship with the package, or copy one"),
    "check-config": Command("video_llama.cli.check_config", "check YAML files before a run"),
    "make-shards": Command("video_llama.cli.make_shards", "write a data set into tar files in webdataset's layout"),
    "check-data": Command("video_llama.cli.check_data", "open all files of a run's data, and report what is in them"),
    "preview": Command("video_llama.cli.preview", "show the first samples of a run on a web page, token by token"),
    "plan": Command("video_llama.cli.plan", "estimate memory and speed of a config, on any card, without its weights"),
    "cache-features": Command(
        "video_llama.cli.cache_features",
        "store what the frozen encoders make of a run's files, for training without them",
    ),
    "train": Command("video_llama.cli.train", "train a model from one YAML"),
    "runs": Command("video_llama.cli.runs", "list training runs, with their state, and compare their curves"),
    "chat": Command("video_llama.cli.chat", "chat with a model about videos, images and sound"),
    "demo": Command("video_llama.demo.command", "chat in the browser"),
    "serve": Command("video_llama.serving.serve", "answer questions over HTTP, in the protocol of OpenAI's API"),
    "infer": Command("video_llama.cli.infer", "answer a file of questions about many files, in batches"),
    "evaluate": Command("video_llama.cli.evaluate", "score a model on benchmarks"),
    "judge": Command("video_llama.cli.judge", "have a language model grade the answers of an evaluation"),
    "reliance": Command(
        "video_llama.cli.reliance", "measure how much of the answers comes from sight and sound, on any questions"
    ),
    "compare": Command("video_llama.cli.compare", "compare the scores of two evaluations"),
    "probe": Command("video_llama.cli.probe", "show what a model would be given of a clip"),
    "schema": Command("video_llama.cli.schema", "print the JSON Schema of the YAML files, for editors"),
    "download": Command("video_llama.cli.download", "download published weights by name, or list them"),
    "inspect-weights": Command(
        "video_llama.cli.inspect_weights", "identify a weights file, and say whether it fits a config"
    ),
    "convert-weights": Command(
        "video_llama.cli.convert_weights", "convert weights from the original's names to ours, or back"
    ),
    "export": Command("video_llama.cli.export", "write a model as a folder for the Hugging Face hub"),
    "merge-lora": Command("video_llama.cli.merge_lora", "merge adapters into the decoder, in a new folder"),
    "export-decoder": Command(
        "video_llama.cli.export_decoder", "write a decoder that was trained in full as a Hugging Face folder"
    ),
    "apply-delta": Command("video_llama.cli.apply_delta", "add a published delta to its base model, or subtract it"),
}


def commands() -> dict[str, Command]:
    """Return the built-in commands, and those of installed packages: entry points of the group ``video_llama.commands``.

    A name that is taken keeps its first meaning, with a warning.
    """
    found = dict(COMMANDS)
    for point in entry_points(group=COMMAND_GROUP):
        if point.name in found:
            owner = "built in" if point.name in COMMANDS else f"a command of {found[point.name].module}"
            print(
                f"warning: entry point {point.name} = {point.value} is ignored: '{point.name}' is {owner}",
                file=sys.stderr,
            )
            continue
        found[point.name] = Command(point.value, f"from {point.value}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 an error was reported, 2 wrong usage, 75 stopped on request and to
    be continued, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
    exit_without_collection()
    try:
        code = _run(argv)
        sys.stdout.flush()  # here, where a closed pipe is caught, rather than at exit
        return code
    except VideoLlamaError as error:
        print(f"{'stopped' if isinstance(error, Preempted) else 'error'}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has gone. Python flushes stdout again at exit, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="video-llama", description="Train, evaluate and chat with audio-visual language models."
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    module = None
    for name, command in commands().items():
        description = f"{command.help[0].upper()}{command.help[1:]}."
        subparser = subparsers.add_parser(name, help=command.help, description=description)
        if argv[:1] == [name]:  # only the chosen command is imported, so that --help is quick
            module = _imported(name, command)
            module.add_arguments(subparser)
    args = parser.parse_args(argv)
    assert module is not None, "argparse accepts no other first word"
    return int(module.run(args))


def _imported(name: str, command: Command) -> ModuleType:
    if name in COMMANDS:
        return importlib.import_module(command.module)
    if (problem := import_problem(command.module)) is not None:
        raise VideoLlamaError(f"command {name}: {problem}")
    return importlib.import_module(command.module)


if __name__ == "__main__":
    sys.exit(main())
