"""The toy benchmark: clips and questions that are the same each time, with balanced answers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from video_llama.common.errors import DataError
from video_llama.evaluation.config import ToyConfig
from video_llama.processors.decode import open_sound, open_video
from video_llama.toy.scene import COLOURS, N_FRAMES
from video_llama.toy.tiers import CHANCE, COUNTING, NEEDS, ORDER, QUESTIONS, SOUNDING, groups
from video_llama.toy.toy_benchmark import HARDER, UNKNOWABLE, ToyBenchmark, write_toy_benchmark

CLIPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "clips"
    write_toy_benchmark(folder, CLIPS)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_same_bytes_are_written_each_time_and_after_a_kill(folder, tmp_path):
    (tmp_path / "again").mkdir()
    (tmp_path / "again/toy_own_0000.mp4").write_bytes(b"cut short")
    write_toy_benchmark(tmp_path / "again", CLIPS)
    assert digests(tmp_path / "again") == digests(folder)


def test_what_is_there_is_not_written_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.glob("toy*")}
    write_toy_benchmark(folder, CLIPS)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("toy*")} == before


def test_a_folder_of_something_else_is_left_alone(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match=r"holds something else, such as mine\.txt"):
        write_toy_benchmark(tmp_path, CLIPS)
    with pytest.raises(DataError, match="another number or version"):
        write_toy_benchmark(folder, CLIPS + 1)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="toy clips cannot be written or read"):
        write_toy_benchmark(tmp_path / "file", CLIPS)


def test_each_question_has_a_clip_a_type_and_what_it_needs(folder):
    benchmark = ToyBenchmark(ToyConfig(media_dir=str(folder), clips=CLIPS))
    kinds = Counter(record.types["type"] for record in benchmark.records)
    ones, twos = ("colour", "shape", "motion", "size", *HARDER), ("sound", "belongs")
    assert kinds == dict.fromkeys(ones, CLIPS) | dict.fromkeys(twos, 2 * CLIPS)
    needs = {record.types["type"]: record.types["needs"] for record in benchmark.records}
    assert {needs[kind] for kind in ("colour", "shape", "size", COUNTING)} == {"sight"}
    assert (needs["motion"], needs[ORDER], needs["sound"]) == ("order of frames", "order of frames", "sound")
    assert (needs["belongs"], needs[SOUNDING], needs[UNKNOWABLE]) == ("sight and sound", "sight and sound", "nothing")
    assert benchmark.missing == benchmark.without_questions == []
    right = {record.id: record.references[0] for record in benchmark.records}
    assert benchmark.score(right)["accuracy"] == 1
    assert {r.references for r in benchmark.records if r.types["type"] == UNKNOWABLE} == {("It cannot be told.",)}


def test_the_cache_has_the_clips_if_no_folder_is_named(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path))
    benchmark = ToyBenchmark(ToyConfig(clips=1))
    assert Path(benchmark.config.media_dir).parent == tmp_path
    assert len(benchmark.records) == 12
    benchmark.warn("toy")
    assert "no questions like those of the types counting, order" in caplog.text


def test_answers_are_balanced_and_harder_clips_show_what_is_asked():
    assert QUESTIONS.keys() == NEEDS.keys() == CHANCE.keys()
    counted = list(groups(COUNTING, 40, seed=1))
    assert set(Counter(group.answer for group in counted).values()) == {10}
    assert all(len({one.centre for one in group.shapes}) == len(group.shapes) for group in counted)
    for group in groups(ORDER, 12, seed=1):
        first, second = group.shapes
        assert group.answer == f"It is a {first.shape}."
        assert (len(first.frames), first.frames.stop, second.frames.stop) == (8, second.frames.start, N_FRAMES)
    sounding = list(groups(SOUNDING, 60, seed=1))
    for group in sounding:
        (own,) = (one for one in group.shapes if one.shape == group.sound_of)
        assert group.answer == f"It is {own.colour}."
        assert len({one.colour for one in group.shapes}) == 2
    assert {group.answer for group in sounding} == {f"It is {colour}." for colour in COLOURS}
    assert 20 < sum(group.shapes[0].centre[0] < 32 for group in sounding) < 40  # on either side


def test_harder_clips_are_drawn_as_they_are_described(folder):
    group = next(groups(ORDER, 1, seed=0))
    frames = group.render()
    assert frames.shape == (N_FRAMES, 64, 64, 3)
    assert (frames[:8] == frames[0]).all()
    assert (frames[8:] == frames[8]).all()
    assert (frames[0] != frames[8]).any()
    (many,) = (group for group in groups(COUNTING, 4, seed=0) if group.answer == "There are four.")
    picture = many.render()[0].astype(float)
    background = np.median(picture.reshape(-1, 3), axis=0)
    for one in many.shapes:
        x, y = (round(place) for place in one.centre)
        patch = picture[y - 10 : y + 10, x - 10 : x + 10]
        assert (abs(patch - background).max(axis=-1) > 40).mean() > 0.1


def test_harder_clips_are_real_files_with_sound(folder):
    names = [json.loads(line)["video"] for line in (folder / "test.jsonl").read_text().splitlines()]
    for name in {name for name in names if "which_one_sounds" in name}:
        assert open_video(folder / name).n_frames == N_FRAMES
        assert open_sound(folder / name).duration == pytest.approx(2, abs=0.2)
