"""Generated tokenizers like those of decoders other than LLaMA-1 and 2."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


def write_fast_tokenizer(
    folder: Path, *other: str, chat: str | None = None, starts: bool = False, **special: str
) -> Path:
    """Write a byte-level tokenizer of 300 tokens, as GPT, LLaMA-3 and Qwen have them.

    Args:
        folder: where to.
        other: special tokens without a name.
        chat: its chat template.
        starts: whether it puts its ``bos_token`` before a text.
        special: special tokens by name.
    """
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=sorted({*special.values(), *other}),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the answer is a cat", "###Human: what is it?\n###Assistant: the answer"], trainer)
    if starts:
        bos = special["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=chat, **special).save_pretrained(folder)
    return folder
