"""Segments of a sound track as mel spectrograms (ImageBind, Girdhar et al. 2023, appendix B) or as waveforms.

Shapes: C channels, L samples at 16 kHz, S segments, M = 128 mel bins, F = 204 spectrogram frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.compliance import kaldi

from video_llama.common.registry import PROCESSORS
from video_llama.common.types import Media
from video_llama.processors.config import AudioConfig
from video_llama.processors.decode import SAMPLE_RATE, Sound, mixed, open_sound

SEGMENT_SECONDS = 2
MEL_BINS, MEL_FRAMES = 128, 204
MEL_MEAN, MEL_STD = -4.268, 9.138

WINDOW_MS, STEP_MS = 25, 10
"""Of the spectrogram: each frame covers 25 ms of sound, and frames start 10 ms apart."""


class SegmentProcessor(ABC):
    """Reads segments of a sound track at equal distances; subclasses convert them."""

    Config = AudioConfig

    def __init__(self, config: AudioConfig) -> None:
        self.config = config

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        """Read the sound of a video or of an audio file. ``rng`` is not used.

        Raises:
            NoSoundTrack: the file has none.
            DecodeError: the file, or its track, cannot be read.
        """
        return self.read_track(self.open(path))

    def open(self, path: str | Path) -> Sound:
        """Open the sound of a video or of an audio file. For errors see ``__call__``."""
        return open_sound(path, self.config.deadline_s, self.config.max_lost)

    def read_track(self, sound: Sound) -> Media:
        """Read the segments of an open track.

        Returns:
            Media: data float32[S, ...], the stacked results of ``segment``.

        Raises:
            DecodeError: a long track cannot be decoded again.
        """
        times = segment_starts(sound.duration, self.config.n_segments)
        parts = sound.read([span(start, sound.n_samples) for start in times])
        return Media("audio", torch.stack([self.segment(part) for part in parts]), times=tuple(map(float, times)))

    @abstractmethod
    def segment(self, waveform: Tensor) -> Tensor:
        """Return the audio encoder's input for a segment, float[C, L] of up to 2 s; its shape is always the same."""


@PROCESSORS.register("imagebind_audio")
class ImageBindAudio(SegmentProcessor):
    """Segments as normalised mel spectrograms."""

    def segment(self, waveform: Tensor) -> Tensor:
        """Return float[1, M, F]; see ``spectrogram``."""
        return spectrogram(waveform if self.config.channels == "first" else mixed(waveform, "mix"))


def segment_starts(duration: float, n_segments: int) -> list[Fraction]:
    """Return when each segment starts, in seconds: always ``n_segments`` of them, all at 0 in a track of 2 s or less.

    By the original's rule, which leaves out the end of the track: the last segment starts one step before the last that
    fits. As there, the starts are exact multiples of the float ``duration - 2``: rounded ones would move some by a sample.
    """
    last = Fraction(max(duration - SEGMENT_SECONDS, 0.0))
    return [last * i / n_segments for i in range(n_segments)]


def span(start: Fraction, n_samples: int) -> tuple[int, int]:
    """Return the first sample of the segment that starts at ``start`` seconds, and the one after its last."""
    first = int(start * SAMPLE_RATE)
    return first, min(first + SEGMENT_SECONDS * SAMPLE_RATE, n_samples)


def spectrogram(waveform: Tensor) -> Tensor:
    """Return the log-mel spectrogram of a segment, normalised by the mean and spread of ImageBind's training data.

    Args:
        waveform: float[C, L], up to 2 s.
    Returns:
        float[1, M, F].
    """
    return (log_mel(waveform) - MEL_MEAN) / MEL_STD


def log_mel(waveform: Tensor) -> Tensor:
    """Return the log-mel spectrogram of a segment, as Kaldi computes it.

    The mean over all channels is subtracted, and the first channel is used. A segment shorter than one frame is padded
    with silence, and missing frames are 0.

    Args:
        waveform: float[C, L]; sound beyond the last frame is not used.
    Returns:
        float[1, M, F].
    """
    centred = waveform - waveform.mean()
    centred = F.pad(centred, (0, max(0, WINDOW_MS * SAMPLE_RATE // 1000 - centred.shape[1])))
    frames = kaldi.fbank(
        centred,
        htk_compat=True,
        sample_frequency=SAMPLE_RATE,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=MEL_BINS,
        dither=0.0,
        frame_length=WINDOW_MS,
        frame_shift=STEP_MS,
    )[:MEL_FRAMES]
    return F.pad(frames.T, (0, MEL_FRAMES - len(frames)))[None]


@PROCESSORS.register("waveform_audio")
class WaveformAudio(SegmentProcessor):
    """Segments as waveforms, padded with silence."""

    def segment(self, waveform: Tensor) -> Tensor:
        """Return float[32000] of a segment, float[C, L]."""
        return F.pad(mixed(waveform, self.config.channels)[0], (0, SEGMENT_SECONDS * SAMPLE_RATE - waveform.shape[1]))
