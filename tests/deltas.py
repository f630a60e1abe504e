"""A tiny LLaMA and a delta to it, as the Hugging Face folders that people have.

The delta adds one token, ``[PAD]``, as Vicuna's first ones do.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import video_llama.toy

TOKENIZER = Path(video_llama.toy.__file__).parent / "weights" / "decoder"
VOCABULARY = 560
CONFIG: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "vocab_size": VOCABULARY,
    "initializer_range": 0.3,
}
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")
Tensors = dict[str, Tensor]


def base_tensors() -> Tensors:
    """Random weights in fp16, with the buffers that older libraries saved."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tensors = {name: t.half() for name, t in LlamaForCausalLM(LlamaConfig(**CONFIG)).state_dict().items()}
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.tensor([1.0, 0.1, 0.01, 0.001]) for i in (0, 1)}
    return tensors | buffers


def delta_tensors(base: Tensors, added: int = 1, seed: int = 1) -> Tensors:
    """A small change to each weight, and more rows in the embeddings."""
    chance = torch.Generator().manual_seed(seed)
    delta = {}
    for name, tensor in base.items():
        rows = len(tensor) + (added if name in EMBEDDINGS else 0)
        small = 0.0 if "inv_freq" in name else 0.01
        delta[name] = (small * torch.randn(rows, *tensor.shape[1:], generator=chance)).half()
    return delta


def write_folder(folder: Path, tensors: Tensors, suffix: str = ".safetensors", files: int = 1) -> Path:
    """Write a decoder with its config and tokenizer.

    Args:
        folder: where to.
        tensors: its weights.
        suffix: ``.safetensors`` or ``.bin``.
        files: how many its weights are spread over; two and more come with an index.
    """
    folder.mkdir(parents=True)
    stem, save = ("model", save_file) if suffix == ".safetensors" else ("pytorch_model", torch.save)
    names = [f"{stem}{suffix}"] if files == 1 else [f"{stem}-{i + 1:05d}-of-{files:05d}{suffix}" for i in range(files)]
    table = {name: names[i * files // len(tensors)] for i, name in enumerate(tensors)}
    for file in names:
        save({name: tensors[name] for name in tensors if table[name] == file}, folder / file)
    if files > 1:
        index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": table}
        (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index))
    rows = len(tensors[EMBEDDINGS[0]])
    LlamaConfig(**{**CONFIG, "vocab_size": rows}, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    shutil.copy(TOKENIZER / "tokenizer.model", folder)
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if rows > VOCABULARY:
        settings["pad_token"] = "[PAD]"
        (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": VOCABULARY}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def read_folder(folder: Path) -> Tensors:
    """Read all tensors of a folder of safetensors files, through the library alone."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}
