"""The packets of a sound track, and what is missing of it by the header of its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from video_llama.processors.decode.media_file import Deadline, TornFile, read_packets
from video_llama.processors.decode.waveform import Losses

MAY_END_ANYWHERE = frozenset({"wav", "au"})
"""Formats that programs write to a pipe, without knowing the final length."""


DECLARES_LENGTH = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flac"})
"""Formats whose header says how long the file is; FFmpeg estimates it for others."""

SLACK = 0.25
"""A file may end this many seconds before its header says."""


def sound_packets(
    container: InputContainer, stream: AudioStream, deadline: Deadline, losses: Losses
) -> Iterator[av.Packet]:
    """Yield the packets of a track. All streams are read, because the file may be cut short in another one.

    What is damaged, and what is missing at the end, is counted in ``losses``.
    """
    may_be_torn = container.format.name not in MAY_END_ANYWHERE
    is_torn, torn, ends = False, "", dict.fromkeys(range(len(container.streams)), 0)
    try:
        for packet in read_packets(container, container.streams, deadline):
            is_torn, index = packet.is_corrupt and may_be_torn, packet.stream_index
            if pts := packet.pts:
                ends[index] = max(ends.get(index, 0), pts + (packet.duration or 0))
            if index != stream.index:
                continue
            if is_torn:
                losses.skip(packet_seconds(packet), "damaged or cut short in a packet of its sound")
            else:
                yield packet
        torn = "cut short" if is_torn else ""
    except TornFile as error:
        torn = error.reason
    missing = _missing(container, stream, ends)
    if torn or (missing > SLACK and container.format.name in DECLARES_LENGTH):
        losses.miss(missing, torn or "it ends before the header of its file says")


def packet_seconds(packet: av.Packet | None) -> float:
    """Return the length of a packet; 0 if the file does not say."""
    return float((packet.duration or 0) * packet.time_base) if packet and packet.time_base else 0.0


def _missing(container: InputContainer, stream: AudioStream, ends: Mapping[int, int]) -> float:
    """Return the seconds of the track after its last packet, by the header of a file that is cut short; 0 if unknown.

    Args:
        ends: of each stream, when its last packet ends, in ticks of its time base.
    """
    length = stream.frames if container.format.name == "avi" else stream.duration  # AVI's duration is an estimate
    if length and stream.time_base:
        return max(0.0, float((length + (stream.start_time or 0) - ends[stream.index]) * stream.time_base))
    end = max(float(end * (container.streams[index].time_base or 0)) for index, end in ends.items())
    return max(0.0, (container.duration or 0) / av.time_base - end)
