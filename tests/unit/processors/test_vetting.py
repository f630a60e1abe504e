"""An uploaded file is identified by its content and held to the limits before anything is decoded."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.unit.processors.clips import write_clip
from tests.unit.processors.sounds import write_sound
from video_llama.common.errors import DecodeError, VideoLlamaError
from video_llama.processors.config import UploadLimits
from video_llama.processors.vetting import vet_file


@pytest.fixture
def clip(tmp_path):
    """1.2 s of 96 x 64 pixels."""
    return write_clip(tmp_path / "clip.mp4", n_frames=30)


def test_the_kind_is_that_of_the_content_whatever_the_file_name(clip, tmp_path):
    assert vet_file(clip.rename(tmp_path / "clip.png"), UploadLimits()) == "video"
    Image.new("RGB", (9, 5)).save(tmp_path / "image.webp")
    assert vet_file((tmp_path / "image.webp").rename(tmp_path / "image.mp4"), UploadLimits()) == "image"
    sound = write_sound(tmp_path / "a.wav", np.zeros((1, 8000), np.float32), 8000, "pcm_s16le", video=0)
    assert vet_file(sound, UploadLimits()) == "audio"


def test_a_video_can_be_opened_as_audio_but_not_as_an_image(clip):
    assert vet_file(clip, UploadLimits(), "audio") == "audio"
    with pytest.raises(VideoLlamaError, match=r"clip\.mp4: the file is of kind video, not image"):
        vet_file(clip, UploadLimits(), "image")


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_an_image_can_only_be_opened_as_an_image(tmp_path, kind):
    Image.new("RGB", (9, 5)).save(tmp_path / "image.png")
    with pytest.raises(VideoLlamaError, match=rf"image\.png: the file is of kind image, not {kind}"):
        vet_file(tmp_path / "image.png", UploadLimits(), kind)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (UploadLimits(megabytes=0), r"^clip\.mp4: 0 MB; the limit is 0 MB$"),
        (UploadLimits(megapixels=0.006), r"^clip\.mp4: 96 x 64 pixels; the limit is 0\.006 million$"),
        (UploadLimits(minutes=0.019), r"^clip\.mp4: 0\.0 minutes; the limit is 0\.019\. Trim it first\.$"),
        (UploadLimits(deadline_s=0), r"clip\.mp4: not read within its deadline of 0 s$"),
    ],
)
def test_a_file_over_a_limit_is_refused(clip, limits, message):
    with pytest.raises(VideoLlamaError, match=message):
        vet_file(clip, limits)
    assert vet_file(clip, UploadLimits(megabytes=1, megapixels=0.0062, minutes=0.021)) == "video"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "#EXTM3U\n#EXTINF:9,\nclip.mp4\n",
            "cannot open it as video or sound: no video or sound, damaged, or cut short",
        ),
        ("ffconcat version 1.0\nfile clip.mp4\n", "none of the formats taken here"),
        ("%!PS-Adobe-3.0 EPSF-3.0\n", "cannot open it as video or sound"),
    ],
)
def test_files_that_refer_to_others_or_are_programs_are_not_opened(clip, text, message):
    trap = clip.with_name("trap.mp4")
    trap.write_text(text)
    with pytest.raises(DecodeError, match=message):
        vet_file(trap, UploadLimits())
