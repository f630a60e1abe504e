"""Segments of a sound track as waveforms, for audio encoders that make their spectrograms themselves.

Shapes: C channels, L samples at 16 kHz.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from video_llama.common.registries import PROCESSORS
from video_llama.processors.audio import SEGMENT_SECONDS, SegmentProcessor
from video_llama.processors.decode import SAMPLE_RATE


@PROCESSORS.register("waveform_audio")
class WaveformAudio(SegmentProcessor):
    """Segments as they sound: the mean of the channels, with silence after the end of a short track."""

    def segment(self, waveform: Tensor) -> Tensor:
        """Return float[32000] of a segment, float[C, L]."""
        return F.pad(waveform.mean(0), (0, SEGMENT_SECONDS * SAMPLE_RATE - waveform.shape[1]))
