"""What the commands that generate answers share: flags for generation, and the processes of a job."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING

from video_llama.common.errors import OutputError, VideoLlamaError
from video_llama.conversation.settings import GenerationSettings

if TYPE_CHECKING:
    from video_llama.common.distributed import World


def add_batch_size_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the batches of a job."""
    parser.add_argument(
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="questions answered at once by each process (default: %(default)s)",
    )


@contextmanager
def job_world(args: argparse.Namespace) -> Iterator[World]:
    """Join the processes that share a job for the time of the block.

    Raises:
        VideoLlamaError: a flag is wrong, or the output cannot be written.
    """
    from video_llama.common.distributed import choose_device, join_apart, process_numbers  # slow to import

    if args.batch_size < 1:
        raise VideoLlamaError(f"--batch-size: {args.batch_size}; expected at least 1")
    if ":" in args.device and process_numbers()[0] > 1:
        raise VideoLlamaError(f"--device: {args.device} is one GPU, and torchrun started several processes: use cuda")
    world = join_apart(choose_device(args.device))
    try:
        yield world
    except OutputError as error:
        raise VideoLlamaError(f"--output: {error}") from error
    finally:
        world.close()


def add_generation_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of ``GenerationSettings``."""
    defaults = GenerationSettings()
    group = parser.add_argument_group("generation")

    def add(flag: str, kind: type, text: str) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        metavar = "N" if kind is int else "X"
        group.add_argument(
            flag, type=kind, metavar=metavar, default=getattr(defaults, name), help=f"{text} (default: %(default)s)"
        )

    add("--max-new-tokens", int, "length limit of an answer, in tokens")
    add("--temperature", float, "0: greedy; above: sampling")
    add("--top-p", float, "sample from the smallest set of most likely tokens whose probabilities sum to this")
    add("--num-beams", int, "beams of beam search")
    add("--repetition-penalty", float, "above 1: tokens already in the answer become less likely")
    add("--frequency-penalty", float, "tokens become less likely each time that they are in the answer")
    add("--presence-penalty", float, "tokens already in the answer become less likely")
    add("--seed", int, "seed of sampling")


def generation_settings(args: argparse.Namespace) -> GenerationSettings:
    """Return the settings that the flags give.

    Raises:
        VideoLlamaError: a value is outside its range.
    """
    return GenerationSettings(**{field.name: getattr(args, field.name) for field in fields(GenerationSettings)})
