"""HDR and wide-gamut pixels as ordinary video: BT.709 primaries, gamma 2.4, white at 203 nits.

PQ and HLG signals become light (BT.2100), highlights are rolled off by BT.2390, and the primaries are converted. Everything
else keeps its pixels, since the released models were trained on them as they are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from video_llama.common.file_part import open_binary

Pixels = NDArray[np.floating]

BT2020, BT2020_10, BT2020_12, PQ, HLG = 9, 14, 15, 16, 18
"""Codes of primaries and of transfer functions (ITU-T H.273)."""

WHITE, PEAK = 203.0, 1000.0
"""In nits: white of SDR in HDR (BT.2408), and the level above which highlights are clipped."""

GAMMA = 2.4

TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
"""Linear BT.2020 to linear BT.709 (BT.2087)."""

HEADER_BYTES = 1 << 16
"""Where to look for the colours of a picture: they precede its pixels."""


@dataclass(frozen=True)
class Colour:
    """How numbers mean colours, by the codes of H.273."""

    primaries: int
    transfer: int

    @property
    def is_sdr(self) -> bool:
        """Whether the pixels can stay as they are."""
        wide = self.primaries == BT2020 and self.transfer in (BT2020_10, BT2020_12)
        return self.transfer not in (PQ, HLG) and not wide

    @classmethod
    def of_frame(cls, frame: VideoFrame) -> Colour:
        """Return what the stream says of a frame."""
        return cls(int(frame.color_primaries), int(frame.color_trc))

    @classmethod
    def of_stream(cls, stream: VideoStream) -> Colour:
        """Return what the container says of a stream, before any of it is decoded."""
        return cls(int(stream.codec_context.color_primaries), int(stream.codec_context.color_trc))

    @classmethod
    def of_picture(cls, path: str) -> Colour:
        """Return what an AVIF, HEIC or PNG file says in its ``colr`` box or ``cICP`` chunk; unspecified if nothing."""
        with open_binary(path) as file:
            header = file.read(HEADER_BYTES)
        for mark, layout in ((b"colrnclx", ">HH"), (b"cICP", ">BB")):
            at = header.find(mark) + len(mark)
            if at >= len(mark) and len(header) >= at + struct.calcsize(layout):
                return cls(*struct.unpack_from(layout, header, at))
        return UNSPECIFIED

    def or_else(self, other: Colour) -> Colour:
        """Return what another source says, where this one says nothing."""
        unknown = UNSPECIFIED.transfer
        return Colour(
            other.primaries if self.primaries == unknown else self.primaries,
            other.transfer if self.transfer == unknown else self.transfer,
        )


UNSPECIFIED = Colour(2, 2)


def to_sdr(signal: Pixels, colour: Colour) -> NDArray[np.uint8]:
    """Convert HDR or wide-gamut pixels.

    Args:
        signal: float[H, W, 3], RGB from 0 to 1.
        colour: what they mean.
    Returns:
        uint8[H, W, 3].
    """
    signal = np.asarray(signal, np.float32)
    if colour.transfer in (PQ, HLG):
        nits = pq_to_nits(signal) if colour.transfer == PQ else hlg_to_nits(signal)
        brightest = nits.max(-1, keepdims=True)
        light = nits * (roll_off(brightest) / np.maximum(brightest, 1e-6)) / WHITE
    else:
        light = signal**GAMMA
    if colour.primaries == BT2020:
        light = light @ TO_BT709.T.astype(np.float32)
    return (light.clip(0, 1) ** (1 / GAMMA) * 255).round().astype(np.uint8)


M1, M2, C1, C2, C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128


def pq_to_nits(signal: Pixels) -> Pixels:
    """Return the light of a PQ signal (BT.2100, table 4)."""
    power = signal ** (1 / M2)
    return np.asarray(10_000 * (np.maximum(power - C1, 0) / (C2 - C3 * power)) ** (1 / M1))


def nits_to_pq(nits: Pixels) -> Pixels:
    """Return the PQ signal of light, the inverse of ``pq_to_nits``."""
    power = (np.maximum(nits, 0) / 10_000) ** M1
    return np.asarray(((C1 + C2 * power) / (1 + C3 * power)) ** M2)


def hlg_to_nits(signal: Pixels) -> Pixels:
    """Return the light of an HLG signal on a display of 1000 nits (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    return np.asarray(1000 * scene * luminance[..., None] ** 0.2)


def roll_off(nits: Pixels) -> Pixels:
    """Compress light of up to ``PEAK`` nits to ``WHITE`` nits (BT.2390, section 5.4.1): only what is bright changes."""
    peak = float(nits_to_pq(np.float64(PEAK)))
    white = float(nits_to_pq(np.float64(WHITE))) / peak
    knee = 1.5 * white - 0.5
    level = np.minimum(nits_to_pq(nits) / peak, 1)
    t = np.maximum(level - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * white
    return pq_to_nits(np.where(level > knee, spline, level) * peak)
