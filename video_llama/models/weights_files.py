"""The weights files that a model section names, read and given our names before anything large is built."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from video_llama.checkpoints.formats import BLIP2_QFORMER, EVA_CLIP_G, MINIGPT4_PROJECTION, VISION_BRANCH, in_our_names
from video_llama.checkpoints.state import read_weights
from video_llama.common.errors import WeightsError
from video_llama.models.language_model import read_config
from video_llama.models.video_llama_config import VideoLLaMAConfig

KEYS = {
    "vit_ckpt": (EVA_CLIP_G, "vision."),
    "q_former_model": (BLIP2_QFORMER, "qformer."),
    "llama_proj_model": (MINIGPT4_PROJECTION, ""),
    "ckpt": (VISION_BRANCH, ""),
    "ckpt_2": (VISION_BRANCH, ""),
}
"""Each key that names a file, in the order they are filled in: the published format that goes there, and what our own
files of that kind leave out of the names."""

TO_DECODER = "video_branch.to_decoder.weight"


@dataclass(frozen=True)
class WeightsFile:
    """One file, with its tensors under their names in the whole model."""

    place: str
    """Key and path, for messages."""
    tensors: dict[str, Tensor]


def read_weights_files(config: VideoLLaMAConfig) -> list[WeightsFile]:
    """Read every file that a model section names.

    Raises:
        WeightsError: a file is unreadable, of a kind that does not go there, or made for a decoder of another width.
    """
    files = []
    for key, (accepted, prefix) in KEYS.items():
        if (path := getattr(config, key)) is not None:
            place = f"model.{key}: {path}"
            tensors = in_our_names(read_weights(path), accepted, prefix, place)
            _check_width(tensors, place, config.llama_model)
            files.append(WeightsFile(place, tensors))
    return files


def _check_width(tensors: dict[str, Tensor], place: str, llama_model: str) -> None:
    if TO_DECODER in tensors:
        made_for = tensors[TO_DECODER].shape[0]
        width = read_config(llama_model).get_text_config().hidden_size
        if made_for != width:
            raise WeightsError(
                f"{place} was made for a decoder of width {made_for}; {llama_model} has width {width}. "
                "Use the file that belongs to this decoder, or the decoder that belongs to this file."
            )
