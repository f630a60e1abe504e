"""``video-llama infer``: 200 questions on clips, images and sounds, ten of them bad, however the work is split."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import ROOT, Result
from video_llama.cli.main import main
from video_llama.common.modalities import Modalities
from video_llama.conversation.chat import Chat
from video_llama.conversation.engine import Engine
from video_llama.inference.journal import Journal

TOY = "eval_configs/toy.yaml"
QUESTIONS = {
    "video": ("What colour is the shape?", "What shape is it?", "How does it move?", "What sound does it make?"),
    "image": ("What colour is the shape?", "What shape is it?"),
    "audio": ("What sound does it make?", "Describe the sound."),
}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """A folder of clips, images, and files that are neither."""
    folder = tmp_path_factory.mktemp("media")
    for clip in (world / "webvid").rglob("*.mp4"):
        shutil.copy(clip, folder)
    for picture in (world / "cc3m").rglob("*.jpg"):
        shutil.copy(picture, folder)
    clip = min(folder.glob("*.mp4"))
    (folder / "cut.mp4").write_bytes(clip.read_bytes()[:600])
    (folder / "empty.mp4").touch()
    (folder / "text.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def lines(media: Path) -> list[str]:
    """190 good lines with each kind of media in turn, and ten bad ones among them."""
    clips = [p for p in sorted(media.glob("*.mp4")) if p.name not in ("cut.mp4", "empty.mp4")]
    files = {"video": clips, "image": [p for p in sorted(media.glob("*.jpg")) if p.name != "text.jpg"], "audio": clips}
    good: list[str] = []
    for n in range(190):
        kind = ("video", "video", "image", "audio")[n % 4]
        asked = {
            kind: files[kind][n // 3 % len(files[kind])].name,
            "question": QUESTIONS[kind][n // 4 % len(QUESTIONS[kind])],
        }
        good.append(json.dumps({"id": n if n % 2 else f"q{n}", **asked}))
    for n, bad in enumerate(BAD):
        good.insert(19 * n + 3, bad)
    return good


BAD = (
    '{"id": "b0", "video": "nowhere.mp4", "question": "What?"}',
    '{"id": "b1", "video": "cut.mp4", "question": "What?"}',
    '{"id": "b2", "video": "empty.mp4", "question": "What?"}',
    '{"id": "b3", "image": "text.jpg", "question": "What?"}',
    '{"id": "b4", "video": "https://example.org/a.mp4", "question": "What?"}',
    '{"id": "b5", "video": "cut.mp4", "question": " "}',
    '{"id": "b6", "vidoe": "cut.mp4", "question": "What?"}',
    '{"id": "b7", "video": "cut.mp4", "image": "text.jpg", "question": "What?"}',
    '{"id": "b8", "video": "cut.mp4", ',
    '{"id": "q0", "video": "cut.mp4", "question": "What?"}',
)
ERRORS = (
    "nowhere.mp4: no such file",
    "cut.mp4: ",
    "empty.mp4: ",
    "text.jpg: ",
    "https://example.org/a.mp4: an address, not a file: download it first",
    'question: " "; expected a text that is not empty',
    "no file; expected one of video, image, audio. Did you mean video?",
    "video and image; expected one of video, image, audio",
    "not JSON (Expecting property name",
    "the id 'q0' is that of line 1 already",
)
NO_LINE = range(5)
"""The first five concern a file; the others name their line of the list."""


def write(folder: Path, lines: list[str]) -> Path:
    path = folder / "q.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def words(folder: Path, media: Path, *more: object) -> list[object]:
    paths = ["--input", folder / "q.jsonl", "--output", folder / "a.jsonl", "--media-dir", media]
    return ["infer", "--cfg-path", TOY, *paths, *more]


def read(folder: Path, name: str = "a.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def infer(command, loaded, monkeypatch) -> Callable[..., Result]:
    """Run ``video-llama infer`` with a model that is already loaded."""
    monkeypatch.setattr(Engine, "from_job", lambda *args: loaded)
    return lambda folder, media, *more: command(*words(folder, media, *more))


@pytest.fixture(scope="module")
def whole(lines, media, loaded, tmp_path_factory) -> Path:
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(Engine, "from_job", lambda *args: loaded)
        assert main([str(word) for word in words(folder, media)]) == 0
    return folder


def test_answers_equal_those_of_single_questions_and_bad_items_have_errors(whole, lines, media, loaded):
    found = read(whole)
    assert len(found) == 200
    good = [line for line in lines if line not in BAD]
    assert [r["id"] for r in found if "answer" in r] == [json.loads(line)["id"] for line in good]
    for record, item in zip((r for r in found if "answer" in r), map(json.loads, good), strict=True):
        single = Chat(loaded)
        single.upload(**{kind: media / item[kind] for kind in QUESTIONS if kind in item})
        assert record == {"id": item["id"], "answer": single.ask(item["question"])}


def test_each_error_names_what_was_wrong_and_where(whole, lines):
    found = read(whole)
    for n, (bad, error) in enumerate(zip(BAD, ERRORS, strict=True)):
        at = lines.index(bad)
        assert found[at].keys() == {"id", "error"}
        assert error in found[at]["error"]
        assert (f"line {at + 1}: " in found[at]["error"]) == (n not in NO_LINE)
        assert found[at]["id"] == (None if n == 8 else json.loads(bad)["id"])


def process(folder: Path, media: Path, *more: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """``video-llama infer`` in processes of its own, which end with the test."""
    command = [sys.executable, "-m", *launcher, "video_llama.cli.main", *words(folder, media, *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    )


def n_written(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("a.jsonl.journal*"))


@pytest.mark.slow
def test_a_killed_job_resumes(whole, lines, media, infer, tmp_path):
    write(tmp_path, lines)
    killed = process(tmp_path, media)
    while n_written(tmp_path) < 80:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "a.jsonl").exists()
    before = (tmp_path / "a.jsonl.journal0").read_bytes()
    assert before.count(b"\n") < 180
    code, _, err = infer(tmp_path, media)
    assert code == 0, err
    assert (tmp_path / "a.jsonl").read_bytes() == (whole / "a.jsonl").read_bytes()
    after = (tmp_path / "a.jsonl.journal0").read_bytes()
    assert after.startswith(before)  # no finished question was asked again
    keys = [json.loads(line)["key"] for line in after.splitlines() if b'"answer"' in line]
    assert len(keys) == len(set(keys)) == 190


@pytest.mark.slow
def test_two_processes_share_a_job_and_one_resumes_it(whole, lines, media, infer, tmp_path):
    write(tmp_path, lines)
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
    killed = process(tmp_path, media, "--batch-size", 4, launcher=launcher)
    journals = [tmp_path / f"a.jsonl.journal{rank}" for rank in (0, 1)]
    while not all(journal.exists() and journal.stat().st_size for journal in journals):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGTERM)
    killed.communicate()
    assert not (tmp_path / "a.jsonl").exists()
    again = process(tmp_path, media, "--batch-size", 4, launcher=launcher)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert out.count("190 answered, 10 failed") == 1
    assert (tmp_path / "a.jsonl").read_bytes() == (whole / "a.jsonl").read_bytes()
    (tmp_path / "a.jsonl").unlink()
    assert infer(tmp_path, media).code == 0  # one process finds the answers of both
    assert (tmp_path / "a.jsonl").read_bytes() == (whole / "a.jsonl").read_bytes()


@pytest.mark.slow
def test_a_process_that_fails_ends_the_job_with_its_own_message(lines, media, tmp_path):
    write(tmp_path, lines)
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
    with Journal(tmp_path / "a.jsonl", 1):
        run = process(tmp_path, media, launcher=launcher)
        out, err = run.communicate()
    assert (run.returncode, out) == (1, "")
    assert "a.jsonl: another run is writing it" in err
    assert "video_llama/cli" not in err  # the only traceback is torchrun's
    assert not (tmp_path / "a.jsonl").exists()


# A second run, with something changed

FEW = (
    '{"id": 1, "video": "clip.mp4", "question": "What colour is the shape?"}',
    '{"id": 2, "video": "late.mp4", "question": "What colour is the shape?"}',
    '{"id": 3, "video": "clip.mp4"}',
)


@pytest.fixture
def few(media, infer, tmp_path) -> Path:
    """A folder with three questions; only the first can be answered."""
    shutil.copy(min(media.glob("1*.mp4")), tmp_path / "clip.mp4")
    write(tmp_path, list(FEW))
    code, out, err = infer(tmp_path, tmp_path)
    assert (code, out) == (
        0,
        f"{tmp_path}/a.jsonl: 1 answered, 2 failed; fix the causes and run the same command to retry only those\n",
    ), err
    return tmp_path


def no_model(*args: object) -> Engine:
    raise AssertionError("there is nothing to answer")


def test_only_failed_questions_are_tried_again(few, infer, monkeypatch):
    first = read(few)
    shutil.copy(few / "clip.mp4", few / "late.mp4")
    (few / "clip.mp4").unlink()
    write(few, [*FEW[:2], '{"id": 3, "video": "late.mp4", "question": "What shape is it?"}'])
    code, out, _ = infer(few, few)
    assert (code, out) == (0, f"{few}/a.jsonl: 3 answered, 0 failed\n")
    second = read(few)
    assert second[0] == first[0]
    assert second[1] == {"id": 2, "answer": first[0]["answer"]}
    monkeypatch.setattr(Engine, "from_job", no_model)
    content = (few / "a.jsonl").read_bytes()
    assert infer(few, few).code == 0
    assert (few / "a.jsonl").read_bytes() == content


@pytest.mark.parametrize(
    ("flags", "question"),
    [
        (("--max-new-tokens", 3), "What colour is the shape?"),
        (("--no-audio",), "What colour is the shape?"),
        (("--system", "Be brief."), "What colour is the shape?"),
        (("--options", "model.max_txt_len=31"), "What colour is the shape?"),
        ((), "What shape is it?"),
    ],
)
def test_the_answers_of_another_job_are_not_overwritten(few, infer, flags, question):
    written = (few / "a.jsonl").read_bytes()
    write(few, [FEW[0].replace("What colour is the shape?", question), *FEW[1:]])
    code, _, err = infer(few, few, *flags)
    assert (code, (few / "a.jsonl").read_bytes()) == (1, written)
    assert "a.jsonl holds something else already" in err


def test_answers_from_other_weights_at_the_same_path_are_not_reused(few, infer, tmp_path):
    weights = shutil.copy(ROOT / "video_llama/toy/weights/branch.safetensors", tmp_path / "branch.safetensors")
    other = ("--output", tmp_path / "b.jsonl", "--options", f"model.ckpt={weights}")
    assert infer(few, few, *other).code == 0
    os.utime(weights, (0, 0))
    code, _, err = infer(few, few, *other)
    assert (code, "b.jsonl holds something else already" in err) == (1, True)


def test_a_file_of_the_user_is_not_overwritten(few, infer):
    questions = (few / "q.jsonl").read_bytes()
    code, _, err = infer(few, few, "--output", few / "q.jsonl")
    assert (code, (few / "q.jsonl").read_bytes()) == (1, questions)
    assert "q.jsonl holds something else already" in err
    assert not list(few.glob("q.jsonl.journal*"))


def test_a_symbolic_link_stays_a_link(few, infer):
    (few / "link.jsonl").symlink_to("elsewhere.jsonl")
    assert infer(few, few, "--output", few / "link.jsonl").code == 0
    assert (few / "link.jsonl").is_symlink()
    assert (few / "elsewhere.jsonl").read_bytes() == (few / "a.jsonl").read_bytes()


@pytest.mark.parametrize(("name", "kind"), [("/dev/null", "device"), ("folder", "folder")])
def test_an_output_that_is_not_a_file_is_not_replaced(few, infer, name, kind):
    (few / "folder").mkdir()
    code, _, err = infer(few, few, "--output", few / name)
    assert (code, err) == (1, f"error: --output: {few / name}: a {kind}; name a file\n")


def test_a_second_job_with_the_same_output_is_refused(few, infer):
    with Journal(few / "a.jsonl", 0):
        code, _, err = infer(few, few)
    assert (code, "a.jsonl: another run is writing it" in err) == (1, True)


def test_lost_answers_are_reported(few, infer, loaded, monkeypatch):
    def forgetful(*args: object) -> Engine:
        for journal in few.glob("b.jsonl.journal*"):
            journal.unlink()
        return loaded

    monkeypatch.setattr(Engine, "from_job", forgetful)
    code, out, err = infer(few, few, "--output", few / "b.jsonl")
    assert (code, out) == (1, "")
    assert "b.jsonl is not written: 2 of 3 answers are in no journal beside it" in err
    assert not (few / "b.jsonl").exists()


def test_without_any_answer_the_command_fails(few, infer):
    write(few, [FEW[1]])
    code, out, _ = infer(few, few, "--output", few / "b.jsonl")
    assert (code, out.partition(";")[0]) == (1, f"{few}/b.jsonl: 0 answered, 1 failed")
    assert read(few, "b.jsonl") == [{"id": 2, "error": f"{few}/late.mp4: no such file"}]


def test_a_truncated_journal_line_is_answered_again(few, infer):
    whole = (few / "a.jsonl").read_bytes()
    (few / "a.jsonl").unlink()
    journal = few / "a.jsonl.journal0"
    journal.write_bytes(journal.read_bytes()[:40])
    assert infer(few, few).code == 0
    assert (few / "a.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "q.jsonl: No such file or directory"),
        (b'[\n{"id": 1}\n]', "q.jsonl: no line can be used (line 1: not JSON"),
    ],
)
def test_an_invalid_list_is_named_before_the_model_is_loaded(infer, monkeypatch, tmp_path, content, message):
    monkeypatch.setattr(Engine, "from_job", no_model)
    if content is not None:
        (tmp_path / "q.jsonl").write_bytes(content)
    code, out, err = infer(tmp_path, tmp_path)
    assert (code, out) == (1, "")
    assert message in err


def test_requiring_sound_of_a_model_without_audio_is_refused(few, infer, loaded, monkeypatch):
    spec = replace(loaded.spec, audio_processor=None, modalities=Modalities())
    without_audio = Engine(loaded.model, spec, loaded.video_processor, loaded.image_processor)
    monkeypatch.setattr(Engine, "from_job", lambda *args: without_audio)
    code, _, err = infer(few, few, "--audio", "--output", few / "b.jsonl")
    assert (code, "the model has no audio branch" in err) == (1, True)
    assert not (few / "b.jsonl").exists()


def test_several_processes_on_one_gpu_are_refused(few, infer, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = infer(few, few, "--device", "cuda:1")
    assert (code, err) == (1, "error: --device: cuda:1 is one GPU, and torchrun started several processes: use cuda\n")


def test_the_batch_size_must_be_at_least_one(infer, few):
    code, _, err = infer(few, few, "--batch-size", 0)
    assert (code, err) == (1, "error: --batch-size: 0; expected at least 1\n")
