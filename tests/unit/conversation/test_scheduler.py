"""Requests that come and go between decoding steps: each is answered as transformers' own loop answers it alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.decoders import FAMILIES, write_decoder
from tests.tiny import TOKENIZER, sample
from video_llama.common.errors import OutOfMemory, PromptTooLong, VideoLlamaError
from video_llama.common.types import MediaGroup
from video_llama.conversation import row_cache
from video_llama.conversation.generation import generate_tokens
from video_llama.conversation.prefill import Prompt
from video_llama.conversation.scheduler import CALM, Answer, Event, Request, Scheduler
from video_llama.conversation.settings import GenerationSettings
from video_llama.datasets.collate import collate
from video_llama.models.video_llama import VideoLLaMA
from video_llama.prompts.tokenizer import Tokenizer, load_tokenizer

CLIP = [5, -1, -1, -1, 7]
"""The start of a prompt with a clip."""
WAYS = {
    "greedy": {},
    "penalty": {"repetition_penalty": 1.5},
    "penalties": {"repetition_penalty": 1.2, "frequency_penalty": 0.4, "presence_penalty": -0.7},
    "sampling": {"temperature": 1.5, "top_p": 0.8, "seed": 3},
    "both": {"temperature": 1.5, "top_p": 1.0, "seed": 4, "repetition_penalty": 1.5},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoLLaMA:
    return tiny.model(tiny.write_decoder(tmp_path_factory.mktemp("decoder"))).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(TOKENIZER)


def clips_of(model: VideoLLaMA, n: int = 3) -> list[Sequence[MediaGroup]]:
    """Encoded clips."""
    return [model.encode_frozen(collate([sample(f"clip {k}", 4)], 0).media) for k in range(n)]


def requests_of(model: VideoLLaMA, n: int = 12, **choice: Any) -> list[Request]:
    """Requests on three clips in turn and on none, of any lengths, for 1 to 40 tokens."""
    generator = torch.Generator().manual_seed(n)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    found = []
    for k, media in zip(range(n), [*clips_of(model), ()] * n, strict=False):
        ids = [*(CLIP if media else [9]), *(number(3, 250) for _ in range(number(1, 30)))]
        limit = GenerationSettings(**{"max_new_tokens": number(1, 40), **choice})
        found.append(Request(Prompt(ids, media), limit, ["never" if k % 3 else "e"]))
    return found


def alone(model: VideoLLaMA, tokenizer: Tokenizer, request: Request) -> list[int]:
    """What transformers generates for a request."""
    prompt = request.prompt
    (tokens,) = generate_tokens(model, tokenizer, [prompt.input_ids], prompt.media, request.stops, request.settings)
    return tokens


def finish(scheduler: Scheduler) -> list[Event]:
    events = []
    while scheduler.busy:
        events += scheduler.step()
    return events


@pytest.fixture
def forwards(model: VideoLLaMA) -> Any:
    """The sizes of the decoder's inputs, [rows, tokens], of each call."""
    sizes: list[tuple[int, int]] = []

    def record(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        inputs = kwargs.get("input_ids") if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
        sizes.append(tuple(inputs.shape[:2]))

    hook = model.decoder.lm.register_forward_pre_hook(record, with_kwargs=True)
    yield sizes
    hook.remove()


# Equal answers


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_in_any_company_what_transformers_answers_alone(family, tmp_path, monkeypatch):
    monkeypatch.setattr(row_cache, "AHEAD", 9)  # keys and values move often
    model, tokenizer = tiny.model(write_decoder(tmp_path, family)).eval(), load_tokenizer(tmp_path)
    for choice in WAYS.values():
        requests = requests_of(model, **choice)
        scheduler = Scheduler(model, tokenizer, max_rows=5)
        answers = [scheduler.add(request) for request in requests[:7]]
        for _ in range(4):
            scheduler.step()
        answers += [scheduler.add(request) for request in requests[7:]]
        finish(scheduler)
        assert [answer.tokens for answer in answers] == [alone(model, tokenizer, request) for request in requests]


def test_a_window_shorter_than_the_prompt_is_that_of_transformers(tmp_path, monkeypatch):
    mistral = FAMILIES["mistral"]
    monkeypatch.setitem(FAMILIES, "narrow", replace(mistral, sizes={**mistral.sizes, "sliding_window": 8}))
    model, tokenizer = tiny.model(write_decoder(tmp_path, "narrow")).eval(), load_tokenizer(tmp_path)
    requests = requests_of(model)
    scheduler = Scheduler(model, tokenizer, max_rows=4)
    answers = [scheduler.add(request) for request in requests]
    finish(scheduler)
    assert [answer.tokens for answer in answers] == [alone(model, tokenizer, request) for request in requests]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["add", "step", "cancel"]), max_size=40), st.integers(1, 4), st.randoms())
