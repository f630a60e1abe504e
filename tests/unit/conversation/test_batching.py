"""Questions about many files in batches: each is answered as it would be alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from video_llama.common.errors import DecodeError, OutOfMemory, PromptTooLong, VideoLlamaError
from video_llama.conversation.batching import File, FileAnswer, FileQuestion, Outcome, answer_batches, in_parts
from video_llama.conversation.chat import Chat
from video_llama.conversation.scheduler import Scheduler
from video_llama.conversation.settings import GenerationSettings
from video_llama.processors.media import AUDIO_OFF

SHORT = GenerationSettings(max_new_tokens=8)


def asked(path: str, question: str = "What is it?", kind: Any = "video") -> FileQuestion:
    return FileQuestion(File(kind, path), question)


QUESTIONS = (
    asked("a"),
    asked("a", "What colour is the shape?"),
    asked("b", kind="image"),
    asked("broken"),
    asked("c", "How does it move, and why, and for how long?"),
    asked("a", kind="image"),
    asked("b", " ", kind="image"),
    asked("c"),
)


def alone(chat: Chat, question: FileQuestion, settings: GenerationSettings = SHORT) -> str | tuple[type, str]:
    """The answer in a dialogue of its own, or the type and text of its error."""
    single = Chat(chat.engine)
    try:
        single.upload(**{question.file.kind: question.file.path})
        return single.ask(question.question, settings)
    except VideoLlamaError as error:
        return type(error), str(error)


def flat(outcomes: Iterator[tuple[int, Outcome]]) -> list[str | tuple[type, str]]:
    """All outcomes in the order of the questions, in a comparable form."""
    found = dict(outcomes)
    assert sorted(found) == [*range(len(found))]
    in_order = [found[number] for number in range(len(found))]
    return [one.text if isinstance(one, FileAnswer) else (type(one), str(one)) for one in in_order]


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize(
    "settings",
    [
        SHORT,
        GenerationSettings(max_new_tokens=8, num_beams=2),
        GenerationSettings(max_new_tokens=8, temperature=1.0, seed=3),
        GenerationSettings(max_new_tokens=8, temperature=1.0, seed=3, num_beams=2),
    ],
)
@pytest.mark.parametrize("continuous", [True, False])
def test_answers_and_errors_do_not_depend_on_the_batch(chat, monkeypatch, size, settings, continuous):
    batches = [QUESTIONS[i : i + size] for i in range(0, len(QUESTIONS), size)]
    expected = [alone(chat, question, settings) for question in QUESTIONS]
    if not continuous:
        monkeypatch.setattr("video_llama.conversation.engine.takes_rows", lambda lm: False)
    assert flat(answer_batches(chat.engine, batches, settings)) == expected
    assert expected[3] == (DecodeError, "broken: it is broken")
    assert expected[6] == (VideoLlamaError, "the question is empty")
    assert chat.session.turns == []


def test_reading_ahead_in_threads_changes_no_answer(chat):
    batches = [QUESTIONS[:4], QUESTIONS[4:]]
    expected = flat(answer_batches(chat.engine, batches, SHORT))
    assert flat(answer_batches(chat.engine, batches, SHORT, n_threads=2)) == expected


def test_a_file_is_read_and_encoded_once_while_it_is_among_the_last(chat, monkeypatch):
    monkeypatch.setattr("video_llama.conversation.batching.MAX_FILES", 2)
    read, encoded = [], []
    frozen, processor = chat.engine.model.encode_frozen, chat.engine.video_processor

    def encode_frozen(groups: Any) -> Any:
        encoded.extend(len(group.data) for group in groups if not group.encoded)
        return frozen(groups)

    monkeypatch.setattr(chat.engine.model, "encode_frozen", encode_frozen)
    chat.engine.video_processor = lambda path, rng: (read.append(path), processor(path, rng))[1]
    batches = [
        [asked("a"), asked("a", "Why?"), asked("b")],
        [asked("b"), asked("c")],
        [asked("b", "Why?")],
        [asked("a")],
        [asked("a", "How?"), asked("b"), asked("d")],
    ]
    assert len(flat(answer_batches(chat.engine, batches, SHORT))) == 10
    assert read == ["a", "b", "c", "a", "d"]
    assert encoded == [2, 1, 1, 1]


@pytest.mark.parametrize("size", [1, 3])
def test_the_same_question_on_the_same_file_is_answered_once(chat, monkeypatch, size):
    answered: list[Any] = []
    add = Scheduler.add
    monkeypatch.setattr(Scheduler, "add", lambda self, request: (answered.append(request), add(self, request))[1])
    questions = [asked("a"), asked("a"), asked("b"), asked("a", "Why?"), asked("a"), asked("a", kind="image")]
    batches = [questions[i : i + size] for i in range(0, len(questions), size)]
    outcomes = flat(answer_batches(chat.engine, batches, SHORT))
    assert len(answered) == 4
    assert outcomes == [alone(chat, question) for question in questions]


def test_an_error_is_not_taken_for_the_answer_to_the_same_question(chat, monkeypatch):
    failures = iter([True, False])

    def once(self: Scheduler, prompts: Any) -> Any:
        if next(failures, False):
            raise VideoLlamaError("a passing problem")
        return prefill(self, prompts)

    prefill = Scheduler._prefill
    monkeypatch.setattr(Scheduler, "_prefill", once)
    first, second = flat(answer_batches(chat.engine, [[asked("a")], [asked("a")]], SHORT))
    assert first == (VideoLlamaError, "a passing problem")
    assert second == alone(chat, asked("a"))


def test_a_batch_is_not_computed_before_it_is_requested(chat, monkeypatch):
    answers = answer_batches(chat.engine, [[asked("a")], [asked("b")]], SHORT)
    next(answers)
    monkeypatch.setattr(chat.engine.model, "encode_frozen", lambda groups: pytest.fail("nobody has asked for it"))
    answers.close()


def test_only_the_prompt_that_is_too_long_gets_an_error(chat):
    outcomes = flat(answer_batches(chat.engine, [[asked("a"), asked("b", "word " * 300), asked("c")]], SHORT))
    assert outcomes[::2] == [alone(chat, asked("a")), alone(chat, asked("c"))]
    assert outcomes[1] == alone(chat, asked("b", "word " * 300))
    assert outcomes[1][0] is PromptTooLong


def test_torchs_random_state_is_unchanged(chat):
    before = torch.get_rng_state()
    flat(answer_batches(chat.engine, [QUESTIONS], GenerationSettings(max_new_tokens=4, temperature=1.0, seed=0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_no_batches_give_no_answers(chat):
    assert flat(answer_batches(chat.engine, [])) == []
    assert list(answer_batches(chat.engine, [[], [asked("a")]], SHORT)) == [
        (0, FileAnswer(alone(chat, asked("a")), AUDIO_OFF))
    ]


def test_an_unexpected_exception_becomes_the_error_of_its_file(chat, caplog):
    def processor(path: str, rng: Any) -> Any:
        if path == "odd":
            raise ZeroDivisionError("1 / 0")
        if path == "huge":
            raise MemoryError
        return fine(path, rng)

    fine, chat.engine.video_processor = chat.engine.video_processor, processor
    outcomes = flat(answer_batches(chat.engine, [[asked("odd"), asked("a"), asked("huge")]], SHORT))
    assert outcomes[0] == (DecodeError, "odd: cannot be read: ZeroDivisionError('1 / 0')")
    assert outcomes[1] == alone(chat, asked("a"))
    assert outcomes[2][0] is OutOfMemory
    assert "ZeroDivisionError" in caplog.text


def test_threads_read_a_few_files_ahead_and_no_more(chat):
    def processor(path: str, rng: Any) -> Any:
        read.append(path)
        return fine(path, rng)

    read: list[str] = []
    fine, chat.engine.video_processor = chat.engine.video_processor, processor
    answers = answer_batches(chat.engine, [[asked(f"{n:02}")] for n in range(20)], SHORT, n_threads=2)
    next(answers)
    answers.close()
    assert 1 <= len(read) <= 4


# Memory


@pytest.mark.parametrize("where", ["forward", "generate", "encode_frozen"])
@pytest.mark.parametrize("fits", [1, 3])
def test_a_batch_that_runs_out_of_memory_is_split(chat, monkeypatch, caplog, where, fits):
    files = [asked(name) for name in "abcdefgh"]
    expected = [alone(chat, question) for question in files]
    owner = chat.engine.model if where == "encode_frozen" else chat.engine.model.decoder.lm
    work, sizes = getattr(owner, where), []
    monkeypatch.setattr("video_llama.conversation.engine.takes_rows", lambda lm: where != "generate")

    def limited(*args: Any, **kwargs: Any) -> Any:
        inputs = kwargs.get("input_ids") if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
        size = len(args[0][0].data) if where == "encode_frozen" else len(inputs)
        sizes.append(size)
        if size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return work(*args, **kwargs)

    monkeypatch.setattr(owner, where, limited)
    with caplog.at_level(logging.WARNING):
        assert flat(answer_batches(chat.engine, [files], SHORT)) == expected
    assert sizes[0] == 8
    assert "out of memory with 8 at once" in caplog.text


def without_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_single_item_that_runs_out_of_memory_gets_an_error(chat, monkeypatch):
    monkeypatch.setattr(chat.engine.model, "encode_frozen", without_memory)
    outcomes = dict(answer_batches(chat.engine, [[asked("a"), asked("broken")]], SHORT))
    assert [type(outcomes[k]) for k in (0, 1)] == [OutOfMemory, DecodeError]


# Splitting


def test_splitting_finds_the_items_that_fail(chat):
    def work(items: Sequence[int]) -> list[int]:
        if bad := [item for item in items if item % 5 == 0]:
            raise VideoLlamaError(str(bad[0]))
        return [10 * item for item in items]

    outcomes = in_parts(work, range(1, 12))
    assert [str(outcome) for outcome in outcomes] == ["10", "20", "30", "40", "5", "60", "70", "80", "90", "10", "110"]
    assert [k for k, outcome in enumerate(outcomes) if isinstance(outcome, VideoLlamaError)] == [4, 9]
    assert in_parts(work, []) == []


def test_splitting_does_not_hide_programming_errors():
    with pytest.raises(ZeroDivisionError):
        in_parts(lambda items: [1 // 0], [1, 2])
