"""A record of a manifest: which files it names, where each goes in its texts, how often it is drawn; and why it is bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any

from video_llama.common.modalities import FileKind
from video_llama.datasets.annotations import ENDS, STARTS
from video_llama.datasets.manifest_config import SoundPolicy
from video_llama.datasets.placeholders import fills, is_blank, placeholders
from video_llama.datasets.record_keys import MEDIA_KEYS, KeyProblem, check_keys, file_of, is_number, span_of
from video_llama.datasets.record_weights import MAX_WEIGHT, PARTS, parts_of
from video_llama.processors.decode.frame_folder import FrameClock
from video_llama.processors.media import AUDIO_SUFFIXES
from video_llama.processors.span import Span
from video_llama.prompts.labels import clean

MEDIA: dict[str, FileKind] = {**MEDIA_KEYS, "frames": "video"}
"""Keys of files, and the kind of each. A placeholder of clips is filled by videos, then by folders of frames."""
KEYS = ("id", *MEDIA, "fps", "times", *STARTS, *ENDS, "caption", "conversations", "weight")
PARTS_OF_RECORD = {"conversations": ("from", "value")}
"""The list of objects in a record, and their keys."""
POLICIES: tuple[SoundPolicy, ...] = ("use", "ignore", "require")
MIN_FPS, MAX_FPS = 0.001, 1000
_ALIKE = 0.82
"""A key that is as similar to a known one as this misspells it; others are reported, not refused."""


@dataclass(frozen=True)
class Item:
    """A file, or a folder of frames, that a record names."""

    key: str
    kind: FileKind
    name: str
    clock: FrameClock | None = None
    """When the frames of a folder are shown; None: a file."""


@dataclass(frozen=True)
class Place:
    """Where an item goes: characters ``start`` to ``end`` of a question, which it replaces."""

    turn: int
    start: int
    end: int


@dataclass(frozen=True)
class ManifestRecord:
    """What a record of a manifest says."""

    items: tuple[Item, ...]
    """In the order of the text."""
    places: tuple[Place, ...]
    """Of each item; none in a record with a caption."""
    caption: str | None
    turns: tuple[tuple[str, str], ...]
    span: Span | None
    audio: SoundPolicy
    parts: int
    """Its weight, in thousandths."""


def read_record(record: Any, audio: SoundPolicy) -> ManifestRecord:
    """Check a record, and find where its files go.

    Args:
        record: what the JSON holds.
        audio: what is done with the sound of clips if the record does not say.
    Raises:
        KeyProblem: it cannot be used; the message says why.
    """
    if not isinstance(record, dict):
        raise KeyProblem(f"expected an object, found {type(record).__name__}: {record!r:.80}")
    check_keys(record, KEYS)
    _check_spelling(record)
    parts = weight_of(record)
    said = record.get("audio")
    policy = next((policy for policy in POLICIES if policy == said), None)
    items = _items(record if policy is None else {**record, "audio": None})
    span = span_of(record)
    _check_span(span, items)
    if policy is not None and not any(item.kind == "video" and item.clock is None for item in items):
        raise KeyProblem(f"'audio': {policy!r} is about the sound of a clip, and the record has none under 'video'")
    caption, turns = _texts(record)
    if caption is not None:
        if len(items) != 1:
            raise KeyProblem(f"a caption of {len(items)} files; it describes one. Use 'conversations' for several")
        places: tuple[Place, ...] = ()
    else:
        items, places = _placed(items, turns)
    return ManifestRecord(items, places, caption, turns, span, policy or audio, parts)


def weight_of(record: Mapping[str, Any]) -> int:
    """Return the weight of a record in thousandths.

    Raises:
        KeyProblem: it is not one.
    """
    weight = record.get("weight")
    parts = PARTS if weight is None else parts_of(weight)
    if parts is None:
        expected = f"a number from 0 to {MAX_WEIGHT} with at most three decimals"
        raise KeyProblem(f"expected {expected} under 'weight', found {weight!r:.80}")
    return parts


def _check_spelling(record: Mapping[str, Any]) -> None:
    for key in record:
        if key not in KEYS and len(key) > 2 and (near := get_close_matches(key.lower(), KEYS, n=1, cutoff=_ALIKE)):
            raise KeyProblem(f"unknown key {key!r}. Did you mean {near[0]!r}?")


def _items(record: Mapping[str, Any]) -> tuple[Item, ...]:
    """Return the files that a record names, in the order of ``MEDIA``."""
    if all(record.get(key) in (None, "", []) for key in MEDIA):
        file_of(record, MEDIA, KEYS)  # refuses a file under another key
    items, given = list[Item](), dict[str, str]()
    for key, kind in MEDIA.items():
        names = _names(key, record.get(key))
        what = "frames" if key == "frames" else kind
        if names and (other := given.setdefault(what, key)) != key:
            raise KeyProblem(f"files under both {other!r} and {key!r}: put all into one list")
        clock = _clock(record, names) if key == "frames" else None
        items += [Item(key, kind, name, clock) for name in names]
    if not given.get("frames") and (stray := [key for key in ("fps", "times") if record.get(key) is not None]):
        raise KeyProblem(f"{stray[0]!r} is about a folder under 'frames', and the record has none")
    return tuple(sorted(items, key=lambda item: item.key == "frames"))


def _names(key: str, value: Any) -> list[str]:
    names = [] if value is None else value if isinstance(value, list) else [value]
    for name in names:
        if not (isinstance(name, str) and PurePath(name).name and _is_printable(name)):
            raise KeyProblem(f"expected the name of a file, or a list of them, under {key!r}, found {value!r:.80}")
        if MEDIA[key] == "audio" and PurePath(name).suffix.lower() not in AUDIO_SUFFIXES:
            files = f"files that end in {', '.join(AUDIO_SUFFIXES)}"
            raise KeyProblem(f"expected {', '.join(POLICIES)}, or {files}, under {key!r}, found {name!r:.80}")
    return names


def _is_printable(name: str) -> bool:
    """Return whether a name can be that of a file, and be written to a log: without null characters and halves of pairs."""
    return "\0" not in name and clean(name) == name


def _clock(record: Mapping[str, Any], names: Sequence[str]) -> FrameClock | None:
    """Return when the frames of a record's folders are shown."""
    fps, times = record.get("fps"), record.get("times")
    if not names:
        return None
    if (fps is None) == (times is None):
        given = "neither 'fps' nor 'times'" if fps is None else "both 'fps' and 'times'"
        raise KeyProblem(f"{given} for a folder under 'frames'; give one of them")
    if fps is not None:
        if not is_number(fps) or not MIN_FPS <= fps <= MAX_FPS:
            raise KeyProblem(f"expected from {MIN_FPS} to {MAX_FPS} frames per second under 'fps', found {fps!r:.80}")
        return FrameClock(fps=float(fps))
    if not isinstance(times, list) or not times or not all(is_number(time) and time >= 0 for time in times):
        raise KeyProblem(f"expected a list of seconds under 'times', found {times!r:.80}")
    if backwards := [i for i in range(1, len(times)) if times[i] <= times[i - 1]]:
        i = backwards[0]
        raise KeyProblem(f"'times' do not increase: {times[i - 1]} is followed by {times[i]}")
    if len(names) > 1:
        raise KeyProblem(f"'times' for {len(names)} folders under 'frames'; they are of one. Use 'fps'")
    return FrameClock(times=tuple(map(float, times)))


