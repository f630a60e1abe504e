"""Pixels to the numbers that CLIP's image encoders, EVA and ImageBind were trained on (Radford et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipNormalisation(nn.Module):
    """Subtract CLIP's mean from each channel and divide by its standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).view(3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise uint8[N, 3, H, W] to float32; frames in floating point are normalised already, and returned."""
        if frames.dtype != torch.uint8:
            return frames
        return (frames.float() / 255 - self.mean) / self.std
