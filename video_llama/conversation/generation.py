"""Answers from the decoder, several at once, each stopped by its own end symbol.

Shapes: B prompts, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from video_llama.common.contracts import MediaGroup
from video_llama.common.errors import PromptTooLong, VideoLlamaError
from video_llama.prompts.tokenizer import Tokenizer


class StopAtText(StoppingCriteria):
    """Ends a row once its text holds the end symbol, however that is cut into tokens.

    Args:
        tokenizer: turns ids into text.
        stop: the end symbol.
    """

    def __init__(self, tokenizer: Tokenizer, stop: str) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.window = 2 * len(stop.encode()) + 2  # tokens: a token holds at least one byte

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """Return bool[B]: which rows are done."""
        tails = input_ids[:, -self.window :].tolist()
        return torch.tensor([self.stop in self.tokenizer.decode(tail) for tail in tails], device=input_ids.device)


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    media: Sequence[MediaGroup],
    *,
    stop: str,
    max_new_tokens: int,
) -> list[str]:
    """Answer prompts greedily; a row's answer does not depend on the others.

    Args:
        model: has ``embed_prompt`` and ``decoder``.
        tokenizer: the decoder's.
        prompts: token ids with slot ids in them, of any lengths.
        media: what the slots stand for; rows count through ``prompts``.
        stop: the end symbol.
        max_new_tokens: longest answer, in tokens.
    Raises:
        PromptTooLong: a prompt and its answer do not fit into the decoder's context.
        VideoLlamaError: an answer may have no token.
    """
    if max_new_tokens < 1:
        raise VideoLlamaError(f"an answer of at most {max_new_tokens} tokens: give at least 1")
    longest = max(len(p) for p in prompts)
    if longest + max_new_tokens > model.decoder.max_context:
        raise PromptTooLong(
            f"a prompt of {longest} tokens and an answer of up to {max_new_tokens} exceed the decoder's context of "
            f"{model.decoder.max_context} tokens. Ask for a shorter answer, or start a new dialogue."
        )
    device = model.decoder.lm.device
    input_ids = torch.full((len(prompts), longest), tokenizer.pad_id)
    attention_mask = torch.zeros((len(prompts), longest), dtype=torch.int64)
    for row, prompt in enumerate(prompts):  # padded on the left, so that all answers start in the same column
        input_ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, longest - len(prompt) :] = 1
    embeds = model.embed_prompt(input_ids.to(device), [group.mapped(lambda t: t.to(device)) for group in media])
    out = model.decoder.lm.generate(
        inputs_embeds=embeds.to(model.decoder.lm.dtype),
        attention_mask=attention_mask.to(device),
        generation_config=GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_id,
            eos_token_id=tokenizer.eos_id,
        ),
        stopping_criteria=StoppingCriteriaList([StopAtText(tokenizer, stop)]),
    )
    return [_answer(tokenizer, row, stop) for row in out.tolist()]


def _answer(tokenizer: Tokenizer, ids: list[int], stop: str) -> str:
    """Decode up to the end symbol or the end token."""
    if tokenizer.eos_id in ids:
        ids = ids[: ids.index(tokenizer.eos_id)]
    return tokenizer.decode(ids).split(stop)[0].strip()
