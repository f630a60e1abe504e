"""The toy world has the real layouts, holds combinations out, and is the same each time."""

import csv
import hashlib
import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from video_llama.common.errors import DataError
from video_llama.toy.language import CHANCE, QUESTIONS, SOUND_CHANCE, SOUND_QUESTIONS, answer
from video_llama.toy.scene import (
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Scene,
    Triple,
    is_held_out,
    scenes,
    triples,
    with_other_sounds,
)
from video_llama.toy.sound import synthesise
from video_llama.toy.world import write_world

ARGUMENTS = {"n_clips": 12, "n_heldout": 8, "n_images": 4, "seed": 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("toy") / "world", **ARGUMENTS)


def webvid_rows(world: Path) -> list[dict[str, str]]:
    folder = world / "webvid" / "filter_annotation"
    rows = []
    for name, delimiter in (("0.tsv", "\t"), ("1.csv", ",")):
        with (folder / name).open(newline="", encoding="utf-8") as file:
            rows += list(csv.DictReader(file, delimiter=delimiter))
    return rows


def load(file: Path) -> object:
    return json.loads(file.read_text(encoding="utf-8"))


def digests(world: Path) -> dict[str, str]:
    files = sorted(path for path in world.rglob("*") if path.is_file())
    return {str(path.relative_to(world)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def triple_of(caption: str) -> Triple:
    words = caption.rstrip(".").split()
    shape, colour, motion = (next(w for w in words if w in names) for names in (SHAPES, COLOURS, MOTIONS))
    return shape, colour, motion


def test_a_sixth_of_the_combinations_is_held_out_evenly():
    held_out = triples(held_out=True)
    assert len(held_out) == 36
    assert len(triples(held_out=False)) == 180
    for names, position in ((SHAPES, 0), (COLOURS, 1), (MOTIONS, 2)):
        assert [sum(t[position] == name for t in held_out) for name in names] == [6] * 6


def test_no_training_clip_shows_a_held_out_combination():
    assert not any(is_held_out(scene.triple) for scene in scenes(600, seed=0, held_out=False))


def test_held_out_clips_are_balanced():
    drawn = list(scenes(216, seed=0, held_out=True))
    assert {t: sum(s.triple == t for s in drawn) for t in triples(held_out=True)} == dict.fromkeys(
        triples(held_out=True), 6
    )
    assert [sum(s.size == size for s in drawn) for size in SIZES] == [72] * 3


def test_every_webvid_row_has_its_file(world):
    rows = webvid_rows(world)
    assert len(rows) == ARGUMENTS["n_clips"]
    assert all((world / "webvid/videos" / r["page_dir"] / f"{r['videoid']}.mp4").is_file() for r in rows)


def test_captions_in_training_files_never_name_a_held_out_combination(world):
    assert not any(is_held_out(triple_of(row["name"])) for row in webvid_rows(world))


def test_captions_never_name_the_size(world):
    captions = [row["name"] for row in webvid_rows(world)]
    captions += [record["caption"] for record in load(world / "cc3m/filter_cap.json")["annotations"]]
    assert len(captions) == ARGUMENTS["n_clips"] + ARGUMENTS["n_images"]
    assert not any(size in caption for caption in captions for size in SIZES)


def test_cc3m_and_llava_records_have_their_files(world):
    for record in load(world / "cc3m/filter_cap.json")["annotations"]:
        assert (world / "cc3m/image" / f"{record['image_id']}.jpg").is_file()
    for record in load(world / "llava/llava_instruct.json"):
        assert (world / "llava/train2014" / f"COCO_train2014_{record['image']}").is_file()
        assert record["conversations"][0]["value"].startswith("<image>\n")


def test_videochat_asks_one_or_two_known_questions_of_each_clip(world):
    records = load(world / "videochat/videochat_instruct.json")
    assert len(records) == ARGUMENTS["n_clips"]
    for record in records:
        assert (world / "webvid/videos" / record["video"]).is_file()
        assert 1 <= len(record["QA"]) <= 2
        assert all(qa["q"] in QUESTIONS.values() and qa["a"].startswith("It ") for qa in record["QA"])


def test_heldout_has_one_question_of_each_kind_for_each_clip(world):
    questions = load(world / "heldout/questions.json")
    assert len(questions) == ARGUMENTS["n_heldout"] * len(QUESTIONS)
    assert len({q["id"] for q in questions}) == len(questions)
    for question in questions:
        assert set(question) == {"id", "video", "kind", "question", "answer"}
        assert question["question"] == QUESTIONS[question["kind"]]
        assert (world / "heldout/videos" / question["video"]).is_file()
    assert set(CHANCE) == set(QUESTIONS)


def test_each_shape_has_the_sound_of_each_other_one_equally_often():
    drawn = list(with_other_sounds(scenes(540, seed=0, held_out=True)))
    pairs = [(scene.shape, scene.sound_shape) for scene in drawn]
    assert {pair: pairs.count(pair) for pair in permutations(SHAPES, 2)} == dict.fromkeys(permutations(SHAPES, 2), 18)


def test_a_clip_with_the_sound_of_another_shape_sounds_like_it():
    alike = Scene("star", "red", "left", "small", seed=5)
    foreign = replace(alike, shape="ring", sounds_like="star")
    assert (synthesise(foreign) == synthesise(alike)).all()
    assert answer("sound", foreign) == answer("sound", alike) == "It makes a falling sound."
    assert (answer("belongs", foreign), answer("belongs", alike)) == ("No.", "Yes.")


def test_soundchat_asks_about_the_sound_of_each_clip(world):
    records = load(world / "soundchat/soundchat_instruct.json")
    assert {record["video"] for record in records} == {
        f"{r['page_dir']}/{r['videoid']}.mp4" for r in webvid_rows(world)
    }
    assert all([qa["q"] for qa in record["QA"]] == [SOUND_QUESTIONS["sound"]] for record in records)


def test_avchat_has_as_many_clips_with_their_own_sound_as_with_foreign_sound(world):
    records = load(world / "avchat/avchat_instruct.json")
    assert all((world / record["video"]).is_file() for record in records)
    rounds = [qa for record in records for qa in record["QA"]]
    belongs = [qa["a"] for qa in rounds if qa["q"] == SOUND_QUESTIONS["belongs"]]
    assert len(rounds) == len(records) == 2 * len(belongs)
    assert sorted(belongs) == ["No."] * (ARGUMENTS["n_clips"] // 3) + ["Yes."] * (ARGUMENTS["n_clips"] // 3)


def test_in_half_of_the_heldout_questions_the_sound_belongs_to_the_shape(world):
    questions = load(world / "heldout/sound_questions.json")
    assert len(questions) == 2 * ARGUMENTS["n_heldout"] * len(SOUND_QUESTIONS)
    assert len({q["id"] for q in questions}) == len(questions)
    for question in questions:
        assert question["question"] == SOUND_QUESTIONS[question["kind"]]
        assert (world / "heldout/videos" / question["video"]).is_file()
    belongs = [q["answer"] for q in questions if q["kind"] == "belongs"]
    assert belongs == ["Yes."] * ARGUMENTS["n_heldout"] + ["No."] * ARGUMENTS["n_heldout"]
    assert set(SOUND_CHANCE) == set(SOUND_QUESTIONS)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(world, tmp_path):
    assert digests(write_world(tmp_path / "again", **ARGUMENTS)) == digests(world)
    assert digests(write_world(tmp_path / "other", **{**ARGUMENTS, "seed": 4})) != digests(world)


def test_an_existing_world_is_unchanged(world):
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    write_world(world, **ARGUMENTS)
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before


def test_an_incomplete_world_is_replaced(tmp_path):
    arguments = {"n_clips": 2, "n_heldout": 1, "n_images": 1, "seed": 0}
    world = write_world(tmp_path / "world", **arguments)
    whole = digests(world)
    (world / "world.json").write_text('{"complete": false}')
    next((world / "webvid/videos").rglob("*.mp4")).write_bytes(b"cut short")
    (world / "webvid/videos/left_over.mp4").write_bytes(b"")
    assert digests(write_world(world, **arguments)) == whole


def test_a_folder_that_is_not_part_of_a_world_is_unchanged(tmp_path):
    (tmp_path / "webvid").mkdir()
    (tmp_path / "webvid" / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="webvid there are not of a toy world"):
        write_world(tmp_path, n_clips=1, n_heldout=1, n_images=1)
    assert (tmp_path / "webvid" / "mine.txt").read_text() == "precious"


def test_other_arguments_make_a_new_world(tmp_path):
    write_world(tmp_path, n_clips=3, n_heldout=1, n_images=1)
    write_world(tmp_path, n_clips=2, n_heldout=1, n_images=1)
    assert len(webvid_rows(tmp_path)) == 2
    assert len(list((tmp_path / "webvid/videos").rglob("*.mp4"))) == 2
