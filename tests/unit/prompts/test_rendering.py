"""Audio and video are presented in the original's words, audio first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from video_llama.common.types import IGNORE_LABEL, Media, slot_id
from video_llama.prompts.labels import PLACEHOLDER, Slot, encode, marker
from video_llama.prompts.rendering import audio_and_video, caption, conversation, presented, tagged
from video_llama.prompts.templates import LLAMA_2, VICUNA, Template
from video_llama.prompts.tokenizer import Tokenizer

IMAGE = Media("image", torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
CLIP = Media("video", torch.zeros(3, 2, 2, 2, dtype=torch.uint8), "The video contains 2 frames. ")
SOUND = Media("audio", torch.zeros(2, 1, 4, 4))
AS_SOUND = {item.kind: replace(item, kind="audio_frames") for item in (IMAGE, CLIP)}
PROMPT = (
    "###Human: Close your eyes, open your ears and you imagine only based on the sound that: <ImageHere>. "
    "                Close your ears, open your eyes and you see that <Video><ImageHere></Video>.  "
    "                Now answer my question based on what you have just seen and heard. What is it?###Assistant:"
)
"""The original's prompt for a clip with sound."""
TOKENS = {"image": 5, "video": 5, "audio": 2, "audio_frames": 2}


def test_audio_and_video_are_presented_in_the_originals_words():
    assert audio_and_video(CLIP, 0) == (
        f"Close your eyes, open your ears and you imagine only based on the sound that: {marker(0)}. "
        "                Close your ears, open your eyes and you see that <Video>"
        f"{marker(1)}</Video>.                  Now answer my question based on what you have just seen and heard."
    )


def test_a_picture_with_audio_has_the_tags_of_an_image():
    assert f"<Image>{marker(3)}</Image>" in audio_and_video(IMAGE, 2)


def test_a_single_media_item_is_presented_in_its_tags_with_its_message():
    assert presented([CLIP]) == f"<Video>{marker(0)}</Video> The video contains 2 frames. "
    assert presented([IMAGE], 4) == f"<Image>{marker(4)}</Image>"


def test_audio_alone_has_the_tags_of_a_clip():
    assert presented([SOUND]) == f"<Video>{marker(0)}</Video> "


def test_frames_for_the_audio_branch_have_the_tags_of_their_file():
    assert presented([AS_SOUND["video"]]) == tagged(CLIP, 0)
    assert presented([AS_SOUND["image"]]) == tagged(IMAGE, 0)


@pytest.mark.parametrize("heard", [SOUND, *AS_SOUND.values()], ids=["sound", "picture", "clip"])
def test_audio_comes_first_and_a_space_before_the_question(heard: Media):
    assert presented([heard, CLIP]) == audio_and_video(CLIP, 0) + " "


@pytest.mark.parametrize("template", [VICUNA, LLAMA_2], ids=lambda t: t.name)
def test_each_slot_has_the_tokens_of_its_branch_and_no_loss(tokenizer: Tokenizer, template: Template):
    turns = [(presented([SOUND, CLIP]) + "What is it?", "A cat.")]
    encoded = encode(conversation(template, template.training, turns, [SOUND, CLIP]), tokenizer, TOKENS)
    slots = [i for i in encoded.input_ids if i < 0]
    assert slots == [slot_id(0)] * 2 + [slot_id(1)] * 5
    assert all(label == IGNORE_LABEL for i, label in zip(encoded.input_ids, encoded.labels, strict=True) if i < 0)


def test_the_space_before_sound_is_a_token_as_in_the_original(tokenizer: Tokenizer):
    turns = [(presented([SOUND, CLIP]) + "What is it?", None)]
    ids = encode(conversation(VICUNA, VICUNA.chat, turns, [SOUND, CLIP]), tokenizer, TOKENS).input_ids
    before, between, after = PROMPT.split(PLACEHOLDER)
    expected = [
        tokenizer.bos_id,
        *(token.id for token in tokenizer.encode(before)),
        *[slot_id(0)] * 2,
        *(token.id for token in tokenizer.encode(between)),
        *[slot_id(1)] * 5,
        *(token.id for token in tokenizer.encode(after)),
    ]
    assert ids == expected
    assert ids[ids.index(slot_id(0)) - 1] == tokenizer.encode("a ")[-1].id


def test_a_caption_has_audio_and_video_instead_of_the_placeholder():
    segments = caption(f"<Image>{PLACEHOLDER}</Image> Describe it. ", "a cat", "###", SOUND, CLIP)
    assert [piece for piece in segments if isinstance(piece, Slot)] == [Slot(0, "audio"), Slot(1, "video")]
    assert [type(piece).__name__ for piece in segments] == ["TextSegment", "Slot", "Slot", "TextSegment", "TextSegment"]
