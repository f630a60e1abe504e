"""Frames read by index equal those of sequential decoding bit for bit, in any format and codec."""

from __future__ import annotations

import av
import numpy as np
import pytest

from tests.unit.processors.clips import cut_start, picture, played, set_matrix, write_clip
from video_llama.common.errors import UnknownName
from video_llama.processors.decode import open_video
from video_llama.processors.decode.packets import Is, PacketIndex, PacketRange, ranges_for
from video_llama.processors.decode.rgb import ToRgb, to_rgb

B_FRAMES = "bframes=3:keyint=10:min-keyint=10:scenecut=0"
FROM_KEYFRAMES = {
    "no_b_frames.mp4": {"x264": "bframes=0:keyint=10"},
    "closed_gop.mp4": {"x264": f"{B_FRAMES}:open-gop=0"},
    "open_gop.mp4": {"x264": f"{B_FRAMES}:open-gop=1:b-pyramid=normal"},
    "open_gop.mkv": {"x264": f"{B_FRAMES}:open-gop=1"},
    "open_gop.ts": {"x264": f"{B_FRAMES}:open-gop=1"},
    "one_gop.mp4": {"x264": "bframes=2:keyint=100:ref=6"},
    "intra_refresh.mp4": {"x264": "bframes=2:keyint=10:intra-refresh=1"},
    "interlaced.mp4": {"x264": "bframes=2:keyint=10:tff=1"},
    "ten_bits.mp4": {"x264": B_FRAMES, "pix_fmt": "yuv420p10le"},
    "hevc_open_gop.mp4": {"codec": "libx265", "x264": "bframes=3:keyint=10:min-keyint=10:open-gop=1"},
    "mpeg4.mp4": {"codec": "mpeg4", "bf": "2", "g": "12"},
    "mpeg2.ts": {"codec": "mpeg2video", "bf": "2", "g": "12"},
    "vp9.webm": {"codec": "libvpx-vp9", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "20"},
}
IN_ORDER = {
    "hidden_frames.webm": {"codec": "libvpx", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "20"},
    "h264.avi": {"x264": B_FRAMES},
    "mpeg4.avi": {"codec": "mpeg4", "bf": "2", "g": "12"},
    "no_times.h264": {"x264": B_FRAMES},
}


def read_one_by_one(path):
    """Return every frame, each read by its own call, so that each has to seek."""
    video = open_video(path)
    return np.concatenate([video.read([i]).numpy() for i in range(video.n_frames)])


@pytest.mark.parametrize("name", FROM_KEYFRAMES | IN_ORDER)
def test_frames_equal_those_of_sequential_decoding(tmp_path, name):
    path = write_clip(tmp_path / name, n_frames=45, **(FROM_KEYFRAMES | IN_ORDER)[name])
    shown = played(path)
    video = open_video(path)
    assert video.n_frames == len(shown) == 45
    assert np.array_equal(video.read(range(45)).numpy(), shown)
    assert np.array_equal(read_one_by_one(path), shown)
    assert np.array_equal(video.read([40, 7, 7, 0]).numpy(), shown[[40, 7, 7, 0]])
    assert video.times == pytest.approx([i / 25 for i in range(45)], abs=1e-3)
    assert video.duration == pytest.approx(45 / 25, abs=1e-3)
    assert bool(video.why_in_order) == (name in IN_ORDER)


def test_the_open_gop_clip_has_frames_that_refer_to_the_previous_gop(tmp_path):
    """Otherwise the test above would not cover such frames."""
    path = write_clip(tmp_path / "clip.mp4", n_frames=45, **FROM_KEYFRAMES["open_gop.mp4"])
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    assert len(keys) > 2
    assert packets[keys[1] + 1].pts < packets[keys[1]].pts


def index_of(pts: list[int], keys: set[int]) -> PacketIndex:
    times = np.array(pts)
    return PacketIndex(times, times, np.array([Is.KEY if i in keys else 0 for i in range(len(pts))], np.uint8))


def test_only_packets_needed_for_the_requested_frames_are_decoded():
    closed = index_of([0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11], {0, 4, 8})
    assert ranges_for([6], closed) == [PacketRange(4, 6)]
    assert ranges_for([1, 6, 5, 9], closed) == [PacketRange(0, 1), PacketRange(4, 6), PacketRange(8, 9)]
    leading = index_of([0, 2, 1, 5, 3, 4, 6], {0, 3})
    assert ranges_for([4], leading) == [PacketRange(0, 4)]
    assert ranges_for([6], leading) == [PacketRange(3, 6)]
    assert ranges_for([4, 6], leading) == [PacketRange(0, 6)]


@pytest.mark.parametrize("cut", [3, 7, 13])
def test_frames_cut_by_the_edit_list_are_neither_counted_nor_returned(tmp_path, cut):
    path = write_clip(tmp_path / "clip.mp4", n_frames=40, x264=B_FRAMES)
    whole = played(path)
    cut_start(path, media_ticks=512 * cut)
    video = open_video(path)
    assert video.n_frames == 40 - cut
    assert np.array_equal(read_one_by_one(path), whole[cut:])
    assert video.times[0] == 0.0


