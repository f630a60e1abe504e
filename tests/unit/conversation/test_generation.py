"""Answers in a batch: each ends by itself, before its end symbol, and equals that of its prompt alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from sentencepiece import SentencePieceProcessor

from tests import tiny
from tests.tiny import TOKENIZER, sample
from tests.unit.conversation.scripted import Scripted, ids
from video_llama.common.errors import OutOfMemory, PromptTooLong, VideoLlamaError
from video_llama.common.types import MediaGroup, Sample
from video_llama.conversation.generation import generate, generate_tokens
from video_llama.conversation.settings import GenerationSettings
from video_llama.datasets.collate import collate
from video_llama.models.video_llama import VideoLLaMA
from video_llama.prompts.tokenizer import Tokenizer, load_tokenizer

SHARP, EOS = SentencePieceProcessor(model_file=str(Path(TOKENIZER, "tokenizer.model"))).piece_to_id(["#", "</s>"])
"""Pieces of the toy tokenizer; '###' is one of them too."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(TOKENIZER)


@pytest.fixture
def model(decoder) -> VideoLLaMA:
    return tiny.model(decoder).eval()


def answers_of(
    model: VideoLLaMA,
    tokenizer: Tokenizer,
    *scripts: Sequence[int],
    stop: str | Sequence[str] = "###",
    max_new_tokens: int = 12,
) -> list[str]:
    model.decoder.lm.lm_head = Scripted(scripts)
    return generate(model, tokenizer, [[1, 20]] * len(scripts), [], stop=stop, max_new_tokens=max_new_tokens)


def test_an_answer_ends_before_its_end_symbol(model, tokenizer):
    assert answers_of(model, tokenizer, ids(tokenizer, "It is red.\n###Human: more")) == ["It is red."]
    assert model.decoder.lm.lm_head.step == len(ids(tokenizer, "It is red.\n###"))


def test_an_end_symbol_may_be_split_into_any_tokens(model, tokenizer):
    red = ids(tokenizer, "It is red.")
    assert answers_of(model, tokenizer, [*red, SHARP, SHARP, SHARP, 20]) == ["It is red."]
    assert model.decoder.lm.lm_head.step == len(red) + 3


def test_part_of_an_end_symbol_does_not_end_an_answer(model, tokenizer):
    red, more = ids(tokenizer, "It is red"), ids(tokenizer, "or ##")
    assert answers_of(model, tokenizer, [*red, SHARP, *more, EOS]) == ["It is red# or ##"]


def test_the_end_token_ends_an_answer_under_any_template(model, tokenizer):
    assert answers_of(model, tokenizer, [*ids(tokenizer, "It is red."), EOS, 20]) == ["It is red."]
    assert answers_of(model, tokenizer, ids(tokenizer, " It is red. </s> more"), stop="</s>") == ["It is red."]


def test_a_finished_row_is_unaffected_by_rows_that_continue(model, tokenizer):
    short, long = ids(tokenizer, "no###"), ids(tokenizer, "It is a large red ring###")
    assert answers_of(model, tokenizer, short, long, [EOS]) == ["no", "It is a large red ring", ""]
    assert model.decoder.lm.lm_head.step == len(long)


def test_an_answer_without_an_end_stops_at_max_new_tokens(model, tokenizer):
    answers_of(model, tokenizer, [20])
    assert model.decoder.lm.lm_head.step == 12


# Several end symbols, of several tokens


@pytest.mark.parametrize(
    ("stop", "answers"),
    [
        ("###", ["no", "no", "a b c d", "", "one"]),
        (["\nHuman:", "Human:"], ["no### more", "no### and", "a b c d", "### END", "one### two three four END"]),
        (["never", "b c"], ["no### more", "no### and Human: more", "a", "### END", "one### two three four END"]),
        (["END", "###"], ["no", "no", "a b c d", "", "one"]),
        (["END"], ["no### more", "no### and Human: more", "a b c d", "###", "one### two three four"]),
    ],
)
def test_each_row_ends_at_the_first_stop_string_under_any_tokenizer(model, any_tokenizer, stop, answers):
    texts = ["no### more", "no### and\nHuman: more", "a b c d", "### END", "one### two three four END"]
    scripts = [[*ids(any_tokenizer, text), any_tokenizer.eos_id] for text in texts]
    found = answers_of(model, any_tokenizer, *scripts, stop=stop, max_new_tokens=60)
    assert [answer.replace("\n", " ") for answer in found] == answers  # some tokenizers turn a newline into a space