def test_whatever_joins_and_leaves_an_answer_is_the_same(whole, actions, n_rows, random):
    model, tokenizer, requests, expected = whole
    scheduler, answers = Scheduler(model, tokenizer, n_rows), []
    for action in actions:
        if action == "add":
            answers.append(scheduler.add(requests[len(answers) % len(requests)]))
        elif action == "step":
            scheduler.step()
        elif answers:
            scheduler.cancel(random.choice(answers))
    events = finish(scheduler)
    assert not scheduler.busy
    for k, answer in enumerate(answers):
        tokens = expected[k % len(requests)]
        assert answer.tokens == (tokens if answer.text.done else tokens[: len(answer.tokens)])
    assert all(event.error is None for event in events)


@pytest.fixture(scope="module")
def whole(model, tokenizer) -> tuple[VideoLLaMA, Tokenizer, list[Request], list[list[int]]]:
    requests = requests_of(model, 6)
    return model, tokenizer, requests, [alone(model, tokenizer, request) for request in requests]


def test_the_pieces_join_to_the_text_and_the_last_event_says_so(model, tokenizer):
    scheduler = Scheduler(model, tokenizer, max_rows=3)
    answers = [scheduler.add(request) for request in requests_of(model)]
    events = finish(scheduler)
    for answer in answers:
        own = [event for event in events if event.answer is answer]
        assert "".join(event.piece for event in own) == answer.text.text
        assert [event.done for event in own] == [False] * (len(answer.tokens) - 1) + [True]


def test_rows_may_differ_in_every_setting(model, tokenizer):
    requests = [request for choice in WAYS.values() for request in requests_of(model, 3, **choice)]
    scheduler = Scheduler(model, tokenizer, max_rows=len(requests))
    answers = [scheduler.add(request) for request in requests]
    finish(scheduler)
    assert [answer.tokens for answer in answers] == [alone(model, tokenizer, request) for request in requests]


# Rows


def of_length(model: VideoLLaMA, *lengths: int) -> list[Request]:
    """Requests without media whose answers have these lengths."""
    return [
        Request(Prompt([9, 30 + n], ()), GenerationSettings(max_new_tokens=length), ["never"])
        for n, length in enumerate(lengths)
    ]


def test_a_finished_row_makes_room_for_the_next_request(model, tokenizer, forwards):
    scheduler = Scheduler(model, tokenizer, max_rows=2)
    for request in of_length(model, 2, 5, 3, 2):
        scheduler.add(request)
    finish(scheduler)
    assert forwards == [(2, 2), (2, 1), (1, 2), (2, 1), (2, 1), (1, 2), (2, 1)]


def test_requests_start_in_their_order(model, tokenizer):
    scheduler = Scheduler(model, tokenizer, max_rows=2)
    answers = [scheduler.add(request) for request in of_length(model, 9, 2, 2, 2)]
    ended = [event.answer for event in finish(scheduler) if event.done]
    assert ended == [*answers[1:], answers[0]]


def test_a_question_that_waits_for_its_prefix_keeps_its_place(model, tokenizer, forwards):
    one, other, third = clips_of(model, 3)
    scheduler = Scheduler(model, tokenizer, max_rows=3)
    for media in (one, one, other, third):
        scheduler.add(Request(Prompt([*CLIP, 30], media), GenerationSettings(max_new_tokens=2), ["never"]))
    finish(scheduler)
    assert forwards == [(2, 6), (1, 2), (3, 1), (1, 6), (1, 1)]


