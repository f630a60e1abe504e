"""HDR video becomes ordinary video: white of 203 nits near white, everything else as bright as on an SDR display."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from video_llama.processors.decode import open_video
from video_llama.processors.decode.tone_map import (
    BT2020,
    HLG,
    PEAK,
    PQ,
    WHITE,
    Colour,
    hlg_to_nits,
    nits_to_pq,
    pq_to_nits,
    roll_off,
    to_sdr,
)

PQ_SIGNAL = tuple(float(nits_to_pq(np.float64(nits))) for nits in (203, 100, 18, 1))
HLG_SIGNAL = (0.75, 0.5, 0.25, 0.1)
BT709 = 1


def write_bands(path, codec, signal, colour, matrix=9, pix_fmt="yuv420p10le"):
    """Write three frames of four grey bands, 10 bits, limited range.

    Args:
        colour: what the stream says of itself; None: nothing.
    """
    luma = np.repeat((64 + 876 * np.asarray(signal)).round(), 32).astype(np.uint16)[None].repeat(64, 0)
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 64, pix_fmt
        if colour is not None:
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace = colour.primaries, colour.transfer, matrix
            context.color_range = 1
        for i in range(3):
            frame = av.VideoFrame(128, 64, pix_fmt)
            for k, plane in enumerate(frame.planes):
                values = np.zeros((plane.height, plane.line_size // 2), np.uint16)
                values[:, : plane.width] = luma if k == 0 else 512
                plane.update(values.tobytes())
            if colour is not None:
                frame.color_primaries, frame.color_trc, frame.colorspace = colour.primaries, colour.transfer, matrix
                frame.color_range = 1
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def bands(path, size=None):
    frame = open_video(path, size=size).read([1])[0].numpy().astype(int)
    assert np.ptp(frame, axis=-1).max() <= 1
    height, width = frame.shape[:2]
    return frame[height // 2, width // 8 :: width // 4, 0].tolist()


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx265", "yuv420p10le"),
        ("a.ts", "libx265", "yuv420p10le"),
        ("a.mkv", "libx264", "yuv420p10le"),
        ("b.mp4", "libsvtav1", "yuv420p10le"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("b.mkv", "ffv1", "yuv420p10le"),
    ],
)
@pytest.mark.parametrize("size", [None, (56, 56)])
def test_hdr_of_any_codec_is_as_bright_as_it_was(tmp_path, name, codec, pix_fmt, size):
    pq = write_bands(tmp_path / f"pq_{name}", codec, PQ_SIGNAL, Colour(BT2020, PQ), pix_fmt=pix_fmt)
    assert bands(pq, size) == pytest.approx([230, 189, 93, 28], abs=2)
    hlg = write_bands(tmp_path / f"hlg_{name}", codec, HLG_SIGNAL, Colour(BT2020, HLG), pix_fmt=pix_fmt)
    assert bands(hlg, size) == pytest.approx([230, 143, 71, 29], abs=2)


def test_ordinary_video_of_10_bits_is_not_changed(tmp_path):
    signal = (1.0, 0.75, 0.5, 0.25)
    path = write_bands(tmp_path / "a.mp4", "libx265", signal, Colour(BT709, BT709), matrix=1)
    assert bands(path) == pytest.approx([255 * s for s in signal], abs=3)


@pytest.mark.parametrize("name", ["tagged.mp4", "tagged.mkv"])
def test_colours_that_only_the_container_names_count(tmp_path, name):
    write_bands(tmp_path / "bare.mp4", "libx265", PQ_SIGNAL, None)
    with av.open(str(tmp_path / "bare.mp4")) as source, av.open(str(tmp_path / name), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = BT2020, PQ, BT2020
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert bands(tmp_path / name) == pytest.approx([230, 189, 93, 28], abs=2)


def test_pq_and_hlg_have_the_values_of_their_standards():
    assert pq_to_nits(np.array([0, 0.5081, 0.5807, 0.7518, 1.0])) == pytest.approx(
        [0, 100, 203, 1000, 10_000], rel=0.002
    )
    grey = np.repeat([[0.75]], 3, axis=1)
    assert hlg_to_nits(grey)[0] == pytest.approx([203] * 3, rel=0.005)
    assert hlg_to_nits(np.ones((1, 3)))[0] == pytest.approx([1000] * 3, rel=0.001)


def test_only_what_is_bright_is_compressed():
    nits = np.linspace(0, 10_000, 5000)
    compressed = roll_off(nits)
    assert (np.diff(compressed) >= -1e-9).all()
    assert compressed[nits < 80] == pytest.approx(nits[nits < 80], rel=1e-6)
    assert compressed[nits >= PEAK] == pytest.approx(WHITE)


def test_colours_that_bt709_has_keep_their_hue():
    red = np.array([0.6274, 0.0691, 0.0164]) * 80  # BT.709's red in BT.2020, in nits
    signal = nits_to_pq(red)[None, None]
    expected = round(255 * (80 / WHITE) ** (1 / 2.4))
    assert to_sdr(signal, Colour(BT2020, PQ))[0, 0].tolist() == pytest.approx([expected, 0, 0], abs=8)


def test_wide_gamut_without_hdr_keeps_greys():
    grey = np.linspace(0, 1, 256)[None, :, None].repeat(3, 2)
    assert to_sdr(grey, Colour(BT2020, 14)).astype(int) == pytest.approx(255 * grey, abs=1)
