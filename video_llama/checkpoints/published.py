"""Published weights files: how to recognise each kind, and tables of its tensor names and ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from video_llama.checkpoints.keymap import KeyMap
from video_llama.common.errors import WeightsError


def qformer_table(theirs: str, ours: str) -> dict[str, str | None]:
    """Return the lines for one Q-Former.

    Args:
        theirs: prefix of ``bert.`` in their names.
        ours: prefix of ``bert.`` in our names.
    """
    layer, own = f"{theirs}bert.encoder.layer.{{i}}.", f"{ours}bert.encoder.layer.{{i}}."
    return {
        f"{theirs}bert.embeddings.position_ids": None,  # a buffer, saved by accident
        f"{theirs}bert.embeddings.LayerNorm.{{p}}": f"{ours}bert.layernorm.{{p}}",
        f"{layer}attention.self.{{m}}.{{p}}": f"{own}attention.attention.{{m}}.{{p}}",
        f"{layer}attention.output.{{m}}.{{p}}": f"{own}attention.output.{{m}}.{{p}}",
        f"{layer}crossattention.self.{{m}}.{{p}}": f"{own}crossattention.attention.{{m}}.{{p}}",
        f"{layer}crossattention.output.{{m}}.{{p}}": f"{own}crossattention.output.{{m}}.{{p}}",
        f"{layer}intermediate_query.dense.{{p}}": f"{own}intermediate_query.dense.{{p}}",
        f"{layer}output_query.{{m}}.{{p}}": f"{own}output_query.{{m}}.{{p}}",
    }


EVA_CLIP_G_NAMES: dict[str, str | None] = {
    "blocks.39.{rest}": None,  # BLIP-2 takes the output of the block before the last
    "norm.{p}": None,  # ln_vision replaces it
    "fc_norm.{p}": None,
    "head.{p}": None,
    "cls_token": "vision.vit.cls_token",
    "pos_embed": "vision.vit.pos_embed",
    "patch_embed.{rest}": "vision.vit.patch_embed.{rest}",
    "blocks.{i}.{rest}": "vision.vit.blocks.{i}.{rest}",
}


BLIP2_QFORMER_NAMES: dict[str, str | None] = {
    "ln_vision.{p}": "vision.ln_vision.{p}",
    "query_tokens": "qformer.query_tokens",
    **qformer_table("Qformer.", "qformer."),
    "t5_proj.{p}": None,  # to the language model that BLIP-2 was trained with
    "opt_proj.{p}": None,
    # the half of the Q-Former that reads text, which Video-LLaMA does not use
    "Qformer.bert.embeddings.{m}.weight": None,
    "Qformer.bert.encoder.layer.{i}.intermediate.{rest}": None,
    "Qformer.bert.encoder.layer.{i}.output.{rest}": None,
    "Qformer.cls.{rest}": None,
}


MINIGPT4_NAMES: dict[str, str | None] = {"llama_proj.{p}": "video_branch.to_decoder.{p}"}


IMAGEBIND_FILE = "imagebind_huge.pth"
IMAGEBIND_SIGNATURE = ("modality_preprocessors.vision.cls_token", "modality_trunks.vision.blocks.0.attn.in_proj_weight")
UNUSED_MODALITIES = ("text", "depth", "thermal", "imu")
"""ImageBind's other modalities."""


def _trunk(modality: str) -> dict[str, str | None]:
    """Return the lines that all trunks have."""
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


IMAGEBIND_NAMES: dict[str, str | None] = {
    **_trunk("audio"),
    **_trunk("vision"),
    "modality_preprocessors.audio.rgbt_stem.proj.{p}": "audio_encoder.audio.patch.{p}",
    "modality_preprocessors.audio.rgbt_stem.norm_layer.{p}": "audio_encoder.audio.patch_norm.{p}",
    "modality_postprocessors.audio.1.log_logit_scale": "audio_encoder.audio.log_scale",
    "modality_preprocessors.vision.rgbt_stem.proj.1.{p}": "audio_encoder.vision.patch.{p}",
    "modality_trunks.vision.pre_transformer_layer.0.{p}": "audio_encoder.vision.pre_norm.{p}",
    **{f"modality_{{part}}.{modality}.{{rest}}": None for modality in UNUSED_MODALITIES},
}


def file_or_within(path: str | Path) -> Path:
    """Return ImageBind's file in a folder; any other path unchanged."""
    path = Path(path)
    return path / IMAGEBIND_FILE if (path / IMAGEBIND_FILE).is_file() else path


