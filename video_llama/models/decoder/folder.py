"""A decoder on disk: its config, tokenizer and tensor headers, checked before any weights are read.

Shapes: W rows of the token embedding.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
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
from video_llama.models.decoder.transformers_internals import may_be_ignored, may_be_missing
from video_llama.prompts.tokenizer import Tokenizer, load_tokenizer

_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""What architectures call their longest sequence."""
_CAUSAL = ("forcausallm", "lmheadmodel")
"""Lower-case endings of class names that predict the next token; early LLaMA folders say LLaMAForCausalLM."""
_EMBEDDINGS = ("embed_tokens", "embed_in", "wte", "word_embeddings", "tok_embeddings", "embeddings")
"""What architectures call the token embedding: the second to last part of its tensor's name."""
NO_WEIGHTS = ("rotary_emb.inv_freq",)
"""Buffers that older libraries saved beside the weights."""
_OTHER_CONFIG = "Is the config of another model?"


class DecoderFolder:
    """A Hugging Face model folder of a causal language model. Each part is read once, when first needed.

    Every error is a WeightsError that names the folder.

    Args:
        path: the folder.
        key: the setting that names the folder, put in front of every error message.
    """

    def __init__(self, path: str | Path, key: str | None = None) -> None:
        self.path = Path(path)
        self.key = key
        self._checked = False

    def error(self, message: str) -> WeightsError:
        """Return an error about the folder, with the key in front."""
        return WeightsError(f"{self.key}: {message}" if self.key else message)

    @cached_property
    def config(self) -> Any:
        """The decoder's config. Code in the folder is never run.

        Raises:
            WeightsError: ``config.json`` is missing or unreadable, or describes no causal language model that
                transformers knows.
        """
        file = self.path / "config.json"
        if not self.path.is_dir():
            found = "a file" if self.path.exists() else "no such folder"
            raise self.error(f"{self.path}: {found}; expected a Hugging Face model folder")
        if not file.is_file():
            raise self.error(
                f"{self.path}: no config.json in this folder; expected a Hugging Face model folder, with config, tokenizer "
                "and weights"
            )
        try:
            config = AutoConfig.from_pretrained(self.path, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, TypeError, AttributeError, StrictDataclassError) as error:
            raise self.error(f"{file}{_why_invalid(file, error)}") from error
        self._check_causal(config)
        return config

    @property
    def width(self) -> int:
        """Width of the embeddings that the decoder takes."""
        text_config = self.config.get_text_config()
        return int(getattr(text_config, "word_embed_proj_dim", None) or text_config.hidden_size)  # the former in OPT

    @property
    def max_context(self) -> int:
        """Longest sequence that the config allows, in tokens; unbounded if it names none."""
        text_config = self.config.get_text_config()
        return next((int(n) for name in _LENGTHS if (n := getattr(text_config, name, None))), sys.maxsize)

    @property
    def is_quantized(self) -> bool:
        """Whether the weights are stored quantised: packed, under names and in shapes of their own."""
        return getattr(self.config, "quantization_config", None) is not None

    @cached_property
    def skeleton(self) -> Any:
        """The decoder on the meta device: names and shapes without values. Copy it before changing it.

        Raises:
            WeightsError: as ``config``, or the config contradicts itself.
        """
        config = self.config
        try:
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        except Exception as error:  # the library raises nearly anything on sizes that do not go together
            raise self.error(
                f"{self.path / 'config.json'} describes no decoder that can be built: {_one_line(error)}"
            ) from error

    @cached_property
    def weights(self) -> WeightsFolder:
        """Names, shapes and number formats of the stored tensors.

        Raises:
            WeightsError: a file is missing, truncated or of another kind.
        """
        try:
            return WeightsFolder(self.path)
        except WeightsError as error:
            raise self.error(str(error)) from error

    @property
    def number_format(self) -> torch.dtype:
        """The floating-point format that most of the stored weights are in.

        Raises:
            WeightsError: as ``weights``.
        """
        sizes: Counter[torch.dtype] = Counter()
        for stored in self.weights.tensors.values():
            sizes[stored.dtype] += math.prod(stored.shape)
        return max((torch.float16, torch.bfloat16, torch.float32), key=sizes.__getitem__)

    def check(self) -> None:
        """Check the config, the tensor headers against it, and one norm's values, once.

        Raises:
            WeightsError: this is no folder of a causal language model; a file is missing, truncated or of another kind; the
                weights are a delta; or the tensors do not match the config.
        """
        if self._checked:
            return
        config = self.config
        weights = self.weights
        try:
            delta = config.model_type == "llama" and NORM in weights.tensors and looks_like_delta(weights.read(NORM))
        except WeightsError as error:
            raise self.error(str(error)) from error
        if delta:
            raise self.error(
                f"{self.path} is a delta: it holds the difference of a model to LLaMA, not the model. "
                f"Add it to LLaMA: python apply_delta.py --base LLAMA --target NEW_FOLDER --delta {self.path}"
            )
        rows, expected = _embedding_rows(weights), config.get_text_config().vocab_size
        if rows not in (None, expected):
            raise self.error(
                f"{self.path}: the token embedding has {rows} rows, but config.json says vocab_size: {expected}. "
                f"{_OTHER_CONFIG}"
            )
        self.check_tensors({name: stored.shape for name, stored in weights.tensors.items()})
        self._checked = True

    def check_tensors(self, stored: Mapping[str, tuple[int, ...]]) -> None:
        """Compare stored tensors with those that the config describes.

        Args:
            stored: tensor name -> shape.
        Raises:
            WeightsError: a tensor has another shape, is missing, or belongs to a layer that the config does not have.
        """
        if self.is_quantized:
            return
        decoder = self.skeleton
        prefix = f"{decoder.base_model_prefix}."  # saved with it or without
        shapes = {name.removeprefix(prefix): shape for name, shape in stored.items()}
        in_full = {name.removeprefix(prefix): name for name, _ in decoder.named_parameters(remove_duplicate=False)}
        own = {name: decoder.get_parameter(full) for name, full in in_full.items()}
        for name in shapes.keys() & own.keys():
            if sorted(shapes[name]) != sorted(own[name].shape):  # some are stored transposed
                raise self.error(
                    f"{self.path}: {in_full[name]} has the shape {shapes[name]}; by config.json it is "
                    f"{tuple(own[name].shape)}. {_OTHER_CONFIG}"
                )
        if missing := _missing(shapes, own, decoder):
            raise self.error(
                f"{self.path} is not whole: {len(missing)} tensors are missing, such as {in_full[missing[0]]}. Download it "
                "again, or is its config.json that of another model?"
            )
        text = self.config.get_text_config()
        extra = _beyond_last_layer(shapes, own, decoder)
        if extra and not getattr(text, "num_nextn_predict_layers", 0):  # one more layer, which transformers skips
            raise self.error(
                f"{self.path} holds {len(extra)} tensors such as {extra[0]}, but config.json says num_hidden_layers: "
                f"{text.num_hidden_layers}. {_OTHER_CONFIG}"
            )

    def tokenizer(self) -> Tokenizer:
        """Return the decoder's tokenizer.

        Raises:
            WeightsError: there is no readable tokenizer, or it belongs to another model.
        """
        try:
            tokenizer = load_tokenizer(self.path)
        except WeightsError as error:
            raise self.error(str(error)) from error
        self.check_vocabulary(tokenizer.vocab_size)
        return tokenizer

    def check_vocabulary(self, n_tokens: int) -> None:
        """Compare the number of ids that a tokenizer knows with the rows of the token embedding.

        An embedding often has more rows than tokens, up to the next round number.

        Raises:
            WeightsError: they belong to different models.
        """
        rows = self.config.get_text_config().vocab_size
        spare = rows - n_tokens
        if spare < 0 or spare > max(1024, rows // 20):
            raise self.error(
                f"{self.path}: the tokenizer knows {n_tokens} tokens, but the decoder's embedding has {rows} rows. The "
                "tokenizer belongs to another model: take the one that this decoder was published with."
            )

    def _check_causal(self, config: Any) -> None:
        """Raise WeightsError unless transformers has a causal language model for a config, and the weights are its."""
        names = config.architectures or []
        own: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
        causal = not names or any(name == own.__name__ or name.lower().endswith(_CAUSAL) for name in names if own)
        if own is None or config.is_encoder_decoder or not causal:
            found = "an encoder-decoder" if config.is_encoder_decoder else ", ".join(names) or f"a {config.model_type}"
            raise self.error(
                f"{self.path} is {found}, not a causal language model, which predicts the next token from those before it. "
                "Choose one, such as a LLaMA, Qwen or Mistral."
            )


def _why_invalid(file: Path, error: Exception) -> str:
    """Return why transformers does not take a ``config.json``, to be put after the file's name."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as invalid:
        return f": {failed_download(file) or f'not valid JSON ({invalid})'}"
    name = content.get("model_type") if isinstance(content, dict) else None
    if not isinstance(name, str):
        return ": names no model_type; it is not the config of a language model"
    if name not in CONFIG_MAPPING:
        own_code = "; the code that the folder brings for it (auto_map) is never run" if "auto_map" in content else ""
        return (
            f": transformers {transformers.__version__} does not know the architecture {name!r}{own_code}. A newer "
            "transformers may; otherwise choose another decoder."
        )
    return f" is no valid config: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _missing(shapes: Mapping[str, Any], own: Mapping[str, Any], decoder: Any) -> list[str]:
    """Return the parameters that are certainly not stored.

    A parameter may be stored under a name we do not know. It is missing for certain if every stored name is known, or if the
    same parameter of another layer is stored.
    """
    strange = [name for name in shapes.keys() - own.keys() if not _skipped(name, decoder)]
    stored = {_any_layer(name) for name in shapes}
    filled = {id(own[name]) for name in shapes.keys() & own.keys()}  # tied weights are stored once, under either name
    return [
        name
        for name, p in own.items()
        if id(p) not in filled and (not strange or _any_layer(name) in stored) and not may_be_missing(name, decoder)
    ]


def _beyond_last_layer(shapes: Mapping[str, Any], own: Mapping[str, Any], decoder: Any) -> list[str]:
    """Return the stored tensors that belong to a layer beyond the last."""
    layers = {_any_layer(name) for name in own}
    beyond = shapes.keys() - own.keys()
    return sorted(name for name in beyond if _any_layer(name) in layers and not _skipped(name, decoder))


def _skipped(name: str, decoder: Any) -> bool:
    """Return whether transformers skips a stored tensor on purpose."""
    return name.endswith(NO_WEIGHTS) or may_be_ignored(f"{decoder.base_model_prefix}.{name}", decoder)


def _any_layer(name: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", name)


def _embedding_rows(weights: WeightsFolder) -> int | None:
    """Return W, or None if no tensor is known to be the token embedding."""
    found: list[Any] = [
        stored.shape[0]
        for name, stored in weights.tensors.items()
        if name.split(".")[-2:] in [[part, "weight"] for part in _EMBEDDINGS]
    ]
    return found[0] if len(found) == 1 else None
