"""Whose file is it? Recognises the published weights by their names, and gives their tensors ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from video_llama.checkpoints.keymap import KeyMap
from video_llama.checkpoints.sources import blip2_qformer, eva_clip_g, minigpt4, video_llama_release
from video_llama.common.errors import WeightsError


@dataclass(frozen=True)
class Format:
    """A published kind of weights file."""

    title: str
    signature: tuple[str, ...]
    """Tensors that every such file holds, and files recognised before it do not."""
    key_map: KeyMap


EVA_CLIP_G = Format("an EVA-CLIP ViT-G file", ("cls_token", "blocks.0.attn.q_bias"), KeyMap(eva_clip_g.TABLE))
BLIP2_QFORMER = Format(
    "a BLIP-2 Q-Former file", ("query_tokens", "Qformer.bert.embeddings.LayerNorm.weight"), KeyMap(blip2_qformer.TABLE)
)
VISION_BRANCH = Format("a Video-LLaMA vision-branch file", ("video_query_tokens",), KeyMap(video_llama_release.TABLE))
AUDIO_BRANCH = Format("a Video-LLaMA audio-branch file", ("audio_query_tokens",), KeyMap({}))
MINIGPT4_PROJECTION = Format("a MiniGPT-4 projection file", ("llama_proj.weight",), KeyMap(minigpt4.TABLE))

FORMATS = (VISION_BRANCH, AUDIO_BRANCH, BLIP2_QFORMER, EVA_CLIP_G, MINIGPT4_PROJECTION)


def recognise(names: Mapping[str, Tensor]) -> Format | None:
    """Return the published format of a file with these tensors; None for our own names."""
    return next((f for f in FORMATS if all(name in names for name in f.signature)), None)


def in_our_names(tensors: Mapping[str, Tensor], accepted: Format, prefix: str, place: str) -> dict[str, Tensor]:
    """Return the tensors of a file under their names in the whole model.

    Args:
        tensors: as read.
        accepted: the published format that may stand here, beside our own.
        prefix: what our own files of this kind leave out of the names.
        place: key and path, for messages.
    Raises:
        WeightsError: it is a published file of another kind, or holds tensors that such a file does not have.
    """
    found = recognise(tensors)
    if found is None:
        return {prefix + name: tensor for name, tensor in tensors.items()}
    if found is not accepted:
        raise WeightsError(f"{place} is {found.title}; here goes {accepted.title}, or one of our own.")
    renamed = accepted.key_map.to_ours(tensors)
    if renamed.unknown:
        raise WeightsError(
            f"{place} looks like {found.title}, but holds {len(renamed.unknown)} tensors that no such file has, "
            f"such as {renamed.unknown[0]}"
        )
    return {ours: tensors[theirs] for theirs, ours in renamed.names.items()}