def test_a_row_continues_until_a_stop_string_whatever_ends_the_others(model, any_tokenizer):
    early, late = ids(any_tokenizer, "a### and END"), ids(any_tokenizer, "one two three four five six seven END")
    assert answers_of(model, any_tokenizer, early, late, stop=["###", "END"], max_new_tokens=60) == [
        "a",
        "one two three four five six seven",
    ]
    assert model.decoder.lm.lm_head.step == len(late)


def test_half_a_character_at_the_end_of_a_cut_answer_is_decoded_as_the_tokenizer_does(model, any_tokenizer):
    script = ids(any_tokenizer, "It is 😀")
    assert answers_of(model, any_tokenizer, script, max_new_tokens=len(script)) == ["It is 😀"]
    assert answers_of(model, any_tokenizer, script, max_new_tokens=len(script) - 1) == [
        any_tokenizer.decode(script[:-1])
    ]


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ([], r"stop strings \[\]: expected at least one text"),
        (["###", ""], r"stop strings \['###', ''\]: .*none of them empty"),
        ("", "none of them empty"),
    ],
)
def test_invalid_stop_strings_are_refused(model, tokenizer, stop, message):
    with pytest.raises(VideoLlamaError, match=message):
        generate(model, tokenizer, [[1], [1]], [], stop=stop)


# A batch


SAMPLES = [sample("image", 1, words=2), sample("text", words=9), sample("clip", 4), sample("album", 1, 4)]


def asked(samples: Sequence[Sample]) -> tuple[list[list[int]], tuple[MediaGroup, ...]]:
    return [s.input_ids.tolist() for s in samples], collate(samples, 0).media


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(max_new_tokens=12),
        GenerationSettings(max_new_tokens=12, repetition_penalty=1.5),
        GenerationSettings(max_new_tokens=12, num_beams=3),
        GenerationSettings(max_new_tokens=12, temperature=1.5, top_p=1.0, seed=3),
    ],
    ids=["greedy", "penalty", "beams", "sampling"],
)
@pytest.mark.parametrize("stop", ["never", ["###", "e", "a"]])
def test_a_batch_gives_the_answers_of_single_prompts(model, tokenizer, settings, stop):
    together = generate(model, tokenizer, *asked(SAMPLES), stop=stop, settings=settings)
    alone = [generate(model, tokenizer, *asked([s]), stop=stop, settings=settings) for s in SAMPLES]
    assert together == [answer for (answer,) in alone]
    assert len(set(together)) == 4


def test_answers_are_greedy_whatever_the_decoder_folder_suggests(model, tokenizer, tmp_path):
    tiny.write_decoder(tmp_path)
    (tmp_path / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 5.0, "num_beams": 3, "repetition_penalty": 9.0, "max_length": 3}'
    )
    prompt = sample("text", words=9).input_ids.tolist()
    plain, suggested = (
        generate(m, tokenizer, [prompt], [], stop="###", max_new_tokens=12)
        for m in (model, tiny.model(tmp_path).eval())
    )
    assert plain == suggested


def test_answers_depend_on_the_media(model, tokenizer):
    clip, other = sample("clip", 4), sample("other clip", 4)
    prompt = clip.input_ids.tolist()
    one, two = (
        generate(model, tokenizer, [prompt], collate([s], 0).media, stop="###", max_new_tokens=12)
        for s in (clip, other)
    )
    assert one != two


def test_a_prompt_and_answer_longer_than_the_context_are_refused_with_all_three_numbers(model, tokenizer):
    with pytest.raises(PromptTooLong, match=r"250 tokens .*7 .*256 tokens"):
        generate(model, tokenizer, [[1, 20], [20] * 250], [], stop="###", max_new_tokens=7)
    assert len(generate(model, tokenizer, [[20] * 250], [], stop="###", max_new_tokens=6)) == 1


