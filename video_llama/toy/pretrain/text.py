"""Text that teaches the toy decoder to read media slots: conversations with attribute words where media will stand.

The layouts are those of the training data and of the chat, down to the places where a stretch of text starts:
SentencePiece puts a space before each stretch, so that the same words cut elsewhere have other tokens.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

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

HEARING = (
    ("Close your eyes, open your ears and you imagine only based on the sound that: ", ". "),
    ("<Audio>", "</Audio> "),
)
SEEING = (("Close your ears, open your eyes and you see that <Video>", "</Video>."), ("<Video>", "</Video>"))
SYSTEM = "You are able to understand the visual content that the user provides."


@dataclass(frozen=True)
class Said:
    """Text of which the part that the decoder must answer is marked."""

    text: str
    answer: bool = False


@dataclass(frozen=True)
class Slots:
    """Single words, one for each position of a media item."""

    words: tuple[str, ...]


Stretch = list[Said]
"""Text that is tokenised in one go."""
Example = list[Stretch | Slots]


def example(rng: random.Random) -> Example:
    """Draw one conversation: 30 % ask whether sound and sight belong together."""
    kind = rng.random()
    if kind < 0.30:
        return _match(rng)
    if kind < 0.55:
        return _caption(rng)
    if kind < 0.56:
        question, answer = rng.choice(TEXT_ONLY)
        return [[Said(f"###Human: {question}###Assistant:"), Said(f" {answer}###", answer=True)]]
    return _instruction(rng) if kind < 0.80 else _chat(rng)


def _draw(rng: random.Random, needed: tuple[str, ...]) -> dict[str, str]:
    """Draw the needed attributes and some others."""
    return {k: rng.choice(v) for k, v in ATTRIBUTES.items() if k in needed or rng.random() < 0.5}


def _slots(rng: random.Random, words: list[str]) -> Slots:
    """Place each word at least once, in any order."""
    return Slots(tuple(rng.sample(words + rng.choices(words, k=SLOTS - len(words)), SLOTS)))


def _media(rng: random.Random, present: dict[str, str]) -> Slots:
    """Place the attributes; one medium in twenty is empty, and what is then answered is the plain chance of it."""
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
    return [
        [Said("###Human: <Image>")],
        _media(rng, present),
        [Said(f"</Image> {rng.choice(CAPTION_PROMPTS)} ###Assistant: ")],
        [Said(text.lower().rstrip(".") + "###", answer=True)],
    ]


def _instruction(rng: random.Random) -> Example:
    rounds, present = _rounds(rng)
    tag, message = ("Video", _times(rng)) if rng.random() < 0.75 else ("Image", "")
    after: Stretch = [Said(f"</{tag}> {message}")]
    for i, (question, answer) in enumerate(rounds):
        after.append(Said(("Human: " if i else "") + f"{question}\n###Assistant:"))
        after.append(Said(f" {answer}\n###", answer=True))
    return [[Said(f"\n\n###Human: <{tag}>")], _media(rng, present), after]


def _chat(rng: random.Random) -> Example:
    rounds, present = _rounds(rng)
    tag, message = ("Video", _times(rng) + " ") if rng.random() < 0.75 else ("Image", "")
    after: Stretch = [Said(f"</{tag}> {message}")]
    for i, (question, answer) in enumerate(rounds):
        after.append(Said(("Human: " if i else "") + f"{question}###Assistant:"))
        after.append(Said(f" {answer}###", answer=True))
    system = SYSTEM if rng.random() < 0.1 else ""
    return [[Said(f"{system}###Human: <{tag}>")], _media(rng, present), after]


def _match(rng: random.Random) -> Example:
    """Ask whether a sound, by its own word or that of the shape that makes it, is the one of the shape in sight."""
    seen = _draw(rng, ("shape",))
    seen.pop("sound", None)
    belongs = rng.random() < 0.5
    shape = seen["shape"] if belongs else rng.choice([s for s in SHAPES if s != seen["shape"]])
    heard = rng.choice(([sound_of(shape)], [sound_of(shape)], [sound_of(shape), shape]))
    (hear, heard_end), (see, seen_end) = rng.choice(HEARING), rng.choice(SEEING)
    question, answer = SOUND_QUESTIONS["belongs"], "Yes." if belongs else "No."
    if rng.random() < 0.25:
        kind = rng.choice(("shape", "sound"))
        if kind == "shape" or len(heard) == 1:
            question, answer = ASKED[kind][0], _reply(rng, kind, {**seen, "sound": heard[0]})
    line, gap = ("\n", "\n\n") if rng.random() < 0.5 else ("", "")
    return [
        [Said(f"{gap}###Human: {hear}")],
        _slots(rng, heard),
        [Said(heard_end + see)],
        _slots(rng, list(seen.values())),
        [
            Said(f"{seen_end} {_times(rng)}{'' if line else ' '}{question}{line}###Assistant:"),
            Said(f" {answer}{line}###", answer=True),
        ],
    ]
