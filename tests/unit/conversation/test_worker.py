"""Dialogues of many clients at once: each is answered as it would be alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest
import torch

from tests.unit.conversation.conftest import Concurrency
from video_llama.common.errors import (
    DeadlineExceeded,
    DecodeError,
    Draining,
    InternalFault,
    PromptTooLong,
    QueueFull,
    VideoLlamaError,
)
from video_llama.conversation.chat import Chat
from video_llama.conversation.decoding_thread import DecodingThread
from video_llama.conversation.engine import Engine
from video_llama.conversation.file import File
from video_llama.conversation.session import ShownTurn
from video_llama.conversation.settings import GenerationSettings
from video_llama.conversation.worker import Ask, Failed, Piece, Started, Worker
from video_llama.processors.media import MediaReader

PATIENCE_S = 60
SHORT = GenerationSettings(max_new_tokens=8)


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files with the same names each time, from which their frames are made."""
    monkeypatch.chdir(tmp_path)
    paths = [Path(f"{name}.mp4") for name in "abcdef"]
    for path in paths:
        path.write_bytes(b"frames")
    return paths


@pytest.fixture
def worker(engine: Engine) -> Iterator[Worker]:
    with Worker(engine, max_rows=4, max_waiting=40) as worker:
        yield worker


def ask_about(*paths: Path, question: str = "What is it?", settings: GenerationSettings = SHORT, **others: Any) -> Ask:
    return Ask([ShownTurn(question, [File("video", path) for path in paths])], settings, **others)


class Client:
    """What a client gets of its dialogue."""

    def __init__(self, worker: Worker, ask: Ask) -> None:
        self.ask, self.events = ask, SimpleQueue[Any]()
        self.ticket = worker.submit(ask, self.events.put)

    def next(self) -> Any:
        return self.events.get(timeout=PATIENCE_S)

    def answers(self) -> list[str]:
        """The answers, once all have ended."""
        assert isinstance(self.next(), Started)
        texts, n_left = [""] * self.ask.n, self.ask.n
        while n_left:
            event = self.next()
            assert isinstance(event, Piece), event
            texts[event.index] += event.text
            n_left -= event.finish_reason is not None
        return texts

    def error(self) -> VideoLlamaError:
        while not isinstance(event := self.next(), Failed):
            pass
        return event.error


