"""Pre-flight checks of a decoder folder: its config, its tokenizer, and names and shapes of its tensors.

Shapes: W rows of the token embedding, H hidden width.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from video_llama.checkpoints.delta.delta import NORM, looks_like_delta
from video_llama.checkpoints.hf_folder import WeightsFolder
from video_llama.common.errors import WeightsError
from video_llama.common.files import failed_download
from video_llama.prompts.tokenizer import Tokenizer, load_tokenizer

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


_NO_WEIGHTS = ("rotary_emb.inv_freq",)
"""What older libraries saved beside the weights."""


def check_tensors(directory: str | Path, stored: Mapping[str, tuple[int, ...]]) -> None:
    """Hold what a decoder's files say of their tensors against its config.

    Args:
        directory: the decoder folder.
        stored: tensor name -> shape.
    Raises:
        WeightsError: a tensor has another shape, is missing, or is of a layer that the config has not.
    """
    config = read_config(directory)
    if getattr(config, "quantization_config", None) is not None:
        return  # packed, under names and in shapes of its own
    decoder = empty_decoder(directory)
    prefix = f"{decoder.base_model_prefix}."  # saved with it or without
    shapes = {name.removeprefix(prefix): shape for name, shape in stored.items()}
    in_full = {name.removeprefix(prefix): name for name, _ in decoder.named_parameters(remove_duplicate=False)}
    own = {name: decoder.get_parameter(full) for name, full in in_full.items()}
    where, config_of_another = f"model.llama_model: {directory}", "Is the config of another model?"
    for name in shapes.keys() & own.keys():
        if sorted(shapes[name]) != sorted(own[name].shape):  # some are stored transposed
            raise WeightsError(
                f"{where}: {in_full[name]} has the shape {shapes[name]}; by config.json it is {tuple(own[name].shape)}. "
                f"{config_of_another}"
            )
    if missing := _missing(shapes, own, decoder):
        raise WeightsError(
            f"{where} is not whole: {len(missing)} tensors are missing, such as {in_full[missing[0]]}. Download it again, or "
            "is its config.json that of another model?"
        )
    text = config.get_text_config()
    extra = _of_no_layer(shapes, own, decoder)
    if extra and not getattr(text, "num_nextn_predict_layers", 0):  # a layer more, which transformers leaves out
        raise WeightsError(
            f"{where} holds {len(extra)} tensors such as {extra[0]}, but config.json says num_hidden_layers: "
            f"{text.num_hidden_layers}. {config_of_another}"
        )


def _missing(shapes: Mapping[str, Any], own: Mapping[str, Any], decoder: Any) -> list[str]:
    """Return the parameters that are certainly nowhere: the names are all our own, or those of another layer are."""
    strange = [name for name in shapes.keys() - own.keys() if not _left_out(name, decoder)]
    stored = {_any_layer(name) for name in shapes}
    filled = {id(own[name]) for name in shapes.keys() & own.keys()}  # tied weights are stored once, under either name
    excused = decoder._keys_to_ignore_on_load_missing or ()
    return [
        name
        for name, p in own.items()
        if id(p) not in filled
        and (not strange or _any_layer(name) in stored)
        and not any(re.search(known, name) for known in excused)
    ]


def _of_no_layer(shapes: Mapping[str, Any], own: Mapping[str, Any], decoder: Any) -> list[str]:
    """Return the tensors that layers have, but of a layer beyond the last."""
    layers = {_any_layer(name) for name in own}
    beyond = shapes.keys() - own.keys()
    return sorted(name for name in beyond if _any_layer(name) in layers and not _left_out(name, decoder))


def _left_out(name: str, decoder: Any) -> bool:
    """Tell whether transformers leaves a tensor out on purpose."""
    full = f"{decoder.base_model_prefix}.{name}"  # as its patterns have it
    known = decoder._keys_to_ignore_on_load_unexpected or ()
    return name.endswith(_NO_WEIGHTS) or any(re.search(pattern, full) for pattern in known)


def _any_layer(name: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", name)


_EMBEDDINGS = ("embed_tokens", "embed_in", "wte", "word_embeddings", "tok_embeddings", "embeddings")
"""What architectures call the token embedding: the last part but one of its tensor's name."""


def check_decoder_folder(directory: str | Path) -> None:
    """Look at a folder's config, at what its files say of their tensors, and at one of its norms.

    Raises:
        WeightsError: it is no folder of a causal language model, a file is missing, truncated or not what it should be,
            its weights are a delta, or its tensors are not the config's.
    """
    config = read_config(directory)
    try:
        weights = WeightsFolder(directory)
        delta = config.model_type == "llama" and NORM in weights.tensors and looks_like_delta(weights.read(NORM))
    except WeightsError as error:
        raise WeightsError(f"model.llama_model: {error}") from error
    if delta:
        raise WeightsError(
            f"model.llama_model: {directory} is a delta: it holds the difference of a model to LLaMA, not the model. "
            f"Add it to LLaMA: python apply_delta.py --base LLAMA --target NEW_FOLDER --delta {directory}"
        )
    rows, said = _embedding_rows(weights), config.get_text_config().vocab_size
    if rows not in (None, said):
        raise WeightsError(
            f"model.llama_model: {directory}: the token embedding has {rows} rows, but config.json says vocab_size: "
            f"{said}. Is the config of another model?"
        )
    check_tensors(directory, {name: stored.shape for name, stored in weights.tensors.items()})


def decoder_tokenizer(directory: str | Path) -> Tokenizer:
    """Return a decoder's tokenizer, held against its token embedding.

    Raises:
        WeightsError: there is none that can be read, or it belongs to another model.
    """
    try:
        tokenizer = load_tokenizer(directory)
    except WeightsError as error:
        raise WeightsError(f"model.llama_model: {error}") from error
    check_vocabulary(directory, tokenizer.vocab_size)
    return tokenizer


def check_vocabulary(directory: str | Path, n_tokens: int) -> None:
    """Hold a decoder's tokenizer against its token embedding.

    An embedding often has more rows than tokens, up to the next round number.

    Args:
        directory: the decoder folder.
        n_tokens: ids that its tokenizer knows.
    Raises:
        WeightsError: they belong to different models.
    """
    rows = read_config(directory).get_text_config().vocab_size
    spare = rows - n_tokens
    if spare < 0 or spare > max(1024, rows // 20):
        raise WeightsError(
            f"model.llama_model: {directory}: the tokenizer knows {n_tokens} tokens, but the decoder's embedding has "
            f"{rows} rows. The tokenizer belongs to another model: take the one that this decoder was published with."
        )


def _embedding_rows(weights: WeightsFolder) -> int | None:
    """Return W, or None where no tensor is known to be the token embedding."""
    found: list[Any] = [
        stored.shape[0]
        for name, stored in weights.tensors.items()
        if name.split(".")[-2:] in [[part, "weight"] for part in _EMBEDDINGS]
    ]
    return found[0] if len(found) == 1 else None