@pytest.mark.parametrize(
    ("name", "first", "shown"), [("neg.mkv", -80, 30), ("neg.mp4", -80, 28), ("late.mp4", 5000, 30)]
)
def test_the_first_frame_is_at_time_zero_wherever_the_stream_starts(tmp_path, name, first, shown):
    path = write_clip(tmp_path / name, x264=B_FRAMES, ticks=[first + 40 * i for i in range(30)])
    video = open_video(path)
    assert video.n_frames == shown
    assert video.times == pytest.approx([i * 0.04 for i in range(shown)])
    assert np.array_equal(video.read(range(shown)).numpy(), played(path))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_times_of_a_variable_frame_rate_are_those_of_its_timestamps(tmp_path, name):
    ticks = sorted(np.random.default_rng(0).choice(3000, 30, replace=False).tolist())
    path = write_clip(tmp_path / name, x264=B_FRAMES, ticks=ticks)
    assert open_video(path).times == pytest.approx([(tick - ticks[0]) / 1000 for tick in ticks], abs=1e-4)
    assert np.array_equal(read_one_by_one(path), played(path))


ROTATIONS = {
    "upright": ((1, 0, 0, 1), lambda p: p),
    "rotated_right": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "upside_down": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "rotated_left": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_frames_are_rotated_upright(tmp_path, rotation):
    matrix, rotate = ROTATIONS[rotation]
    path = write_clip(tmp_path / "clip.mp4", n_frames=3, x264="qp=1")
    set_matrix(path, *matrix)
    expected = rotate(picture(1)).astype(int)
    frame = open_video(path).read([1])[0].numpy().astype(int)
    assert frame.shape == expected.shape
    assert abs(frame - expected).mean() < 8  # chroma is subsampled
    scaled = open_video(path, size=(40, 30)).read([1])[0].numpy()
    assert scaled.shape == (40, 30, 3)


def test_the_display_matrix_means_what_ffmpeg_reports(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", n_frames=2)
    set_matrix(path, *ROTATIONS["rotated_right"][0])
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation == -90  # FFmpeg counts counter-clockwise


def test_unscaled_frames_equal_ffmpegs_own_conversion(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", n_frames=2)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert np.array_equal(to_rgb(frame, None), frame.to_ndarray(format="rgb24"))


def test_filters_that_are_kept_convert_frames_of_every_kind_as_new_ones_do():
    frames = []
    for seed, (height, width), pixel_format, colorspace in [
        (0, (48, 64), "yuv420p", 1),
        (1, (48, 64), "yuv420p", 1),
        (2, (48, 64), "yuv420p", 6),
        (3, (48, 64), "yuv444p", 6),
        (4, (64, 48), "yuv420p", 1),
        (5, (48, 64), "yuv420p", 1),
    ]:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pixel_format)
        frame.colorspace = colorspace
        frames.append(frame)
    convert = ToRgb((30, 50))
    for frame in frames:
        assert np.array_equal(convert(frame), to_rgb(frame, (30, 50)))
    assert not np.array_equal(convert(frames[0]), convert(frames[1]))


@pytest.mark.parametrize("size", [None, (224, 224), (30, 50)])
def test_decord_agrees_bit_for_bit_on_a_plain_file(tmp_path, size):
    pytest.importorskip("decord")
    path = write_clip(tmp_path / "clip.mp4", n_frames=20, x264="bframes=2:keyint=10:open-gop=0")
    ours, theirs = (open_video(path, backend, size) for backend in ("pyav", "decord"))
    assert ours.n_frames == theirs.n_frames == 20
    assert ours.times == pytest.approx(theirs.times, abs=1e-6)
    assert np.array_equal(ours.read([0, 5, 19]).numpy(), theirs.read([0, 5, 19]).numpy())


@pytest.mark.parametrize("rotation", ["rotated_right", "rotated_left", "upside_down"])
def test_decord_rotates_and_scales_frames_the_same_way(tmp_path, rotation):
    pytest.importorskip("decord")
    path = write_clip(tmp_path / "clip.mp4", n_frames=3)
    set_matrix(path, *ROTATIONS[rotation][0])
    ours, theirs = (open_video(path, backend, (40, 30)).read([1]).numpy() for backend in ("pyav", "decord"))
    assert np.array_equal(ours, theirs)


def test_an_index_out_of_range_is_refused(tmp_path):
    video = open_video(write_clip(tmp_path / "clip.mp4", n_frames=5))
    for index in (5, -1):
        with pytest.raises(IndexError, match="of 5 frames"):
            video.read([index])


def test_an_unknown_backend_is_reported_with_the_known_ones(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean decord"):
        open_video(tmp_path / "clip.mp4", backend="decrod")
