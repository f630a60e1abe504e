"""The command: its arguments, the share of each process, and the output in the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from video_llama.cli.generation_flags import add_generation_flags, generation_settings
from video_llama.common.errors import VideoLlamaError

if TYPE_CHECKING:
    from video_llama.cli.infer.journal import Journal, Record
    from video_llama.cli.infer.questions import BadLine, Item
    from video_llama.common.distributed import World
    from video_llama.conversation.batches import FileAnswer
    from video_llama.conversation.settings import GenerationSettings

READERS = 4
"""Processes that read files for one GPU. On the CPU they would only take time from the model."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = (
        "Killed or interrupted, the same command goes on where it was; what failed is tried again. Under torchrun, as in "
        "`torchrun --nproc_per_node=8 --no-python video-llama infer ...`, processes with a GPU each share the questions."
    )
    parser.add_argument("--cfg-path", required=True, metavar="YAML", help="such as eval_configs/toy.yaml")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="JSONL",
        help='questions, one a line: {"id": ..., "video" or "image" or "audio": FILE, "question": ...}',
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="JSONL",
        help='answers, in the same order: {"id": ..., "answer": ...}, or "error" in place of "answer". Until all are '
        "there, they are kept in files beside it whose names end with journal0 and so on",
    )
    parser.add_argument("--media-dir", default="", metavar="DIR", help="where relative paths of files start")
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="questions answered at once (default: %(default)s)"
    )
    parser.add_argument(
        "--audio",
        action=argparse.BooleanOptionalAction,
        help="hear the sound of clips, and fail where there is none; or do not. Default: hear it where there is any",
    )
    add_generation_flags(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one")


def run(args: argparse.Namespace) -> int:
    """Answer what has no answer yet, and write the output; return 1 if there is no answer at all."""
    from video_llama.cli.infer.answers import file_to_write  # slow to import
    from video_llama.cli.infer.journal import Journal
    from video_llama.cli.infer.questions import read_items
    from video_llama.common.distributed import join_apart
    from video_llama.conversation.loading import device_for_use

    if args.batch_size < 1:
        raise VideoLlamaError(f"--batch-size: {args.batch_size}; expected at least 1")
    settings, device = generation_settings(args), device_for_use(args.device)
    items, output = read_items(args.input, args.media_dir, args.audio), file_to_write(args.output)
    world = join_apart(device)
    try:
        with Journal(output, world.rank) as journal:
            return _run_share(args, settings, items, output, journal, world)
    except KeyboardInterrupt:
        if world.is_main:
            print("stopped; the same command goes on from here", file=sys.stderr)
        raise
    finally:
        world.close()


def _run_share(
    args: argparse.Namespace,
    settings: GenerationSettings,
    items: Sequence[Item | BadLine],
    output: Path,
    journal: Journal,
    world: World,
) -> int:
    """Do this process's part of a run; the first process also writes the output."""
    from video_llama.cli.infer.answers import answer_lines, answers_there, is_error, write_answers
    from video_llama.cli.infer.journal import read_journals
    from video_llama.cli.infer.keys import item_keys
    from video_llama.cli.infer.questions import Item
    from video_llama.common.config import load_config

    good = [item for item in items if isinstance(item, Item)]
    keys = item_keys(good, load_config(args.cfg_path, args.options, also=("datasets",)), settings)
    done = read_journals(output)
    if answers_there(output) - set(answer_lines(items, keys, done)):
        raise VideoLlamaError(
            f"--output: {args.output} holds something else already, such as answers to other questions, of another model, "
            "or with other settings. Name another file, or move that one away: what still holds of it is kept beside it, "
            "in its journal, and is not asked again."
        )
    world.barrier()  # all have read the same before one writes
    batches = _left(good, keys, done, args.batch_size)
    if world.is_main and (n_done := len(good) - sum(map(len, batches))):
        print(f"{n_done} of {len(items)} questions are answered already", file=sys.stderr)
    _answer(args, settings, batches[world.rank :: world.size], keys, journal, world)
    world.barrier()
    if not world.is_main:
        return 0
    lines = answer_lines(items, keys, read_journals(output))
    if missing := len(items) - len(lines):
        raise VideoLlamaError(
            f"--output: {args.output} is not written: {missing} of {len(items)} answers are in no journal beside it. All "
            "processes must see one folder, and journals must stay until the end. The same command asks for the rest."
        )
    write_answers(output, lines)
    n_failed = sum(map(is_error, lines))
    again = "; once their causes are mended, the same command asks them again, and only them" if n_failed else ""
    print(f"{args.output}: {len(lines) - n_failed} answered, {n_failed} failed{again}")
    return int(n_failed == len(lines))


def _left(items: Sequence[Item], keys: Mapping[Item, str], done: Mapping[str, Record], size: int) -> list[list[Item]]:
    """Cut all items into batches, and leave out what is answered: so going on gives the bits of never having stopped."""
    batches = [items[i : i + size] for i in range(0, len(items), size)]
    left = [[item for item in batch if "answer" not in done.get(keys[item], {})] for batch in batches]
    return [batch for batch in left if batch]


def _answer(
    args: argparse.Namespace,
    settings: GenerationSettings,
    batches: Sequence[Sequence[Item]],
    keys: Mapping[Item, str],
    journal: Journal,
    world: World,
) -> None:
    """Answer batches, and write each down."""
    from video_llama.conversation.batches import answer_batches
    from video_llama.conversation.chat import Chat

    if not batches:
        return
    chat = Chat.from_config(args.cfg_path, args.options, args.device)
    if args.audio:
        chat.reader.check_hears()
    asked = [[item.asked for item in batch] for batch in batches]
    num_workers = READERS if world.device.type == "cuda" else 0
    n_failed = 0
    with tqdm(
        total=sum(map(len, batches)),
        desc=f"process 1 of {world.size}" if world.size > 1 else None,
        unit="question",
        disable=not world.is_main,
        mininterval=0.2 if sys.stderr.isatty() else 10,  # a log file wants a line now and then
    ) as bar:
        answers = answer_batches(chat, asked, settings, num_workers=num_workers)
        for batch, outcomes in zip(batches, answers, strict=True):
            records = [_record(keys[item], outcome) for item, outcome in zip(batch, outcomes, strict=True)]
            journal.append(records)
            n_failed += sum("error" in record for record in records)
            bar.set_postfix(failed=n_failed, refresh=False)
            bar.update(len(batch))


def _record(key: str, outcome: FileAnswer | VideoLlamaError) -> Record:
    """Return what the journal says of an outcome; of the sound only where it was there and could not be heard."""
    if isinstance(outcome, VideoLlamaError):
        return {"key": key, "error": str(outcome)}
    return {"key": key, "answer": outcome.text} | ({"sound": outcome.sound} if outcome.sound_failed else {})
