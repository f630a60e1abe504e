"""Keys: equal for the same question to the same model only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from video_llama.config.loader import load_config
from video_llama.conversation.batching import File, FileQuestion
from video_llama.conversation.settings import GenerationSettings
from video_llama.inference.items import Item
from video_llama.inference.keys import item_keys, model_key


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])


def key(
    *options: str,
    id: str | int = "a",
    question: str = "What?",
    path: str = "v",
    use_audio: bool | None = None,
    **settings: object,
) -> str:
    job = load_config("eval_configs/toy.yaml", options, also=("datasets", "inference"))
    item = Item(id, FileQuestion(File("video", path, use_audio), question))
    return item_keys([item], model_key(job), GenerationSettings(**settings))[item]


def test_a_key_is_the_same_each_time():
    assert key() == key() == key(max_new_tokens=300)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "b"},
        {"question": "Why?"},
        {"path": "w"},
        {"use_audio": False},
        {"max_new_tokens": 8},
        {"seed": 0},
    ],
)
def test_whatever_changes_the_answer_changes_the_key(change):
    assert key(**change) != key()


@pytest.mark.parametrize(
    "option",
    ["model.max_txt_len=31", "inference.video.n_frms=5", "model.model_type=llama_v2"],
)
def test_whatever_changes_the_model_changes_the_key(option):
    assert key(option) != key()


def test_a_file_that_does_not_belong_to_the_model_changes_no_key(tmp_path, monkeypatch):
    weights = Path("video_llama/toy/weights").resolve()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eval_configs").symlink_to(Path(__file__).parents[3] / "eval_configs")
    first = key(f"paths.weights={weights}")
    (tmp_path / "video_llama").write_text("of the same name as the architecture")
    assert key(f"paths.weights={weights}") == first


def test_weights_that_are_not_used_need_not_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path))
    unused = ("model.equip_audio_branch=false", "model.audio_encoder=null", "model.imagebind_ckpt_path=imagebind_huge")
    assert key(*unused) != key()


def test_the_number_1_and_the_text_1_are_two_ids():
    assert key(id=1) != key(id="1")


def test_overwriting_a_file_of_the_model_changes_the_key(tmp_path):
    decoder = tmp_path / "decoder"
    decoder.symlink_to(Path("video_llama/toy/weights/decoder").resolve())
    branch = tmp_path / "branch.safetensors"
    branch.write_bytes(b"one")
    options = (f"model.ckpt={branch}", f"model.llama_model={decoder}")
    first = key(*options)
    assert key(*options) == first
    os.utime(branch, (0, 0))
    second = key(*options)
    assert second != first
    decoder.unlink()
    decoder.mkdir()
    for file in Path("video_llama/toy/weights/decoder").iterdir():
        (decoder / file.name).write_bytes(file.read_bytes())
    assert key(*options) != second
