"""What a file's shapes tell of the model it was made with."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_AXES = {
    "num_video_query_token": ("video_branch.qformer.query_tokens", 1),
    "max_frame_pos": ("video_branch.frame_position.weight", 0),
    "num_query_token": ("qformer.query_tokens", 1),
    "qformer.hidden_size": ("qformer.query_tokens", 2),
    "num_audio_query_token": ("audio_branch.qformer.query_tokens", 1),
    "max_audio_pos": ("audio_branch.segment_position.weight", 0),
}
_LAYERS = {
    "fusion_head_layers": r"video_branch\.qformer\.bert\.encoder\.layer\.(\d+)\.",
    "qformer.num_hidden_layers": r"qformer\.bert\.encoder\.layer\.(\d+)\.",
    "vit_args.depth": r"vision\.vit\.blocks\.(\d+)\.",
    "audio layers": r"audio_branch\.qformer\.bert\.encoder\.layer\.(\d+)\.",
}
_ADAPTER = ".lora_A.default.weight"
"""How the name of an adapter's first matrix ends."""
TO_DECODER = ("video_branch.to_decoder.weight", "audio_branch.to_decoder.weight")


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return sizes by the key of the model section that sets them, or in words where none does.

    Args:
        tensors: by their names in the whole model.
    """
    found = {key: tensors[name].shape[axis] for key, (name, axis) in _AXES.items() if name in tensors}
    for key, pattern in _LAYERS.items():
        if layers := [int(match[1]) for name in tensors if (match := re.match(pattern, name))]:
            found[key] = max(layers) + 1
    if ranks := {t.shape[0] for name, t in tensors.items() if name.endswith(_ADAPTER)}:
        found["lora.r"] = max(ranks)
    return found


def decoder_width(tensors: Mapping[str, Tensor]) -> int | None:
    """Return the width of the decoder that a file's branch was made for; None for a file without its last layer.

    Args:
        tensors: by their names in the whole model.
    """
    return next((tensors[name].shape[0] for name in TO_DECODER if name in tensors), None)
