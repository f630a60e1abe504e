"""EVA-CLIP ViT-G/14 as BAAI published it (``eva_vit_g.pth``)."""

from __future__ import annotations

TABLE: dict[str, str | None] = {
    "blocks.39.{rest}": None,  # BLIP-2 takes the output of the block before the last
    "norm.{p}": None,  # ln_vision stands in its place
    "fc_norm.{p}": None,
    "head.{p}": None,
    "cls_token": "vision.vit.cls_token",
    "pos_embed": "vision.vit.pos_embed",
    "patch_embed.{rest}": "vision.vit.patch_embed.{rest}",
    "blocks.{i}.{rest}": "vision.vit.blocks.{i}.{rest}",
}
