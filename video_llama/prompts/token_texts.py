"""The text that each token of a sample adds, for people who look at samples."""

from __future__ import annotations

from collections.abc import Sequence

from video_llama.prompts.tokenizer import Tokenizer


def token_texts(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """Return the text that each token adds to that of those before it; joined, the text of all.

    A token adds none if it is a start token, or a part of a character that a later token completes.

    Args:
        ids: tokens of one text, without slots of media.
    """
    texts, before = list[str](), ""
    for n in range(1, len(ids) + 1):
        now = tokenizer.decode(list(ids[:n]))
        if n < len(ids) and tokenizer.may_change(ids[:n], now):
            texts.append("")
        else:
            texts.append(now[len(before) :])
            before = now
    return texts
