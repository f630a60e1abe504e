"""Likelihoods of given answers: those of one forward pass each, whatever is shared and whatever else is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import tiny
from tests.unit.conversation.conftest import read
from video_llama.common.errors import DecodeError, OutOfMemory, PromptTooLong, VideoLlamaError
from video_llama.common.types import IGNORE_LABEL
from video_llama.conversation.batching import File, FileAnswer, FileQuestion, answer_batches
from video_llama.conversation.choosing import ChoiceQuestion, ChosenOption, answers_and_choices, choice_batches
from video_llama.conversation.engine import Engine
from video_llama.conversation.likelihood import AnsweredPrompt
from video_llama.conversation.settings import GenerationSettings
from video_llama.models.video_llama import VideoLLaMA

OPTIONS = ("It is a ring.", "ring", "It is a star, and a large one.", "It is", "10", "1")


def asked(path: str, question: str = "What is it?", options: tuple[str, ...] = OPTIONS, **more: Any) -> ChoiceQuestion:
    return ChoiceQuestion(File("video", path), question, options, **more)


QUESTIONS = (
    asked("a"),
    asked("a", "What colour is the shape, and how does it move?"),
    asked("b", options=("left", "right")),
    asked("broken"),
    asked("a", options=("Yes.", "No.")),
)


@torch.no_grad()
def one_by_one(engine: Engine, answer: AnsweredPrompt) -> float:
    """The log-likelihood of an answer from a forward pass over it alone, without any cache."""
    ids = torch.tensor([list(answer.input_ids)])
    lm = engine.model.decoder.lm
    embeds = engine.model.embed_prompt(ids, answer.media).to(lm.dtype)
    logits = lm(inputs_embeds=embeds, use_cache=False).logits[0]
    of_next = logits[:-1].double().log_softmax(-1)
    scored = [(n, label) for n, label in enumerate(answer.labels[1:]) if label != IGNORE_LABEL]
    return sum(float(of_next[n, label]) for n, label in scored)


@pytest.fixture(params=["shared", "alone"])
def either(request, engine, monkeypatch) -> Engine:
    """An engine whose decoder shares keys and values, or not."""
    if request.param == "alone":
        monkeypatch.setattr("video_llama.conversation.likelihood.takes_rows", lambda lm: False)
    return engine


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 5e-5)])
def test_likelihoods_equal_those_of_one_by_one_forward_passes(either, dtype, tolerance):
    """In float32, those of a random decoder, of about -80, are off by a few units in the last place."""
    either.model.decoder.lm.to(dtype)
    scorer = either.answer_scorer()
    for question in QUESTIONS[:3]:
        file = either.encode_file("video", question.file.path)
        answered = [either.answered(question.question, file, option) for option in question.options]
        found = either.likelihoods(scorer, answered)
        expected = [one_by_one(either, answer) for answer in answered]
        assert [one.log_likelihood for one in found] == pytest.approx(expected, abs=tolerance, rel=0)
        assert len(set(expected)) == len(expected)


def test_the_tokens_of_an_option_and_of_its_end_symbol_are_scored(engine):
    file = engine.encode_file("video", "a")
    prompt = engine.prompt("What is it?", file)
    answered = engine.answered("What is it?", file, "ring")
    scored = [label for label in answered.labels if label != IGNORE_LABEL]
    assert engine.spec.tokenizer.decode(scored) == "ring###"
    assert answered.input_ids == [*prompt.input_ids, *scored]
    (found,) = engine.likelihoods(engine.answer_scorer(), [answered])
    assert found.n_tokens == len(scored)
    assert found.per_token == found.log_likelihood / len(scored)


def test_an_option_is_not_likelier_because_another_begins_with_it(engine):
    """``1`` ends where ``10`` goes on: their probabilities, and those of all other answers, sum to one."""
    file = engine.encode_file("video", "a")
    answered = [engine.answered("How many?", file, option) for option in ("1", "10")]
    assert answered[0].labels[-3:] != answered[1].labels[-3:]
    one, ten = engine.likelihoods(engine.answer_scorer(), answered)
    assert ten.n_tokens > one.n_tokens


def test_the_media_of_consecutive_questions_run_through_the_decoder_once(engine, monkeypatch):
    lengths: list[tuple[int, ...]] = []
    forward = engine.model.decoder.lm.forward

    def counted(*args: Any, **inputs: Any) -> Any:
        given = inputs["inputs_embeds"] if inputs.get("inputs_embeds") is not None else inputs["input_ids"]
        lengths.append(tuple(given.shape[:2]))
        return forward(*args, **inputs)

    monkeypatch.setattr(engine.model.decoder.lm, "forward", counted)
    found = dict(choice_batches(engine, [[asked("a"), asked("a", "Why?")]]))
    prefix, question, options, other, again = lengths
    assert prefix[0] == question[0] == other[0] == 1
    assert options[0] == again[0] == len(OPTIONS)
    whole = len(engine.prompt("What is it?", engine.encode_file("video", "a")).input_ids)
    assert prefix[1] + question[1] == whole
    assert all(isinstance(one, ChosenOption) for one in found.values())


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("n_threads", [0, 2])
def test_a_choice_does_not_depend_on_what_else_is_asked_bit_for_bit(either, size, n_threads):
    alone = [next(choice_batches(either, [[question]]))[1] for question in QUESTIONS]
    batches = [QUESTIONS[i : i + size] for i in range(0, len(QUESTIONS), size)]
    found = [outcome for _, outcome in choice_batches(either, batches, n_threads=n_threads)]
    assert [str(one) for one in found] == [str(one) for one in alone]
    assert isinstance(found[3], DecodeError)


def test_the_likeliest_option_is_chosen_and_the_first_of_equal_ones(engine):
    (_, by_sum), (_, by_mean) = choice_batches(engine, [[asked("a"), asked("a", rank="likelihood_per_token")]])
    assert isinstance(by_sum, ChosenOption)
    assert isinstance(by_mean, ChosenOption)
    assert by_sum.likelihoods == by_mean.likelihoods
    assert by_sum.text == max(zip(by_sum.likelihoods, OPTIONS, strict=True), key=lambda pair: pair[0].log_likelihood)[1]
    assert by_mean.text == max(zip(by_sum.likelihoods, OPTIONS, strict=True), key=lambda pair: pair[0].per_token)[1]
    assert by_sum.text != by_mean.text
    ((_, equal),) = choice_batches(engine, [[asked("a", options=("ring", " ring", "ring"))]])
    assert isinstance(equal, ChosenOption)
    assert equal.likelihoods[0] == equal.likelihoods[2]
    assert equal.text == ("ring" if equal.likelihoods[0] >= equal.likelihoods[1] else " ring")


def test_questions_with_and_without_options_may_be_mixed(engine):
    short = GenerationSettings(max_new_tokens=4)
    free = FileQuestion(File("video", "a"), "What is it?")
    found = dict(answers_and_choices(engine, [[QUESTIONS[0], free], [free, QUESTIONS[2]]], short))
    ((_, alone),) = answer_batches(engine, [[free]], short)
    assert isinstance(alone, FileAnswer)
    assert [type(found[n]) for n in range(4)] == [ChosenOption, FileAnswer, FileAnswer, ChosenOption]
    assert found[1] == found[2] == alone


@pytest.mark.parametrize(
    ("question", "error"),
    [(asked("a", options=("ring", "word " * 300)), PromptTooLong), (asked("a", " "), VideoLlamaError)],
)
def test_a_question_that_cannot_be_computed_gets_its_error(engine, question, error):
    (_, first), (_, second) = choice_batches(engine, [[question, QUESTIONS[0]]])
    assert isinstance(first, error)
    assert isinstance(second, ChosenOption)


def test_options_that_do_not_fit_into_memory_together_are_computed_in_parts(engine, monkeypatch):
    forward = engine.model.decoder.lm.forward
    ((_, expected),) = choice_batches(engine, [[QUESTIONS[0]]])

    def small(*args: Any, **inputs: Any) -> Any:
        if inputs.get("input_ids") is not None and len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **inputs)

    monkeypatch.setattr(engine.model.decoder.lm, "forward", small)
    ((_, found),) = choice_batches(engine, [[QUESTIONS[0]]])
    assert isinstance(found, ChosenOption)
    assert isinstance(expected, ChosenOption)
    for one, other in zip(found.likelihoods, expected.likelihoods, strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=2e-4)
    monkeypatch.setattr(engine.model.decoder.lm, "forward", lambda **_: (_ for _ in ()).throw(MemoryError))
    ((_, failed),) = choice_batches(engine, [[QUESTIONS[0]]])
    assert isinstance(failed, OutOfMemory)


def test_other_templates_are_scored_up_to_their_end_symbol(decoder):
    model = tiny.model(decoder, model_type="llama_v2").eval()
    engine = Engine(model, VideoLLaMA.sample_spec(model.config), read("video", 4), read("image", 1))
    answered = engine.answered("What is it?", engine.encode_file("video", "a"), "ring")
    (found,) = engine.likelihoods(engine.answer_scorer(), [answered])
    assert found.log_likelihood == pytest.approx(one_by_one(engine, answered), abs=1e-5)
    assert answered.labels[-1] == engine.spec.tokenizer.eos_id
