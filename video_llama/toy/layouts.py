"""The annotation files of the toy world, in the layouts of the real data sets."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_llama.toy.language import QUESTIONS, SOUND_QUESTIONS, TEXT_ONLY, answer, caption, still_caption
from video_llama.toy.scene import Scene

CLIPS_PER_PAGE = 50
"""Clips in one ``page_dir``."""
WEBVID_COLUMNS = ("videoid", "page_dir", "name")


@dataclass(frozen=True)
class Item:
    """A scene and its file, relative to the media folder of its data set."""

    file: str
    scene: Scene

    @property
    def rng(self) -> random.Random:
        """The random generator for the item's texts."""
        return random.Random(self.scene.seed)


def webvid_file(index: int) -> str:
    """Return the path of a clip, ``<page_dir>/<videoid>.mp4``."""
    first = index // CLIPS_PER_PAGE * CLIPS_PER_PAGE + 1
    return f"{first:06d}_{first + CLIPS_PER_PAGE - 1:06d}/{1000001 + index}.mp4"


def cc3m_file(index: int) -> str:
    """Return the name of a captioned still."""
    return f"{index + 1:09d}.jpg"


def coco_name(index: int) -> str:
    """Return the name of a still in LLaVA's annotations."""
    return f"{index + 1:012d}.jpg"


def llava_file(index: int) -> str:
    """Return the file name of that still."""
    return f"COCO_train2014_{coco_name(index)}"


def write_webvid(folder: Path, clips: list[Item]) -> None:
    """Write captions of clips: the first half as a TSV file, the rest as a CSV file."""
    folder.mkdir(parents=True, exist_ok=True)
    half = len(clips) // 2
    for name, delimiter, part in (("0.tsv", "\t", clips[:half]), ("1.csv", ",", clips[half:])):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
            writer.writerow(WEBVID_COLUMNS)
            for clip in part:
                page_dir, _, video = clip.file.partition("/")
                writer.writerow((video.removesuffix(".mp4"), page_dir, caption(clip.scene, clip.rng)))


def write_cc3m(file: Path, stills: list[Item]) -> None:
    """Write captions of stills."""
    records = [
        {"image_id": still.file.removesuffix(".jpg"), "caption": still_caption(still.scene, still.rng)}
        for still in stills
    ]
    _write_json(file, {"annotations": records})


def write_llava(file: Path, stills: list[Item]) -> None:
    """Write instructions about stills, and one in fifty without an image."""
    records: list[dict[str, Any]] = []
    for index, still in enumerate(stills):
        rounds = _rounds(still, ("colour", "shape", "size"))
        turns = _turns([(f"<image>\n{q}" if i == 0 else q, a) for i, (q, a) in enumerate(rounds)])
        records.append({"id": f"{index + 1:012d}", "image": coco_name(index), "conversations": turns})
        if index % 50 == 49:
            turns = _turns([still.rng.choice(TEXT_ONLY)])
            records.append({"id": f"text_{index + 1:012d}", "conversations": turns})
    _write_json(file, records)


def write_videochat(file: Path, clips: list[Item]) -> None:
    """Write instructions about clips."""
    records = [
        {"video": clip.file, "QA": [{"q": q, "a": a} for q, a in _rounds(clip, tuple(QUESTIONS))]} for clip in clips
    ]
    _write_json(file, records)


def write_soundchat(file: Path, clips: list[Item]) -> None:
    """Write the question about the sound of each clip, in the layout of VideoChat."""
    _write_json(file, [_asked(clip, "sound") for clip in clips])


def write_avchat(file: Path, clips: list[Item]) -> None:
    """Write two records for each clip, in the layout of VideoChat: whether its sound belongs, and another question.

    Half of the other questions are about the sound, half about a visible attribute.
    """
    records = []
    for clip in clips:
        rng = clip.rng
        other = "sound" if rng.random() < 0.5 else rng.choice(tuple(QUESTIONS))
        records += [_asked(clip, "belongs"), _asked(clip, other)]
    _write_json(file, records)


def write_heldout(file: Path, clips: list[Item], questions: Mapping[str, str]) -> None:
    """Write one question of each kind for each held-out clip."""
    records = [
        {
            "id": f"{clip.file.removesuffix('.mp4')}_{kind}",
            "video": clip.file,
            "kind": kind,
            "question": question,
            "answer": answer(kind, clip.scene),
        }
        for clip in clips
        for kind, question in questions.items()
    ]
    _write_json(file, records)


def _asked(item: Item, kind: str) -> dict[str, Any]:
    """Return a record of VideoChat with one question."""
    question = (QUESTIONS | SOUND_QUESTIONS)[kind]
    return {"video": item.file, "QA": [{"q": question, "a": answer(kind, item.scene)}]}


def _rounds(item: Item, kinds: tuple[str, ...]) -> list[tuple[str, str]]:
    """Draw one or two questions and answers about a scene, mostly about its size, which captions do not teach."""
    rng = item.rng
    asked = rng.sample(kinds, rng.choice((1, 2, 2, 2)))
    if "size" not in asked and rng.random() < 0.5:
        asked[rng.randrange(len(asked))] = "size"
    return [(QUESTIONS[kind], answer(kind, item.scene)) for kind in asked]


def _turns(rounds: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"from": who, "value": text} for pair in rounds for who, text in zip(("human", "gpt"), pair, strict=True)]


def _write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
