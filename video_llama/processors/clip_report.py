"""What a model would be given of one clip: frames, times, geometry and sound."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.processors.audio import segment_starts, span
from video_llama.processors.config import AudioConfig, VideoConfig
from video_llama.processors.decode import SAMPLE_RATE, Geometry, Sound, mixed, open_video
from video_llama.processors.decode.damage import collected_damage
from video_llama.processors.frame_sampling import sample
from video_llama.processors.media import NO_AUDIO_TRACK, AudioStatus, sound_status


@dataclass(frozen=True)
class ClipReport:
    """One clip, as it is read."""

    n_frames: int
    """Frames in the file."""
    duration: float
    """In seconds."""
    indices: list[int]
    """T: the chosen frames."""
    times: list[float]
    """T: when each is shown, in seconds after the first frame of the file."""
    geometry: Geometry
    frames: Tensor
    """uint8[T, H, W, 3], RGB, upright, full size."""
    sound_status: AudioStatus
    sound: Sound | None
    """None: no sound that can be used."""
    damage: Sequence[str]
    """What FFmpeg reports of a file that is used nonetheless."""

    def write(self, folder: Path) -> None:
        """Write ``frame_00.png`` ..., and ``sound.wav``: 16 kHz, 16 bits, the mean of the channels.

        Raises:
            DecodeError: a long track cannot be decoded again.
            OSError: the files cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(self.frames):
            Image.fromarray(frame.numpy()).save(folder / f"frame_{number:02d}.png")
        if self.sound is not None:
            with wave.open(str(folder / "sound.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(SAMPLE_RATE)
                for block in self.sound.blocks():
                    steps = (mixed(block, "mix")[0].numpy() * 32768).round().clip(-32768, 32767)
                    file.writeframes(steps.astype("<i2").tobytes())


def report_clip(path: Path, video: VideoConfig, audio: AudioConfig) -> ClipReport:
    """Read a clip as for a model, but its frames in full size.

    Random frames are drawn with seed 0, as for a model in use.

    Raises:
        DecodeError: it cannot be used.
    """
    with collected_damage() as damage:
        reader = open_video(path, video.video_backend, None, video.deadline_s)
        indices = sample(reader, video, np.random.default_rng(0))
        frames, geometry = reader.read(indices), reader.geometry()
        sound = None
        try:
            sound = reader.sound(audio.max_lost)
            sound.read([span(start, sound.n_samples) for start in segment_starts(sound.duration, audio.n_segments)])
            status = sound_status(sound, audio)
        except NoSoundTrack:
            status = NO_AUDIO_TRACK
        except DecodeError as error:
            sound, status = None, AudioStatus("failed", error.reason)
    times = [reader.times[i] for i in indices]
    return ClipReport(reader.n_frames, reader.duration, indices, times, geometry, frames, status, sound, damage)