def test_a_cancelled_answer_gives_no_more_events_and_frees_its_row(model, tokenizer, forwards):
    scheduler = Scheduler(model, tokenizer, max_rows=2)
    first, second, third = (scheduler.add(request) for request in of_length(model, 9, 9, 9))
    scheduler.step()
    assert not scheduler.has_room
    scheduler.cancel(first)
    scheduler.cancel(third)
    scheduler.cancel(third)
    assert scheduler.has_room
    events = finish(scheduler)
    assert {event.answer for event in events} == {second}
    assert len(first.tokens) == 2
    assert forwards[-1] == (1, 1)
    scheduler.cancel(second)


# Media that several questions share


@pytest.mark.parametrize("n_rows", [1, 3, 8])
def test_eight_questions_on_a_clip_run_its_tokens_once(model, tokenizer, monkeypatch, forwards, n_rows):
    (media,) = clips_of(model, 1)
    limit = GenerationSettings(max_new_tokens=6)
    requests = [Request(Prompt([*CLIP, *range(30, 30 + n)], media), limit, ["never"]) for n in range(4, 12)]
    expected = [alone(model, tokenizer, request) for request in requests]
    embed, media_tokens = model.embed_prompt, []

    def counting(input_ids: torch.Tensor, media: Sequence[MediaGroup]) -> torch.Tensor:
        media_tokens.append(int((input_ids < 0).sum()))
        return embed(input_ids, media)

    monkeypatch.setattr(model, "embed_prompt", counting)
    forwards.clear()
    scheduler = Scheduler(model, tokenizer, n_rows)
    answers = [scheduler.add(request) for request in requests]
    finish(scheduler)
    assert [answer.tokens for answer in answers] == expected
    assert sum(media_tokens) == CLIP.count(-1)
    longest = len(CLIP[CLIP.index(7) :]) + 11
    assert all(n_tokens <= longest for _, n_tokens in forwards[1:])


def test_only_questions_on_the_same_tensors_share(model, tokenizer, forwards):
    one, other = clips_of(model, 2)
    for media in (one, other, clips_of(model, 1)[0], one):
        scheduler = Scheduler(model, tokenizer, 4)
        request = Request(Prompt([*CLIP, 30], media), GenerationSettings(max_new_tokens=4), ["never"])
        expected = alone(model, tokenizer, request)
        answers = [scheduler.add(r) for r in (request, Request(Prompt([*CLIP, 30], one), request.settings, ["never"]))]
        forwards.clear()
        finish(scheduler)
        assert answers[0].tokens == expected
        assert sorted(size for size in forwards if size[1] > 1) == ([(1, 2), (1, 6)] if media is one else [(2, 6)])


def test_a_prefix_is_dropped_when_others_are_used_more_recently(model, tokenizer, forwards):
    clips = clips_of(model, 3)
    scheduler = Scheduler(model, tokenizer, max_rows=1)  # and two prefixes
    for media in (clips[0], clips[1], clips[0], clips[2], clips[0], clips[1]):
        scheduler.add(Request(Prompt([*CLIP, 30], media), GenerationSettings(max_new_tokens=1), ["never"]))
        finish(scheduler)
    assert [size for size in forwards if size[1] > 1] == [(1, 6), (1, 6), (1, 2), (1, 6), (1, 2), (1, 6)]


# Errors


def test_a_request_that_cannot_be_answered_is_refused_at_once(model, tokenizer):
    scheduler = Scheduler(model, tokenizer, max_rows=2)
    with pytest.raises(PromptTooLong, match=r"250 tokens .*7 .*256 tokens"):
        scheduler.add(Request(Prompt([20] * 250, ()), GenerationSettings(max_new_tokens=7), ["###"]))
    with pytest.raises(VideoLlamaError, match="none of them empty"):
        scheduler.add(Request(Prompt([20], ()), GenerationSettings(), [""]))
    assert not scheduler.busy


