"""The chat template of a decoder's own tokenizer (``model_type: auto``), as data like the other templates.

A chat template is a program that writes a whole dialogue. Here it writes a few dialogues whose texts are markers. The
text around the markers is the layout, if it is the same in each turn:

* Everything that the program writes before an answer is context, even if its own prompt for an answer is shorter. This
  includes the empty ``<think>`` block of a thinking model. The block stays when the dialogue continues, although such
  programs drop it from earlier turns: in training, an answer must follow the same text as in chat.
* An answer ends with the first special token after it, or with the end token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from video_llama.common.errors import ConfigError
from video_llama.prompts.labels import marker
from video_llama.prompts.templates import MODEL_TYPES, Layout, Template
from video_llama.prompts.tokenizer import HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer

_ODD = "é猫😀 <b>&amp;</b> \"'\\ {text} {system} {} {{ x }} {% y %} %s\n\n- 2."
"""Text that careless programs change."""

_SYSTEM = "\ufdd0system\ufdd1"
"""Marks the system message; questions and answers have ``marker``."""

DATE = "26 Jul 2024"
"""The date for programs that write today's date by default; it is LLaMA 3's own default. No prompt depends on the day."""

Turns = Sequence[tuple[str, str | None]]


class _Unusable(Exception):
    """The reason that a chat template cannot be used."""


def chat_template(directory: str | Path, tokenizer: Tokenizer) -> Template:
    """Return the template of a decoder folder.

    Args:
        directory: the decoder.
        tokenizer: its tokenizer.
    Raises:
        ConfigError: it has no chat template, or one that follows no layout.
        WeightsError: the file with its chat template cannot be read.
    """
    library = _library(tokenizer)
    others = "|".join(name for name in MODEL_TYPES if not name.startswith("pretrain_"))
    if not library.chat_template:
        raise ConfigError(
            [f"model.model_type: auto, but the tokenizer of {directory} has no chat template. Choose {others}."]
        )

    try:
        if "strftime_now" in library.chat_template and "date_string" not in library.chat_template:
            raise _Unusable("it writes today's date, so that a prompt would be another every day")
        template = _take_apart(_program(library), _special_tokens(library), tokenizer)
        return replace(template, chat_with_system=_layout_with_system(library, tokenizer))
    except _Unusable as reason:
        raise ConfigError(
            [f"model.model_type: auto cannot use the chat template of {directory}: {reason}. Choose {others}."]
        ) from reason


def contradiction(directory: str | Path, tokenizer: Tokenizer, template: Template) -> str | None:
    """Return how a chosen template differs from a decoder's own chat template. None: not, or the decoder has none.

    Only the text between questions and answers counts: neither white space nor start and end tokens, nor the system
    message, which is free.

    Args:
        directory: the decoder.
        tokenizer: its tokenizer.
        template: the chosen one.
    """
    library = _library(tokenizer)
    if not library.chat_template:
        return None
    chosen = _between_turns(template, library)
    try:
        own = _plain(_around_markers(_program(library), 3)[1:3], library)
    except _Unusable as reason:
        source = str(library.chat_template)
        missing = [text for text in chosen if text not in "".join(source.split())]
        return f"writes {missing[0]!r}, which the chat template of {directory} does not ({reason})" if missing else None
    if own == chosen:
        return None
    fitting = [name for name, other in MODEL_TYPES.items() if _between_turns(other, library) == own]
    return (
        f"writes {chosen[0]!r} and {chosen[1]!r} after questions and answers, but the chat template of {directory} writes "
        f"{own[0]!r} and {own[1]!r}. Choose {'|'.join(fitting) or 'auto'}, unless the branch was trained with this one"
    )


def _between_turns(template: Template, library: Any) -> tuple[str, ...]:
    """Return the text after a question and after an answer."""

    def write(turns: Turns) -> str:
        return "".join(span.text for span in template.render(template.chat, turns))

    return _plain(_around_markers(write, 3)[1:3], library)


def _plain(parts: Sequence[str], library: Any) -> tuple[str, ...]:
    """Return texts without white space, and without the tokens that begin and end all texts."""
    names = library.special_tokens_map
    tokens = "|".join(re.escape(names[name]) for name in ("bos_token", "eos_token") if names.get(name))
    return tuple("".join(re.sub(tokens, "", part).split()) for part in parts)


def _program(library: Any, system: str | None = None) -> Callable[[Turns], str]:
    """Return the program of a tokenizer: turns to text; with a last answer of None, the prompt for one.

    It raises _Unusable.

    Args:
        library: the tokenizer.
        system: system message of the dialogues. None: what the program makes of none.
    """
    first = [] if system is None else [{"role": "system", "content": system}]

    def write(turns: Turns) -> str:
        messages = first + [
            {"role": role, "content": text}
            for role, text in zip(("user", "assistant") * len(turns), chain(*turns), strict=True)
            if text is not None
        ]
        waits = turns[-1][1] is None
        try:
            text = library.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=waits, enable_thinking=False, date_string=DATE
            )
        except Exception as error:  # the program may raise anything
            raise _Unusable(f"it fails ({' '.join(str(error).split())[:200]})") from error
        return str(text)

    return write


def _layout_with_system(library: Any, tokenizer: Tokenizer) -> Layout | None:
    """Return the layout of dialogues with a system message; None: the program has no place for one."""
    try:
        layout = _take_apart(_program(library, _SYSTEM), _special_tokens(library), tokenizer).chat
        is_kept = _program(library, _ODD)([("", None)]).count(_ODD) == 1
    except _Unusable:
        return None
    if not is_kept or layout.first.count(_SYSTEM) != 1 or _SYSTEM in layout.next + layout.answer:
        return None
    return replace(layout, first=layout.first.replace(_SYSTEM, "{system}"))


def _take_apart(write: Callable[[Turns], str], special: set[str], tokenizer: Tokenizer) -> Template:
    """Return the template of the layout that a program follows.

    Args:
        write: the program: turns to text; with a last answer of None, the prompt for one.
        special: the special tokens of the tokenizer that the program belongs to.
        tokenizer: the one that encodes prompts.
    Raises:
        _Unusable: it follows no layout, or one that the tokenizer cannot encode.
    """
    before, asking = _around_markers(write, 1)
    start, between, after = _around_markers(write, 2)
    if start != before or not between.startswith(asking):
        raise _Unusable("an answered question does not begin with the prompt that asks for the answer")
    opening = (
        between if between.removeprefix(asking).strip() else asking
    )  # the model generates the space before an answer
    found = re.search("|".join(map(re.escape, sorted(special, key=len, reverse=True))), after)
    tail = after[: found.end()] if found else ""
    end_sym = found.group() if found else tokenizer.decode([tokenizer.eos_id])
    following = _following(write, before, asking, between, tail)
    first = before + "{text}" + opening
    tokens = tokenizer.encode(first)
    start_text = first[: tokens[0].end] if tokens and tokens[0].id == tokenizer.bos_id else ""
    layout = Layout(
        first=first.removeprefix(start_text),
        next=following + "{text}" + opening,
        answer=between.removeprefix(opening) + "{text}" + (tail or end_sym),
    )
    caption = before.removeprefix(start_text) + "{}" + between
    template = Template(name="auto", training=layout, chat=layout, caption=caption, end_sym=end_sym, trims=True)
    _check_tokens(template, special, tokenizer)
    _check_on_odd_texts(write, template, start_text)
    return template


def _following(write: Callable[[Turns], str], before: str, asking: str, between: str, tail: str) -> str:
    """Return the text between an answer's end and the next question, after checking that all turns are alike."""
    waits = _around_markers(write, 5)
    answered = _around_markers(write, 6)
    questions, answers = {waits[2], waits[4], answered[2], answered[4]}, {waits[1], waits[3], answered[1], answered[3]}
    if {waits[0], answered[0]} != {before} or len(questions) != 1 or len(answers) != 1:
        raise _Unusable("it writes the turns of a dialogue in different ways")
    (question,), (answer,) = questions, answers
    if not answer or not between.startswith(answer) or (waits[5], answered[5]) != (asking, between):
        raise _Unusable("it writes the last turn of a dialogue in another way than those before")
    if not question.startswith(tail) or not answered[6].startswith(tail):
        raise _Unusable("its answers do not always end in the same way")
    return question.removeprefix(tail)


