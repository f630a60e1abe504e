"""The wheel is enough to train, chat and answer questions by name, from a folder outside the clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, losses

pytestmark = pytest.mark.slow

SOURCES = (
    *("pyproject.toml", "README.md", "LICENSE", "NOTICE"),
    *("video_llama", "train_configs", "eval_configs", "prompts", "schema.json"),
)
WRITE_WORLD = """
from pathlib import Path
from video_llama.toy.world import write_world
write_world(Path("world"), n_clips=24, n_heldout=12, n_images=4)
"""
CLIP = "world/heldout/videos/heldout_0000.mp4"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the clone, so that it contains no earlier build output."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "clone" / name, symlinks=True)
        else:
            (folder / "clone").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / "clone")
    words = [sys.executable, "-m", "pip", "wheel", str(folder / "clone"), "-w", str(folder), "-q"]
    _checked([*words, "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the clone, in which the programs run."""
    return tmp_path_factory.mktemp("installed")


@pytest.fixture(scope="module")
def run(wheel: Path, folder: Path) -> Callable[..., str]:
    """Run a program in an environment with the wheel and this one's dependencies, in a folder with a toy world."""
    environment = folder / "venv"
    venv.create(environment, symlinks=True)
    python = str(environment / "bin/python")
    words = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", str(wheel)]
    _checked([*words, "--disable-pip-version-check"], folder)
    # Folders that a .pth file names come last, and the .pth files in them, such as that of the clone, are not read.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))

    def run(program: str, *arguments: str) -> str:
        return _checked([str(environment / "bin" / program), *arguments], folder)

    run("python", "-c", WRITE_WORLD)
    return run


def _checked(words: list[str], cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        words, cwd=cwd, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {
        str(Path(folder, name).relative_to(ROOT))
        for folder, _, names in os.walk(ROOT / "video_llama", followlinks=True)
        for name in names
        if not name.endswith(".pyc")
    }
    assert held == package
    assert {
        "video_llama/configs/train/toy/stage1_pretrain.yaml",
        "video_llama/configs/eval/toy.yaml",
        "video_llama/configs/prompts/alignment_image.txt",
        "video_llama/configs/schema.json",
        "video_llama/demo/style.css",
        "video_llama/toy/weights/decoder/model.safetensors",
    } <= held
    assert not any("toy_pretrain" in name for name in held)


def test_an_environment_without_the_clone_imports_the_wheel(run: Callable[..., str]) -> None:
    imported = run("python", "-c", "import video_llama, sys; print(video_llama.__file__); print(sys.prefix)")
    file, prefix = imported.splitlines()
    assert Path(file).is_relative_to(prefix)
    assert run("python", "-c", "import importlib.util as util; print(util.find_spec('tools'))") == "None\n"


def test_the_wheel_lists_its_configurations(run: Callable[..., str]) -> None:
    assert "toy/stage1_pretrain  " in run("video-llama", "configs")


def test_the_wheel_trains_on_a_toy_world_from_a_configuration_given_by_name(
    run: Callable[..., str], folder: Path
) -> None:
    options = ["paths.world=world", "run.output_dir=run", "run.max_epoch=1", "run.iters_per_epoch=2"]
    options += ["run.warmup_steps=0", "run.batch_size_train=2"]
    run("video-llama", "train", "--cfg-path", "toy/stage1_pretrain", "--options", *options)
    assert len(losses(folder / "run")) == 2
    assert (folder / "run/checkpoint_step000002.pth").is_file()


def test_the_wheel_answers_from_both_layouts_of_an_export_as_from_its_own_weights(
    run: Callable[..., str], folder: Path
) -> None:
    ask = (
        "import sys; from video_llama.conversation.chat import Chat; "
        "chat = getattr(Chat, sys.argv[1])(sys.argv[2]); chat.upload(video=sys.argv[3]); "
        "print([chat.ask(q) for q in ('What colour is the shape?', 'What sound does it make?')])"
    )
    expected = run("python", "-c", ask, "from_config", "toy", CLIP)
    assert "It is " in expected
    for layout in ("bundle", "full"):
        run("video-llama", "export", "--cfg-path", "toy", "--output", layout, "--layout", layout)
        assert run("python", "-c", ask, "from_pretrained", layout, CLIP) == expected


def test_the_wheel_answers_single_questions_and_a_file_of_them(run: Callable[..., str], folder: Path) -> None:
    question = "What colour is the shape?"
    answer = run("video-llama", "chat", "--cfg-path", "toy", "--video", CLIP, "--question", question)
    assert "\nIt is " in answer
    (folder / "questions.jsonl").write_text(json.dumps({"id": 1, "video": CLIP, "question": question}))
    run("video-llama", "infer", "--cfg-path", "toy", "--input", "questions.jsonl", "--output", "answers.jsonl")
    assert json.loads((folder / "answers.jsonl").read_text())["answer"] in answer
