"""The toy world as a benchmark: each question says what it needs, so that what conditions do to the answers can be checked.

The clips and their questions are written when they are first needed::

    <folder>/test.jsonl                 as for the benchmark ``manifest``
             toy_<tier>_<number>.mp4
             toy.json                   version and number of clips, written last

The first tier asks what the toy world's training teaches, about combinations of shape, colour and motion that it never shows. The
others are harder, and no model has been trained on them: counting, the order of two events, which of two shapes sounds, and
questions that no sense answers. A low score of the shipped toy model on those is expected.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from video_llama.common.cache import home
from video_llama.common.errors import DataError
from video_llama.common.files import one_at_a_time, replacing
from video_llama.common.registry import BENCHMARKS
from video_llama.evaluation.config import ToyConfig
from video_llama.evaluation.own_questions import OwnQuestions
from video_llama.toy import tiers
from video_llama.toy.encode import write_clip, write_mp4
from video_llama.toy.language import QUESTIONS, SOUND_QUESTIONS, answer
from video_llama.toy.scene import Scene, scenes, with_other_sounds

log = logging.getLogger(__name__)

VERSION = 1
"""Increased when other clips or questions are written."""
SEED = 1_000
"""Far from those of the quickstart's worlds."""

UNKNOWABLE = "cannot be told"
"""The type of questions that no sense answers."""

HARDER = (*tiers.QUESTIONS, UNKNOWABLE)
"""Types of questions that are not in the toy world's training."""

NEEDS = {
    "colour": "sight",
    "shape": "sight",
    "size": "sight",
    "motion": "order of frames",
    "sound": "sound",
    "belongs": "sight and sound",
}
"""What each kind of question of the first tier needs."""

UNANSWERABLE = ("What is the shape made of?", "Who drew the shape?", "How much does the shape weigh?")
CANNOT_BE_TOLD = "It cannot be told."


@BENCHMARKS.register("toy")
class ToyBenchmark(OwnQuestions):
    """Questions about the toy world, and harder ones.

    Args:
        config: where the clips are, and how many.
    Raises:
        DataError: the folder cannot be written, or has other content.
    """

    Config: Any = ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        folder = Path(config.media_dir or home() / f"toy-benchmark-{VERSION}-{config.clips}")
        write_toy_benchmark(folder, config.clips)
        super().__init__(replace(config, media_dir=str(folder)))

    def warn(self, name: str) -> None:
        """Log which questions the toy world's training does not prepare for."""
        super().warn(name)
        log.warning("%s: the toy world's training has no questions like those of the types %s", name, ", ".join(HARDER))


Line = dict[str, Any]


def write_toy_benchmark(folder: Path, n_clips: int) -> None:
    """Write clips and questions, unless they are there.

    Raises:
        DataError: the folder cannot be written, or has other content.
    """
    manifest, arguments = folder / "toy.json", {"version": VERSION, "clips": n_clips}
    try:
        with one_at_a_time(folder / ".lock", f"another process is writing {folder}"):
            if manifest.exists():
                if json.loads(manifest.read_text(encoding="utf-8")) != arguments:
                    raise DataError(f"{folder}: holds toy clips of another number or version. Name another media_dir.")
                return
            ours = ("toy_*", "test.jsonl", ".lock")
            unknown = [file.name for file in folder.iterdir() if not any(file.match(name) for name in ours)]
            if unknown:
                raise DataError(f"{folder}: holds something else, such as {unknown[0]}. Name another media_dir.")
            lines = []
            for name, write, questions in _clips(n_clips):
                write(folder / name)
                lines += [{"id": f"{Path(name).stem}_{n}", "video": name, **line} for n, line in enumerate(questions)]
            (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            with replacing(manifest) as temporary:
                temporary.write_text(json.dumps(arguments) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: toy clips cannot be written or read: {error}") from error


def _clips(n: int) -> Iterator[tuple[str, Callable[[Path], None], Sequence[Line]]]:
    """Yield the name of each clip, what writes it, and its questions."""
    own = list(scenes(n, SEED, held_out=True))
    for number, scene in enumerate(own):
        asked = [_known(kind, scene) for kind in (*QUESTIONS, *SOUND_QUESTIONS)]
        question = UNANSWERABLE[number % len(UNANSWERABLE)]
        nothing = _line(question, CANNOT_BE_TOLD, UNKNOWABLE, "nothing")
        yield f"toy_own_{number:04d}.mp4", partial(_write, scene), [*asked, nothing]
    for number, scene in enumerate(with_other_sounds(scenes(n, SEED + 1, held_out=True))):
        yield f"toy_foreign_{number:04d}.mp4", partial(_write, scene), [_known(kind, scene) for kind in SOUND_QUESTIONS]
    for tier, question in tiers.QUESTIONS.items():
        for number, group in enumerate(tiers.groups(tier, n, SEED)):
            line = _line(question, group.answer, tier, tiers.NEEDS[tier])
            yield f"toy_{tier.replace(' ', '_')}_{number:04d}.mp4", partial(_write_group, group), [line]


def _write(scene: Scene, path: Path) -> None:
    write_clip(path, scene)


def _write_group(group: tiers.Group, path: Path) -> None:
    write_mp4(path, group.render(), group.synthesise())


def _known(kind: str, scene: Scene) -> Line:
    question = (QUESTIONS | SOUND_QUESTIONS)[kind]
    return _line(question, answer(kind, scene), kind, NEEDS[kind])


def _line(question: str, right: str, kind: str, needs: str) -> Line:
    return {"question": question, "answer": right, "type": {"type": kind, "needs": needs}}