def _check_span(span: Span | None, items: Sequence[Item]) -> None:
    if span is None:
        return
    timed = [item for item in items if item.kind != "image"]
    if len(timed) != 1:
        what = f"{len(timed)} clips and sounds; it is of one" if timed else "no clip or sound"
        raise KeyProblem(f"a span of seconds, and {what}")


def _texts(record: Mapping[str, Any]) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """Return the caption, or the questions and answers, of a record."""
    caption, turns = record.get("caption"), record.get("conversations")
    if (caption is None) == (turns is None):
        given = "neither 'caption' nor" if caption is None else "both 'caption' and"
        raise KeyProblem(f"{given} 'conversations'; give one of them")
    if caption is not None:
        if not isinstance(caption, str) or is_blank(caption):
            raise KeyProblem(f"expected a text under 'caption', found {caption!r:.80}")
        return clean(caption), ()
    if not isinstance(turns, list) or not turns:
        raise KeyProblem(f"expected a list of turns under 'conversations', found {turns!r:.80}")
    if not all(isinstance(turn, dict) and isinstance(turn.get("value"), str) for turn in turns):
        raise KeyProblem("a turn without a text under 'value'")
    for turn in turns:
        check_keys(turn, PARTS_OF_RECORD["conversations"])
    speakers = [turn.get("from") for turn in turns]
    if speakers != ["human", "gpt"] * (len(turns) // 2):
        raise KeyProblem(f"turns must alternate from human to gpt, found {', '.join(map(str, speakers))}"[:200])
    texts = [clean(turn["value"]) for turn in turns]
    return None, tuple(zip(texts[::2], texts[1::2], strict=True))


def _placed(items: Sequence[Item], turns: Sequence[tuple[str, str]]) -> tuple[tuple[Item, ...], tuple[Place, ...]]:
    """Give each item its placeholder in the questions; a single item without one goes before the first question."""
    found = [(k, place) for k, (question, _) in enumerate(turns) for place in placeholders(question)]
    if not found and len(items) <= 1:
        return tuple(items), tuple(Place(0, 0, 0) for _ in items)
    if not found:
        names = " and ".join(dict.fromkeys(repr(item.key) for item in items))
        raise KeyProblem(
            f"{len(items)} files under {names}, and no placeholder says where they go: put "
            f"{' '.join(f'<{item.kind}>' for item in items)} into the questions"
        )
    left, ordered, has_images = list(items), list[Item](), any(item.kind == "image" for item in items)
    for _, place in found:
        filling = [item for item in left if fills(item.kind, place[0])]
        if has_images and fills("image", place[0]):  # then <image> is not for clips
            filling = [item for item in filling if item.kind == "image"]
        if not filling:
            raise KeyProblem(_counted(items, [other[0] for _, other in found], place[0]))
        left.remove(filling[0])
        ordered.append(filling[0])
    if left:
        raise KeyProblem(_counted(items, [other[0] for _, other in found], f"<{left[0].kind}>"))
    return tuple(ordered), tuple(Place(k, *place.span()) for k, place in found)


def _counted(items: Sequence[Item], there: Sequence[str], placeholder: str) -> str:
    n = sum(1 for other in there if other == placeholder)
    files = {key: sum(item.key == key for item in items) for key in dict.fromkeys(item.key for item in items)}
    named = ", ".join(f"{n} under {key!r}" for key, n in files.items()) or "no file"
    return f"its questions contain {placeholder} {n} times, for {named}"
