"""Answers through a vLLM are those of the model's own decoder, whatever happens on the way."""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from tests import tiny
from tests.vllm_stand_in import StandIn, serving
from video_llama.common.errors import DeadlineExceeded, DecoderUnavailable, Draining, QueueFull, VideoLlamaError
from video_llama.conversation.decoding import Failed, Piece, Progress
from video_llama.conversation.engine import Engine
from video_llama.conversation.file import File
from video_llama.conversation.settings import GenerationSettings
from video_llama.conversation.vllm_decoding import VllmDecoding
from video_llama.conversation.vllm_server import VllmServer
from video_llama.conversation.worker import Ask, ShownTurn, Worker

CLIP, IMAGE = File("video", "clip"), File("image", "picture")
DIALOGUES = {
    "text": [ShownTurn("What is it?")],
    "clip": [ShownTurn("What is it?", [CLIP])],
    "both": [ShownTurn("What is it?", [IMAGE, CLIP])],
    "turns": [ShownTurn("What is it?", [CLIP], "A dog."), ShownTurn("And this?", [IMAGE], "Red."), ShownTurn("Why?")],
}
SHORT = GenerationSettings(max_new_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder whose folder asks for other settings than ours, as published ones do."""
    folder = tiny.write_decoder(tmp_path_factory.mktemp("served"))
    settings = {
        "temperature": 0.6,
        "top_p": 0.3,
        "top_k": 2,
        "min_p": 0.5,
        "repetition_penalty": 5.0,
        "eos_token_id": [2, 9],
    }
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[StandIn]:
    with serving(StandIn(folder)) as stand_in:
        yield stand_in


@pytest.fixture
def vllm(served: StandIn) -> StandIn:
    """A stand-in that has served nothing yet."""
    served.requests.clear()
    served.prompts.clear()
    served.most_open = served.n_aborted = 0
    served.token_s = 0.0
    return served


@pytest.fixture
def bridged(engine: Engine, vllm: StandIn) -> Iterator[Callable[..., Worker]]:
    """A worker whose decoder is the stand-in."""
    workers = []

    def worker(url: str = vllm.url, **limits: int) -> Worker:
        workers.append(Worker(engine, VllmDecoding(engine, VllmServer(url), **limits)))
        return workers[-1]

    yield worker
    for each in workers:
        each.close()


class Answers:
    """What a dialogue got."""

    def __init__(
        self, worker: Worker, turns: list[ShownTurn[File]], settings: GenerationSettings = SHORT, **more: Any
    ) -> None:
        self.events: SimpleQueue[Progress] = SimpleQueue()
        self.texts = [""] * more.get("n", 1)
        self.ids: list[list[int]] = [[] for _ in self.texts]
        self.chances: list[Any] = []
        self.reasons: list[str | None] = [None] * len(self.texts)
        self.ticket = worker.submit(Ask(turns, settings, **more), self.events.put)

    def next(self) -> Progress:
        event = self.events.get(timeout=60)
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Piece):
            assert self.reasons[event.index] is None, "a piece after the end"
            self.texts[event.index] += event.text
            self.ids[event.index] += event.ids
            self.chances += event.tokens
            self.reasons[event.index] = event.finish_reason
            assert event.n_tokens == len(event.ids) == 1
        return event

    def all(self) -> Answers:
        while None in self.reasons:
            self.next()
        return self

    def is_over(self) -> bool:
        """Whether nothing more comes."""
        try:
            self.events.get(timeout=0.2)
        except Empty:
            return True
        return False


@pytest.mark.parametrize("name", DIALOGUES)
def test_a_greedy_answer_has_the_tokens_of_our_own_decoder(name, bridged, engine):
    with Worker(engine) as own:
        expected = Answers(own, DIALOGUES[name]).all()
    found = Answers(bridged(), DIALOGUES[name]).all()
    assert (found.ids, found.texts, found.reasons) == (expected.ids, expected.texts, expected.reasons)


def test_the_whole_prompt_is_sent_as_embeddings(bridged, engine, vllm):
    answers = Answers(bridged(), DIALOGUES["both"])
    started = answers.next()
    answers.all()
    (request,) = vllm.requests
    assert "prompt" not in request
    assert vllm.prompts[0].shape == (started.prompt_tokens, 16)
    assert started.media_tokens == 2 * tiny.TOKENS_PER_SLOT


def test_a_stop_string_ends_the_answer_where_our_own_decoder_ends_it(bridged, engine, vllm):
    vllm.token_s = 0.01
    plain = Answers(bridged(), DIALOGUES["clip"]).all()
    stop = plain.texts[0].strip()[3:6]
    with Worker(engine) as own:
        expected = Answers(own, DIALOGUES["clip"], stops=[stop]).all()
    found = Answers(bridged(), DIALOGUES["clip"], stops=[stop]).all()
    assert expected.reasons == ["stop"]
    assert (found.ids, found.texts, found.reasons) == (expected.ids, expected.texts, expected.reasons)


def test_log_probabilities_are_those_of_our_own_decoder(bridged, engine):
    with Worker(engine) as own:
        expected = Answers(own, DIALOGUES["clip"], top_logprobs=3).all().chances
    found = Answers(bridged(), DIALOGUES["clip"], top_logprobs=3).all().chances
    assert [c.token for c in found] == [c.token for c in expected]
    assert [[text for text, _ in c.top] for c in found] == [[text for text, _ in c.top] for c in expected]
    assert [c.logprob for c in found] == pytest.approx([c.logprob for c in expected], abs=1e-4)
    assert {len(c.top) for c in Answers(bridged(), DIALOGUES["text"], top_logprobs=0).all().chances} == {0}


def test_penalties_change_the_answer_as_they_do_here(bridged, engine):
    settings = GenerationSettings(max_new_tokens=12, frequency_penalty=1.5, presence_penalty=0.5)
    with Worker(engine) as own:
        expected = Answers(own, DIALOGUES["clip"], settings).all()
    assert Answers(bridged(), DIALOGUES["clip"], settings).all().ids == expected.ids


def test_several_answers_are_sampled_with_seeds_of_their_own(bridged, vllm):
    settings = GenerationSettings(max_new_tokens=8, temperature=5.0, top_p=1.0, seed=7)
    worker = bridged()
    found = Answers(worker, DIALOGUES["text"], settings, n=3).all()
    assert sorted(request["seed"] for request in vllm.requests) == [7, 8, 9]
    assert len(set(map(tuple, found.ids))) == 3
    assert Answers(worker, DIALOGUES["text"], settings, n=3).all().ids == found.ids


def test_many_are_answered_at_once_but_no_more_than_there_are_rows(bridged, vllm):
    vllm.token_s = 0.02
    worker = bridged(max_rows=3)
    many = [Answers(worker, DIALOGUES["text"], client=str(k)) for k in range(7)]
    assert len({tuple(each.all().ids[0]) for each in many}) == 1
    assert vllm.most_open == 3
    assert worker.drain(30)
    assert (worker.n_running, worker.n_waiting) == (0, 0)


def test_cancelling_closes_the_stream_and_makes_room(bridged, vllm):
    vllm.token_s = 0.05
    worker = bridged(max_rows=1)
    first, second = (Answers(worker, DIALOGUES["text"], GenerationSettings(max_new_tokens=200)) for _ in range(2))
    while not any(first.ids):
        first.next()
    first.ticket.cancel()
    while not any(second.ids):
        second.next()
    second.ticket.cancel()
    deadline = time.monotonic() + 30
    while vllm.n_aborted < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (vllm.n_aborted, vllm.n_open) == (2, 0)
    assert (worker.n_running, worker.n_waiting) == (0, 0)


def test_an_answer_that_takes_too_long_ends_at_its_deadline(bridged, vllm):
    vllm.token_s = 0.05
    answers = Answers(bridged(), DIALOGUES["text"], GenerationSettings(max_new_tokens=200), deadline_s=0.3)
    with pytest.raises(DeadlineExceeded):
        answers.all()
    assert answers.is_over()


def test_nothing_is_kept_of_a_ticket_that_has_ended(bridged, vllm):
    worker = bridged()
    answers = Answers(worker, DIALOGUES["text"], deadline_s=600).all()
    assert worker.drain(30)
    ticket = weakref.ref(answers.ticket)
    del answers
    deadline = time.monotonic() + 30
    while ticket() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert ticket() is None


def test_too_many_that_wait_are_turned_away(bridged, vllm):
    vllm.token_s = 0.05
    worker = bridged(max_rows=1, max_waiting=1)
    first = Answers(worker, DIALOGUES["text"], GenerationSettings(max_new_tokens=100))
    while not any(first.ids):
        first.next()
    Answers(worker, DIALOGUES["text"])
    with pytest.raises(QueueFull) as caught:
        Answers(worker, DIALOGUES["text"])
    assert caught.value.retry_after_s > 0


def test_draining_cuts_no_answer_and_closing_ends_all(bridged, vllm):
    vllm.token_s = 0.02
    worker = bridged()
    answers = Answers(worker, DIALOGUES["text"])
    drained = threading.Thread(target=worker.drain)
    drained.start()
    assert len(answers.all().ids[0]) == 12
    drained.join(timeout=30)
    assert not drained.is_alive()
    with pytest.raises(Draining):
        Answers(worker, DIALOGUES["text"])

    other = bridged()
    answers = Answers(other, DIALOGUES["text"], GenerationSettings(max_new_tokens=200))
    while not any(answers.ids):
        answers.next()
    other.close()
    with pytest.raises(Draining):
        answers.all()
    assert answers.is_over()


def test_an_error_in_a_stream_ends_the_answer_and_no_other(bridged, vllm):
    worker = bridged()
    vllm.event_after = 3, json.dumps({"error": {"message": "EngineCore is dead", "type": "x", "code": 500}})
    with pytest.raises(DecoderUnavailable, match="EngineCore is dead"):
        Answers(worker, DIALOGUES["text"]).all()
    vllm.cut_after = 3
    with pytest.raises(DecoderUnavailable, match=r"cannot be reached \(.*closed"):
        Answers(worker, DIALOGUES["text"]).all()
    vllm.event_after = 3, json.dumps({"choices": [{"text": "", "token_ids": [], "finish_reason": "abort"}]})
    with pytest.raises(DecoderUnavailable, match=r"before its end \(abort\)"):
        Answers(worker, DIALOGUES["text"]).all()
    vllm.statuses = [503]
    with pytest.raises(DecoderUnavailable, match="answers 503: EngineCore encountered an issue"):
        Answers(worker, DIALOGUES["text"]).all()
    assert len(Answers(worker, DIALOGUES["text"]).all().ids[0]) == 12
    assert worker.drain(30)


def test_one_answer_of_several_that_fails_ends_the_others(bridged, vllm):
    vllm.token_s = 0.02
    worker = bridged()
    vllm.cut_after = 2
    answers = Answers(worker, DIALOGUES["text"], GenerationSettings(max_new_tokens=200), n=3)
    with pytest.raises(DecoderUnavailable):
        answers.all()
    assert answers.is_over()
    assert worker.n_running == 0


def test_a_vllm_that_has_gone_is_an_error_that_says_so(bridged):
    worker = bridged("http://127.0.0.1:9")
    with pytest.raises(DecoderUnavailable, match=r"127.0.0.1:9: vLLM cannot be reached .*Is it running"):
        Answers(worker, DIALOGUES["text"]).all()


def test_what_vllm_cannot_do_is_an_error_of_the_question_alone(bridged, vllm):
    worker = bridged()
    with pytest.raises(VideoLlamaError, match="repetition_penalty"):
        Answers(worker, DIALOGUES["text"], GenerationSettings(max_new_tokens=12, repetition_penalty=1.5)).all()
    with pytest.raises(VideoLlamaError, match="top_logprobs: 30"):
        Answers(worker, DIALOGUES["text"], top_logprobs=30).all()
    assert vllm.requests == []


def test_a_dialogue_of_our_own_may_be_answered_there_too(engine, vllm):
    from video_llama.conversation.chat import Chat

    expected = Chat(engine).ask("What is it?", SHORT)
    with VllmDecoding(engine, VllmServer(vllm.url)) as engine.decoding:
        assert Chat(engine).ask("What is it?", SHORT) == expected
    assert len(vllm.requests) == 1
