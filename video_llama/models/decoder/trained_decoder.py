"""A decoder that was trained in full, taken out of a run's checkpoint and written as a plain Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig

from video_llama.checkpoints.io import read_checkpoint
from video_llama.checkpoints.shards_folder import check_shards, read_whole
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.common.files import check_free
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.new_folder import write_decoder
from video_llama.models.precision import DTYPES
from video_llama.models.weights.unfilled import parameter_names, parameters_without_values

_LM = "decoder.lm."
"""Name prefix of the decoder's tensors in a checkpoint."""


def export_decoder(config: VideoLLaMAConfig, checkpoint: str | Path, output: str | Path, precision: str) -> None:
    """Write the decoder of a checkpoint as a Hugging Face folder, and ``branch.pth`` with everything else that was trained.

    With the folder as ``llama_model``, the file as ``ckpt`` and without ``frozen_llama: false``, the model computes the same.

    Args:
        config: the model section of the run, whose decoder gives config and tokenizer.
        checkpoint: a ``.pth`` file of a run; its folder of shards, if it has one, is beside it.
        output: the folder to create.
        precision: number format of the folder: fp32, bf16 or fp16. The whole decoder must fit into memory in fp32.
    Raises:
        ConfigError: the decoder of the config is frozen.
        WeightsError: the checkpoint holds no decoder or another one, or the folder cannot be written.
    """
    output, path, folder = Path(output), Path(checkpoint), config.decoder_folder
    check_free(output)
    if config.frozen_llama:
        raise ConfigError(
            ["model.frozen_llama: true: this run does not train its decoder, so there is nothing to export"]
        )
    content = read_checkpoint(path)
    if "model" not in content:
        raise WeightsError(f"{path}: no checkpoint of a run: it has no table 'model'")
    check_shards(path, content)
    trained = read_whole(path, content)
    own = {name.removeprefix(_LM): tensor for name, tensor in trained.items() if name.startswith(_LM)}
    if not own:
        raise WeightsError(f"{path} holds no decoder: its run trained other parts only")
    with parameters_without_values():
        lm: Any = AutoModelForCausalLM.from_config(folder.config, dtype=DTYPES[precision], trust_remote_code=False)
    lm.tie_weights()
    _fill(lm, own, path)
    lm.generation_config = GenerationConfig()  # the file of the decoder's folder is copied
    branch = {name: tensor for name, tensor in trained.items() if not name.startswith(_LM)}
    write_decoder(output, lm, branch, folder.path)


def _fill(lm: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill parameters without values with tensors.

    Raises:
        WeightsError: they are not those of this decoder.
    """
    for p, own in parameter_names(lm).items():
        if own[0] not in tensors or tensors[own[0]].shape != p.shape:
            raise WeightsError(f"{path}: its decoder is another one than model.llama_model: {own[0]} does not fit")
        filled = nn.Parameter(tensors[own[0]].to(p.dtype), requires_grad=False)
        for name in own:
            owner, _, leaf = name.rpartition(".")
            setattr(lm.get_submodule(owner), leaf, filled)
