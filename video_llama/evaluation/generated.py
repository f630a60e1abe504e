"""Checks of a model in training by the answers that it generates: benchmarks scored, and a few questions shown with their pictures."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from einops import rearrange
from PIL import Image

from video_llama.common.distributed import World
from video_llama.common.errors import VideoLlamaError
from video_llama.common.files import replacing
from video_llama.common.types import Media
from video_llama.conversation.batching import FileAnswer
from video_llama.conversation.choosing import answers_and_choices
from video_llama.conversation.engine import Engine
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.benchmark import Benchmark
from video_llama.inference.items import Item
from video_llama.runners.check import Findings, ShownAnswer, all_results
from video_llama.runners.stop import Stop

log = logging.getLogger(__name__)

Answered = tuple[Item, FileAnswer | VideoLlamaError]

MAX_SIDE = 1024
"""Pixels of the longer side of a picture."""


@dataclass(frozen=True)
class Asker:
    """Asks the model in training, greedily; the questions are divided among all processes."""

    engine: Callable[[], Engine]
    """Returns the model in use."""
    settings: GenerationSettings
    batch_size: int

    def answers(self, items: Sequence[Item], world: World, stop: Stop) -> list[Answered] | None:
        """Answer all questions; None: a process was asked to stop."""
        starts = range(self.batch_size * world.rank, len(items), self.batch_size * world.size)
        mine = [range(start, min(start + self.batch_size, len(items))) for start in starts]
        batches = [[items[number].asked for number in batch] for batch in mine]
        numbers = list(chain.from_iterable(mine))
        answers = answers_and_choices(self.engine(), batches, self.settings)
        found = all_results(world, stop, ((numbers[k], outcome) for k, outcome in answers))
        return None if found is None else list(zip(items, found, strict=True))


class Scores:
    """The scores of a benchmark, as ``<name>/<score>``.

    Args:
        name: split and data set.
        benchmark: its questions and scorer.
        asker: asks them.
    """

    def __init__(self, name: str, benchmark: Benchmark, asker: Asker) -> None:
        self.name, self.benchmark, self.asker = name, benchmark, asker
        self.items = benchmark.items()

    def names(self) -> list[str]:
        """Return the names of the scores: those of no answers at all."""
        return [f"{self.name}/{score}" for score in self.benchmark.score({})]

    def __call__(self, world: World, stop: Stop) -> Findings | None:
        """Score the model."""
        found = self.asker.answers(self.items, world, stop)
        if found is None:
            return None
        answers = {item.id: outcome.text for item, outcome in found if isinstance(outcome, FileAnswer)}
        errors = [outcome for _, outcome in found if isinstance(outcome, VideoLlamaError)]
        if errors and world.is_main:
            log.warning(
                "%s: %d of %d questions have no answer, and count as wrong; the first: %s",
                self.name, len(errors), len(found), errors[0],
            )  # fmt: skip
        scores = world.broadcast_object(dict(self.benchmark.score(answers)) if world.is_main else {})
        return Findings(metrics={f"{self.name}/{k}": v if math.isfinite(v) else None for k, v in scores.items()})


class FixedQuestions:
    """The answers to a few questions, each with a picture of what the model was given.

    Args:
        items: the questions.
        asker: asks them.
        folder: the output folder of the run; pictures go into ``questions/`` in it.
    """

    def __init__(self, items: Sequence[Item], asker: Asker, folder: Path) -> None:
        self.items, self.asker, self.folder = items, asker, folder

    def names(self) -> list[str]:
        """Return no names: nothing is measured."""
        return []

    def __call__(self, world: World, stop: Stop) -> Findings | None:
        """Ask the questions."""
        found = self.asker.answers(self.items, world, stop)
        if found is None:
            return None
        return Findings(answers=[self.shown(item, outcome, world) for item, outcome in found])

    def shown(self, item: Item, outcome: FileAnswer | VideoLlamaError, world: World) -> ShownAnswer:
        """Return an answer with its picture."""
        if isinstance(outcome, VideoLlamaError):
            return ShownAnswer(str(item.id), item.asked.question, f"(no answer: {outcome})", "failed", None)
        picture = self.picture(item, world)
        return ShownAnswer(str(item.id), item.asked.question, outcome.text, str(outcome.audio_status), picture)

    def picture(self, item: Item, world: World) -> str | None:
        """Return the picture of a question, which the first process makes once in a run."""
        name = f"questions/{hashlib.sha256(str(item.id).encode()).hexdigest()[:16]}.png"
        path = self.folder / name
        if world.is_main and not path.exists():
            try:
                frames = item.asked.file.read(self.asker.engine().reader).frames
                if frames is not None:
                    path.parent.mkdir(exist_ok=True)
                    with replacing(path) as temporary:
                        filmstrip(frames).save(temporary, format="png")
            except (OSError, VideoLlamaError) as error:  # a full disk does not end the run
                log.warning("%s: not written: %s", path, error)
        return world.broadcast_object(name if world.is_main and path.exists() else None)


def filmstrip(frames: Media) -> Image.Image:
    """Return the frames of an image or a clip side by side."""
    strip = Image.fromarray(rearrange(frames.data, "c t h w -> h (t w) c").contiguous().numpy())
    strip.thumbnail((MAX_SIDE, MAX_SIDE))
    return strip
