"""ImageBind-Huge as it was published (``imagebind_huge.pth``), of which the trunks for sound and for sight are used."""

from __future__ import annotations

from pathlib import Path

FILE = "imagebind_huge.pth"
SIGNATURE = ("modality_preprocessors.vision.cls_token", "modality_trunks.vision.blocks.0.attn.in_proj_weight")
OF_NO_USE = ("text", "depth", "thermal", "imu")
"""What else ImageBind binds."""


def _trunk(modality: str) -> dict[str, str | None]:
    """Return the lines that the trunks have in common."""
    before, trunk, head = (f"modality_{part}.{modality}." for part in ("preprocessors", "trunks", "heads"))
    ours = f"audio_encoder.{modality}."
    return {
        f"{before}cls_token": f"{ours}cls_token",
        f"{before}pos_embedding_helper.pos_embed": f"{ours}pos_embed",
        f"{trunk}blocks.{{i}}.mlp.fc1.{{p}}": f"{ours}blocks.{{i}}.fc1.{{p}}",
        f"{trunk}blocks.{{i}}.mlp.fc2.{{p}}": f"{ours}blocks.{{i}}.fc2.{{p}}",
        f"{trunk}blocks.{{i}}.{{rest}}": f"{ours}blocks.{{i}}.{{rest}}",
        f"{head}0.{{p}}": f"{ours}head_norm.{{p}}",
        f"{head}2.{{p}}": f"{ours}head.{{p}}",
    }


TABLE: dict[str, str | None] = {
    **_trunk("audio"),
    **_trunk("vision"),
    "modality_preprocessors.audio.rgbt_stem.proj.{p}": "audio_encoder.audio.patch.{p}",
    "modality_preprocessors.audio.rgbt_stem.norm_layer.{p}": "audio_encoder.audio.patch_norm.{p}",
    "modality_postprocessors.audio.1.log_logit_scale": "audio_encoder.audio.log_scale",
    "modality_preprocessors.vision.rgbt_stem.proj.1.{p}": "audio_encoder.vision.patch.{p}",
    "modality_trunks.vision.pre_transformer_layer.0.{p}": "audio_encoder.vision.pre_norm.{p}",
    **{f"modality_{{part}}.{modality}.{{rest}}": None for modality in OF_NO_USE},
}


def file_or_within(path: str | Path) -> Path:
    """Return the file that a path names, itself or as the folder that holds it; any other path unchanged."""
    path = Path(path)
    return path / FILE if (path / FILE).is_file() else path
