"""Questions answered per second on the CPU, one at a time and 8 at once: with the toy model's short answers, with answers of 64
tokens, and of 5 to 64; and the last with a decoder of middle size too, also in fixed batches.

    python -m benchmarks.infer

With the toy model: four questions on each of eight clips with sound, read and encoded once for the four. With the decoder of
middle size: 32 random prompts of 64 tokens. Prints the best of the rounds, taken in turn, and the prompt tokens that run through
the decoder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.minima import minima
from video_llama.conversation.batching import File, FileAnswer, FileQuestion, answer_batches
from video_llama.conversation.engine import Engine
from video_llama.conversation.generation import generate_tokens
from video_llama.conversation.prefill import Prompt
from video_llama.conversation.scheduler import Request, Scheduler
from video_llama.conversation.settings import GenerationSettings
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square")
QUESTIONS = ("What colour is the shape?", "What shape is it?", "How does it move?", "What sound does it make?")
LONG = 64
LENGTHS = [5 + (37 * n) % 60 for n in range(32)]
"""Of mixed answers: 5 to 64 tokens, in no order."""
STOP = "no answer has this"


class MixedLengths(Engine):
    """An engine whose answers have ``LENGTHS`` in turn."""

    lengths: Iterator[int]

    def request(self, prompt: Prompt, settings: GenerationSettings) -> Request:
        """Return a request for an answer of the next length."""
        return super().request(prompt, replace(settings, max_new_tokens=next(self.lengths)))


@dataclass
class MiddleSize:
    """A ``ChatModel`` without media: a random decoder of width 512 with 4 layers and 32 000 tokens."""

    lm: LlamaForCausalLM
    max_context: int = 256

    @classmethod
    def build(cls) -> MiddleSize:
        """Draw the weights."""
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=512,
            intermediate_size=1376,
            num_hidden_layers=4,
            num_attention_heads=8,
            vocab_size=32000,
            max_position_embeddings=256,
        )
        return cls(LlamaForCausalLM(config).eval())

    @property
    def decoder(self) -> MiddleSize:
        """The decoder is all there is."""
        return self

    def embed_prompt(self, input_ids: torch.Tensor, media: Any) -> torch.Tensor:
        """Return float[B, L, H]."""
        return self.lm.get_input_embeddings()(input_ids)


def main() -> None:
    """Measure all ways."""
    engine = Engine.from_config("eval_configs/toy.yaml", device="cpu")
    spec = replace(engine.spec, template=replace(engine.spec.template, end_sym=STOP))
    parts = engine.model, spec, engine.video_processor, engine.image_processor
    with tempfile.TemporaryDirectory() as folder:
        questions = [
            FileQuestion(File("video", clip), text) for clip in write_clips(Path(folder)) for text in QUESTIONS
        ]
        engines = {
            "short answers": engine,
            f"{LONG} tokens each": Engine(*parts),
            "5 to 64 tokens": MixedLengths(*parts),
        }
        ways: dict[tuple[str, str], Callable[[], object]] = {
            (kind, f"{size} at once"): partial(answer, of, questions, size)
            for kind, of in engines.items()
            for size in (1, 8)
        }
        model = MiddleSize.build()
        for size in (1, 8):
            ways["middle size", f"{size} at once"] = partial(decode, model, spec.tokenizer, LENGTHS, size)
        ways["middle size", "fixed batches of 8"] = partial(decode_in_batches, model, spec.tokenizer, LENGTHS)
        best = minima(ways)
        n_tokens, n_questions = prompt_tokens(engine, questions), len(questions)
    for (kind, way), seconds in best.items():
        rate, times = n_questions / seconds, best[kind, "1 at once"] / seconds
        print(f"{kind:16} {way:18}: {rate:6.1f} questions/s ({times:.2f})")
    print(f"prompt tokens computed: {n_tokens[0]} of {n_tokens[1]}, of them media {n_tokens[2]}")


def answer(engine: Engine, questions: list[FileQuestion], size: int) -> None:
    """Answer all questions."""
    if isinstance(engine, MixedLengths):
        engine.lengths = cycle(LENGTHS)
    batches = [questions[i : i + size] for i in range(0, len(questions), size)]
    for _, outcome in answer_batches(engine, batches, GenerationSettings(max_new_tokens=LONG)):
        assert isinstance(outcome, FileAnswer)


def prompts() -> list[list[int]]:
    """Random prompts of 64 tokens."""
    return torch.randint(3, 500, (32, 64), generator=torch.Generator().manual_seed(0)).tolist()


def decode(model: MiddleSize, tokenizer: Any, lengths: list[int], size: int) -> None:
    """Answer all prompts with a scheduler."""
    scheduler = Scheduler(model, tokenizer, size)
    for ids, length in zip(prompts(), lengths, strict=True):
        scheduler.add(Request(Prompt(ids, ()), GenerationSettings(max_new_tokens=length), [STOP]))
    while scheduler.busy:
        scheduler.step()


def decode_in_batches(model: MiddleSize, tokenizer: Any, lengths: list[int]) -> None:
    """Answer all prompts with transformers' own loop, each batch up to its longest answer."""
    asked = prompts()
    for i in range(0, len(asked), 8):
        settings = GenerationSettings(max_new_tokens=max(lengths[i : i + 8]))
        generate_tokens(model, tokenizer, asked[i : i + 8], [], [STOP], settings)


def prompt_tokens(engine: Engine, questions: list[FileQuestion]) -> tuple[int, int, int]:
    """Return the prompt tokens that run through the decoder, those of all prompts, and the computed ones of media."""
    embed, n_whole, computed = engine.model.embed_prompt, 0, []
    request = engine.request

    def counted(input_ids: torch.Tensor, media: Any) -> torch.Tensor:
        computed.append((input_ids.numel(), int((input_ids < 0).sum())))
        return embed(input_ids, media)

    def noted(prompt: Prompt, settings: GenerationSettings) -> Request:
        nonlocal n_whole
        n_whole += len(prompt.input_ids)
        return request(prompt, settings)

    engine.model.embed_prompt, engine.request = counted, noted  # type: ignore[method-assign]
    answer(engine, questions, 8)
    del engine.model.embed_prompt, engine.request
    return sum(n for n, _ in computed), n_whole, sum(n for _, n in computed)


def write_clips(folder: Path) -> list[Path]:
    """Write a clip of each colour and shape."""
    scenes = [Scene(shape, colour, "left", "large", seed=n) for n, colour in enumerate(COLOURS) for shape in SHAPES]
    for n, scene in enumerate(scenes):
        write_clip(folder / f"{n}.mp4", scene)
    return sorted(folder.glob("*.mp4"))


if __name__ == "__main__":
    main()
