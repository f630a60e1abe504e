"""The tests of this folder fail if a golden is 1 % off (an integer or a text: off by one), and pass if none is.

One value of each kind is changed in a copy of the reference. Each is read by a different test, so one run shows for all
whether they are detected.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.parity.conftest import Reference

HERE = Path(__file__).parent
MODEL, INFO = "goldens/goldens.safetensors", "goldens/info.json"
KINDS: dict[str, tuple[str | int, ...]] = {
    "test_vision_branch.py": (MODEL, r"video_T\w+/inputs_llama"),
    "test_audio_branch.py::test_every_stage_from_sound": (MODEL, r"audio_T\w+/inputs_llama"),
    "test_audio_branch.py::test_every_stage_from_frames": (MODEL, r"ibvision_\w+/imagebind_finalout"),
    "test_training_forward.py::test_the_sequence": (MODEL, r"caption_vision\w*/inputs_embeds"),
    "test_training_forward.py::test_the_gradients": (MODEL, r"caption_vision\w*/grad/llama_proj\.weight"),
    "test_training_forward.py::test_the_loss": (INFO, "scenarios", "multi_vision", "loss"),
    "test_training_forward.py::test_every_trained": (INFO, "scenarios", "multi_vision", "grad_norms", "llama_proj"),
    "test_probes.py": (MODEL, r"probe/ib_\w+/output"),
    "test_chat.py": (MODEL, r"chat_\w+/context_emb"),
    "test_text.py": ("text/text_goldens.json", "video", 0, "input_ids", -1),
    "test_conversations.py": ("data/conversations.json", "prompts", 0, "prompt"),
    "test_frame_sampling.py": ("data/frame_sampling.json", "uniform", 0, "indices", -1),
    "test_lr_schedules.py": ("data/lr_schedules.json", "", "lr", -1),
    "test_mel.py": ("data/audio_goldens.safetensors", r"\w+/clips\d+/mel"),
    "test_transforms.py::test_a_clip": ("data/transforms.safetensors", r"alpro_eval\w*/out"),
    "test_transforms.py::test_captions": ("data/transforms.json", "caption", 0, "out"),
    "test_video_frames.py::test_pixels": ("data/video/frames.safetensors", ""),
    "test_video_frames.py::test_length": ("data/video/frames.json", "", "msg"),
    "test_apply_delta.py": ("data/apply_delta.safetensors", r"target/.*q_proj\.weight"),
    "test_manifests.py::test_a_released_vision": (
        "manifests/c_vision_branch_checkpoint_*.json",
        "llama_proj.bias",
        0,
        0,
    ),
    "test_manifests.py::test_a_released_audio": ("manifests/d_audio_branch_checkpoint_*.json", "audio_llama", 0, 0),
    "test_manifests.py::test_imagebind": ("manifests/e_*.json", r"modality_heads\.vision\.2", 0, 0),
}
"""The test that must fail -> the file, and the path of the value in it: list indices, and starts of names."""


def copy_of(reference: Reference, folder: Path) -> Path:
    """Link every file of the reference into a folder."""
    source = reference.folder.resolve()
    for path in source.rglob("*"):
        if path.is_file():
            link = folder / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return folder


def perturb(folder: Path, pattern: str, *way: str | int) -> None:
    path = next(folder.glob(pattern))
    tensors = path.suffix == ".safetensors"
    content: Any = load_file(path) if tensors else json.loads(path.read_text(encoding="utf-8"))
    inner = content
    for step in way[:-1]:
        inner = inner[place(inner, step)]
    inner[place(inner, way[-1])] = changed(inner[place(inner, way[-1])])
    path.unlink()
    if tensors:
        save_file(content, path)
    else:
        path.write_text(json.dumps(content), encoding="utf-8")


def place(inner: Any, step: str | int) -> str | int:
    return step if isinstance(step, int) else next(name for name in inner if re.match(step, name))


def changed(value: Any) -> Any:
    if isinstance(value, str):
        return value[: len(value) // 2] + "x" + value[len(value) // 2 :]
    if isinstance(value, Tensor) and not value.is_floating_point():
        first = torch.zeros_like(value)
        first.view(-1)[0] = 1
        return value + first
    return value + 1 if isinstance(value, int) else value * 1.01


def outcome(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests of this folder on another reference."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(HERE),
        f"--ignore={__file__}",
        "-q",
        "-rfE",
        "-p",
        "no:cacheprovider",
    ]
    environment = {**os.environ, "VIDEO_LLAMA_REFERENCE": str(folder)}
    return subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def failed(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The tests that fail when one value of each kind is off."""
    folder = copy_of(reference, tmp_path_factory.mktemp("perturbed") / "reference")
    for way in KINDS.values():
        perturb(folder, *map(str, way[:1]), *way[1:])
    return re.findall(r"^FAILED \S*/(\S+)", outcome(folder).stdout, re.MULTILINE)


@pytest.mark.parametrize("test", KINDS)
def test_a_value_that_is_one_percent_off_is_detected(test: str, failed: list[str]) -> None:
    assert [name for name in failed if name.startswith(test)]


def test_an_unchanged_copy_passes(reference: Reference, tmp_path: Path) -> None:
    done = outcome(copy_of(reference, tmp_path / "reference"))
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout
