"""What a decoder folder's ``config.json`` says, without its weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from video_llama.common.downloads import failed_download
from video_llama.common.errors import WeightsError

_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""What architectures call their longest sequence."""
_CAUSAL = ("forcausallm", "lmheadmodel")
"""How the names of classes end that predict the next token, in lower case: early LLaMA folders have LLaMAForCausalLM."""


def read_config(directory: str | Path) -> Any:
    """Read a decoder's config. Code that a folder brings is never run.

    Raises:
        WeightsError: there is no readable config, or it is not that of a causal language model which transformers knows.
    """
    directory = Path(directory)
    _check_model_type(directory)
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"model.llama_model: {directory / 'config.json'} is no valid config: {reason}") from error
    _check_causal(config, directory)
    return config


def empty_decoder(directory: str | Path) -> Any:
    """Return the decoder that a folder's config describes, on the meta device: names and shapes without values.

    Raises:
        WeightsError: as ``read_config``, or the config contradicts itself.
    """
    config = read_config(directory)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # the library raises nearly anything on sizes that do not go together
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"model.llama_model: {Path(directory) / 'config.json'} describes no decoder that can be built: {reason}"
        ) from error


def max_context(config: Any) -> int:
    """Return the longest sequence that a decoder's config allows, in tokens; without bound where it names none."""
    text_config = config.get_text_config()
    return next((int(n) for name in _LENGTHS if (n := getattr(text_config, name, None))), sys.maxsize)


def decoder_width(config: Any) -> int:
    """Return the width of the embeddings that a decoder with this config takes."""
    text_config = config.get_text_config()
    return int(getattr(text_config, "word_embed_proj_dim", None) or text_config.hidden_size)  # the former in OPT


def _check_model_type(directory: Path) -> None:
    """Raise WeightsError unless ``config.json`` names an architecture that transformers knows."""
    file = directory / "config.json"
    if not directory.is_dir():
        found = "a file" if directory.exists() else "no such folder"
        raise WeightsError(f"model.llama_model: {directory}: {found}; expected a Hugging Face model folder")
    if not file.is_file():
        raise WeightsError(
            f"model.llama_model: {directory}: no config.json in this folder; expected a Hugging Face model folder, with "
            "config, tokenizer and weights"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(
            f"model.llama_model: {file}: {failed_download(file) or f'not valid JSON ({error})'}"
        ) from error
    name = content.get("model_type") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise WeightsError(f"model.llama_model: {file}: names no model_type; it is not the config of a language model")
    if name not in CONFIG_MAPPING:
        own_code = "; the code that the folder brings for it (auto_map) is never run" if "auto_map" in content else ""
        raise WeightsError(
            f"model.llama_model: {file}: transformers {transformers.__version__} does not know the architecture "
            f"{name!r}{own_code}. A newer transformers may; otherwise choose another decoder."
        )


def _check_causal(config: Any, directory: Path) -> None:
    """Raise WeightsError unless transformers has a causal language model for a config, and the weights are of one."""
    names = config.architectures or []
    own: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    causal = not names or any(name == own.__name__ or name.lower().endswith(_CAUSAL) for name in names if own)
    if own is None or config.is_encoder_decoder or not causal:
        found = "an encoder-decoder" if config.is_encoder_decoder else ", ".join(names) or f"a {config.model_type}"
        raise WeightsError(
            f"model.llama_model: {directory} is {found}, not a causal language model, which predicts the next token "
            "from those before it. Choose one, such as a LLaMA, Qwen or Mistral."
        )