def alone(engine: Engine, *turns: ShownTurn[File], settings: GenerationSettings = SHORT) -> str:
    """The answer of a dialogue of its own."""
    chat = Chat(engine)
    for turn in turns:
        for file in turn.files:
            chat.upload(video=file.path)
        answer = chat.ask(turn.question, settings)
        if turn.answer is not None:
            chat.session.answer(turn.answer)
    return answer


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The reading of files waits until the event is set."""
    event, read = threading.Event(), MediaReader.read

    def waiting(*args: Any) -> Any:
        assert event.wait(PATIENCE_S)
        return read(*args)

    monkeypatch.setattr(MediaReader, "read", waiting)
    yield event
    event.set()


def test_many_clients_get_the_answers_that_each_would_get_alone(engine, clips, worker):
    asks = [ask_about(clips[k % 6], question=f"What is {'very ' * (k % 5)}it?", client=str(k % 7)) for k in range(24)]
    got = [client.answers() for client in [Client(worker, ask) for ask in asks]]
    assert got == [[alone(engine, *ask.turns)] for ask in asks]
    assert worker.n_running == worker.n_waiting == 0


def test_a_dialogue_of_several_turns_and_clips_is_that_of_a_chat(engine, clips, worker):
    first = ShownTurn("What is it?", [File("video", clips[0]), File("video", clips[1])], "A ring.")
    turns = [first, ShownTurn("And this?", [File("video", clips[2])])]
    client = Client(worker, Ask(turns, SHORT))
    started = client.next()
    assert len(started.files) == 3
    assert 0 < started.media_tokens < started.prompt_tokens
    client.events.put(started)
    events = [client.next() for _ in range(1)]
    while events[-1].__class__ is Started or events[-1].finish_reason is None:
        events.append(client.next())
    pieces = [event for event in events if isinstance(event, Piece)]
    assert "".join(piece.text for piece in pieces) == alone(engine, *turns)
    assert sum(piece.n_tokens for piece in pieces) == 8
    assert pieces[-1].finish_reason == "length"


def test_a_question_without_files_is_answered(engine, worker):
    assert Client(worker, ask_about()).answers() == [alone(engine, ShownTurn("What is it?"))]


def test_each_of_n_answers_has_a_seed_of_its_own(engine, clips, worker):
    hot = GenerationSettings(max_new_tokens=8, temperature=1.5, seed=5)
    answers = Client(worker, ask_about(clips[0], settings=hot, n=3)).answers()
    singles = [
        Client(worker, ask_about(clips[0], settings=GenerationSettings(max_new_tokens=8, temperature=1.5, seed=seed)))
        for seed in (5, 6, 7)
    ]
    assert answers == [text for client in singles for text in client.answers()]
    assert len(set(answers)) > 1


def test_stop_strings_of_a_client_end_its_answer(engine, clips, worker):
    whole = alone(engine, ShownTurn("What is it?", [File("video", clips[0])]))
    stop = whole[3:5]
    client = Client(worker, ask_about(clips[0], stops=[stop]))
    pieces = [client.next() for _ in range(2)][1:]
    while pieces[-1].finish_reason is None:
        pieces.append(client.next())
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)].rstrip()
    assert pieces[-1].finish_reason == "stop"


def test_log_probabilities_are_those_of_a_forward_pass(engine, clips, worker):
    client = Client(worker, ask_about(clips[0], top_logprobs=3))
    assert isinstance(client.next(), Started)
    pieces = [client.next() for _ in range(8)]
    prompt = engine.prompt("What is it?", engine.encode_file("video", clips[0]))
    ids = [token for piece in pieces for token in piece.ids]
    with torch.no_grad():
        embeds = engine.model.embed_prompt(torch.tensor([[*prompt.input_ids, *ids]]), prompt.media)
        logits = engine.model.decoder.lm(inputs_embeds=embeds).logits[0, len(prompt.input_ids) - 1 : -1]
    expected = logits.log_softmax(-1)
    for k, piece in enumerate(pieces):
        (chance,) = piece.tokens
        assert chance.logprob == pytest.approx(float(expected[k, ids[k]]), abs=1e-5)
        assert [value for _, value in chance.top] == pytest.approx(expected[k].topk(3).values.tolist(), abs=1e-5)
        assert chance.top[0] == (chance.token, pytest.approx(chance.logprob))


@pytest.mark.parametrize("settings", [SHORT, GenerationSettings(max_new_tokens=8, frequency_penalty=2.0)])
def test_log_probabilities_do_not_change_the_answer(engine, clips, worker, settings):
    plain = Client(worker, ask_about(clips[0], settings=settings)).answers()
    assert Client(worker, ask_about(clips[0], settings=settings, top_logprobs=0)).answers() == plain


def test_a_file_that_many_ask_about_is_encoded_once(engine, clips, worker, monkeypatch):
    calls, encode = [], engine.encode
    monkeypatch.setattr(engine, "encode", lambda media: calls.append(1) or encode(media))
    for client in [Client(worker, ask_about(clips[0], client=str(k))) for k in range(8)]:
        client.answers()
    assert len(calls) == 1


def test_a_question_on_a_known_file_does_not_wait_for_the_reading_of_others(clips, worker, go):
    go.set()
    Client(worker, ask_about(clips[0])).answers()
    go.clear()
    slow = [Client(worker, ask_about(path)) for path in clips[1:]]
    Client(worker, ask_about(clips[0])).answers()
    Client(worker, ask_about()).answers()
    assert worker.n_waiting == len(slow)
    go.set()
    for client in slow:
        client.answers()


def test_clients_take_turns(engine, clips, go):
    order: list[str] = []
    with Worker(engine, max_rows=1) as worker:
        asks = [*(("a", clips[k % 6]) for k in range(4)), ("b", clips[0])]
        clients = []
        for name, path in asks:
            ask, events = ask_about(path, client=name), SimpleQueue[Any]()

            def note(event: Any, name: str = name, events: SimpleQueue[Any] = events) -> None:
                if isinstance(event, Piece) and event.finish_reason is not None:
                    order.append(name)
                events.put(event)

            worker.submit(ask, note)
            clients.append(events)
        go.set()
        for events in clients:
            while not (isinstance(event := events.get(timeout=PATIENCE_S), Piece) and event.finish_reason):
                pass
    assert order.index("b") < 4


# Endings


def test_a_full_queue_refuses_and_says_when_to_come_back(engine, clips, go):
    with Worker(engine, max_rows=1, max_waiting=3) as worker:
        clients = [Client(worker, ask_about(path)) for path in clips[:3]]
        with pytest.raises(QueueFull, match=r"3 questions are waiting already: try again in \d+ s") as refused:
            worker.submit(ask_about(clips[3]), print)
        assert refused.value.retry_after_s > 0
        go.set()
        for client in clients:
            client.answers()
        Client(worker, ask_about(clips[3])).answers()


def test_a_cancelled_dialogue_gives_no_more_events_and_frees_its_place(engine, clips, worker):
    endless = GenerationSettings(max_new_tokens=150)
    clients = [Client(worker, ask_about(clips[k], settings=endless)) for k in range(6)]
    for client in clients[:2]:
        assert isinstance(client.next(), Started)
        assert isinstance(client.next(), Piece)
    for client in clients:
        client.ticket.cancel()
    assert worker.drain(PATIENCE_S)
    time.sleep(0.05)
    for client in clients:
        while not client.events.empty():
            assert getattr(client.events.get(), "finish_reason", None) is None
    for client in clients:
        client.ticket.cancel()


def test_a_cancelled_dialogue_leaves_the_scheduler(engine, clips, worker):
    endless = GenerationSettings(max_new_tokens=150)
    client = Client(worker, ask_about(clips[0], settings=endless))
    assert isinstance(client.next(), Started)
    client.next()
    client.ticket.cancel()
    other = Client(worker, ask_about(clips[1]))
    assert other.answers() == [alone(engine, *other.ask.turns)]
    assert not worker._decoding._scheduler.busy


def test_a_deadline_ends_a_dialogue_whose_files_are_read(worker, clips, go):
    assert isinstance(Client(worker, ask_about(clips[0], deadline_s=0.05)).error(), DeadlineExceeded)
    go.set()
    assert worker.drain(PATIENCE_S)


def test_a_deadline_ends_a_dialogue_that_is_answered(engine, clips, worker, monkeypatch):
    step = engine.step
    monkeypatch.setattr(engine, "step", lambda scheduler: time.sleep(0.02) or step(scheduler))
    settings = GenerationSettings(max_new_tokens=150)
    assert isinstance(Client(worker, ask_about(clips[0], settings=settings, deadline_s=0.3)).error(), DeadlineExceeded)
    assert worker.drain(PATIENCE_S)


def test_cancelled_dialogues_whose_files_are_not_read_are_forgotten(clips, worker, go):
    for _ in range(100):
        Client(worker, ask_about(clips[0], clips[1])).ticket.cancel()
    assert len(worker._unread) <= 1
    go.set()
    assert worker.drain(PATIENCE_S)


def test_a_fault_in_the_reading_of_a_file_is_none_of_the_request(engine, clips, worker, monkeypatch):
    monkeypatch.setattr(engine, "encode", lambda media: 1 / 0)
    assert isinstance(Client(worker, ask_about(clips[0])).error(), InternalFault)


def test_draining_ends_what_has_begun_and_refuses_the_rest(engine, clips, worker):
    clients = [Client(worker, ask_about(path)) for path in clips]
    assert worker.drain(PATIENCE_S)
    with pytest.raises(Draining):
        worker.submit(ask_about(clips[0]), print)
    for client in clients:
        assert client.answers() == [alone(engine, *client.ask.turns)]


def test_closing_ends_all_dialogues_with_an_error(engine, clips):
    worker = Worker(engine, max_rows=1)
    settings = GenerationSettings(max_new_tokens=150)
    clients = [Client(worker, ask_about(path, settings=settings)) for path in clips]
    worker.close()
    for client in clients:
        assert isinstance(client.error(), Draining)
    with pytest.raises(Draining):
        worker.submit(ask_about(clips[0]), print)


# Errors


def test_errors_reach_their_client_alone(engine, clips, worker, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"frames")
    bad = [
        Client(worker, ask_about(tmp_path / "broken.mp4")),
        Client(worker, ask_about(clips[0], question="very " * 400)),
        Client(worker, ask_about(clips[0], question="  ")),
    ]
    good = Client(worker, ask_about(clips[1]))
    assert [type(client.error()) for client in bad] == [DecodeError, PromptTooLong, VideoLlamaError]
    assert good.answers() == [alone(engine, *good.ask.turns)]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"settings": GenerationSettings(num_beams=2)}, "num_beams: 2"),
        ({"n": 0}, "n: 0; expected at least 1"),
        ({"stops": [""]}, "stop strings"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(worker, clips, others, message):
    with pytest.raises(VideoLlamaError, match=message):
        worker.submit(ask_about(clips[0], **others), print)
    answered = Ask([ShownTurn("What is it?", [], "A ring.")], SHORT)
    for ask in (answered, Ask([], SHORT)):
        with pytest.raises(VideoLlamaError, match="the last turn has to be a question without an answer"):
            worker.submit(ask, print)
    assert worker.n_waiting == 0


def test_a_fault_in_a_step_ends_what_was_in_it_and_the_service_goes_on(engine, clips, worker, monkeypatch, caplog):
    Client(worker, ask_about(clips[0])).answers()
    step = engine.step

    def fail_once(scheduler: Any) -> Any:
        monkeypatch.setattr(engine, "step", step)
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(engine, "step", fail_once)
    assert "ZeroDivisionError" in str(Client(worker, ask_about(clips[0])).error())
    assert "a decoding step failed" in caplog.text
    later = Client(worker, ask_about(clips[0]))
    assert later.answers() == [alone(engine, *later.ask.turns)]


def test_a_client_whose_callback_fails_does_not_harm_the_others(engine, clips, worker, caplog):
    def fail(event: Any) -> None:
        raise ZeroDivisionError

    worker.submit(ask_about(clips[0]), fail)
    other = Client(worker, ask_about(clips[1]))
    assert other.answers() == [alone(engine, *other.ask.turns)]
    assert worker.drain(PATIENCE_S)
    assert "could not be passed on" in caplog.text


# Decoders that take no rows, and chats


def test_a_decoder_that_takes_no_rows_answers_one_after_the_other(engine, clips, monkeypatch):
    monkeypatch.setattr("video_llama.conversation.engine.takes_rows", lambda lm: False)
    with Worker(engine, max_rows=4) as worker:
        clients = [Client(worker, ask_about(path)) for path in clips]
        endless = Client(worker, ask_about(clips[0], settings=GenerationSettings(max_new_tokens=150)))
        with pytest.raises(VideoLlamaError, match="log-probabilities"):
            Client(worker, ask_about(clips[0], top_logprobs=1))
        for client in clients:
            assert client.answers() == [alone(engine, *client.ask.turns)]
        assert isinstance(endless.next(), Started)
        endless.next()
        endless.ticket.cancel()
        assert worker.drain(PATIENCE_S)


def test_chats_share_the_decoding_thread(engine, clips):
    questions = [f"What is {'very ' * k}it?" for k in range(8)]

    def answers() -> Sequence[str]:
        def one(k: int) -> str:
            chat = Chat(engine)
            chat.upload(video=clips[k % 6])
            return chat.ask(questions[k], GenerationSettings(max_new_tokens=40))

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(one, range(8)))

    expected = answers()
    concurrency = Concurrency(engine.model.decoder.lm)
    rows: list[int] = []
    engine.model.decoder.lm.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["attention_mask"])) if "input_ids" in kwargs else None,
        with_kwargs=True,
    )
    with DecodingThread(engine, max_rows=8) as engine.decoding:
        assert answers() == expected
    assert concurrency.most == 1
    assert max(rows) > 1


def test_a_chat_that_is_closed_leaves_the_decoding_thread(engine, clips):
    with DecodingThread(engine) as engine.decoding:
        chat = Chat(engine)
        chat.upload(video=clips[0])
        stream = chat.stream("What is it?", GenerationSettings(max_new_tokens=150))
        next(stream)
        stream.close()
        assert engine.decoding.drain(PATIENCE_S)
        with pytest.raises(Draining):
            chat.ask("And now?")
        assert [turn.question for turn in chat.session.turns] == ["What is it?"]


def test_events_of_one_dialogue_come_in_order_whoever_else_is_served(engine, clips, worker):
    clients = [Client(worker, ask_about(clips[k % 6], n=2)) for k in range(10)]
    for client in clients:
        assert isinstance(client.next(), Started)
        ended: set[int] = set()
        while len(ended) < 2:
            event = client.next()
            assert event.index not in ended
            if event.finish_reason is not None:
                ended.add(event.index)
        with pytest.raises(Empty):
            client.events.get(timeout=0.01)
