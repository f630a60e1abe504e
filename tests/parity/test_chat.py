"""A question about a clip: the original's prompt, embeddings and answer tokens.

Measured over a whole reference: embeddings within 7e-6, margins between the likeliest two tokens within 3e-6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import groupby

import pytest
import torch
from torch import Tensor

from tests.parity.conftest import Reference
from tests.parity.tolerances import OUTPUT, assert_output
from video_llama.common.types import Media
from video_llama.conversation.chat import Chat
from video_llama.conversation.config_in_use import with_system
from video_llama.conversation.engine import Engine
from video_llama.models.video_llama import VideoLLaMA
from video_llama.prompts.labels import PLACEHOLDER, Slot, encode

MARGIN = 4e-5
"""Tolerance of the margin between the likeliest two tokens: their logits are within 2e-5 of float64's."""


@dataclass(frozen=True)
class Asked:
    """A scenario's question, asked of our model."""

    name: str
    chat: Chat
    question: str
    input_ids: list[int]
    embeds: Tensor
    """float[1, L, H]."""


def ask(model: VideoLLaMA, reference: Reference, scenario: str) -> Asked:
    info = reference.info["scenarios"][scenario]
    name, index = re.fullmatch(r"(.+)\[(\d+)\]", info["image"]).groups()  # type: ignore[union-attr]
    context = VideoLLaMA.sample_spec(replace(model.config, model_type="llama_v2" if "llama2" in scenario else "vicuna"))
    around_system, after = context.template.chat.first.split("{text}")
    opening, _, before = around_system.partition("{system}")
    system, _, asked = info["prompt"].removeprefix(opening).partition(before)
    context = with_system(context, system)  # what recorded it left the template's own in place
    asked = asked.removesuffix(after)
    message, question = asked.removeprefix(f"<Video>{PLACEHOLDER}</Video> ").split("  ")
    clip = Media("video", reference.goldens[name][int(index)], message + " ")
    chat = Chat(Engine(model, context, lambda path, rng: clip, None))
    chat.upload(video="a clip")
    chat.session.ask(question)
    pieces = chat.session.prompt()
    written = "".join(PLACEHOLDER if isinstance(p, Slot) else "".join(s.text for s in p.spans) for p in pieces)
    assert written == info["prompt"]
    input_ids = encode(pieces, context.tokenizer, context.tokens_per_slot).input_ids
    embeds = model.embed_prompt(torch.tensor([input_ids]), chat._encoded)
    return Asked(scenario, chat, question, input_ids, embeds)


@pytest.fixture(scope="module")
def all_asked(model: VideoLLaMA, reference: Reference) -> list[Asked]:
    with torch.no_grad():
        return [ask(model, reference, scenario) for scenario in reference.scenarios("chat_")]


def test_the_prompt_has_the_originals_ids_around_the_clip(
    model: VideoLLaMA, reference: Reference, all_asked: list[Asked]
) -> None:
    for asked in all_asked:
        runs = [(slot, list(run)) for slot, run in groupby(asked.input_ids, lambda i: i < 0)]
        assert [run for slot, run in runs if not slot] == reference.info["scenarios"][asked.name]["segment_ids"]
        assert [len(run) for slot, run in runs if slot] == [reference.info["config"]["nvq"]]


def test_the_prompt_has_the_originals_embeddings(reference: Reference, all_asked: list[Asked]) -> None:
    for asked in all_asked:
        assert_output(asked.embeds, reference.of(asked.name)["context_emb"], asked.name)


@torch.no_grad()
def steps(model: VideoLLaMA, embeds: Tensor, tokens: list[int]) -> Iterator[Tensor]:
    """Yield float[W], the decoder's logits for each token given those before it, in float64 for exact margins."""
    answer = model.decoder.embed(torch.tensor([tokens]))
    lm = deepcopy(model.decoder.lm).double()
    logits = lm(inputs_embeds=torch.cat([embeds, answer], dim=1).double()).logits[0]
    yield from logits[embeds.shape[1] - 1 : -1]


def test_the_decoder_answers_with_the_originals_tokens(
    model: VideoLLaMA, reference: Reference, all_asked: list[Asked]
) -> None:
    for asked in all_asked:
        info = reference.info["scenarios"][asked.name]
        tokens = reference.of(asked.name)["greedy_12_tokens"].tolist()
        assert tokens == info["greedy_no_cache"]
        start = asked.chat.engine.spec.tokenizer.bos_id  # which its library put before the generated text
        assert info["generate_output"] == [start, *tokens]
        margins = []
        for token, logits in zip(tokens, steps(model, asked.embeds, tokens), strict=True):
            assert logits.max() - logits[token] <= OUTPUT
            best, second = logits.topk(2).values
            margins.append(float(best - second))
        assert min(margins) == pytest.approx(info["min_top2_margin"], abs=MARGIN)


def test_the_answer_is_the_text_of_those_tokens(reference: Reference, all_asked: list[Asked]) -> None:
    for asked in all_asked:
        tokens = reference.of(asked.name)["greedy_12_tokens"].tolist()
        tokenizer, end_sym = asked.chat.engine.spec.tokenizer, asked.chat.engine.spec.template.end_sym
        asked.chat.session.turns.clear()
        asked.chat.session.show(asked.chat.session.media.pop())
        answer = asked.chat.ask(asked.question, max_new_tokens=len(tokens))
        if tokenizer.eos_id in tokens:
            tokens = tokens[: tokens.index(tokenizer.eos_id)]
        expected = tokenizer.decode(tokens).split(end_sym)[0].strip()
        assert answer == expected or reference.info["scenarios"][asked.name]["min_top2_margin"] < 2 * OUTPUT


def test_embeddings_that_are_one_percent_off_are_detected(reference: Reference, all_asked: list[Asked]) -> None:
    off = {name: t * 1.01 if name.endswith("context_emb") else t for name, t in reference.goldens.items()}
    with pytest.raises(AssertionError):
        test_the_prompt_has_the_originals_embeddings(replace(reference, goldens=off), all_asked)
