"""``make hello``: the shipped model answers about the shipped clip."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from tests.integration.conftest import ROOT
from video_llama.processors.decode import open_video
from video_llama.toy.encode import write_clip
from video_llama.toy.hello import ASKED, CLIP, SCENE
from video_llama.toy.language import QUESTIONS, SOUND_QUESTIONS, answer
from video_llama.toy.scene import N_FRAMES, is_held_out


def test_it_prints_the_clip_right_answers_the_use_of_sound_and_what_is_next(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "video_llama.toy.hello"]
    result = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    kinds = {question: kind for kind, question in (QUESTIONS | SOUND_QUESTIONS).items()}
    dialogue = [line for question in ASKED for line in (f"> {question}", answer(kinds[question], SCENE))]
    assert result.stdout.splitlines()[: len(dialogue) + 2] == [f"clip: {CLIP}", *dialogue, "sound: used"]
    assert f"video-llama chat --cfg-path toy --video {CLIP}" in result.stdout
    assert "make quickstart" in result.stdout


def test_the_clip_is_small_and_shows_its_scene_which_no_training_clip_does(tmp_path):
    assert CLIP.stat().st_size < 50_000
    assert is_held_out((SCENE.shape, SCENE.colour, SCENE.motion))
    write_clip(tmp_path / "again.mp4", SCENE)
    shipped, again = (open_video(path).read(range(N_FRAMES)).float() for path in (CLIP, tmp_path / "again.mp4"))
    assert torch.mean((shipped - again).abs()) < 1
