"""Frames to patch features: a frozen vision transformer and ``ln_vision`` (BLIP-2, section 3).

Shapes: N frames, H x W pixels, P tokens (patches and the class token), C features.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from video_llama.common.errors import VideoLlamaError
from video_llama.models.encoders.normalisation import ClipNormalisation
from video_llama.models.half_storage import set_number_format

EVA_CLIP_G = "eva_giant_patch14_224"
EVA_CLIP_G_ARGS: dict[str, Any] = {"depth": 39}


class VisionEncoder(nn.Module):
    """EVA ViT-G/14 (``eva_clip_g``) or any timm vision transformer (``timm/<name>``), without its final norm for EVA.

    Args:
        vit_model: ``eva_clip_g`` or ``timm/<name>``.
        image_size: side of the square input, in pixels.
        vit_args: overrides of the timm model's arguments, such as ``depth`` or ``embed_dim``.
        drop_path_rate: stochastic depth of a trained ViT.

    Raises:
        VideoLlamaError: timm does not know the name, or the model does not take the arguments.
    """

    def __init__(
        self,
        vit_model: str = "eva_clip_g",
        image_size: int = 224,
        vit_args: dict[str, Any] | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.vit = _build_vit(vit_model, image_size, vit_args or {}, drop_path_rate)
        self.num_features: int = self.vit.num_features
        self.image_size = image_size
        self.ln_vision = nn.LayerNorm(self.num_features, eps=1e-5)
        self.normalise = ClipNormalisation()
        self.dtype = torch.float32
        """Number format of the transformer's arithmetic."""

    def set_precision(self, stored: torch.dtype, computed: torch.dtype | None = None) -> VisionEncoder:
        """Cast the transformer once; ``ln_vision`` stays in float32.

        Args:
            stored: number format of the weights.
            computed: float32 if they compute in that nevertheless; None: as they are stored.
        """
        self.dtype = set_number_format(self.vit, stored, computed)
        return self

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's layers.

        Raises:
            VideoLlamaError: they are not in the place where timm's vision transformers have them.
        """
        blocks = getattr(self.vit, "blocks", None)
        if blocks is None:
            raise VideoLlamaError(
                f"run.parallel.vision: shard, but a {type(self.vit).__name__} has no layers that can be sharded one by one. "
                "Set it to replicate."
            )
        return list(blocks)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode frames.

        Args:
            frames: uint8[N, 3, H, W], or float[N, 3, H, W] if already normalised.
        Returns:
            float32[N, P, C], after ``ln_vision``.
        Raises:
            VideoLlamaError: the encoder returns a grid of features instead of a sequence.
        """
        tokens = self.vit.forward_features(self.normalise(frames).to(self.dtype))
        if tokens.ndim != 3:
            raise VideoLlamaError(
                f"model.vit_model: its features have the shape {tuple(tokens.shape)}, which is no sequence of tokens. "
                "Use a vision transformer, such as timm/vit_base_patch16_224."
            )
        return self.ln_vision(tokens.float())


def _build_vit(vit_model: str, image_size: int, vit_args: dict[str, Any], drop_path_rate: float) -> Any:
    eva = vit_model == "eva_clip_g"
    name = EVA_CLIP_G if eva else vit_model.removeprefix("timm/")
    if not timm.is_model(name):
        raise VideoLlamaError(
            f"model.vit_model: timm has no model named '{name}'. Use eva_clip_g or timm/<name>; "
            "timm.list_models() gives the names."
        )
    args = {**EVA_CLIP_G_ARGS, **vit_args} if eva else vit_args
    try:
        vit: Any = timm.create_model(
            name, num_classes=0, global_pool="", img_size=image_size, drop_path_rate=drop_path_rate, **args
        )
    except TypeError as error:
        raise VideoLlamaError(
            f"model.vit_model: {vit_model} cannot be built as a vision transformer with vit_args {vit_args}: {error}"
        ) from error
    if eva:
        vit.norm = nn.Identity()  # the released weights have no final norm; ln_vision replaces it
    return vit
