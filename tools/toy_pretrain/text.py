"""Text that teaches the toy decoder to read media slots: conversations with attribute words in place of media.

They are rendered like training data and chats, because SentencePiece puts a space before each text segment: the same words
in other segments have other tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from video_llama.common.modalities import MediaKind
from video_llama.prompts.labels import Slot, marker, media_segments
from video_llama.prompts.rendering import BOTH, GAP, WITH_AUDIO, WITH_VIDEO
from video_llama.prompts.templates import VICUNA, Layout
from video_llama.toy.language import MOVES, QUESTIONS, SOUND_QUESTIONS, TEXT_ONLY, clip_captions, image_captions
from video_llama.toy.scene import COLOURS, MOTIONS, SHAPES, SIZES
from video_llama.toy.sound import SOUNDS, sound_of

ATTRIBUTES = {"colour": COLOURS, "shape": SHAPES, "motion": MOTIONS, "size": SIZES, "sound": SOUNDS}
SLOTS = 8
"""Tokens that a clip, an image or a sound takes."""

CAPTION_PROMPTS = (
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
)
ASKED = {
    "colour": (QUESTIONS["colour"], "What colour is it?", "What color is it?", "Which colour do you see?"),
    "shape": (QUESTIONS["shape"], "Which shape do you see?", "What is it?"),
    "motion": (QUESTIONS["motion"], "Where does it go?", "Which way does it move?"),
    "size": (QUESTIONS["size"], "What size is it?", "How big is it?"),
    "sound": (SOUND_QUESTIONS["sound"], "What do you hear?"),
    "all": ("What do you see?", "What is shown?", "Describe the video.", "What is happening?"),
}
"""The questions of each kind; the data sets use the first wording."""

AROUND = (
    (WITH_AUDIO + GAP + WITH_VIDEO.format("<Video>{}</Video>") + GAP + BOTH + " ").split("{}"),
    ("<Audio>", "</Audio> <Video>", "</Video> "),
)
"""Text before a sound, between it and the frames of its clip, and after them.

In the original's words, and in few words, with which the decoder first learns to compare the two slots.
"""
SYSTEM = "You are able to understand the visual content that the user provides."


@dataclass(frozen=True)
class Said:
    """Text, and whether it is part of an answer."""

    text: str
    answer: bool = False


@dataclass(frozen=True)
class Slots:
    """Single words, one for each position of a media item."""

    words: tuple[str, ...]


TextSegment = list[Said]
"""Text that is tokenised as a whole."""
Example = list[TextSegment | Slots]


def example(rng: random.Random) -> Example:
    """Draw one conversation: 30 % are about sound and frames together."""
    kind = rng.random()
    if kind < 0.30:
        return _both(rng)
    if kind < 0.55:
        return _caption(rng)
    if kind < 0.56:
        return _render(VICUNA.chat, [rng.choice(TEXT_ONLY)])
    return _instruction(rng) if kind < 0.80 else _chat(rng)


def _render(layout: Layout, rounds: Sequence[tuple[str, str]], *media: tuple[MediaKind, Slots]) -> Example:
    """Render questions and answers; the first question holds ``marker(k)`` for each medium."""
    pieces = media_segments(VICUNA.render(layout, rounds), [Slot(k, kind) for k, (kind, _) in enumerate(media)])
    return [
        media[piece.index][1]
        if isinstance(piece, Slot)
        else [Said(span.text, answer=span.trained) for span in piece.spans]
        for piece in pieces
    ]


def _about(before: str, rounds: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Put text before the first question."""
    (question, answer), *others = rounds
    return [(before + question, answer), *others]


def _draw(rng: random.Random, needed: tuple[str, ...]) -> dict[str, str]:
    """Draw the needed attributes and some others."""
    return {k: rng.choice(v) for k, v in ATTRIBUTES.items() if k in needed or rng.random() < 0.5}


def _slots(rng: random.Random, words: list[str]) -> Slots:
    """Place each word at least once, in any order."""
    return Slots(tuple(rng.sample(words + rng.choices(words, k=SLOTS - len(words)), SLOTS)))


def _media(rng: random.Random, present: dict[str, str]) -> Slots:
    """Place the attributes; one medium in twenty is empty, so that the answer is a guess."""
    return Slots(()) if rng.random() < 0.05 else _slots(rng, list(present.values()))


