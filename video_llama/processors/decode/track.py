"""The sound track of a file, decoded packet by packet. What is damaged is an error: it must not pass for silence."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.processors.decode.container import opened, read_packets
from video_llama.processors.decode.source import Deadline, decode_errors
from video_llama.processors.decode.waveform import SoundFrame, frame_of, unbroken

COUNTS_SAMPLES = frozenset({"flac", "ogg"})
"""FFmpeg's names of formats whose time has no gaps. It drops what fails their checksums without a word."""

MAY_END_ANYWHERE = frozenset({"wav", "au"})
"""Formats that programs write to a pipe, where they cannot say how long the sound will be."""


def decode_track(path: str, deadline: Deadline) -> Iterator[SoundFrame]:
    """Yield the frames of the track that a player would choose; all have the rate and the channels of the first.

    Raises:
        NoSoundTrack: the file has none.
        DecodeError: the file or the track cannot be read or decoded to its end, or the deadline passed.
    """
    with opened(path, deadline, "sound") as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream):
            raise NoSoundTrack(path)
        if stream.codec_context is None:
            raise DecodeError(path, "no decoder for its sound track")
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "crccheck+explode"}  # else some decoders hide damage
        frames = _frames(path, stream, _packets(path, container, stream, deadline))
        yield from unbroken(frames, path) if container.format.name in COUNTS_SAMPLES else frames


def _frames(path: str, stream: AudioStream, packets: Iterator[av.Packet]) -> Iterator[SoundFrame]:
    first = None
    for number, packet in enumerate(chain(packets, [None]), 1):
        with decode_errors(path, f"decode packet {number} of its sound"):
            decoded = [frame_of(frame) for frame in stream.codec_context.decode(packet)]
        for frame in decoded:
            first = first or frame
            if (frame.rate, len(frame.samples)) != (first.rate, len(first.samples)):
                raise DecodeError(
                    path,
                    f"its sound changes in packet {number}: from {len(first.samples)} channels at {first.rate} Hz"
                    f" to {len(frame.samples)} at {frame.rate} Hz",
                )
            yield frame


def _packets(path: str, container: InputContainer, stream: AudioStream, deadline: Deadline) -> Iterator[av.Packet]:
    """Yield the packets of the track. Those of other streams are read too: the file may be cut short in one of them."""
    packet = None
    for packet in read_packets(container, container.streams, deadline):
        if packet.stream_index != stream.index:
            continue
        if packet.is_corrupt and container.format.name not in MAY_END_ANYWHERE:
            raise DecodeError(path, "damaged or cut short in a packet of its sound")
        yield packet
    if packet is not None and packet.is_corrupt and container.format.name not in MAY_END_ANYWHERE:
        raise DecodeError(path, "cut short")