# Choosing tokens


def likelihood(model: VideoLLaMA, prompt: list[int], tokens: list[int]) -> float:
    """The mean log probability of the tokens, by which beams are ranked."""
    with torch.no_grad():
        logits = model.decoder.lm(inputs_embeds=model.decoder.embed(torch.tensor([prompt + tokens]))).logits[0]
    logs = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return float(logs.gather(1, torch.tensor(tokens)[:, None]).mean())


def tokens_of(model: VideoLLaMA, tokenizer: Tokenizer, prompt: list[int], **settings: object) -> list[int]:
    (tokens,) = generate_tokens(
        model, tokenizer, [prompt], [], ["###"], GenerationSettings(**{"max_new_tokens": 8, **settings})
    )
    return tokens


def test_beam_search_finds_a_likelier_answer(model, tokenizer):
    better = 0
    for name in ("one", "two", "three", "four"):
        prompt = sample(name, words=9).input_ids.tolist()
        greedy, searched = (tokens_of(model, tokenizer, prompt, num_beams=n) for n in (1, 4))
        gain = likelihood(model, prompt, searched) - likelihood(model, prompt, greedy)
        assert gain > -1e-5
        better += gain > 1e-3
    assert better > 0


PROMPT = sample("text", words=9).input_ids.tolist()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_samples_depend_on_the_seed_and_torchs_random_state_is_unchanged(model, tokenizer, num_beams):
    def draw(seed: int | None) -> list[int]:
        return tokens_of(model, tokenizer, PROMPT, temperature=2.0, top_p=1.0, num_beams=num_beams, seed=seed)

    before = torch.random.get_rng_state()
    assert draw(1) == draw(1) != draw(2)
    assert draw(None) != draw(None)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_temperature_zero_is_greedy_whatever_the_seed(model, tokenizer):
    greedy = tokens_of(model, tokenizer, PROMPT)
    assert tokens_of(model, tokenizer, PROMPT, seed=7, top_p=0.1) == greedy
    assert tokens_of(model, tokenizer, PROMPT, seed=7, temperature=0.01) == greedy


@pytest.mark.parametrize("choice", [{}, {"temperature": 0.01, "seed": 0}, {"num_beams": 2}])
def test_the_penalty_prevents_repetition(model, tokenizer, choice):
    plain = tokens_of(model, tokenizer, PROMPT, max_new_tokens=30, **choice)
    penalised = tokens_of(model, tokenizer, PROMPT, max_new_tokens=30, repetition_penalty=10.0, **choice)
    assert len(set(plain)) < len(plain)
    assert len(set(penalised)) == len(penalised)


# Callbacks and errors


@pytest.mark.parametrize("num_beams", [1, 2])
def test_with_beams_on_step_gets_no_tokens(model, tokenizer, num_beams):
    steps: list[list[int]] = []
    settings = GenerationSettings(max_new_tokens=6, num_beams=num_beams)
    prompts, media = asked(SAMPLES)
    answers = generate_tokens(model, tokenizer, prompts, media, ["never"], settings, steps.append)
    assert len(steps) >= 6 - (num_beams > 1)
    assert steps[:6] == ([list(column) for column in zip(*answers, strict=True)] if num_beams == 1 else [[]] * 6)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_an_error_in_on_step_ends_generation(model, tokenizer, num_beams):
    steps = 0

    def enough(tokens: list[int]) -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        generate_tokens(
            model,
            tokenizer,
            [PROMPT],
            [],
            ["never"],
            GenerationSettings(num_beams=num_beams, max_new_tokens=99),
            enough,
        )
    assert steps == 3


def test_running_out_of_memory_is_reported_with_advice(model, tokenizer, monkeypatch):
    def generate_without_memory(**_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(model.decoder.lm, "generate", generate_without_memory)
    with pytest.raises(OutOfMemory, match=r"Tried to allocate 2.00 GiB.*max_new_tokens.*shorter clip.*low_resource"):
        generate(model, tokenizer, [PROMPT], [], stop="###", max_new_tokens=5)
