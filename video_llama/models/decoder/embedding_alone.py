"""The token embedding of a decoder that runs elsewhere, without the rest of its weights.

Shapes: B sequences, L tokens, H hidden width.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from video_llama.checkpoints.compare import not_finite
from video_llama.common.errors import ConfigError, VideoLlamaError
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.half_storage import compute_in_float32
from video_llama.models.precision import NumberFormat, number_format
from video_llama.models.weights.unfilled import parameters_without_values


def for_prompts(cls: Any, config: Any, device: torch.device | str = "cpu") -> Any:
    """Build a model for ``embed_prompt`` alone. Another program runs its decoder, from the folder that the config names.

    Args:
        cls: the model's class.
        config: of the model; its decoder has no adapters.
        device: where the model will be.
    Raises:
        ConfigError: the decoder has adapters, so it is not what its folder holds.
        WeightsError: see the class's ``from_config``.
    """
    if config.lora is not None:
        raise ConfigError(
            [
                "model.lora: the decoder runs in another program, without these adapters. Merge them: "
                "video-llama merge-lora --cfg-path YAML --output DIR; then serve DIR there, and add the options it prints here"
            ]
        )
    device, folder = torch.device(device), config.decoder_folder
    model = cls.without_decoder(config, device)
    chosen = number_format(config.llama_precision, folder.number_format, device, config.strict_precision)
    model.decoder = EmbeddingAlone(folder, chosen)
    return model.to(device)


class EmbeddingAlone(nn.Module):
    """Stands for a ``LanguageModel`` that only embeds: of its folder's weights, it reads the token embedding.

    Args:
        folder: where the decoder is stored.
        number_format: of the embedding.

    Raises:
        WeightsError: the folder holds no token embedding that fits its config, or one with NaN or infinity.
    """

    is_sharded = False

    def __init__(self, folder: DecoderFolder, number_format: NumberFormat) -> None:
        super().__init__()
        self.max_context = folder.max_context
        embedding = _embedding(folder, number_format.stored)
        if broken := not_finite(embedding.state_dict()):
            raise folder.error(
                f"{folder.path}: the token embedding ({broken[0]}) holds NaN or infinity. Download it again."
            )
        self.lm = _Headless(embedding)
        if number_format.widens:
            compute_in_float32(self.lm)  # with constants that were never rounded
        else:
            self.lm.to(number_format.stored)

    @property
    def width(self) -> int:
        """H."""
        return int(self.lm.embedding.embedding_dim)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Return float[B, L, H]; slot ids (below 0) get the embedding of token 0, which ``splice`` overwrites."""
        return self.lm.embedding(input_ids.clamp(min=0))


class _Headless(nn.Module):
    """What the rest of the package asks of a causal language model, as far as an embedding has it."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.embedding = embedding.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    def generate(self, **inputs: object) -> NoReturn:
        raise VideoLlamaError("the decoder runs elsewhere, and answers without beams: leave num_beams out")

    forward = generate


def _embedding(folder: DecoderFolder, dtype: torch.dtype) -> Any:
    """Return the token embedding of a decoder, a module of its family's own class, with its weights in a number format."""
    with parameters_without_values():  # buffers, such as the scale of Gemma's embeddings, get their values
        decoder = AutoModelForCausalLM.from_config(folder.config, trust_remote_code=False)
    embedding: Any = decoder.get_input_embeddings()
    stored = folder.weights
    name = next((name for name in _names(folder) if name in stored.tensors), None)
    if name is None or stored.shape(name) != tuple(embedding.weight.shape):
        raise folder.error(f"{folder.path} holds no token embedding of the shape {tuple(embedding.weight.shape)}")
    embedding.weight = nn.Parameter(stored.read(name).to(dtype), requires_grad=False)
    return embedding


def _names(folder: DecoderFolder) -> list[str]:
    """Return the names under which the token embedding may be stored: its own, or that of a layer it is tied to."""
    skeleton = folder.skeleton
    weight = skeleton.get_input_embeddings().weight
    own = [name for name, p in skeleton.named_parameters(remove_duplicate=False) if p is weight]
    prefix = f"{skeleton.base_model_prefix}."
    return [*own, *(name.removeprefix(prefix) for name in own)]
