"""ImageBind's audio and vision trunks (Girdhar et al. 2023).

Shapes: N clips of sound or frames, P patches, D trunk width, E output width, M = 128 mel bins, F = 204 time frames,
H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from video_llama.common.modalities import AudioInput, MediaKind
from video_llama.common.registry import AUDIO_ENCODERS
from video_llama.models.encoders.config import ImageBindConfig, TrunkConfig
from video_llama.models.encoders.normalisation import ClipNormalisation
from video_llama.models.forward_flops import Forward, transformer
from video_llama.models.half_storage import set_number_format
from video_llama.processors.audio import MEL_BINS, MEL_FRAMES


class Block(nn.Module):
    """Pre-norm attention and feed-forward.

    Args:
        width: D.
        num_heads: of the attention.
        bias_kv: whether the attention has one extra, learned key and value.
    """

    def __init__(self, width: int, num_heads: int, bias_kv: bool) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.MultiheadAttention(width, num_heads, add_bias_kv=bias_kv, batch_first=True)
        self.norm_2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 1 + P, D] to the same shape."""
        y = self.norm_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.fc2(F.gelu(self.fc1(self.norm_2(x))))


class Trunk(nn.Module):
    """The common part of both trunks: class token, positions, blocks, and a head on the class token.

    A subclass embeds patches with its ``patch``.

    Args:
        config: sizes.
        n_patches: P.
        out_dim: E.
        bias_kv: see ``Block``.
    """

    patch: nn.Conv2d | nn.Conv3d

    def __init__(self, config: TrunkConfig, n_patches: int, out_dim: int, bias_kv: bool) -> None:
        super().__init__()
        width, self.extra_keys = config.embed_dim, int(bias_kv)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + n_patches, width).normal_(std=0.02))
        self.blocks = nn.ModuleList(Block(width, config.num_heads, bias_kv) for _ in range(config.depth))
        self.head_norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, out_dim, bias=False)

    def tokens(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Prepend the class token to float[N, P, D] patches and add positions: float[N, 1 + P, D]."""
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + positions

    def embed(self, tokens: Tensor) -> Tensor:
        """Map float[N, 1 + P, D] tokens to unit vectors, float32[N, E]."""
        for block in self.blocks:
            tokens = block(tokens)
        return F.normalize(self.head(self.head_norm(tokens[:, 0])).float(), dim=-1)

    def forward_flops(self) -> Forward:
        """Return the FLOPs of one clip of sound or frame."""
        tokens, width = self.pos_embed.shape[1:]
        ends = Forward(2.0 * self.patch.weight.numel() * (tokens - 1) + 2.0 * self.head.weight.numel())
        return ends + transformer(self.blocks, tokens, width, extra_keys=self.extra_keys)


class AudioTrunk(Trunk):
    """Overlapping patches of the mel spectrogram of 2 seconds of sound."""

    KERNEL, STRIDE = 16, 10

    def __init__(self, config: TrunkConfig, out_dim: int) -> None:
        rows, columns = ((n - self.KERNEL) // self.STRIDE + 1 for n in (MEL_BINS, MEL_FRAMES))
        super().__init__(config, rows * columns, out_dim, bias_kv=True)
        self.patch = nn.Conv2d(1, config.embed_dim, self.KERNEL, self.STRIDE, bias=False)
        self.patch_norm = nn.LayerNorm(config.embed_dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def forward(self, mel: Tensor) -> Tensor:
        """Map float[N, 1, M, F] spectrograms to float[N, E], vectors of length ``exp(log_scale)``."""
        patches = self.patch(mel.to(self.patch.weight.dtype))
        patches = self.patch_norm(rearrange(patches, "n d h w -> n (h w) d"))
        return self.embed(self.tokens(patches, self.pos_embed)) * self.log_scale.float().exp()


class VisionTrunk(Trunk):
    """Patches of a frame, repeated because the trunk takes clips of two frames."""

    def __init__(self, config: TrunkConfig, image_size: int, patch_size: int, out_dim: int) -> None:
        side = image_size // patch_size
        super().__init__(config, side**2, out_dim, bias_kv=False)
        self.side = side
        kernel = (2, patch_size, patch_size)
        self.patch = nn.Conv3d(3, config.embed_dim, kernel, kernel, bias=False)
        self.pre_norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.normalise = ClipNormalisation()

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames, uint8[N, 3, H, W] or normalised float[N, 3, H, W], to unit vectors, float[N, E]."""
        twice = repeat(self.normalise(frames).to(self.patch.weight.dtype), "n c h w -> n c 2 h w")
        patches = rearrange(self.patch(twice), "n d 1 h w -> n d h w")
        positions = self._positions(*patches.shape[-2:])
        return self.embed(self.pre_norm(self.tokens(rearrange(patches, "n d h w -> n (h w) d"), positions)))

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return float[1, 1 + rows * columns, D], interpolated for frames of another size."""
        if (rows, columns) == (self.side, self.side):
            return self.pos_embed
        grid = rearrange(self.pos_embed[:, 1:], "1 (h w) d -> 1 d h w", h=self.side)
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], rearrange(grid, "1 d h w -> 1 (h w) d")], dim=1)


@AUDIO_ENCODERS.register("imagebind_huge")
class ImageBind(nn.Module):
    """The trunks for the inputs that a model uses.

    Args:
        config: sizes.
        inputs: what to build a trunk for.
    """

    Config = ImageBindConfig

    def __init__(self, config: ImageBindConfig, inputs: Collection[AudioInput] = ("sound", "frames")) -> None:
        super().__init__()
        self.width = config.out_embed_dim
        if "sound" in inputs:
            self.audio = AudioTrunk(config.audio, config.out_embed_dim)
        if "frames" in inputs:
            self.vision = VisionTrunk(config.vision, config.image_size, config.patch_size, config.out_embed_dim)

    @staticmethod
    def own_weights(config: ImageBindConfig) -> dict[str, Tensor]:
        """Return nothing: ``imagebind_ckpt_path`` names the weights."""
        return {}

    def set_precision(self, stored: torch.dtype, computed: torch.dtype | None = None) -> None:
        """Cast the trunks once. For args see ``set_number_format``."""
        set_number_format(self, stored, computed)

    def encode_audio(self, segments: Tensor) -> Tensor:
        """Map segments of sound, float[N, S, 1, M, F], to float[N, S, E]."""
        return rearrange(self.audio(rearrange(segments, "n s ... -> (n s) ...")), "(n s) e -> n s e", n=len(segments))

    def forward_flops(self, kind: MediaKind) -> Forward:
        """Return the FLOPs of one segment of sound, or of one frame."""
        return (self.audio if kind == "audio" else self.vision).forward_flops()

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Map frames, uint8[N, 3, T, H, W] or normalised float, to float[N, T, E]."""
        return rearrange(self.vision(rearrange(frames, "n c t h w -> (n t) c h w")), "(n t) e -> n t e", n=len(frames))
