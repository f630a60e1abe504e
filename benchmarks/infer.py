"""Questions answered per second on the CPU, one at a time and in batches of 8: with the toy model's short answers, and with
answers of 64 tokens.

    python -m benchmarks.infer

Four questions on each of eight clips with sound, read and encoded once for the four. Prints the best of the rounds, taken
in turn.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.minima import minima
from video_llama.conversation.batching import File, FileAnswer, FileQuestion, answer_batches
from video_llama.conversation.engine import Engine
from video_llama.conversation.settings import GenerationSettings
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square")
QUESTIONS = ("What colour is the shape?", "What shape is it?", "How does it move?", "What sound does it make?")
LONG = 64


def main() -> None:
    """Measure the four ways."""
    engine = Engine.from_config("eval_configs/toy.yaml", device="cpu")
    template = replace(engine.spec.template, end_sym="no answer has this")
    spec = replace(engine.spec, template=template)
    endless = Engine(engine.model, spec, engine.video_processor, engine.image_processor)
    with tempfile.TemporaryDirectory() as folder:
        questions = [
            FileQuestion(File("video", clip), text) for clip in write_clips(Path(folder)) for text in QUESTIONS
        ]
        ways = {
            (kind, size): partial(answer, of, questions, size)
            for kind, of in (("short answers", engine), (f"{LONG} tokens each", endless))
            for size in (1, 8)
        }
        best = minima(ways)
    for (kind, size), seconds in best.items():
        rate, times = len(questions) / seconds, best[kind, 1] / seconds
        print(f"{kind:16} batches of {size}: {rate:5.1f} questions/s ({times:.2f})")


def answer(engine: Engine, questions: list[FileQuestion], size: int) -> None:
    """Answer all questions."""
    batches = [questions[i : i + size] for i in range(0, len(questions), size)]
    for outcomes in answer_batches(engine, batches, GenerationSettings(max_new_tokens=LONG)):
        assert all(isinstance(outcome, FileAnswer) for outcome in outcomes)


def write_clips(folder: Path) -> list[Path]:
    """Write a clip of each colour and shape."""
    scenes = [Scene(shape, colour, "left", "large", seed=n) for n, colour in enumerate(COLOURS) for shape in SHAPES]
    for n, scene in enumerate(scenes):
        write_clip(folder / f"{n}.mp4", scene)
    return sorted(folder.glob("*.mp4"))


if __name__ == "__main__":
    main()
