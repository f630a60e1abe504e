"""The six YAMLs of the original, their indentation and paths corrected and nothing else, are checked, train and answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.conftest import Result, losses
from tests.published_run import DOWNLOADS, EVALUATION, SIZES, SIZES_OF_IMAGEBIND, TRAINING, YAMLS, write_folder
from video_llama.conversation.engine import Engine

TWO_STEPS = ("run.max_epoch=1", "run.iters_per_epoch=2", "run.num_workers=0", "run.device=cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """A working directory with every file that the YAMLs name."""
    return write_folder(tmp_path_factory.mktemp("published"), world)


@pytest.fixture
def here(folder: Path, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``video-llama ...`` in that directory."""
    monkeypatch.chdir(folder)
    return command


def sizes(name: str) -> tuple[str, ...]:
    return (*SIZES, *(SIZES_OF_IMAGEBIND if "audio" in name else ()))


def downloads(name: str) -> tuple[str, ...]:
    """The files that the original downloads, for a YAML whose model has a video branch."""
    return () if name.startswith("audiobranch") else DOWNLOADS


class Expected(NamedTuple):
    """What check-config says of a YAML."""

    purpose: str
    notes: tuple[str, ...]
    """Dotted keys, in the order of the file."""


ON_CONVERSATIONS = tuple(f"datasets.{name}.text_processor" for name in ("llava_instruct", "webvid_instruct"))
IN_USE = ("model.max_txt_len", "datasets.webvid.text_processor", "run")
EXPECTED = {
    "visionbranch_stage1_pretrain.yaml": Expected("training", ("model.imagebind_ckpt_path", "run.batch_size_eval")),
    "visionbranch_stage2_finetune.yaml": Expected(
        "training and use", ("model.imagebind_ckpt_path", *ON_CONVERSATIONS, "run.batch_size_eval")
    ),
    "audiobranch_stage1_pretrain.yaml": Expected("training", ("model.audio_source", "run.batch_size_eval")),
    "audiobranch_stage2_finetune.yaml": Expected(
        "training", ("model.audio_source", *ON_CONVERSATIONS, "run.batch_size_eval")
    ),
    "video_llama_eval_only_vl.yaml": Expected("use", IN_USE),
    "video_llama_eval_withaudio.yaml": Expected("use", IN_USE),
}


def test_there_are_six():
    assert {path.name for path in YAMLS.iterdir()} == {*TRAINING, *EVALUATION} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_check_config_finds_no_problem_and_notes_each_key_without_effect_once(here, name):
    code, out, err = here("check-config", name, "--options", *downloads(name))
    assert (code, err) == (0, "")
    first, *lines = out.splitlines()
    assert first == f"{name}: ok for {EXPECTED[name].purpose}"
    assert [re.fullmatch(r"  note: \S+?(?::\d+)?  ([\w.]+): .*", line)[1] for line in lines] == [*EXPECTED[name].notes]


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_yaml_trains_two_steps_on_files_in_the_originals_layout(here, name, tmp_path, caplog):
    run = (*TWO_STEPS, f"run.output_dir={tmp_path}", *sizes(name), *downloads(name))
    code, _, err = here("train", "--cfg-path", name, "--options", *run)
    assert code == 0, err
    assert len(losses(tmp_path)) == 2
    for key in EXPECTED[name].notes:
        assert len([line for line in caplog.messages if line.startswith("note: ") and f"  {key}: " in line]) == 1
    ignored = [line for line in caplog.messages if line.startswith("note: model.ckpt: ")]
    assert len(ignored) == name.startswith("audiobranch")  # the vision branch, where the audio branch alone is trained


@pytest.mark.parametrize("name", EVALUATION)
def test_an_eval_yaml_answers_and_notes_each_key_without_effect_once(here, name, world, caplog):
    clip = sorted((world / "heldout/videos").glob("*.mp4"))[0]
    words = ("--video", clip, "--question", "What is it?", "--json", "--max-new-tokens", "4", "--device", "cpu")
    code, out, err = here("chat", "--cfg-path", name, *words, "--options", *sizes(name), *downloads(name))
    assert code == 0, err
    assert len(json.loads(out)["frame_times"]) == 8
    notes = [line for line in caplog.messages if line.startswith("note: ")]
    assert [line.split("  ")[1].split(": ")[0] for line in notes] == [*IN_USE]


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_the_first_alone_tells_the_notes(here, rank, monkeypatch, caplog):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    name = "video_llama_eval_only_vl.yaml"
    Engine.from_config(name, [*sizes(name), *DOWNLOADS], device="cpu")
    assert len([line for line in caplog.messages if line.startswith("note: ")]) == (len(IN_USE) if rank == 0 else 0)


@pytest.mark.parametrize(
    ("name", "purpose", "problems"),
    [
        ("visionbranch_stage1_pretrain.yaml", "train", []),
        ("visionbranch_stage1_pretrain.yaml", "use", ["model.ckpt is not set: the branch would answer at random"]),
        ("visionbranch_stage2_finetune.yaml", "use", []),
        (
            "audiobranch_stage2_finetune.yaml",
            "use",
            ["for inference, model.vit_ckpt: ", "for inference, model.q_former_model: "],
        ),
        ("video_llama_eval_withaudio.yaml", "use", []),
        (
            "video_llama_eval_withaudio.yaml",
            "train",
            [
                f"run.{key}: missing; it has no default"
                for key in ("init_lr", "max_epoch", "batch_size_train", "output_dir")
            ],
        ),
    ],
)
def test_check_config_checks_for_the_purpose_that_is_asked_for(here, name, purpose, problems):
    code, out, err = here("check-config", name, "--for", purpose, "--options", *downloads(name))
    assert code == bool(problems)
    assert out.startswith(f"{name}: ok for {'training' if purpose == 'train' else 'use'}\n" if not problems else "")
    lines = err.splitlines()
    assert len(lines) == len(problems)
    assert all(problem in line for problem, line in zip(problems, lines, strict=True))


def test_for_use_the_data_need_not_be_there(here):
    name, gone = "visionbranch_stage2_finetune.yaml", "datasets.cc_sbu_align.build_info.storage=gone"
    assert here("check-config", name, "--for", "use", "--options", *DOWNLOADS, gone).code == 0
    code, _, err = here("check-config", name, "--options", *DOWNLOADS, gone)
    assert (code, err) == (
        1,
        f"option --options {gone}  datasets.cc_sbu_align.build_info.storage: no such directory: gone\n",
    )
