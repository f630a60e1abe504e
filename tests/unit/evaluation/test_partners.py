"""The file that replaces a question's own: another one, with other right answers, and the same whenever it is asked for."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from video_llama.common.errors import DataError
from video_llama.conversation.batching import File, FileQuestion
from video_llama.evaluation.conditioned_file import ConditionedFile
from video_llama.evaluation.partners import LOOK_AHEAD, partners, under_conditions
from video_llama.inference.items import Item


def item(id: str, path: str, question: str = "What?", kind: str = "video") -> Item:
    return Item(id, FileQuestion(File(kind, path), question))


def names(found: dict[str | int, File | None]) -> dict[str | int, str | None]:
    return {id: file and str(file.path) for id, file in found.items()}


def test_the_partner_is_the_next_file_whose_answer_to_the_same_question_differs():
    items = [item(str(n), f"{n}.mp4") for n in range(4)]
    right = {str(n): [answer] for n, answer in enumerate(("low", "low", "high", "falling"))}
    assert names(partners(items, right)) == {"0": "2.mp4", "1": "2.mp4", "2": "3.mp4", "3": "0.mp4"}


def test_other_questions_and_unknown_answers_do_not_count():
    items = [item("a", "a.mp4", "Where?"), item("b", "b.mp4"), item("c", "c.mp4")]
    assert names(partners(items, {"a": ["x"], "b": ["x"]})) == {"a": "b.mp4", "b": "c.mp4", "c": "a.mp4"}


def test_where_all_answers_are_alike_it_is_the_next_file():
    items = [item(str(n), f"{n}.mp4") for n in range(3)]
    assert names(partners(items, {id: ["yes"] for id in "012"})) == {"0": "1.mp4", "1": "2.mp4", "2": "0.mp4"}


def test_partners_do_not_depend_on_the_order_of_the_questions():
    draw = random.Random(0)
    items = [item(str(n), f"{draw.randrange(30):02}.mp4", draw.choice("ab")) for n in range(100)]
    right = {one.id: [draw.choice(["yes", "no"])] for one in items}
    found = partners(items, right)
    assert partners(draw.sample(items, len(items)), right) == found
    assert all(found[one.id].path != one.asked.file.path for one in items)


def test_partners_that_are_parts_of_a_clip_do_not_depend_on_the_order_of_the_questions():
    @dataclass(frozen=True)
    class Part(File):
        start: float = 0.0

    parts = [Item(f"b{start}", FileQuestion(Part("video", "b.mp4", None, start), "What?")) for start in (0.0, 5.0)]
    own = item("a", "a.mp4")
    assert partners([own, *parts], {})["a"] == partners([own, *reversed(parts)], {})["a"]


def test_a_partner_is_of_the_same_kind_and_never_the_same_file(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mp4").symlink_to(tmp_path / "a.mp4")
    paths = [str(tmp_path / name) for name in ("a.mp4", "b.mp4", "c.mp4", "d.png", "e.png", "f.wav")]
    kinds = ["video"] * 3 + ["image"] * 2 + ["audio"]
    found = names(partners([item(Path(p).name[0], p, kind=k) for p, k in zip(paths, kinds, strict=True)], {}))
    assert found == {"a": paths[2], "b": paths[2], "c": paths[0], "d": paths[4], "e": paths[3], "f": None}


def test_many_files_with_one_answer_do_not_take_long():
    items = [item(f"{n:05}", f"{n:05}.mp4") for n in range(3 * LOOK_AHEAD)]
    found = names(partners(items, {one.id: ["yes" if one.id != "00299" else "no"] for one in items}))
    assert found["00000"] == "00001.mp4"  # the only other answer is too far away
    assert found["00250"] == "00299.mp4"


def test_a_question_is_followed_by_itself_under_each_condition():
    items = [item("1", "a.mp4"), item("2", "a.mp4", "Where?"), item("3", "b.mp4")]
    asked = under_conditions(items, ["silent", "other_video"], partners(items, {}))
    assert [(one.id, one.condition) for one in asked] == [
        (id, condition) for id in "123" for condition in ("", "silent", "other_video")
    ]
    assert asked[::3] == items
    own, other = items[0].asked.file, items[2].asked.file
    assert asked[1].asked.file == ConditionedFile("video", "a.mp4", condition="silent", base=own)
    assert asked[2].asked.file == ConditionedFile("video", "a.mp4", condition="other_video", base=own, partner=other)


def test_one_file_alone_is_enough_unless_a_condition_needs_another():
    items = [item("1", "a.mp4"), item("2", "a.mp4", "Where?")]
    assert len(under_conditions(items, ["silent"], partners(items, {}))) == 4
    with pytest.raises(DataError, match="other_sound: the questions are about one file"):
        under_conditions(items, ["silent", "other_sound"], partners(items, {}))
