"""A decoder that is never whole in the memory of a process: each reads from the folder only the rows that it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from video_llama.checkpoints.compare import is_finite
from video_llama.common.errors import WeightsError
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.decoder.transformers_internals import mark_as_loaded
from video_llama.models.sharding import Sharding
from video_llama.models.weights.unfilled import parameter_names, parameters_without_values

if TYPE_CHECKING:
    from video_llama.models.decoder.language_model import LanguageModel


def decoder_without_values(folder: DecoderFolder, dtype: torch.dtype) -> Any:
    """Build a causal language model with its parameters on the meta device; its buffers have values.

    Raises:
        WeightsError: this decoder cannot be sharded.
    """
    with parameters_without_values():
        lm: Any = AutoModelForCausalLM.from_config(folder.config, dtype=dtype, trust_remote_code=False)
    lm.tie_weights()
    if not _layers(lm):
        raise _refused(folder, f"transformers does not mark the layers of a {type(lm).__name__}")
    _stored_names(lm, folder)
    return lm.eval()


def shard_decoder(decoder: LanguageModel, folder: DecoderFolder, sharding: Sharding, *, trained: bool) -> list[str]:
    """Shard a decoder that has no values yet, and fill it from its folder.

    Each layer is gathered while it computes, and so is the token embedding. All else, the output layer above all, stays
    gathered from the embedding of a batch to its backward pass.

    Args:
        decoder: its ``lm`` is a ``decoder_without_values``.
        folder: where it is stored.
        sharding: the processes.
        trained: whether it is trained in full.
    Returns:
        The names of tensors that hold NaN or infinity, the same in every process.
    Raises:
        WeightsError: a file is unreadable.
    """
    lm = decoder.lm.requires_grad_(trained)
    stored = _stored_names(lm, folder)
    units: list[nn.Module] = _layers(lm)
    embedding = lm.get_input_embeddings()
    if all(p is not embedding.weight for p in lm.get_output_embeddings().parameters()):
        units.append(embedding)
    sharding.shard(decoder, units, trained=trained, methods=("embed", "target_loss"))
    broken: list[str] = []

    def read(name: str, rows: slice) -> Tensor:
        values = folder.weights.read(stored[name], rows)
        if values.numel() and not is_finite(values):
            broken.append(stored[name])
        return values

    try:
        sharding.fill_shards(lm, read)
    except WeightsError as error:
        raise folder.error(str(error)) from error
    mark_as_loaded(lm)
    return sorted({name for names in sharding.world.gather_objects(broken) for name in names})


def _layers(lm: Any) -> list[nn.Module]:
    return [module for module in lm.modules() if isinstance(module, GradientCheckpointingLayer)]


def _stored_names(lm: Any, folder: DecoderFolder) -> dict[str, str]:
    """Return the name in the folder's files of each parameter, under every name that it has in the model.

    Raises:
        WeightsError: a tensor is stored otherwise than it is used, and reading some of its rows would not do.
    """
    prefix = f"{lm.base_model_prefix}."
    stored = {name.removeprefix(prefix): name for name in folder.weights.tensors}
    found: dict[str, str] = {}
    for p, own in parameter_names(lm).items():
        source = next((stored[short] for name in own if (short := name.removeprefix(prefix)) in stored), None)
        if source is None:
            raise _refused(
                folder, f"its files hold no tensor {own[0]}: they have another layout than transformers' model"
            )
        if folder.weights.shape(source) != tuple(p.shape):
            raise _refused(
                folder,
                f"{source} has the shape {folder.weights.shape(source)} in its file, and {tuple(p.shape)} in use",
            )
        found |= dict.fromkeys(own, source)
    extra = [name for name in lm.state_dict() if name not in found]
    if extra:
        raise _refused(folder, f"{extra[0]} is saved with the weights, and is none of them")
    return found


def _refused(folder: DecoderFolder, reason: str) -> WeightsError:
    return folder.error(f"{folder.path} cannot be sharded: {reason}. Set run.parallel.decoder: replicate.")