def _times(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return ""
    n = rng.choice((1, 2, 3, 4, 4, 4, 4, 5, 6, 8))
    step = rng.choice((0.25, 0.5, 1.0, 2.0 / n, rng.uniform(0.1, 3.0)))
    return f"The video contains {n} frames sampled at {', '.join(f'{i * step:.1f}' for i in range(n))} seconds. "


def _reply(rng: random.Random, kind: str, present: dict[str, str]) -> str:
    colour, shape = present.get("colour", ""), present.get("shape", "")
    if kind == "all":
        motion = present.get("motion")
        return (clip_captions(colour, shape, motion) if motion else image_captions(colour, shape))[0]
    return {
        "colour": lambda: f"It is {colour}.",
        "shape": lambda: f"It is a {shape}.",
        "motion": lambda: f"It {MOVES[present['motion']]}.",
        "size": lambda: f"It is {present['size']}.",
        "sound": lambda: f"It makes a {present['sound']} sound.",
    }[kind]()


def _rounds(rng: random.Random) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Draw one to three questions and answers, and the attributes that they are about."""
    kinds = rng.choices(list(ASKED), weights=(4, 4, 4, 4, 3, 2), k=rng.choice((1, 1, 1, 1, 2, 3)))
    present = _draw(rng, (*kinds, *(("colour", "shape") if "all" in kinds else ())))
    return [(rng.choice(ASKED[k]), _reply(rng, k, present)) for k in kinds], present


def _caption(rng: random.Random) -> Example:
    present = _draw(rng, ("colour", "shape") if rng.random() < 0.4 else ("colour", "shape", "motion"))
    colour, shape, motion = present["colour"], present["shape"], present.get("motion")
    text = rng.choice(clip_captions(colour, shape, motion) if motion else image_captions(colour, shape))
    media = _media(rng, present)
    before, _, after = VICUNA.caption.format(f"<Image>|</Image> {rng.choice(CAPTION_PROMPTS)}").partition("|")
    answer = Said(text.lower().rstrip(".") + VICUNA.end_sym, answer=True)
    return [[Said(before)], media, [Said(after)], [answer]]


def _instruction(rng: random.Random) -> Example:
    rounds, present = _rounds(rng)
    tag, message = ("Video", _times(rng)) if rng.random() < 0.75 else ("Image", "")
    media = _media(rng, present)
    return _render(VICUNA.training, _about(f"<{tag}>{marker(0)}</{tag}> {message}", rounds), ("video", media))


def _chat(rng: random.Random) -> Example:
    rounds, present = _rounds(rng)
    tag, message = ("Video", _times(rng) + " ") if rng.random() < 0.75 else ("Image", "")
    layout = replace(VICUNA.chat, system=SYSTEM if rng.random() < 0.1 else "")
    media = _media(rng, present)
    return _render(layout, _about(f"<{tag}>{marker(0)}</{tag}> {message}", rounds), ("video", media))


def _both(rng: random.Random) -> Example:
    """Ask about sound and frames, mostly whether they belong together.

    The slots of the sound hold its own word, that of the shape that makes it, or both.
    """
    present = _draw(rng, ("colour", "shape", "motion", "size"))
    made_by = present["shape"]
    if rng.random() < 0.5:
        made_by = rng.choice([shape for shape in SHAPES if shape != made_by])
    present["sound"] = sound_of(made_by)
    kinds = [rng.choice(("belongs", "belongs", *QUESTIONS, "sound")) for _ in range(rng.choice((1, 1, 1, 1, 2, 3)))]
    kinds[0] = rng.choice((kinds[0], "belongs", "belongs"))
    belongs = "Yes." if made_by == present["shape"] else "No."
    sounds = rng.choice(([present["sound"]], [present["sound"], made_by], [made_by]))
    attributes = [present[kind] for kind in QUESTIONS if kind == "shape" or rng.random() < 0.5 or kind in kinds]
    asked = ASKED | {"belongs": (SOUND_QUESTIONS["belongs"],)}
    rounds = [(rng.choice(asked[k]), belongs if k == "belongs" else _reply(rng, k, present)) for k in kinds]
    before, between, after = rng.choice(AROUND)
    layout = VICUNA.training if rng.random() < 0.5 else VICUNA.chat
    media: list[tuple[MediaKind, Slots]] = [("audio", _slots(rng, sounds)), ("video", _slots(rng, attributes))]
    return _render(layout, _about(f"{before}{marker(0)}{between}{marker(1)}{after}", rounds), *media)
