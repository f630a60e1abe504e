"""Tokenizer folders of many families, with the special tokens and chat templates that they come with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.conftest import FIXTURES
from tests.decoders import CHATML, INST
from tests.unit.prompts.fast_tokenizer import write_fast_tokenizer

LLAMA = FIXTURES / "reference/text/tokenizer/tokenizer.model"
N = 480
"""Pieces of LLAMA."""
IM = {"<|im_start|>": N, "<|im_end|>": N + 1}


def write_json(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def llama(folder: Path, **settings: Any) -> Path:
    """LLaMA-1/2's tokenizer with more settings."""
    folder.mkdir(exist_ok=True, parents=True)
    shutil.copy(LLAMA, folder)
    write_json(folder, "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", **settings})
    return folder


def decoder_entries(added: dict[str, int], **flags: Any) -> dict[str, Any]:
    """Return ``added_tokens_decoder`` of a ``tokenizer_config.json``."""
    return {str(i): {"content": text, "special": True, **flags} for text, i in added.items()}


def added_in_settings(folder: Path) -> Path:
    return llama(folder, added_tokens_decoder=decoder_entries(IM), eos_token="<|im_end|>", chat_template=CHATML)


def added_in_own_file(folder: Path) -> Path:
    llama(folder, eos_token="<|im_end|>", chat_template=CHATML)
    write_json(folder, "added_tokens.json", IM)
    return folder


def added_without_the_flag(folder: Path) -> Path:
    """As some fine-tunes of Mistral have them: not special, but written by the chat template."""
    entries = decoder_entries(IM, special=False)
    return llama(folder, added_tokens_decoder=entries, eos_token="<|im_end|>", chat_template=CHATML)


def added_for_another_class(folder: Path) -> Path:
    return llama(
        folder,
        tokenizer_class="InternLM2Tokenizer",
        added_tokens_decoder=decoder_entries(IM),
        eos_token={"content": "<|im_end|>"},
        chat_template=CHATML,
    )


def write_tokenizer_json(folder: Path, added: dict[str, int], **flags: Any) -> None:
    """Write the ``tokenizer.json`` that agrees with LLAMA."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(LLAMA))
    pieces = [model.id_to_piece(i) for i in range(N)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = sorted(
        (-model.get_score(i), piece[:k], piece[k:])
        for i, piece in enumerate(pieces)
        if i > 2 and not model.is_byte(i)
        for k in range(1, len(piece))
        if piece[:k] in vocabulary and piece[k:] in vocabulary
    )
    bpe = models.BPE(
        vocabulary, [(left, right) for _, left, right in merges], unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer = FastTokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    content = json.loads(tokenizer.to_str())
    rules = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **flags}
    tokens = {"<unk>": 0, "<s>": 1, "</s>": 2, **added}
    content["added_tokens"] = [{"id": i, "content": text, **rules} for text, i in tokens.items()]
    write_json(folder, "tokenizer.json", content)


def added_in_tokenizer_json(folder: Path) -> Path:
    llama(folder, eos_token="<|im_end|>", bos_token="<s>", chat_template=CHATML)
    write_tokenizer_json(folder, IM)
    return folder


def sentencepiece_with(folder: Path, chat: str, end: str, **symbols: list[str]) -> Path:
    """Train a SentencePiece model that has symbols of its own."""
    folder.mkdir(exist_ok=True, parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a cat", "what does </s> mean in HTML?", "[INST] <|im_end|> the dog"] * 20),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        **symbols,
    )
    (folder / "tokenizer.vocab").unlink()
    settings = {"tokenizer_class": "LlamaTokenizer", "chat_template": chat, "eos_token": end}
    write_json(folder, "tokenizer_config.json", settings)
    return folder


def control_symbols(folder: Path) -> Path:
    """As in Mistral v3: its marks are control symbols of the model."""
    return sentencepiece_with(folder, INST, "</s>", control_symbols=["[INST]", "[/INST]"])


def user_defined_symbols(folder: Path) -> Path:
    """As in Yi."""
    return sentencepiece_with(folder, CHATML, "<|im_end|>", user_defined_symbols=["<|im_start|>", "<|im_end|>"])


def plain_llama(folder: Path) -> Path:
    return llama(folder, chat_template=INST)


def byte_level(folder: Path) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return write_fast_tokenizer(folder, "<|im_start|>", chat=CHATML, **special)


def fast_mistral(folder: Path) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return write_fast_tokenizer(folder, "[INST]", "[/INST]", chat=INST, starts=True, **special)


def unigram(folder: Path) -> Path:
    """Its special tokens are in the vocabulary, where a text could find them."""
    letters = [(chr(c), -5.0) for c in range(33, 127)]
    special = ["<unk>", "<s>", "</s>", *IM]
    vocabulary = [*((text, 0.0) for text in special), ("▁", -2.0), ("▁cat", -3.0), *letters]
    tokenizer = FastTokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    library = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<s>", unk_token="<unk>", chat_template=CHATML
    )
    library.add_tokens([*special], special_tokens=True)
    library.save_pretrained(folder)
    return folder


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "LLaMA-2": plain_llama,
    "ChatML in tokenizer_config.json": added_in_settings,
    "ChatML in added_tokens.json": added_in_own_file,
    "ChatML in tokenizer.json": added_in_tokenizer_json,
    "ChatML without the flag": added_without_the_flag,
    "ChatML of another class": added_for_another_class,
    "control symbols": control_symbols,
    "user-defined symbols": user_defined_symbols,
    "byte-level": byte_level,
    "byte-level Mistral": fast_mistral,
    "Unigram": unigram,
}
