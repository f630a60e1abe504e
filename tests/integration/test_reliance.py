"""``video-llama reliance``, and what it says of the shipped toy model, where the truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import ROOT, Result
from video_llama.cli.main import main
from video_llama.common.cache import HOME
from video_llama.conversation.engine import Engine
from video_llama.evaluation.conditions import CONDITIONS
from video_llama.toy.language import CHANCE, SOUND_CHANCE
from video_llama.toy.toy_benchmark import HARDER

TOY = "eval_configs/toy.yaml"


@pytest.fixture
def reliance(command, loaded, monkeypatch) -> Callable[..., Result]:
    """``video-llama reliance --cfg-path toy.yaml ...`` with a model that is already loaded."""
    monkeypatch.setattr(Engine, "from_job", lambda *args: loaded)
    return lambda questions, *more: command("reliance", questions, "--cfg-path", TOY, "--max-new-tokens", "12", *more)


@pytest.fixture
def questions(world, tmp_path) -> Path:
    """Questions on two clips of a world, as for infer, without references."""
    rows = json.loads((world / "heldout/questions.json").read_text())
    rows = [row for row in rows if row["video"] in ("heldout_0000.mp4", "heldout_0001.mp4")]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps({key: row[key] for key in ("id", "video", "question")}) + "\n" for row in rows))
    return file


def test_without_references_it_tells_which_answers_stay_the_same(reliance, questions, world, tmp_path):
    output = tmp_path / "out"
    code, out, err = reliance(questions, "--media-dir", world / "heldout/videos", "--output", output)
    assert code == 0, err
    found = json.loads((output / "results.json").read_text())["benchmarks"]["questions"]
    assert (found["scores"], found["counts"]["asked"], found["prompt"]) == ({}, 8, "<question>")
    table = found["reliance"]
    assert (table["metric"], table["conditions"]) == (None, ["full", "silent", "black", "shuffled", "no_media"])
    assert table["all"]["silent"]["unchanged"]["value"] == 1
    assert table["all"]["black"]["unchanged"]["value"] < 1
    assert table["all"]["black"]["value"] is None
    assert "unchanged answers" in out
    assert "accuracy" not in out
    assert (output / "questions.reliance.png").is_file()


def test_an_evaluation_of_the_list_gives_the_same_answers_as_infer(reliance, command, questions, world, tmp_path):
    media = ("--media-dir", world / "heldout/videos")
    assert reliance(questions, *media, "--conditions", "silent", "--output", tmp_path / "out").code == 0
    words = ("--cfg-path", TOY, "--max-new-tokens", "12", "--input", questions, *media)
    assert command("infer", *words, "--output", tmp_path / "answers.jsonl").code == 0
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    inferred = {line["id"]: line["answer"] for line in map(json.loads, lines)}
    items = json.loads((tmp_path / "out/results.json").read_text())["benchmarks"]["questions"]["items"]
    assert {item["id"]: item["answer"] for item in items} == inferred


def test_without_matplotlib_there_is_the_table(reliance, questions, world, tmp_path, monkeypatch):
    monkeypatch.setattr("video_llama.evaluation.reliance_picture.can_draw", lambda: False)
    words = ("--media-dir", world / "heldout/videos", "--conditions", "silent", "--output", tmp_path / "out")
    code, out, err = reliance(questions, *words)
    assert (code, "  silent " in out) == (0, True)
    assert "pip install 'video_llama[plot]'" in err
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize(
    ("lines", "more", "message"),
    [
        (['{"id": 1, "video": "heldout_0000.mp4", "question": "What?"}'], ["--conditions", "other_video"], "about one file"),
        (['{"id": 1, "video": "heldout_0000.mp4", "question": "What?"}'], ["--conditions", "sillent"], "Did you mean silent?"),
        (['{"id": 1, "video": "heldout_0000.mp4"}'], [], ":1: expected a text under 'question'"),
        (['{"id": 1, "video": "nowhere.mp4", "question": "What?"}'], [], "none of the 1 clips is here"),
        (
            ['{"video": "a", "question": "q"}', '{"video": "a", "question": "q", "answer": "b"}'],
            [],
            ":2: has 'answer', and the first line nothing to compare with",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_a_model_is_built(command, world, tmp_path, monkeypatch, lines, more, message):
    monkeypatch.setattr(Engine, "from_job", lambda *args: pytest.fail("the model was built"))
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    words = ["reliance", tmp_path / "q.jsonl", "--cfg-path", TOY, "--media-dir", world / "heldout/videos"]
    code, _, err = command(*words, "--output", tmp_path / "out", *more)
    assert code == 1
    assert message in err


def test_a_file_or_a_folder_that_is_not_there_is_named(command, questions, tmp_path):
    rest = ["--cfg-path", TOY, "--output", tmp_path / "out"]
    for words, message in (
        (["nothing.jsonl"], "error: nothing.jsonl: no such file"),
        ([questions, "--media-dir", "nowhere"], "error: --media-dir nowhere: no such folder"),
    ):
        code, _, err = command("reliance", *words, *rest)
        assert (code, message in err) == (1, True)


# The truth


SIGHT, ORDER = ("colour", "shape", "size"), ("motion",)


@pytest.fixture(scope="module")
def toy(loaded, tmp_path_factory) -> Iterator[Callable[..., dict[str, Any]]]:
    """The results of the benchmark ``toy`` on the shipped model."""

    def run(*more: str) -> dict[str, Any]:
        output = tmp_path_factory.mktemp("toy")
        words = ["evaluate", "--cfg-path", TOY, "--benchmark", "toy", *more, "--output", str(output)]
        assert main([*words, "--max-new-tokens", "12"]) == 0
        return json.loads((output / "results.json").read_text())["benchmarks"]["toy"]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv(HOME, str(tmp_path_factory.mktemp("home")))
        patch.setattr(Engine, "from_job", lambda *args: loaded)
        yield run


@pytest.fixture(scope="module")
def small(toy) -> dict[str, Any]:
    return toy("clips=12", "--conditions", "silent,black,shuffled")


def holds(row: dict[str, Any], truth: float) -> bool:
    low, high = row["interval"]
    return low <= truth <= high


def test_sight_is_chance_with_black_frames_and_unchanged_without_sound_or_order(small):
    rows = small["reliance"]["by"]["type"]
    for kind in SIGHT:
        assert rows[kind]["full"]["value"] > 0.9
        assert holds(rows[kind]["black"], CHANCE[kind])
        assert rows[kind]["black"]["entropy"] == 0
        for condition in ("silent", "shuffled"):
            assert holds(rows[kind][condition]["difference"], 0)
            assert rows[kind][condition]["unchanged"]["value"] > 0.9


def test_sound_is_chance_when_silent_and_unchanged_without_sight(small):
    rows = small["reliance"]["by"]["type"]["sound"]
    assert rows["full"]["value"] > 0.9
    assert holds(rows["silent"], SOUND_CHANCE["sound"])
    for condition in ("black", "shuffled"):
        assert holds(rows[condition]["difference"], 0)


def test_both_are_needed_to_tell_whether_a_sound_belongs(small):
    rows = small["reliance"]["by"]["type"]["belongs"]
    assert rows["full"]["value"] > 0.9
    for condition in ("silent", "black"):  # how near they come to chance takes more clips to say
        assert rows[condition]["difference"]["interval"][1] < 0


def test_shuffled_frames_hurt_motion_only(small):
    rows = small["reliance"]["by"]["type"]
    assert rows["motion"]["shuffled"]["difference"]["interval"][1] < 0
    assert all(holds(rows[kind]["shuffled"]["difference"], 0) for kind in rows if kind != "motion")


@pytest.mark.faults
def test_with_more_clips_each_condition_does_what_each_question_needs(toy):
    """Under each condition, what is needed and taken away is answered by chance; everything else stays right."""
    rows = toy("clips=72", "--conditions", ",".join(name for name in CONDITIONS if name != "full"))["reliance"]["by"][
        "type"
    ]
    taken = {
        "silent": {"sound", "belongs"},
        "noise": {"sound", "belongs"},
        "other_sound": {"sound", "belongs"},
        "black": {*SIGHT, *ORDER, "belongs"},
        "other_video": {*SIGHT, *ORDER, "belongs"},
        "one_frame": {*ORDER},
        "shuffled": {*ORDER},
        "reversed": {*ORDER},
        "no_media": {*SIGHT, *ORDER, "sound", "belongs"},
    }
    for kind in (*SIGHT, *ORDER, "sound", "belongs"):
        assert rows[kind]["full"]["value"] > 0.95
        for condition, hurt in taken.items():
            if kind in hurt:
                assert rows[kind][condition]["difference"]["interval"][1] < 0
            else:
                assert holds(rows[kind][condition]["difference"], 0)
            if kind in hurt and condition in ("silent", "black", "no_media"):
                assert holds(rows[kind][condition], (CHANCE | SOUND_CHANCE)[kind])
            if condition in ("other_sound", "other_video") and kind in hurt - {"belongs"}:
                assert rows[kind][condition]["value"] < 0.05
    assert {kind: rows[kind]["full"]["n"] for kind in HARDER} == dict.fromkeys(HARDER, 72)
