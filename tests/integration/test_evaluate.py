"""``video-llama evaluate``: benchmarks on the toy model, with results that hold what decides them, however the work is split."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import ROOT, Result
from video_llama.common.files import sha256_of
from video_llama.conversation.batching import File, FileQuestion
from video_llama.conversation.engine import Engine
from video_llama.evaluation.clip_part import ClipPart
from video_llama.inference.journal import Journal

TOY = "eval_configs/toy.yaml"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """Two test sets on held-out clips: questions of one's own, and MSVD-QA's layout with a clip that is missing."""
    folder = tmp_path_factory.mktemp("sets")
    questions = json.loads((world / "heldout/questions.json").read_text())
    sounds = json.loads((world / "heldout/sound_questions.json").read_text())
    clips = sorted({q["video"] for q in questions})[:4]
    chosen = [q for q in questions if q["video"] in clips] + [
        q for q in sounds if q["video"] in clips and q["kind"] == "sound"
    ]
    shutil.copytree(world / "heldout/videos", folder / "media")
    (folder / "manifest").mkdir()
    keys = ("id", "video", "question", "answer")
    lines = [json.dumps({key: q[key] for key in keys} | {"type": q["kind"]}) for q in chosen]
    (folder / "manifest/test.jsonl").write_text("\n".join(lines))
    (folder / "msvd_qa").mkdir()
    rows = [
        {"id": n, "video_id": n // 2, "question": "What colour is the shape?", "answer": q["answer"]}
        for n, q in enumerate([q for q in questions if q["kind"] == "colour"][:6])
    ]
    (folder / "msvd_qa/test_qa.json").write_text(json.dumps(rows))
    for n in (0, 1):
        shutil.copy(folder / "media" / rows_clip(questions, n), folder / "media" / f"vid{n}.mp4")
    return folder


def rows_clip(questions: list[dict[str, Any]], n: int) -> str:
    return [q["video"] for q in questions if q["kind"] == "colour"][n]


def words(sets: Path, output: Path, *more: str) -> list[object]:
    return [
        "evaluate", "--cfg-path", TOY, "--benchmark", "manifest", "prompt=<question>", "msvd_qa", "prompt=<question>",
        "--annotations", sets, "--media-dir", sets / "media", "--output", output, "--max-new-tokens", "8", *more,
    ]  # fmt: skip


@pytest.fixture
def evaluate(command, loaded, monkeypatch) -> Callable[..., Result]:
    """Run a command with a model that is already loaded."""
    monkeypatch.setattr(Engine, "from_job", lambda *args: loaded)
    return command


@pytest.fixture(scope="module")
def whole(sets, loaded, tmp_path_factory) -> Path:
    """The folder of an uninterrupted evaluation by one process."""
    from video_llama.cli.main import main

    output = tmp_path_factory.mktemp("whole") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(Engine, "from_job", lambda *args: loaded)
        assert main([str(word) for word in words(sets, output)]) == 0
    return output


@pytest.fixture(scope="module")
def results(whole: Path) -> dict[str, Any]:
    return json.loads((whole / "results.json").read_text(encoding="utf-8"))


def test_the_toy_model_answers_right_and_each_score_says_what_it_stands_on(results):
    own = results["benchmarks"]["manifest"]
    accuracy = own["scores"]["accuracy"]
    assert accuracy["value"] > 0.9
    assert (accuracy["n"], accuracy["n_clips"]) == (len(own["items"]), 4)
    assert accuracy["interval"][0] <= accuracy["value"] <= accuracy["interval"][1]
    assert {"colour", "shape", "motion", "sound"} <= accuracy["by"]["type"].keys()
    by_hand = [item["scores"]["accuracy"] for item in own["items"] if item["types"]["type"] == "colour"]
    assert accuracy["by"]["type"]["colour"]["value"] == sum(by_hand) / len(by_hand)


def test_missing_clips_are_named_and_left_out(results):
    published = results["benchmarks"]["msvd_qa"]
    assert published["counts"] == {"found": 6, "missing": 2, "asked": 4, "scored": 4}
    assert published["missing_clips"] == ["2"]
    assert [item["id"] for item in published["items"]] == ["0", "1", "2", "3"]
    assert published["published_file"] is None


def test_the_results_hold_what_decides_them(results, sets):
    assert results["generation"]["max_new_tokens"] == 8
    assert results["model"]["inference"]["video"]["n_frms"] == 4
    assert results["model"]["config"]["model_type"] == "pretrain_vicuna"
    assert {
        "file": "branch.safetensors",
        "sha256": sha256_of(ROOT / "video_llama/toy/weights/branch.safetensors"),
    } in results["model"]["weights"]
    assert results["versions"].keys() >= {"video_llama", "python", "torch", "transformers", "av"}
    own = results["benchmarks"]["manifest"]
    assert own["annotations"] == {"test.jsonl": sha256_of(sets / "manifest/test.jsonl")}
    assert own["prompt"] == "<question>"
    assert own["settings"]["media_dir"] == str(sets / "media")
    keys = {"id", "clip", "file", "media", "types", "prompt", "options", "references", "answer", "scores"}
    assert own["items"][0].keys() == keys
    assert results["benchmarks"]["msvd_qa"]["items"][2]["file"] == "vid1.mp4"


def test_other_batches_and_a_restart_give_the_same_bytes(whole, sets, evaluate, tmp_path, monkeypatch):
    appended: list[int] = []
    original = Journal.append

    def append(journal, records) -> None:
        if len(appended) == 3:
            raise KeyboardInterrupt
        appended.append(len(records))
        original(journal, records)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append)
        assert evaluate(*words(sets, tmp_path / "results", "--batch-size", "3")).code == 130
    code, out, err = evaluate(*words(sets, tmp_path / "results", "--batch-size", "3"))
    assert code == 0, err
    assert f"{sum(appended)} of 20 questions are answered already" in err
    assert (tmp_path / "results/results.json").read_bytes() == (whole / "results.json").read_bytes()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["benchmark"] for line in lines] == ["manifest", "msvd_qa"]
    assert lines[1].keys() >= {"scores", "answered", "failed", "scored", "missing"}


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(whole, sets, tmp_path):
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "video_llama.cli.main",
    ]
    done = subprocess.run(
        [*launcher, *map(str, words(sets, tmp_path / "results", "--device", "cpu"))],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "results/results.json").read_bytes() == (whole / "results.json").read_bytes()


def test_a_question_that_cannot_be_answered_counts_as_wrong_and_has_its_reason(sets, evaluate, tmp_path):
    shutil.copytree(sets, tmp_path / "sets")
    (tmp_path / "sets/media/vid1.mp4").write_bytes(b"no clip")
    code, _, err = evaluate(*words(tmp_path / "sets", tmp_path / "results"))
    assert code == 0, err
    published = json.loads((tmp_path / "results/results.json").read_text())["benchmarks"]["msvd_qa"]
    assert (published["answered"], published["failed"], published["counts"]["scored"]) == (2, 2, 4)
    assert [item["scores"]["accuracy"] for item in published["items"] if "error" in item] == [0, 0]
    assert "vid1.mp4" in published["items"][2]["error"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--limit", "0"], "limit: must be at least 1"),
        (["--benchmark", "exact_match", "--limit", "3"], "--annotations: no setting of exact_match"),
        (["--benchmark", "vatex"], "no annotations here; expected vatex_public_test_english_v1.1.json"),
        (["--media-dir", "nowhere"], "media_dir: no such directory: nowhere"),
        (["--benchmark", "manifest", "prompt=What?"], "prompt: 'What?': has no <question>"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_built(command, sets, tmp_path, monkeypatch, more, message):
    monkeypatch.setattr(Engine, "from_job", lambda *args: pytest.fail("the model was built"))
    code, _, err = command(*words(sets, tmp_path / "results", *more))
    assert code == 1
    assert message in err


def test_again_repeats_an_evaluation_and_compares_its_answers(whole, evaluate, tmp_path):
    again = ["evaluate", "--cfg-path", TOY, "--again", whole / "results.json", "--output", tmp_path / "results"]
    code, out, err = evaluate(*again)
    assert code == 0, err
    assert "msvd_qa: 4 of 4 answers are the same" in out
    assert (tmp_path / "results/results.json").read_bytes() == (whole / "results.json").read_bytes()
    recorded = json.loads((whole / "results.json").read_text())
    recorded["benchmarks"]["msvd_qa"]["items"][0]["answer"] = "Another."
    (tmp_path / "changed.json").write_text(json.dumps(recorded))
    again[4] = tmp_path / "changed.json"
    code, out, _ = evaluate(*again)
    assert code == 1
    assert "msvd_qa: 3 of 4 answers are the same\nmsvd_qa 0: 'Another.' | " in out


def test_again_refuses_the_results_of_another_model(whole, command, tmp_path, monkeypatch):
    monkeypatch.setattr(Engine, "from_job", lambda *args: pytest.fail("the model was built"))
    again = ["evaluate", "--cfg-path", TOY, "--again", whole / "results.json", "--output", tmp_path / "results"]
    code, _, err = command(*again, "--options", "model.audio_scale=2.0")
    assert (code, "model.config.audio_scale: null | 2.0" in err) == (1, True)
    code, _, err = command(*again, "--num-beams", "3")
    assert (code, "Leave them out" in err) == (1, True)


def test_an_output_that_is_a_file_is_refused(evaluate, sets, tmp_path):
    (tmp_path / "results").write_text("mine")
    assert evaluate(*words(sets, tmp_path / "results")).code == 1
    assert (tmp_path / "results").read_text() == "mine"


def test_a_part_of_a_clip_is_read_as_if_it_were_a_file(loaded, sets):
    clip = str(min((sets / "media").glob("heldout*.mp4")))
    whole, part = (
        file.read(loaded.reader) for file in (File("video", clip, False), ClipPart("video", clip, False, 0.5, 1.0))
    )
    assert part.frames.times[0] == 0
    assert part.frames.times[-1] < 0.5 < whole.frames.times[-1]
    assert not part.frames.data.equal(whole.frames.data)
    everything = ClipPart("video", clip, False).read(loaded.reader)
    assert everything.frames.data.equal(whole.frames.data)
    assert FileQuestion(ClipPart("video", clip), "What?") != FileQuestion(File("video", clip), "What?")


def test_a_folder_of_frames_is_a_clip(loaded, tmp_path):
    from PIL import Image

    for n, colour in enumerate(("red", "red", "green", "blue", "blue"), start=1):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{n:05d}.png")
    frames = ClipPart("video", str(tmp_path), False, 0.5, 1.0, 2.0).read(loaded.reader).frames
    assert frames.data.shape[1] == 1
    assert frames.data[0].min() == 255  # the second frame alone, which is red
