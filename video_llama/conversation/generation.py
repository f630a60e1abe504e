"""Autoregressive generation: sampling, stop strings and beams. Rows of a batch do not affect each other.

Shapes: B rows, L tokens, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from video_llama.common.errors import PromptTooLong, VideoLlamaError
from video_llama.common.types import MediaGroup
from video_llama.conversation.oom import within_memory
from video_llama.conversation.sampling import TokenChooser, penalised, penalises, sampled
from video_llama.conversation.settings import GenerationSettings
from video_llama.conversation.streaming import AnswerText
from video_llama.prompts.tokenizer import Tokenizer


class NucleusSampler(LogitsProcessor):
    """Samples each row's next token, and masks all others.

    A row has a random generator of its own, so it samples in a batch what it would sample alone.

    Args:
        settings: temperature, top_p and seed.
        n_rows: B.
    """

    def __init__(self, settings: GenerationSettings, n_rows: int) -> None:
        self._choosers = [TokenChooser(settings) for _ in range(n_rows)]

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """Return float[B, W]: 0 for the sampled token, -inf elsewhere."""
        tokens = torch.tensor(sampled(scores, self._choosers), device=scores.device)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens, 0.0)


@contextmanager
def forked_rng(seed: int | None) -> Iterator[None]:
    """Seed torch's global random generators, and restore their state afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
        if seed is None:
            torch.seed()
        else:
            torch.manual_seed(seed)
        yield


class Penalties(LogitsProcessor):
    """Changes the logits of tokens that are in a row already.

    Args:
        settings: the penalties.
    """

    def __init__(self, settings: GenerationSettings) -> None:
        self._settings = settings

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """Return float[B, W]."""
        scores = scores.clone()
        for ids, of_row in zip(input_ids, scores, strict=True):
            tokens, counts = ids.unique(return_counts=True)
            of_row[tokens] = penalised(of_row[tokens], counts, self._settings)
        return scores


class StopAtText(StoppingCriteria):
    """Ends a row once its text contains one of its stop strings, however it is split into tokens.

    Args:
        tokenizer: turns ids into text.
        stops: strings that end a row.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self.tokenizer, self.stops = tokenizer, stops
        self.window = 2 * max(len(stop.encode()) for stop in stops) + 2
        """Tokens at the end of a row that are decoded: each has at least one byte."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return bool[B]: which rows are done."""
        texts = [self.tokenizer.decode(ids) for ids in input_ids[:, -self.window :].tolist()]
        return torch.tensor([any(stop in text for stop in self.stops) for text in texts], device=input_ids.device)


def generate(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    media: Sequence[MediaGroup],
    *,
    stop: str | Sequence[str],
    settings: GenerationSettings | None = None,
    max_new_tokens: int | None = None,
) -> list[str]:
    """Answer prompts in one batch; rows do not affect each other.

    Args:
        model: a ``ChatModel``.
        tokenizer: the decoder's.
        prompts: token ids with slot ids among them, of any lengths.
        media: what fills the slots; rows are indices of ``prompts``.
        stop: the string that ends an answer, or several.
        settings: None: greedy.
        max_new_tokens: overrides ``settings``.
    Raises:
        PromptTooLong: a prompt and its answer do not fit into the decoder's context.
        OutOfMemory: fewer prompts at once may fit.
        VideoLlamaError: a setting or a stop string makes no sense.
    """
    if not prompts:
        return []
    stops = [stop] if isinstance(stop, str) else stop
    settings = with_length(settings, max_new_tokens)
    if len(prompts) > 1 and settings.num_beams > 1 and settings.temperature > 0:  # all beams share one random generator
        return [
            generate(model, tokenizer, [prompt], _of_row(media, row), stop=stops, settings=settings)[0]
            for row, prompt in enumerate(prompts)
        ]
    answers = []
    for ids in generate_tokens(model, tokenizer, prompts, media, stops, settings):
        text = AnswerText(tokenizer, stops)
        for token in ids:
            text.feed(token)
        text.end()
        answers.append(text.text)
    return answers


