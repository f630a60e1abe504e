"""Token ids and labels equal the original's, on which the released checkpoints were trained."""

from __future__ import annotations

import pytest
import torch

from tests.unit.prompts.goldens import CHATS, MAX_CONTEXT, PLACEHOLDER_ID, SAMPLES, STRINGS, TOKENS_PER_SLOT, Golden
from video_llama.common.types import IGNORE_LABEL, Media
from video_llama.prompts.labels import PLACEHOLDER, Encoded, Slot, TextSegment, encode, marker, media_segments
from video_llama.prompts.original_mask import original_labels
from video_llama.prompts.rendering import conversation, tagged
from video_llama.prompts.templates import LLAMA_2, MODEL_TYPES, VICUNA, Span
from video_llama.prompts.tokenizer import Tokenizer

SLOTS = {"image": TOKENS_PER_SLOT, "video": TOKENS_PER_SLOT}
FRAME = torch.zeros(3, 1, 1, 1, dtype=torch.uint8)

VICUNA_OPENS_THE_DIALOGUE = ["##", "#"]
"""Tokens at the start of the first human turn that the original trains by mistake; it masks the rest of ``###Human:``."""
VICUNA_OPENS_AN_ANSWER = ["##", "#", "As", "s", "is", "ta", "nt", ":"]
"""Tokens before each answer that it trains, although the template writes them."""


def encoded(golden: Golden, tokenizer: Tokenizer, label_mask: str = "answers") -> Encoded:
    """Our ids and labels of a golden's sample, cut where the original cut."""
    template = MODEL_TYPES[golden.model_type]
    if golden.kind == "video":
        media = [Media("video", FRAME, golden.record["message"])]
        turns = [(pair["q"], pair["a"]) for pair in golden.record["QA"]]
        turns[0] = (tagged(media[0], 0) + turns[0][0], turns[0][1])
    else:
        said = [turn["value"] for turn in golden.record["conversations"]]
        media = [Media("image", FRAME)] if "<image>" in "".join(said) else []
        turns = list(zip(said[::2], said[1::2], strict=True))
        turns = [(q.replace("<image>", tagged(media[0], 0)) if media else q, a) for q, a in turns]
    whole = encode(conversation(template, template.training, turns, media), tokenizer, SLOTS)
    if label_mask == "original":
        whole = original_labels(template, whole, turns, media, tokenizer, SLOTS)
    return Encoded(whole.input_ids[:MAX_CONTEXT], whole.labels[:MAX_CONTEXT])


@pytest.mark.parametrize("golden", SAMPLES, ids=str)
def test_the_ids_of_an_instruction_sample_are_those_of_the_original(golden: Golden, tokenizer: Tokenizer) -> None:
    ids = [PLACEHOLDER_ID if i < 0 else i for i in encoded(golden, tokenizer).input_ids]
    assert ids == golden.input_ids


@pytest.mark.parametrize("golden", SAMPLES, ids=str)
def test_the_originals_mask_trains_exactly_what_the_original_trained(golden: Golden, tokenizer: Tokenizer) -> None:
    theirs = encoded(golden, tokenizer, "original")
    assert {i for i, label in enumerate(theirs.labels) if label != IGNORE_LABEL} == golden.trained
    assert all(theirs.labels[i] == golden.input_ids[i] for i in golden.trained)


@pytest.mark.parametrize("golden", SAMPLES, ids=str)
def test_every_token_that_carries_loss_here_does_in_the_original(golden: Golden, tokenizer: Tokenizer) -> None:
    ours = encoded(golden, tokenizer)
    trained = {i for i, label in enumerate(ours.labels) if label != IGNORE_LABEL}
    assert trained <= golden.trained
    assert all(ours.labels[i] == ours.input_ids[i] for i in trained)


@pytest.mark.parametrize("golden", [g for g in SAMPLES if g.model_type == "vicuna"], ids=str)
def test_the_original_also_trains_what_the_vicuna_template_writes_before_answers(
    golden: Golden, tokenizer: Tokenizer
) -> None:
    labels = encoded(golden, tokenizer).labels
    only_theirs = [golden.input_ids[i] for i in sorted(golden.trained) if labels[i] == IGNORE_LABEL]
    answers = golden.record.get("QA") or golden.record["conversations"][1::2]
    within = 1 if "overflow" in golden.name else len(answers)  # the second turn lies behind the cut
    assert [tokenizer.decode([i]) for i in only_theirs] == VICUNA_OPENS_THE_DIALOGUE + within * VICUNA_OPENS_AN_ANSWER


@pytest.mark.parametrize("golden", [g for g in SAMPLES if g.model_type == "llama_v2"], ids=str)
def test_under_the_llama_2_template_the_labels_are_those_of_the_original(golden: Golden, tokenizer: Tokenizer) -> None:
    labels = encoded(golden, tokenizer).labels
    assert {i for i, label in enumerate(labels) if label != IGNORE_LABEL} == golden.trained


@pytest.mark.parametrize("string", [s for s in STRINGS if PLACEHOLDER not in s["text"]], ids=lambda s: repr(s["text"]))
def test_a_plain_string_has_the_ids_of_the_original(string: dict, tokenizer: Tokenizer) -> None:
    assert encode([TextSegment((Span(string["text"]),))], tokenizer, SLOTS).input_ids == string["ids"]


@pytest.mark.parametrize("string", [s for s in STRINGS if PLACEHOLDER in s["text"]], ids=lambda s: repr(s["text"]))
def test_text_next_to_a_slot_has_the_ids_of_the_original(string: dict, tokenizer: Tokenizer) -> None:
    text = string["text"]
    n_slots = text.count(PLACEHOLDER)
    for k in range(n_slots):
        text = text.replace(PLACEHOLDER, marker(k), 1)
    segments = media_segments([Span(text)], [Slot(k, "image") for k in range(n_slots)])
    ids = encode(segments, tokenizer, {"image": 1}).input_ids
    assert [PLACEHOLDER_ID if i < 0 else i for i in ids] == string["ids"]


@pytest.mark.parametrize("chat", CHATS, ids=lambda c: f"{c['template']}-{c['turns'][0][0][:20]}")
def test_a_chat_prompt_has_the_bytes_of_the_original(chat: dict) -> None:
    template = {"default_conversation": VICUNA, "conv_llava_llama_2": LLAMA_2}[chat["template"]]
    assert "".join(span.text for span in template.render(template.chat, chat["turns"])) == chat["prompt"]
