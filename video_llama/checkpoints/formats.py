"""Whose file is it? Recognises the published weights by their names, and gives their tensors ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from video_llama.checkpoints.keymap import KeyMap
from video_llama.checkpoints.sources import blip2_qformer, eva_clip_g, imagebind_huge, minigpt4, video_llama_release
from video_llama.common.errors import WeightsError


@dataclass(frozen=True)
class Format:
    """A published kind of weights file."""

    name: str
    title: str
    signature: tuple[str, ...]
    """Tensors that every such file holds, and files recognised before it do not."""
    advice: str
    """Where such a file goes."""
    key_map: KeyMap | None = None
    """Its names and ours; None for a file that this model has no place for."""


_RELEASE = KeyMap(video_llama_release.TABLE)
EVA_CLIP_G = Format(
    "eva_clip_g",
    "an EVA-CLIP ViT-G file",
    ("cls_token", "blocks.0.attn.q_bias"),
    "Its place is model.vit_ckpt.",
    KeyMap(eva_clip_g.TABLE),
)
BLIP2_QFORMER = Format(
    "blip2_qformer",
    "a BLIP-2 Q-Former file",
    ("query_tokens", "Qformer.bert.embeddings.LayerNorm.weight"),
    "Its place is model.q_former_model.",
    KeyMap(blip2_qformer.TABLE),
)
MINIGPT4_PROJECTION = Format(
    "minigpt4_projection",
    "a MiniGPT-4 projection file",
    ("llama_proj.weight",),
    "Its place is model.llama_proj_model.",
    KeyMap(minigpt4.TABLE),
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
    imagebind_huge.SIGNATURE,
    "Its place is model.imagebind_ckpt_path.",
    KeyMap(imagebind_huge.TABLE),
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
"""How a name begins in our own file of one encoder -> the encoder, which stands before it in the whole model."""


@dataclass(frozen=True)
class NamedTensors:
    """A file's tensors under their names in the whole model."""

    format: Format | None
    """The published kind that it is of; None for our own."""
    tensors: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)
    """What the file holds beside them, by its own names: of no use to this model, and left out on purpose."""


def recognise(names: Iterable[str]) -> Format | None:
    """Return the published format of a file with these tensors; None for our own names."""
    names = set(names)
    return next((f for f in FORMATS if names.issuperset(f.signature)), None)


def whole_name(name: str) -> str:
    """Return the name in the whole model of a tensor in one of our own files, which may leave out its encoder."""
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
