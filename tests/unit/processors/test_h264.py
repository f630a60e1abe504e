"""Headers of H.264 streams that claim what the standard does not allow."""

from __future__ import annotations

import pytest

from video_llama.processors.decode.h264 import FieldFinder

SLICE = b"\0\0\1\x65" + b"\xb8" * 40


def code(number: int) -> str:
    """Return a number as an Exp-Golomb code."""
    bits = f"{number + 1:b}"
    return "0" * (len(bits) - 1) + bits


def header(frame_num_code: int, only_frames: bool) -> bytes:
    """Return a sequence parameter set of the baseline profile."""
    bits = f"{66:08b}" + "0" * 16 + code(0) + code(frame_num_code) + code(2) + code(1) + "0" + code(5) + code(3)
    bits += f"{only_frames:b}" + "1"
    bits += "0" * (-len(bits) % 8)
    return b"\0\0\1\x67" + int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize("frame_num_code", [0, 12])
def test_a_stream_of_frames_has_no_fields(frame_num_code):
    finder = FieldFinder(header(frame_num_code, only_frames=True))
    assert not finder.may_find
    assert not finder.is_field(SLICE)


@pytest.mark.parametrize("frame_num_code", [13, 255, 2**31])
def test_a_header_with_an_impossible_length_is_as_good_as_none(frame_num_code):
    finder = FieldFinder(header(frame_num_code, only_frames=False))
    assert finder.may_find
    assert finder.is_field(SLICE), "or so it may be: the stream is decoded in order"
