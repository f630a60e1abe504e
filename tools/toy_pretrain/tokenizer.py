"""Train the toy decoder's tokenizer: SentencePiece with LLaMA's settings and 560 pieces.

Byte fallback, digits split, no normalisation, a space before each text segment, ``<unk> <s> </s>`` as 0, 1, 2.
Every attribute word is a single piece, so that it can fill a media slot.
"""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import sentencepiece

from tools.toy_pretrain.text import ATTRIBUTES, Slots, example

PIECES = 560
TOKENIZER_FILE = "tokenizer.model"

CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": None,
    "clean_up_tokenization_spaces": False,
    "legacy": True,
    "model_max_length": 512,
}


def attribute_words() -> list[str]:
    """Return every word that can fill a media slot, in a fixed order."""
    return [word for words in ATTRIBUTES.values() for word in words]


def corpus(n: int = 4000) -> list[str]:
    """Return the lines that the pieces are learned from."""
    rng = random.Random(1)
    lines = []
    for _ in range(n):
        for part in example(rng):
            lines.append(" ".join(part.words) if isinstance(part, Slots) else "".join(said.text for said in part))
    return [line for text in lines for line in text.split("\n") if line.strip()]


def train_tokenizer(directory: Path) -> sentencepiece.SentencePieceProcessor:
    """Write the tokenizer as part of a Hugging Face LLaMA folder, and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()  # a file's path would be written into the model
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        model_type="bpe",
        vocab_size=PIECES,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (directory / TOKENIZER_FILE).write_bytes(model.getvalue())
    (directory / "tokenizer_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(directory / TOKENIZER_FILE))
    split = [word for word in attribute_words() if len(pieces.encode(word)) != 1]
    if split:
        raise ValueError(f"not single pieces: {split}; raise PIECES")
    return pieces