VISION_BRANCH_NAMES: dict[str, str | None] = {
    "video_query_tokens": "video_branch.qformer.query_tokens",
    "video_frame_position_embedding.weight": "video_branch.frame_position.weight",
    "llama_proj.{p}": "video_branch.to_decoder.{p}",
    **qformer_table("video_Qformer.", "video_branch.qformer."),
}
AUDIO_BRANCH_NAMES: dict[str, str | None] = {
    "audio_query_tokens": "audio_branch.qformer.query_tokens",
    "audio_position_embedding.weight": "audio_branch.segment_position.weight",
    "audio_llama_proj.{p}": "audio_branch.to_decoder.{p}",
    **qformer_table("audio_Qformer.", "audio_branch.qformer."),
}
IMAGE_ENCODER_NAMES: dict[str, str | None] = {
    "visual_encoder.{rest}": "vision.vit.{rest}",
    "ln_vision.{p}": "vision.ln_vision.{p}",
    "query_tokens": "qformer.query_tokens",
    **qformer_table("Qformer.", "qformer."),
}
SAVED_BY_ACCIDENT: dict[str, str | None] = {
    "llama_model.model.layers.{i}.self_attn.rotary_emb.inv_freq": None,
    "audio_encoder.modality_preprocessors.text.mask": None,
    "audio_encoder.modality_postprocessors.{m}.{i}.log_logit_scale": None,
}
RELEASE_NAMES = {**VISION_BRANCH_NAMES, **AUDIO_BRANCH_NAMES, **IMAGE_ENCODER_NAMES, **SAVED_BY_ACCIDENT}


@dataclass(frozen=True)
class Format:
    """A published kind of weights file."""

    name: str
    title: str
    signature: tuple[str, ...]
    """Tensors that are in every such file, and in no file of a format before it in ``FORMATS``."""
    advice: str
    """The setting for such a file."""
    key_map: KeyMap | None = None
    """Its names and ours; None for a file that is used unchanged."""


_RELEASE = KeyMap(RELEASE_NAMES)
EVA_CLIP_G = Format(
    "eva_clip_g",
    "an EVA-CLIP ViT-G file",
    ("cls_token", "blocks.0.attn.q_bias"),
    "Its place is model.vit_ckpt.",
    KeyMap(EVA_CLIP_G_NAMES),
)
BLIP2_QFORMER = Format(
    "blip2_qformer",
    "a BLIP-2 Q-Former file",
    ("query_tokens", "Qformer.bert.embeddings.LayerNorm.weight"),
    "Its place is model.q_former_model.",
    KeyMap(BLIP2_QFORMER_NAMES),
)
MINIGPT4_PROJECTION = Format(
    "minigpt4_projection",
    "a MiniGPT-4 projection file",
    ("llama_proj.weight",),
    "Its place is model.llama_proj_model.",
    KeyMap(MINIGPT4_NAMES),
)
VISION_BRANCH = Format(
    "vision_branch",
    "a Video-LLaMA vision-branch file",
    ("video_query_tokens",),
    "Its place is model.ckpt or ckpt_2.",
    _RELEASE,
)
AUDIO_BRANCH = Format(
    "audio_branch",
    "a Video-LLaMA audio-branch file",
    ("audio_query_tokens",),
    "Its place is model.ckpt or ckpt_2 of a model with equip_audio_branch: true.",
    _RELEASE,
)
IMAGEBIND_HUGE = Format(
    "imagebind_huge",
    "an ImageBind-Huge file",
    IMAGEBIND_SIGNATURE,
    "Its place is model.imagebind_ckpt_path.",
    KeyMap(IMAGEBIND_NAMES),
)
DECODER = Format(
    "decoder",
    "a file of a language model",
    ("model.embed_tokens.weight",),
    "The folder that holds it goes into model.llama_model.",
)

FORMATS = (
    VISION_BRANCH,
    AUDIO_BRANCH,
    BLIP2_QFORMER,
    EVA_CLIP_G,
    MINIGPT4_PROJECTION,
    IMAGEBIND_HUGE,
    DECODER,
)

_LEFT_OUT = {"vit": "vision", "ln_vision": "vision", "query_tokens": "qformer", "bert": "qformer"}
"""First part of a name in our own file of one encoder -> the encoder, its prefix in the whole model."""


@dataclass(frozen=True)
class NamedTensors:
    """A file's tensors under their names in the whole model."""

    format: Format | None
    """The published kind of the file; None for our own."""
    tensors: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)
    """The file's other tensors, by its own names: left out on purpose, since the model does not use them."""


def recognise(names: Iterable[str]) -> Format | None:
    """Return the published format of a file with these tensors; None for our own names."""
    names = set(names)
    return next((f for f in FORMATS if names.issuperset(f.signature)), None)


def whole_name(name: str) -> str:
    """Return the name in the whole model of a tensor in one of our own files, which may lack the encoder's prefix."""
    encoder = _LEFT_OUT.get(name.split(".")[0])
    return f"{encoder}.{name}" if encoder else name


def in_our_names(tensors: Mapping[str, Tensor], source: str) -> NamedTensors:
    """Return the tensors of a file under their names in the whole model.

    Args:
        tensors: as read.
        source: the file, for messages.
    Raises:
        WeightsError: it is a published file with tensors that such a file does not have.
    """
    found = recognise(tensors)
    if found is None:
        return NamedTensors(None, {whole_name(name): tensor for name, tensor in tensors.items()})
    if found.key_map is None:
        return NamedTensors(found, dict(tensors))
    renamed = found.key_map.to_ours(tensors)
    if renamed.unknown:
        raise WeightsError(
            f"{source} looks like {found.title}, but holds {len(renamed.unknown)} tensors that no such file has, "
            f"such as {renamed.unknown[0]}"
        )
    return NamedTensors(found, {ours: tensors[theirs] for theirs, ours in renamed.names.items()}, renamed.dropped)