def test_only_the_request_with_wrong_media_fails(model, tokenizer):
    (media,) = clips_of(model, 1)
    wrong = Prompt([5, -1, -1, 7], media)  # two slots for three tokens
    requests = of_length(model, 3, 4)
    scheduler = Scheduler(model, tokenizer, max_rows=3)
    first, bad, last = (
        scheduler.add(request)
        for request in (requests[0], Request(wrong, GenerationSettings(max_new_tokens=3), ["never"]), requests[1])
    )
    (error,) = (event for event in finish(scheduler) if event.error)
    assert error.answer is bad
    assert "media slots hold [2] tokens" in str(error.error)
    assert [first.tokens, last.tokens] == [alone(model, tokenizer, request) for request in requests]


@pytest.fixture
def memory(model: VideoLLaMA, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[int]]:
    """Limits the rows of a forward pass that fit, from a call on; returns the rows of each call that fitted."""

    def limit(n_rows: int, from_call: int = 0) -> list[int]:
        forward, fitted, calls = model.decoder.lm.forward, [], []

        def limited(*args: Any, **kwargs: Any) -> Any:
            inputs = kwargs.get("input_ids") if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
            calls.append(len(inputs))
            if len(inputs) > n_rows and len(calls) > from_call:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            fitted.append(len(inputs))
            return forward(*args, **kwargs)

        monkeypatch.setattr(model.decoder.lm, "forward", limited)
        return fitted

    return limit


@pytest.mark.parametrize("from_call", [0, 5])
@pytest.mark.parametrize("fits", [1, 3])
@pytest.mark.parametrize("way", ["greedy", "both"])
def test_without_memory_for_all_rows_fewer_are_answered_at_once(model, tokenizer, memory, caplog, fits, from_call, way):
    requests = requests_of(model, **WAYS[way])
    expected = [alone(model, tokenizer, request) for request in requests]
    memory(fits, from_call)
    scheduler = Scheduler(model, tokenizer, max_rows=8)
    answers = [scheduler.add(request) for request in requests]
    with caplog.at_level(logging.WARNING):
        events = finish(scheduler)
    assert [answer.tokens for answer in answers] == expected
    assert "at once: continued with half as many" in caplog.text
    for answer in answers:
        assert "".join(event.piece for event in events if event.answer is answer) == answer.text.text


def test_a_request_that_does_not_fit_alone_fails_and_the_next_are_answered(model, tokenizer, memory, monkeypatch):
    requests = of_length(model, 3, 3)
    expected = alone(model, tokenizer, requests[1])
    scheduler = Scheduler(model, tokenizer, max_rows=1)
    first, second = (scheduler.add(request) for request in requests)
    with monkeypatch.context() as patch:
        patch.setattr(model.decoder.lm, "forward", without_memory)
        (event,) = scheduler.step()
    assert (event.answer, event.done, type(event.error)) == (first, True, OutOfMemory)
    finish(scheduler)
    assert second.tokens == expected


def without_memory(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_rows_are_added_again_after_a_time_without_shortage(model, tokenizer, memory, monkeypatch):
    scheduler = Scheduler(model, tokenizer, max_rows=4)
    for request in of_length(model, 2, 2, 2, 2):
        scheduler.add(request)
    with monkeypatch.context() as patch:
        patch.setattr(model.decoder.lm, "forward", without_memory)
        scheduler.step()
    fitted = memory(99)
    for request in of_length(model, *[2] * 3 * CALM):
        scheduler.add(request)
    finish(scheduler)
    assert (fitted[0], max(fitted)) == (2, 4)


def test_prefixes_are_freed_before_a_single_request_is_given_up(model, tokenizer, memory, monkeypatch):
    (media,) = clips_of(model, 1)
    request = Request(Prompt([*CLIP, 30], media), GenerationSettings(max_new_tokens=3), ["never"])
    expected = alone(model, tokenizer, request)
    scheduler = Scheduler(model, tokenizer, max_rows=1)
    scheduler.add(request)
    finish(scheduler)
    answer = scheduler.add(request)
    with monkeypatch.context() as patch:
        patch.setattr(model.decoder.lm, "forward", without_memory)
        assert scheduler.step() == []
    finish(scheduler)
    assert answer.tokens == expected


def test_an_answer_is_its_prompt_to_go_on_from(model, tokenizer):
    (request,) = of_length(model, 3)
    answer = Answer(request, tokenizer)
    answer.take(40)
    answer.take(41)
    assert answer.prompt.input_ids == [9, 30, 40, 41]
