"""The example clips of the page."""

from __future__ import annotations

import pytest

from video_llama.demo.examples import write_examples
from video_llama.processors.config import UploadLimits
from video_llama.processors.decode import open_video
from video_llama.processors.vetting import vet_file


def test_examples_are_clips_with_sound_a_thumbnail_and_a_question(tmp_path):
    examples = write_examples(tmp_path, has_audio=True)
    assert len(examples) == 4
    assert len({example.question for example in examples}) == 4
    for example in examples:
        assert vet_file(example.path, UploadLimits()) == "video"
        assert open_video(example.path).sound().duration == pytest.approx(2.0, abs=0.1)
        assert example.thumbnail.startswith("data:image/png;base64,")


def test_a_model_without_an_audio_branch_gets_no_examples_about_sound(tmp_path):
    assert len(write_examples(tmp_path, has_audio=False)) == 2
    assert not any("sound" in example.question.lower() for example in write_examples(tmp_path, has_audio=False))
