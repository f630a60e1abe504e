"""Tiny random decoders of many families, as Hugging Face folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import TOKENIZER
from tests.unit.prompts.fast_tokenizer import write_fast_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
TURNS = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'user' if m.role == 'user' else 'model' }}\n"
    "{{ m.content }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
CHINESE = [
    "视频里有一个红色的圆形，它向左移动。",
    "图中的方块是什么颜色？",
    "蓝色的三角形从右边走到左边。",
    "###Human: 你好",
]


def _llama_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder)


def _chinese_tokenizer(folder: Path) -> None:
    """Train SentencePiece on Chinese; unknown characters become bytes."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CHINESE * 10),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))


def _qwen_tokenizer(folder: Path) -> None:
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    write_fast_tokenizer(folder, "<|im_start|>", chat=CHATML, **special)


def _mistral_tokenizer(folder: Path) -> None:
    write_fast_tokenizer(folder, chat=INST, starts=True, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _gemma_tokenizer(folder: Path) -> None:
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    write_fast_tokenizer(folder, "<start_of_turn>", "<end_of_turn>", chat=TURNS, starts=True, **special)


def _gpt_tokenizer(folder: Path) -> None:
    write_fast_tokenizer(folder, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


@dataclass(frozen=True)
class Family:
    """One architecture with the kind of tokenizer that it comes with."""

    architecture: str
    write_tokenizer: Callable[[Path], None] = _gpt_tokenizer
    template: str = "vicuna"
    """``model.model_type`` for it."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """Sizes that differ from the others', or have other names."""


FAMILIES = {
    "llama": Family("llama", _llama_tokenizer, "llama_v2", {"vocab_size": 560}),
    "chinese_llama": Family("llama", _chinese_tokenizer, "ziya", {"vocab_size": 448}),
    "mistral": Family("mistral", _mistral_tokenizer, "auto", {"num_key_value_heads": 2, "sliding_window": 64}),
    "qwen2": Family("qwen2", _qwen_tokenizer, "auto", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen3": Family("qwen3", _qwen_tokenizer, "auto", {"num_key_value_heads": 2, "head_dim": 16}),
    "gemma": Family("gemma", _gemma_tokenizer, "auto", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": Family("gemma2", _gemma_tokenizer, "auto", {"num_key_value_heads": 2, "head_dim": 16}),
    "phi": Family("phi"),
    "gpt_neox": Family("gpt_neox"),
    "gpt2": Family("gpt2", sizes={"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}),
}
"""Gemma scales its embeddings, NeoX computes queries, keys and values in one layer, GPT-2's layers are no ``Linear``."""


def write_decoder(folder: Path, name: str) -> Path:
    """Write a random decoder of a family, as a folder for ``model.llama_model``."""
    family = FAMILIES[name]
    sizes = {
        "vocab_size": 304,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        **family.sizes,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(family.architecture, **sizes)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    family.write_tokenizer(folder)
    return folder
