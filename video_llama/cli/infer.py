"""``video-llama infer``: a file of questions on many files, answered in batches, on one GPU or several."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

from video_llama.cli.generation_flags import add_generation_flags, generation_settings
from video_llama.common.errors import VideoLlamaError

if TYPE_CHECKING:
    from video_llama.cli.infer_journal import Record
    from video_llama.cli.infer_keys import Task
    from video_llama.common.distributed import World
    from video_llama.conversation.batches import FileQuestion
    from video_llama.conversation.settings import GenerationSettings

    Asked = tuple[FileQuestion, str]
    """A question, and its key."""

READERS = 4
"""Processes that read files for one GPU. On the CPU they would only take time from the model."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
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
        help='answers, in the same order: {"id": ..., "answer": ...}, or "error" in place of "answer"',
    )
    parser.add_argument("--media-dir", default="", metavar="DIR", help="where relative paths of files start")
    parser.add_argument("--batch-size", type=int, default=8, help="questions answered at once (default: %(default)s)")
    parser.add_argument(
        "--audio",
        action=argparse.BooleanOptionalAction,
        help="hear the clips' sound, and fail where there is none; or do not. Default: hear it where there is any",
    )
    add_generation_flags(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one, one a process")


def run(args: argparse.Namespace) -> int:
    """Answer this process's share, wait for the others, and let the first process write the output."""
    from video_llama.cli.infer_answers import answer_lines, is_error, read_answers, write_answers  # slow to import
    from video_llama.cli.infer_journal import read_journals
    from video_llama.cli.infer_keys import with_keys
    from video_llama.cli.infer_questions import read_items
    from video_llama.common.config import load_config
    from video_llama.common.distributed import join_apart
    from video_llama.conversation.loading import device_for_use

    if args.batch_size < 1:
        raise VideoLlamaError(f"--batch-size: {args.batch_size}; expected at least 1")
    settings, device = generation_settings(args), device_for_use(args.device)
    items = read_items(args.input, args.media_dir, args.audio)
    tasks = with_keys(items, load_config(args.cfg_path, args.options, also=("datasets",)), settings)
    there, done = read_answers(args.output), read_journals(args.output)
    if set(there) - set(answer_lines(tasks, done)):
        raise VideoLlamaError(
            f"--output: {args.output} holds something else already, such as answers to other questions, of another model or "
            "with other settings. Name another file, or move that one away."
        )
    world = join_apart(device)
    try:
        _answer_share(args, settings, tasks, done, world)
        world.barrier()
        if world.is_main:
            lines = answer_lines(tasks, read_journals(args.output))
            write_answers(args.output, lines)
            n_failed = sum(map(is_error, lines))
            again = "; the same command tries them again, and only them" if n_failed else ""
            print(f"{args.output}: {len(lines) - n_failed} answers, {n_failed} errors{again}")
    except KeyboardInterrupt:
        if world.is_main:
            print("stopped; the same command goes on from here", file=sys.stderr)
        raise
    finally:
        world.close()
    return 0


def _answer_share(
    args: argparse.Namespace,
    settings: GenerationSettings,
    tasks: Sequence[Task],
    done: Mapping[str, Record],
    world: World,
) -> None:
    """Answer those questions of this process that have no answer yet, and write each batch down."""
    from video_llama.cli.infer_journal import Journal
    from video_llama.conversation.batches import answer_batches
    from video_llama.conversation.chat import Chat

    share = _cut(tasks, args.batch_size)[world.rank :: world.size]
    batches = [
        todo for batch in share if (todo := [(asked, key) for asked, key in batch if "answer" not in done.get(key, {})])
    ]
    if not batches:
        return
    chat = Chat.from_config(args.cfg_path, args.options, args.device)
    if args.audio:
        chat.reader.check_hears()
    num_workers = READERS if world.device.type == "cuda" else 0
    answered = answer_batches(
        chat, [[asked for asked, _ in batch] for batch in batches], settings, num_workers=num_workers
    )
    with Journal(args.output, world.rank) as journal, _progress(share, batches, world) as bar:
        n_failed = 0
        for batch, outcomes in zip(batches, answered, strict=True):
            journal.append(
                {"key": key, "error" if isinstance(outcome, Exception) else "answer": str(outcome)}
                for (_, key), outcome in zip(batch, outcomes, strict=True)
            )
            n_failed += sum(isinstance(outcome, Exception) for outcome in outcomes)
            bar.set_postfix(errors=n_failed, refresh=False)
            bar.update(len(batch))


def _cut(tasks: Iterable[Task], size: int) -> list[list[Asked]]:
    """Cut what can be asked into batches: always the same, so that going on gives the bits of never having stopped."""
    asked = [(item.asked, key) for item, key in tasks if item.asked]
    return [asked[i : i + size] for i in range(0, len(asked), size)]


def _progress(share: Sequence[Sequence[Asked]], left: Sequence[Sequence[Asked]], world: World) -> tqdm[NoReturn]:
    n_share, n_left = sum(map(len, share)), sum(map(len, left))
    return tqdm(
        total=n_share,
        initial=n_share - n_left,
        unit="question",
        disable=not world.is_main,
        mininterval=0.2 if sys.stderr.isatty() else 10,  # a log file wants a line now and then
    )
