"""torchcodec as a video backend: the frames of PyAV, or an error with the name of the file."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from tests.unit.processors.clips import cut_start, played, set_matrix, write_clip
from video_llama.common.errors import DecodeError
from video_llama.processors.decode import open_video
from video_llama.processors.decode.torchcodec_backend import TorchcodecReader

B_FRAMES = "bframes=3:keyint=10:min-keyint=10:scenecut=0"


@pytest.fixture
def _torchcodec() -> None:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchcodec: {error}")


@pytest.mark.usefixtures("_torchcodec")
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "rotated.mp4", "neg.mkv"])
def test_frames_and_times_are_those_of_pyav(tmp_path, name):
    ticks = [-80 + 40 * i for i in range(30)] if name == "neg.mkv" else None
    path = write_clip(tmp_path / name, n_frames=30, x264=B_FRAMES, ticks=ticks)
    if name == "rotated.mp4":
        set_matrix(path, 0, 1, -1, 0)
    pyav, other = open_video(path), open_video(path, "torchcodec")
    assert isinstance(other, TorchcodecReader)
    assert (other.n_frames, other.times, other.duration) == (pyav.n_frames, pyav.times, pyav.duration)
    wanted = [29, 3, 3, 0, 17]
    assert (other.read(wanted).int() - pyav.read(wanted).int()).abs().max() <= 1
    assert open_video(path, "torchcodec", size=(32, 40)).read([5]).shape == (1, 32, 40, 3)


@pytest.mark.usefixtures("_torchcodec")
def test_frames_cut_by_an_edit_list_are_not_counted(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", n_frames=40, x264=B_FRAMES)
    whole = played(path)
    cut_start(path, media_ticks=512 * 7)
    video = open_video(path, "torchcodec")
    assert video.n_frames == 33
    assert np.abs(video.read([0, 20]).int().numpy() - whole[[7, 27]].astype(int)).max() <= 1


@pytest.mark.usefixtures("_torchcodec")
def test_another_frame_than_asked_for_is_an_error(tmp_path):
    video = open_video(write_clip(tmp_path / "clip.mp4", n_frames=20), "torchcodec")
    video.times = tuple(time + 0.04 for time in video.times)
    with pytest.raises(DecodeError, match=r"another frame than number 3: use video_backend: pyav"):
        video.read([3])


@pytest.mark.usefixtures("_torchcodec")
def test_an_index_out_of_range_and_a_file_that_changed_are_errors(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", n_frames=10)
    with pytest.raises(IndexError):
        open_video(path, "torchcodec").read([10])
    video = open_video(path, "torchcodec")
    path.write_bytes(b"nothing")
    with pytest.raises(DecodeError, match=r"clip\.mp4: cannot decode it with torchcodec"):
        video.read([0])


def test_without_torchcodec_or_its_libraries_the_error_says_what_to_do(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", n_frames=3)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchcodec"]:
        monkeypatch.delitem(sys.modules, name)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "torchcodec", None)
        with pytest.raises(DecodeError, match="not installed: pip install torchcodec"):
            open_video(path, "torchcodec")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "torchcodec").mkdir()
    (broken / "torchcodec/__init__.py").write_text("raise RuntimeError('Could not load libtorchcodec. More.')")
    monkeypatch.syspath_prepend(str(broken))
    with pytest.raises(DecodeError, match=r"cannot be loaded \(Could not load libtorchcodec.*install FFmpeg"):
        open_video(path, "torchcodec")
    assert torch.is_tensor(open_video(path).read([0]))
