"""The work: what is asked and not answered yet, the share of each process, and the output in the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from video_llama.common.distributed import World, join_apart, process_numbers
from video_llama.common.errors import VideoLlamaError
from video_llama.config.loader import load_config
from video_llama.conversation.batching import FileAnswer, answer_batches
from video_llama.conversation.chat import Chat
from video_llama.conversation.files import NO_TRACK
from video_llama.conversation.loading import device_for_use
from video_llama.conversation.settings import GenerationSettings
from video_llama.inference.journal import Journal, Record, read_journals
from video_llama.inference.keys import item_keys
from video_llama.inference.output import answer_lines, answers_there, file_to_write, is_error, write_answers
from video_llama.inference.questions import BadLine, Item, read_items

READERS = 4
"""Threads that read files for one GPU. Without one they would only take time from the model."""


@dataclass(frozen=True)
class Inference:
    """One run of the command, as its flags say."""

    cfg_path: str
    options: Sequence[str]
    questions: Path
    output: Path
    media_dir: str
    batch_size: int
    hear: bool | None
    settings: GenerationSettings
    device: str

    def run(self) -> int:
        """Answer this process's share; in the first, write the output. Return 1 if there is no answer at all.

        Raises:
            VideoLlamaError: a flag, the YAML or the list is no good, the output is another's, or another process failed.
        """
        if self.batch_size < 1:
            raise VideoLlamaError(f"--batch-size: {self.batch_size}; expected at least 1")
        if ":" in self.device and process_numbers()[0] > 1:
            raise VideoLlamaError(
                f"--device: {self.device} is one GPU, and torchrun started several processes: say cuda"
            )
        world = join_apart(device_for_use(self.device))
        try:
            return self._run(world)
        except KeyboardInterrupt:
            if world.is_main:
                print("stopped; the same command goes on from here", file=sys.stderr)
            raise
        finally:
            world.close()

    def _run(self, world: World) -> int:
        items, file = read_items(self.questions, self.media_dir, self.hear), file_to_write(self.output)
        good = [item for item in items if isinstance(item, Item)]
        known = self._known(items, good, file) if world.is_main else ({}, {})
        with _others_at_work():
            keys, done = world.broadcast_object(known)
        batches = self._left(good, keys, done)
        if world.is_main and (n_done := len(good) - sum(map(len, batches))):
            print(f"{n_done} of {len(items)} questions are answered already", file=sys.stderr)
        share = slice(*(len(batches) * k // world.size for k in (world.rank, world.rank + 1)))
        with Journal(file, world.rank) as journal:
            self._answer(batches[share], keys, journal, world)
            if world.is_main and world.size > 1:
                print("waiting for the other processes", file=sys.stderr)
            with _others_at_work():
                world.barrier()
            return self._write(items, keys, file) if world.is_main else 0

    def _known(
        self, items: Sequence[Item | BadLine], good: Sequence[Item], file: Path
    ) -> tuple[dict[Item, str], dict[str, Record]]:
        """Return the keys of what can be asked, and what is known already."""
        keys = item_keys(good, load_config(self.cfg_path, self.options, also=("datasets",)), self.settings)
        there, done = answers_there(file), read_journals(file)
        if there - set(answer_lines(items, keys, done)):
            raise VideoLlamaError(
                f"--output: {self.output} holds something else already, such as answers to other questions, of another "
                "model, or with other settings. Name another file, or move that one away; its journal, if it has one, keeps "
                "the answers that still hold."
            )
        return keys, done

    def _left(self, items: Sequence[Item], keys: Mapping[Item, str], done: Mapping[str, Record]) -> list[list[Item]]:
        """Cut all items into batches, and leave out what is answered: a restart does not group the others anew."""
        batches = [items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)]
        left = [[item for item in batch if "answer" not in done.get(keys[item], {})] for batch in batches]
        return [batch for batch in left if batch]

    def _answer(
        self, batches: Sequence[Sequence[Item]], keys: Mapping[Item, str], journal: Journal, world: World
    ) -> None:
        """Answer batches, and write each down."""
        if not batches:
            return
        chat = Chat.from_config(self.cfg_path, self.options, self.device)
        if self.hear:
            chat.reader.check_hears()
        n_threads = READERS if world.device.type == "cuda" else 0
        asked = [[item.asked for item in batch] for batch in batches]
        n_failed = 0
        with tqdm(
            total=sum(map(len, batches)),
            desc=f"process 1 of {world.size}" if world.size > 1 else None,
            unit="question",
            disable=not world.is_main,
            mininterval=0.2 if sys.stderr.isatty() else 10,  # a log file wants a line now and then
        ) as bar:
            answers = answer_batches(chat, asked, self.settings, n_threads=n_threads)
            for batch, outcomes in zip(batches, answers, strict=True):
                records = [_record(keys[item], outcome) for item, outcome in zip(batch, outcomes, strict=True)]
                journal.append(records)
                n_failed += sum("error" in record for record in records)
                bar.set_postfix(failed=n_failed, refresh=False)
                bar.update(len(batch))

    def _write(self, items: Sequence[Item | BadLine], keys: Mapping[Item, str], file: Path) -> int:
        """Write the output and say what it holds."""
        done = read_journals(file)
        lines = answer_lines(items, keys, done)
        if missing := len(items) - len(lines):
            raise VideoLlamaError(
                f"--output: {self.output} is not written: {missing} of {len(items)} answers are in no journal beside it. "
                "All processes must see one folder, and journals must stay until the end. The same command asks for the rest."
            )
        write_answers(file, lines)
        n_failed = sum(map(is_error, lines))
        again = "; once their causes are mended, the same command asks them again, and only them" if n_failed else ""
        n_mute = sum(done[key].get("sound") == NO_TRACK for key in keys.values())
        mute = f" ({n_mute} without hearing anything: the clip has no sound track)" if n_mute else ""
        print(f"{self.output}: {len(lines) - n_failed} answered{mute}, {n_failed} failed{again}")
        return int(n_failed == len(lines))


def _record(key: str, outcome: FileAnswer | VideoLlamaError) -> Record:
    """Return what the journal says of an outcome."""
    if isinstance(outcome, VideoLlamaError):
        return {"key": key, "error": str(outcome)}
    return {"key": key, "answer": outcome.text, "sound": outcome.sound}


@contextmanager
def _others_at_work() -> Iterator[None]:
    """Say what it means when the processes cannot meet."""
    try:
        yield
    except RuntimeError as error:
        raise VideoLlamaError(
            f"another process has ended before its time; what it printed tells why. The same command goes on ({error})"
        ) from error