@within_memory
@torch.no_grad()
def generate_tokens(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    media: Sequence[MediaGroup],
    stops: Sequence[str],
    settings: GenerationSettings,
    on_step: Callable[[list[int]], None] = lambda tokens: None,
) -> list[list[int]]:
    """Generate the tokens of answers, each up to a stop string, the end token or the length limit.

    Rows that end early are padded. Raises: see ``generate``.

    Args:
        model, tokenizer, prompts, media, settings: see ``generate``.
        stops: strings that end an answer.
        on_step: called with each row's newest token; with beams, with an empty list. An exception ends the generation.
    """
    check_stops(stops)
    check_room(max(len(prompt) for prompt in prompts), settings, model.decoder.max_context)
    lm = model.decoder.lm
    input_ids, attention_mask = (t.to(lm.device) for t in _padded(prompts, tokenizer.pad_id))
    embeds = model.embed_prompt(input_ids, [group.mapped(lambda t: t.to(lm.device)) for group in media])
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        num_beams=settings.num_beams,
        do_sample=False,
        pad_token_id=tokenizer.pad_id,
        eos_token_id=tokenizer.eos_id,
    )
    processors = LogitsProcessorList()
    if penalises(settings):
        processors.append(Penalties(settings))
    rng: AbstractContextManager[None] = nullcontext()
    if settings.temperature > 0 and settings.num_beams == 1:
        processors.append(NucleusSampler(settings, len(prompts)))
    elif settings.temperature > 0:
        config.update(do_sample=True, temperature=settings.temperature, top_p=settings.top_p, top_k=0)
        rng = forked_rng(settings.seed)
    with rng:
        out = lm.generate(
            inputs_embeds=embeds.to(lm.dtype),
            attention_mask=attention_mask,
            generation_config=config,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList(
                [StopAtText(tokenizer, stops), _OnStep(on_step, settings.num_beams)]
            ),
        )
    return out.tolist()


def _of_row(media: Sequence[MediaGroup], row: int) -> list[MediaGroup]:
    """Return the media of one row, renumbered as row 0."""
    own = []
    for group in media:
        mine = group.rows == row
        if mine.any():
            rows = torch.zeros_like(group.rows[mine])
            own.append(replace(group, data=group.data[mine], rows=rows, slots=group.slots[mine]))
    return own


def with_length(settings: GenerationSettings | None, max_new_tokens: int | None) -> GenerationSettings:
    """Return settings (None: the defaults) with another length limit (None: unchanged)."""
    settings = settings or GenerationSettings()
    return settings if max_new_tokens is None else replace(settings, max_new_tokens=max_new_tokens)


def check_stops(stops: Sequence[str]) -> None:
    """Raise VideoLlamaError unless there is a stop string, and none is empty."""
    if not stops or not all(stops):
        raise VideoLlamaError(f"stop strings {stops!r}: expected at least one text, none of them empty")


def check_room(n_tokens: int, settings: GenerationSettings, max_context: int) -> None:
    """Raise PromptTooLong if a prompt of so many tokens and its answer do not fit into the decoder's context."""
    if n_tokens + settings.max_new_tokens > max_context:
        raise PromptTooLong(
            f"a prompt of {n_tokens} tokens and an answer of up to {settings.max_new_tokens} exceed the decoder's context "
            f"of {max_context} tokens. Ask for a shorter answer (max_new_tokens) or with a shorter question, show fewer files, "
            "or start a new dialogue."
        )


def within_room(n_tokens: int, settings: GenerationSettings, max_context: int) -> GenerationSettings:
    """Return settings with a length limit that fits into the decoder's context after a prompt of so many tokens.

    Raises:
        PromptTooLong: there is no room for an answer.
    """
    length = min(settings.max_new_tokens, max(1, max_context - n_tokens))
    settings = replace(settings, max_new_tokens=length)
    check_room(n_tokens, settings, max_context)
    return settings


def _padded(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64[B, L], left-padded, so that all answers start in the same column."""
    longest = max(len(p) for p in prompts)
    input_ids = torch.full((len(prompts), longest), pad_id)
    attention_mask = torch.zeros((len(prompts), longest), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        input_ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, longest - len(prompt) :] = 1
    return input_ids, attention_mask


class _OnStep(StoppingCriteria):
    """Streams each row's newest token; never stops generation. Emits nothing for beams, which may be dropped."""

    def __init__(self, on_step: Callable[[list[int]], None], num_beams: int) -> None:
        self.on_step, self.num_beams = on_step, num_beams

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return bool[B], all False."""
        self.on_step(input_ids[:, -1].tolist() if self.num_beams == 1 else [])
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
