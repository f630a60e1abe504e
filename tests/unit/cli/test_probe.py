"""``video-llama probe``: what a model would be given of a clip."""

from __future__ import annotations

import json
import os
import wave

import numpy as np
import pytest
from PIL import Image

from tests.unit.processors.clips import picture, played, set_matrix, write_clip
from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.cli.main import main
from video_llama.processors.decode import open_sound


def probed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    code = main(["probe", *map(str, arguments), "--json"])
    content = json.loads(capsys.readouterr().out)
    assert code == (1 if "error" in content else 0)
    return content


def test_frames_times_and_size_are_those_that_a_model_gets(tmp_path, capsys):
    path = write_clip(tmp_path / "clip.mp4", n_frames=50)
    found = probed(capsys, path)
    assert found["frames"] == 50
    assert found["indices"] == [int(i * 50 / 8) for i in range(8)]
    assert found["times"] == pytest.approx([i / 25 for i in found["indices"]])
    assert (found["width"], found["height"], found["rotation"], found["mirrored"]) == (96, 64, 0, False)
    assert (found["display_aspect"], found["duration"]) == ("3:2", 2.0)
    assert found["sound"] == {"status": "no track", "duration": None, "channels": None}
    assert probed(capsys, path, "--sampling", "fps", "--fps", 4)["indices"] == [0, 6, 12, 18, 25, 31, 37, 43]
    assert probed(capsys, path, "--sampling", "fps", "--n-frms", 1)["indices"] == [0]
    assert len(set(probed(capsys, path, "--sampling", "headtail", "--n-frms", 5)["indices"])) == 5


@pytest.mark.parametrize(
    ("matrix", "rotation", "is_mirrored"),
    [
        ((1, 0, 0, 1), 0, False),
        ((0, 1, -1, 0), 90, False),
        ((-1, 0, 0, -1), 180, False),
        ((0, -1, 1, 0), 270, False),
        ((-1, 0, 0, 1), 0, True),
        ((1, 0, 0, -1), 180, True),
    ],
)
def test_rotation_and_mirroring_turn_the_stored_frame_upright(tmp_path, capsys, matrix, rotation, is_mirrored):
    path = write_clip(tmp_path / "clip.mp4", n_frames=3)
    set_matrix(path, *matrix)
    found = probed(capsys, path, "--out", tmp_path / "out")
    assert (found["rotation"], found["mirrored"]) == (rotation, is_mirrored)
    assert (found["width"], found["height"]) == ((64, 96) if rotation in (90, 270) else (96, 64))
    shown = np.asarray(Image.open(tmp_path / "out/frame_02.png"))
    stored = played(write_clip(tmp_path / "plain.mp4", n_frames=3))[2]
    turned = np.rot90(stored[:, ::-1] if is_mirrored else stored, -rotation // 90)
    assert np.array_equal(shown, turned)


def test_frames_and_sound_are_written_as_they_are_read(tmp_path, capsys):
    path = write_sound(tmp_path / "clip.mp4", with_chirps(44_100, 2.0, [0.5], channels=2), 44_100, "aac", video=50)
    found = probed(capsys, path, "--n-frms", 3, "--out", tmp_path / "out")
    assert found["sound"]["status"] == "used"
    assert found["sound"]["channels"] == 2
    assert sorted(os.listdir(tmp_path / "out")) == ["frame_00.png", "frame_01.png", "frame_02.png", "sound.wav"]
    for number, index in enumerate(found["indices"]):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"out/frame_{number:02d}.png")), played(path)[index])
    sound = open_sound(path)
    (expected,) = sound.read([(0, sound.n_samples)])
    with wave.open(str(tmp_path / "out/sound.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, sound.n_samples)
        written = np.frombuffer(file.readframes(sound.n_samples), "<i2") / 32768
    assert np.abs(written - expected.mean(0).numpy()).max() < 2**-15


def test_a_file_that_cannot_be_used_is_an_error_with_its_name(tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo.mp4")
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "empty.mp4").touch()
    for name, why in {
        "fifo.mp4": "not a regular file",
        "empty.mp4": "zero bytes",
        "b.mp4": "a still picture",
        "missing.mp4": "no such file",
    }.items():
        error = probed(capsys, tmp_path / name)["error"]
        assert error.startswith(f"{tmp_path / name}: ")
        assert why in error
        assert main(["probe", str(tmp_path / name)]) == 1
        assert why in capsys.readouterr().err


def test_settings_without_effect_and_unknown_backends_are_refused(tmp_path, capsys):
    path = write_clip(tmp_path / "clip.mp4", n_frames=3)
    assert main(["probe", str(path), "--fps", "2"]) == 1
    assert "--sampling fps" in capsys.readouterr().err
    assert "Known: decord, pyav, torchcodec" in probed(capsys, path, "--video-backend", "pyva")["error"]
    (tmp_path / "file").touch()
    assert "cannot be written" in probed(capsys, path, "--out", tmp_path / "file")["error"]
