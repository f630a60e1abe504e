"""Answers in a batch: each ends by itself, before its end symbol, and is what it would be alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.tiny import TOKENIZER, sample
from tests.unit.prompts.fast_tokenizer import write_fast_tokenizer
from video_llama.common.errors import PromptTooLong
from video_llama.conversation.generation import StopAtText, generate
from video_llama.datasets.collate import collate
from video_llama.models.video_llama import VideoLLaMA
from video_llama.prompts.tokenizer import Tokenizer, load_tokenizer

SHARP, EOS = 513, 2
"""The toy tokenizer's pieces '#' and '</s>'; '###' is one piece as well."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(TOKENIZER)


@pytest.fixture
def model(decoder) -> VideoLLaMA:
    return tiny.model(decoder).eval()


class Scripted(nn.Module):
    """Stands for the decoder's last layer: row r says ``scripts[r]``, a token a step."""

    def __init__(self, scripts: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.scripts, self.step = scripts, 0

    def forward(self, hidden: Tensor) -> Tensor:
        logits = torch.zeros(len(self.scripts), 1, tiny.VOCABULARY)
        for row, script in enumerate(self.scripts):
            logits[row, 0, script[min(self.step, len(script) - 1)]] = 1.0
        self.step += 1
        return logits


def said(model: VideoLLaMA, tokenizer: Tokenizer, *scripts: Sequence[int], stop: str = "###") -> list[str]:
    model.decoder.lm.lm_head = Scripted(scripts)
    return generate(model, tokenizer, [[1, 20]] * len(scripts), [], stop=stop, max_new_tokens=12)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return [token.id for token in tokenizer.encode(text)]


def test_an_answer_ends_before_its_end_symbol(model, tokenizer):
    assert said(model, tokenizer, ids(tokenizer, "It is red.\n###Human: more")) == ["It is red."]
    assert model.decoder.lm.lm_head.step == len(ids(tokenizer, "It is red.\n###"))


def test_an_end_symbol_may_be_cut_into_any_tokens(model, tokenizer):
    red = ids(tokenizer, "It is red.")
    assert said(model, tokenizer, [*red, SHARP, SHARP, SHARP, 20]) == ["It is red."]
    assert model.decoder.lm.lm_head.step == len(red) + 3


def test_an_end_symbol_that_is_not_whole_does_not_end_an_answer(model, tokenizer):
    red, more = ids(tokenizer, "It is red"), ids(tokenizer, "or ##")
    assert said(model, tokenizer, [*red, SHARP, *more, EOS]) == ["It is red# or ##"]


def test_the_end_token_ends_an_answer_under_any_template(model, tokenizer):
    assert said(model, tokenizer, [*ids(tokenizer, "It is red."), EOS, 20]) == ["It is red."]
    assert said(model, tokenizer, ids(tokenizer, " It is red. </s> more"), stop="</s>") == ["It is red."]


def test_a_row_that_has_ended_is_not_changed_by_those_that_go_on(model, tokenizer):
    short, long = ids(tokenizer, "no###"), ids(tokenizer, "It is a large red ring###")
    assert said(model, tokenizer, short, long, [EOS]) == ["no", "It is a large red ring", ""]
    assert model.decoder.lm.lm_head.step == len(long)


def test_an_answer_without_an_end_is_cut_at_its_longest(model, tokenizer):
    said(model, tokenizer, [20])
    assert model.decoder.lm.lm_head.step == 12


def test_the_criterion_looks_at_every_row_by_itself(tokenizer):
    rows = [ids(tokenizer, text)[-3:] for text in ("the end of it ###", "a # and more #")]
    assert StopAtText(tokenizer, "###")(torch.tensor(rows), torch.empty(0)).tolist() == [True, False]


@pytest.mark.parametrize("stop", ["<|im_end|>", "###", "<|eos|>"])
def test_an_end_symbol_is_seen_whether_it_is_a_token_or_not_and_need_not_be_the_end_token(stop, tmp_path):
    tokenizer = load_tokenizer(write_fast_tokenizer(tmp_path, "<|im_end|>", eos_token="<|eos|>"))
    criterion = StopAtText(tokenizer, stop)
    said = ids(tokenizer, f"the answer is a cat{stop}")
    done = [bool(criterion(torch.tensor([said[:n]]), torch.empty(0))) for n in range(1, len(said) + 1)]
    assert done == [False] * (len(said) - 1) + [True]


def test_answers_in_a_batch_are_those_given_one_by_one(model, tokenizer):
    samples = [sample("image", 1, words=2), sample("text", words=9), sample("clip", 4), sample("album", 1, 4)]
    prompts = [s.input_ids.tolist() for s in samples]
    settings = {"stop": "###", "max_new_tokens": 12}
    together = generate(model, tokenizer, prompts, collate(samples, 0).media, **settings)
    alone = [
        generate(model, tokenizer, [p], collate([s], 0).media, **settings)
        for p, s in zip(prompts, samples, strict=True)
    ]
    assert together == [answer for (answer,) in alone]
    assert len(set(together)) == 4


def test_answers_are_greedy_whatever_the_folder_of_the_decoder_suggests(model, tokenizer, tmp_path):
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


def test_answers_depend_on_what_was_shown(model, tokenizer):
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
