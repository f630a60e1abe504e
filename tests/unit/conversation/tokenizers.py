"""Tokenizers that split and spell text in different ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from tests.decoders import FAMILIES

WORDS = ["##", "###", "▁red", "It", "▁is", "re", "is", "##H"]


def write_byte_fallback_tokenizer(folder: Path) -> None:
    """Write a tokenizer like those of Mistral and Gemma: spaces as ▁, and bytes for characters without a token."""
    letters = [chr(c) for c in range(33, 127)]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *letters, *WORDS]
    merges = [("#", "#"), ("##", "#"), ("##", "H"), ("r", "e"), ("I", "t"), ("i", "s"), ("▁", "is")]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = FastTokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


WRITERS: dict[str, Callable[[Path], None]] = {
    "sentencepiece": FAMILIES["llama"].write_tokenizer,
    "sentencepiece, Chinese": FAMILIES["chinese_llama"].write_tokenizer,
    "byte-level": FAMILIES["qwen2"].write_tokenizer,
    "byte fallback": write_byte_fallback_tokenizer,
}