def _around_markers(write: Callable[[Turns], str], n_texts: int) -> list[str]:
    """Return the n + 1 parts around the texts of a dialogue of n questions and answers."""
    questions = [marker(k) for k in range(0, n_texts, 2)]
    answers = [marker(k) for k in range(1, n_texts, 2)]
    turns = list(zip_longest(questions, answers))
    parts = re.split("\ufdd0(\\d+)\ufdd1", write(turns))
    if parts[1::2] != [str(k) for k in range(n_texts)]:
        raise _Unusable("it does not write every question and answer once, in order")
    return parts[::2]


def _check_tokens(template: Template, special: set[str], tokenizer: Tokenizer) -> None:
    """Raise _Unusable unless each special token is one token, and the one that ends answers is decoded."""
    layout, end_sym = template.chat, template.end_sym
    for token in (end_sym, *(s for s in special if s in layout.first + layout.next + layout.answer)):
        if len(tokenizer.encode(token)) != 1:
            raise _Unusable(f"it writes {token!r}, which is not one token of the tokenizer")
    if not tokenizer.decode([t.id for t in tokenizer.encode(end_sym)]):
        raise _Unusable(f"its answers end with {end_sym!r}, which is the start or padding token")


def _check_on_odd_texts(write: Callable[[Turns], str], template: Template, start_text: str) -> None:
    """Raise _Unusable unless the template and the program write odd texts alike."""
    if template.caption.count("{}") != 1:
        raise _Unusable("it writes {} itself, which stands for a prompt here")
    opened = start_text + "".join(span.text for span in template.render(template.chat, [(_ODD, None)]))
    end = template.chat.answer.rpartition("{text}")[2]
    answered = start_text + "".join(span.text for span in template.render(template.chat, [(_ODD, _ODD)]))
    if not opened.startswith(write([(_ODD, None)])) or not write([(_ODD, _ODD)]).startswith(answered.removesuffix(end)):
        raise _Unusable("it changes what people write")


def _library(tokenizer: Tokenizer) -> Any:
    """Return a transformers tokenizer that runs the chat template."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer.library
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers import models
    from transformers import PreTrainedTokenizerFast

    assert isinstance(tokenizer, SentencePieceTokenizer)
    library = PreTrainedTokenizerFast(
        tokenizer_object=FastTokenizer(models.BPE()),  # only writes text; our own tokenizer encodes it
        chat_template=tokenizer.files.chat_template,
        **tokenizer.names,
    )
    library.add_tokens([*tokenizer.special, *tokenizer.files.declared], special_tokens=True)
    return library


def _special_tokens(library: Any) -> set[str]:
    """Return the texts of all special tokens."""
    return {*library.all_special_tokens, *(t.content for t in library.added_tokens_decoder.values() if t.special)}
