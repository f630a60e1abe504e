"""Manifests over real clips, sounds and frames: parts of them, and what is done with their sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.specs import sample_spec
from tests.unit.datasets.folder import Folder, sample_text, turns
from tests.unit.processors.clips import write_clip as write_silent
from video_llama.common.errors import BadRecord
from video_llama.common.modalities import Modalities
from video_llama.common.types import Sample
from video_llama.datasets.config import ProcessorsConfig
from video_llama.processors.audio import ImageBindAudio
from video_llama.processors.config import AudioConfig, VideoConfig
from video_llama.prompts.tokenizer import Tokenizer
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene

REAL = ProcessorsConfig(train=VideoConfig(n_frms=4, image_size=32))
"""Of ``alpro_video_eval``."""
QUESTION = turns("What is shown?", "A ring.")


@pytest.fixture
def real(tmp_path: Path, tokenizer: Tokenizer) -> Folder:
    """A clip with sound, one without, frames and an image."""
    spec = sample_spec(tokenizer)
    folder = Folder(tmp_path, spec).limited(
        shared_settings={},
        tokens_per_slot={"image": 3, "video": 3, "audio": 2, "audio_frames": 2},
        modalities=Modalities(True, "sound"),
        audio_processor=ImageBindAudio(AudioConfig(n_segments=2)),
    )
    write_clip(folder.media / "sound.mp4", Scene("ring", "red", "left", "large", seed=1))
    write_silent(folder.media / "silent.mp4")
    (folder.media / "frames").mkdir()
    for i in range(6):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(folder.media / "frames" / f"{i}.png")
    Image.new("RGB", (40, 30)).save(folder.media / "still.png")
    return folder


def kinds(folder: Folder, record: dict[str, Any], **settings: Any) -> list[str]:
    return [media.kind for media in sample(folder, record, **settings).media]


def sample(folder: Folder, record: dict[str, Any], **settings: Any) -> Sample:
    data = folder.manifest({"conversations": QUESTION, **record}, vis_processor=REAL, image_processor=None, **settings)
    return data.sample(0, np.random.default_rng(0))


def test_the_sound_of_a_clip_is_used_ignored_or_required(real: Folder) -> None:
    assert kinds(real, {"video": "sound.mp4"}) == ["audio", "video"]
    assert kinds(real, {"video": "sound.mp4", "audio": "ignore"}) == ["video"]
    assert kinds(real, {"video": "sound.mp4", "audio": "require"}) == ["audio", "video"]
    assert kinds(real, {"video": "silent.mp4"}) == ["video"]
    with pytest.raises(BadRecord, match=r"mine\.jsonl:1: .*silent\.mp4 has no sound track, and 'audio' is 'require'"):
        kinds(real, {"video": "silent.mp4", "audio": "require"})
    assert kinds(real, {"video": "sound.mp4"}, audio="ignore") == ["video"]
    assert kinds(real, {"video": "sound.mp4", "audio": "use"}, audio="ignore") == ["audio", "video"]


def test_where_sound_or_frames_are_drawn_required_sound_always_comes(real: Folder) -> None:
    both = real.limited(modalities=Modalities(True, "both"))
    data = both.manifest(
        {"video": "sound.mp4", "audio": "require", "conversations": QUESTION}, vis_processor=REAL, image_processor=None
    )
    drawn = {data.sample(0, np.random.default_rng(seed)).media[0].kind for seed in range(8)}
    assert drawn == {"audio"}
    assert kinds(both, {"video": "sound.mp4", "audio": "ignore"}) == ["audio_frames", "video"]


def test_ignored_sound_is_a_bad_record_for_a_model_of_sound_alone(real: Folder) -> None:
    alone = real.limited(modalities=Modalities(False, "sound"))
    assert kinds(alone, {"video": "sound.mp4"}) == ["audio"]
    with pytest.raises(BadRecord, match=r"mine\.jsonl:1: 'sound\.mp4': its sound is ignored, and the model is trained"):
        kinds(alone, {"video": "sound.mp4", "audio": "ignore"})
    for record in ({"frames": "frames", "fps": 1}, {"image": "still.png"}):
        with pytest.raises(BadRecord, match="it has no sound, and the model is trained on nothing else"):
            kinds(alone, record)


def test_a_model_without_an_audio_branch_takes_no_notice_of_required_sound(real: Folder) -> None:
    assert kinds(real.limited(modalities=Modalities()), {"video": "silent.mp4", "audio": "require"}) == ["video"]


def test_a_part_of_a_clip_is_read(real: Folder) -> None:
    whole, part = (sample(real, {"video": "sound.mp4", **span}) for span in ({}, {"start": 1.0, "end": 1.5}))
    assert max(part.media[1].times) < 0.5 < max(whole.media[1].times)


def test_a_folder_of_frames_is_a_clip_with_the_times_it_was_given(real: Folder) -> None:
    found = sample(real, {"frames": "frames", "fps": 3})
    assert [media.kind for media in found.media] == ["video"]
    assert found.media[0].data.shape == (3, 4, 32, 32)
    assert found.media[0].times == pytest.approx((0.0, 1 / 3, 1.0, 4 / 3))
    assert "sampled at 0.0, 0.3, 1.0, 1.3 seconds" in found.media[0].message
    timed = sample(real, {"frames": "frames", "times": [2, 3, 4, 5, 6, 7]})
    assert timed.media[0].times == (2.0, 3.0, 5.0, 6.0)
    part = sample(real, {"frames": "frames", "fps": 3, "start": 1.0})
    assert part.media[0].data.shape[1] == 3


def test_clips_frames_sound_and_images_share_a_record(real: Folder) -> None:
    record = {
        "video": "sound.mp4",
        "frames": "frames",
        "fps": 1,
        "image": "still.png",
        "conversations": turns("<image> <video> <video>", "Yes."),
    }
    found = sample(real, record)
    assert [media.kind for media in found.media] == ["image", "audio", "video", "video"]
    data = real.manifest(record, vis_processor=REAL, image_processor=None)
    assert sample_text(data).startswith(
        "\n\n###Human: <Image>@@@</Image> <Video>@@</Video> <Video>@@@</Video> <Video>@@@</Video>\n###Assistant: Yes."
    )
    ids = [i for i in found.input_ids.tolist() if i < 0]
    assert ids == [-1] * 3 + [-2] * 2 + [-3] * 3 + [-4] * 3


def test_the_length_of_a_record_is_known_without_its_files(real: Folder) -> None:
    records = [
        {"video": "sound.mp4"},
        {"video": "sound.mp4", "audio": "ignore", "start": 0.5, "end": 1.5},
        {"frames": "frames", "fps": 3},
        {"image": ["still.png", "still.png"], "conversations": turns("<image> or <image>?", "Both.")},
        {"image": "still.png", "frames": "frames", "fps": 1, "conversations": turns("<image> <video>", "Yes.")},
    ]
    data = real.manifest(
        *({"conversations": QUESTION, **record} for record in records), vis_processor=REAL, image_processor=None
    )
    for index in range(len(records)):
        made, expected = data.sample(index, np.random.default_rng(0)), data.length(index, np.random.default_rng(0))
        n_media = int((made.input_ids < 0).sum())
        assert expected.media == n_media
        assert expected.frames == sum(item.data.shape[1] for item in made.media if item.kind != "audio")
        assert abs(expected.text - (len(made.input_ids) - n_media)) <= 12, "the digits of frame times"
