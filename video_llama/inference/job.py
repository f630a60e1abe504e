"""A job: a list of questions on files, answered into a JSONL file, resumable, and shared by several processes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from video_llama.common.distributed import World
from video_llama.common.errors import OutputError, VideoLlamaError
from video_llama.conversation.batching import FileAnswer
from video_llama.conversation.choosing import ChosenOption, answers_and_choices
from video_llama.conversation.likelihood import Likelihood
from video_llama.conversation.settings import GenerationSettings
from video_llama.inference.answers import answer_lines, existing_answers, prepared_output, write_answers
from video_llama.inference.items import BadLine, Item
from video_llama.inference.journal import Journal, Record, read_journals
from video_llama.inference.keys import item_keys
from video_llama.inference.model import JobModel
from video_llama.processors.media import NO_AUDIO_TRACK

READERS = 4
"""Threads that read files for one GPU. Without a GPU they would only take time from the model."""

ALONE = World(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class Outcomes:
    """The result of a job."""

    answers: Mapping[str | int, str]
    """By question id."""
    errors: Sequence[tuple[str | int | None, str]]
    """Id of each question without an answer (None: its line has no usable id), and the reason."""
    n_without_track: int = 0
    """Questions answered without sound because the clip has no track."""
    likelihoods: Mapping[str | int, Sequence[Likelihood]] = field(default_factory=dict)
    """Of the options of each ``ChoiceQuestion`` that is answered."""
    altered: frozenset[str | int] = frozenset()
    """Answered questions whose condition changed something; see ``EncodedFile``."""
    under: Mapping[str, Outcomes] = field(default_factory=dict)
    """Of the same questions under each other condition."""

    @cached_property
    def reasons(self) -> dict[str | int, str]:
        """Why questions have no answer, by id."""
        return {id: reason for id, reason in self.errors if id is not None}


@dataclass(frozen=True, kw_only=True)
class InferenceJob:
    """Questions for one model, and the file that gets the answers.

    Each process appends to a journal beside the output, so a job that is killed at any moment resumes, with any number of
    processes. Answered questions are not asked again; failed ones are.
    """

    items: Sequence[Item | BadLine]
    output: Path
    """JSONL file: the answer or the error of each item, in their order."""
    model: JobModel
    """Its engine is built only if a question is left to answer."""
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    batch_size: int = 8
    """Questions answered at once, by each process."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise VideoLlamaError(f"batch_size: {self.batch_size}; expected at least 1")
        ids = Counter((item.id, item.condition) for item in self.items if isinstance(item, Item))
        if repeated := [id for (id, _), n in ids.items() if n > 1]:
            raise VideoLlamaError(f"{len(repeated)} ids are those of several questions, such as {repeated[0]!r}")

    def run(self, world: World = ALONE) -> Outcomes:
        """Answer this process's share; the first process writes the output once all are done.

        Args:
            world: the processes that share the job.
        Returns:
            The outcomes; in other processes than the first, empty.
        Raises:
            OutputError: the output belongs to something else, or cannot be written.
            VideoLlamaError: the model cannot be built, has no audio branch and a question requires one, or another process
                failed.
        """
        try:
            return self._run(world)
        except KeyboardInterrupt:
            if world.is_main:
                print("stopped; run it again to resume", file=sys.stderr)
            raise

    def _run(self, world: World) -> Outcomes:
        file = prepared_output(self.output)
        good = [item for item in self.items if isinstance(item, Item)]
        known = self._known(good, file) if world.is_main else ({}, {})
        with _other_processes():
            keys, done = world.broadcast_object(known)
        batches = self._left(good, keys, done)
        if world.is_main and (n_done := len(good) - sum(map(len, batches))):
            print(f"{n_done} of {len(self.items)} questions are answered already", file=sys.stderr)
        share = slice(*(len(batches) * k // world.size for k in (world.rank, world.rank + 1)))
        with Journal(file, world.rank) as journal:
            self._answer(batches[share], keys, journal, world)
            if world.is_main and world.size > 1:
                print("waiting for the other processes", file=sys.stderr)
            with _other_processes():
                world.barrier()
            return self._write(keys, file) if world.is_main else Outcomes({}, ())

    def _known(self, good: Sequence[Item], file: Path) -> tuple[dict[Item, str], dict[str, Record]]:
        """Return the key of each item, and the journals' records."""
        keys = item_keys(good, self.model.key, self.settings)
        existing, done = existing_answers(file), read_journals(file)
        if existing - set(answer_lines(self.items, keys, done)):
            raise OutputError(
                f"{self.output} holds something else already, such as answers to other questions, of another model, or with "
                "other settings. Name another file, or move that one away; its journal, if it has one, keeps the answers "
                "that still hold."
            )
        return keys, done

    def _left(self, items: Sequence[Item], keys: Mapping[Item, str], done: Mapping[str, Record]) -> list[list[Item]]:
        """Cut all items into batches, then drop the answered ones, so that a restart does not regroup the rest."""
        batches = [items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)]
        left = [[item for item in batch if "answer" not in done.get(keys[item], {})] for batch in batches]
        return [batch for batch in left if batch]

    def _answer(
        self,
        batches: Sequence[Sequence[Item]],
        keys: Mapping[Item, str],
        journal: Journal,
        world: World,
    ) -> None:
        """Answer batches, and record each answer."""
        if not batches:
            return
        engine = self.model.engine
        if any(item.asked.file.use_audio for batch in batches for item in batch):
            engine.reader.require_audio()
        n_threads = READERS if engine.device.type == "cuda" else 0
        asked = [[item.asked for item in batch] for batch in batches]
        n_failed = 0
        with tqdm(
            total=sum(map(len, batches)),
            desc=f"process 1 of {world.size}" if world.size > 1 else None,
            unit="question",
            disable=not world.is_main,
            mininterval=0.2 if sys.stderr.isatty() else 10,  # a log file needs a line now and then
        ) as bar:
            items = list(chain.from_iterable(batches))
            for number, outcome in answers_and_choices(engine, asked, self.settings, n_threads=n_threads):
                record = _record(keys[items[number]], outcome)
                journal.append([record])
                n_failed += "error" in record
                bar.set_postfix(failed=n_failed, refresh=False)
                bar.update()

    def _write(self, keys: Mapping[Item, str], file: Path) -> Outcomes:
        """Write the output, and return its content."""
        done = read_journals(file)
        lines = answer_lines(self.items, keys, done)
        if missing := len(self.items) - len(lines):
            raise OutputError(
                f"{self.output} is not written: {missing} of {len(self.items)} answers are in no journal beside it. "
                "All processes must see one folder, and journals must stay until the end. The same command asks for the rest."
            )
        write_answers(file, lines)
        conditions = dict.fromkeys(item.condition for item in self.items if isinstance(item, Item) and item.condition)
        under = {name: self._outcomes(name, keys, done) for name in conditions}
        return replace(self._outcomes("", keys, done), under=under)

    def _outcomes(self, condition: str, keys: Mapping[Item, str], done: Mapping[str, Record]) -> Outcomes:
        """Return the outcomes under a condition; those of bad lines are under none."""
        answers: dict[str | int, str] = {}
        errors: list[tuple[str | int | None, str]] = []
        likelihoods: dict[str | int, Sequence[Likelihood]] = {}
        altered: set[str | int] = set()
        n_without_track = 0
        for item in self.items:
            if isinstance(item, BadLine):
                if not condition:
                    errors.append((item.id, item.problem))
                continue
            if item.condition != condition:
                continue
            record = done[keys[item]]
            if "answer" in record:
                answers[item.id] = record["answer"]
                n_without_track += record.get("sound") == str(NO_AUDIO_TRACK)
                if record.get("altered"):
                    altered.add(item.id)
                if "log_likelihoods" in record:
                    pairs = zip(record["log_likelihoods"], record["n_tokens"], strict=True)
                    likelihoods[item.id] = [Likelihood(*pair) for pair in pairs]
            else:
                errors.append((item.id, record["error"]))
        return Outcomes(answers, errors, n_without_track, likelihoods, frozenset(altered))


def _record(key: str, outcome: FileAnswer | VideoLlamaError) -> Record:
    """Return the journal's record of an outcome."""
    if isinstance(outcome, VideoLlamaError):
        return {"key": key, "error": str(outcome)}
    record: dict[str, Any] = {"key": key, "answer": outcome.text, "sound": str(outcome.audio_status)}
    if isinstance(outcome, ChosenOption):
        record["log_likelihoods"] = [one.log_likelihood for one in outcome.likelihoods]
        record["n_tokens"] = [one.n_tokens for one in outcome.likelihoods]
    if outcome.altered:
        record["altered"] = True
    return record | ({"damage": outcome.damage} if outcome.damage else {})


@contextmanager
def _other_processes() -> Iterator[None]:
    """Explain a failed collective."""
    try:
        yield
    except RuntimeError as error:
        raise VideoLlamaError(
            f"another process ended early; see its output for the reason. The same command resumes the job ({error})"
        ) from error
