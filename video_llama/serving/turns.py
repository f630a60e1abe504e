"""Messages of a request as the turns of a dialogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import NamedTuple

from video_llama.common.modalities import FileKind
from video_llama.serving.api_error import ApiError
from video_llama.serving.chat_request import (
    AssistantMessage,
    AudioPart,
    ImagePart,
    InputAudioPart,
    Media,
    Part,
    SystemMessage,
    TextPart,
    UserMessage,
    VideoPart,
)
from video_llama.serving.served_model import RequestLimits, ServedModel

Messages = Sequence[SystemMessage | UserMessage | AssistantMessage]


class MediaReference(NamedTuple):
    """A file that a message shows."""

    kind: FileKind
    url: str
    where: str
    """In the request, such as ``messages[0].content[1]``."""


@dataclass(frozen=True)
class AskedTurn:
    """A question, the files shown with it, and its answer; None: it is to be answered."""

    question: str
    media: Sequence[MediaReference]
    answer: str | None = None


class AskedDialogue(NamedTuple):
    """What a request asks."""

    system: str | None
    """None: the model's own system message."""
    turns: Sequence[AskedTurn]


def asked_dialogue(messages: Messages, model: ServedModel, limits: RequestLimits) -> AskedDialogue:
    """Return the dialogue that messages make.

    Several messages of a user in a row are one question. Files come before the text of their message.

    Raises:
        ApiError: they make none, or exceed a limit.
    """
    opening = [*takewhile(_is_system, messages)]
    system = "\n".join(_text(message.content) for message in opening) if opening else None
    if system and not model.takes_system:
        raise ApiError(
            400, "the model's conversation template has no system message: leave it out", param="messages[0]"
        )
    turns: list[AskedTurn] = []
    for k, message in enumerate(messages[len(opening) :], len(opening)):
        where = f"messages[{k}]"
        if isinstance(message, SystemMessage):
            raise ApiError(400, "a system message has to come before all others", param=where)
        if isinstance(message, UserMessage):
            if turns and turns[-1].answer is None:
                previous = turns.pop()
                turns.append(_joined(previous, message, where))
            else:
                turns.append(_joined(AskedTurn("", ()), message, where))
        elif not turns or turns[-1].answer is not None:
            raise ApiError(400, "an answer without a question before it", param=where)
        else:
            turns[-1] = AskedTurn(turns[-1].question, turns[-1].media, _text(message.content))
    if not turns or turns[-1].answer is not None:
        raise ApiError(400, "the last message has to be of role user", param=f"messages[{len(messages) - 1}]")
    _check(system, turns, model, limits)
    return AskedDialogue(system, turns)


def _joined(turn: AskedTurn, message: UserMessage, where: str) -> AskedTurn:
    parts: Sequence[Part] = (
        [TextPart(type="text", text=message.content)] if isinstance(message.content, str) else message.content
    )
    text = "\n".join([*([turn.question] if turn.question else []), *(p.text for p in parts if isinstance(p, TextPart))])
    found = (_reference(part, f"{where}.content[{k}]") for k, part in enumerate(parts))
    return AskedTurn(text, [*turn.media, *(reference for reference in found if reference is not None)])


def _reference(part: Part, where: str) -> MediaReference | None:
    match part:
        case ImagePart():
            return MediaReference("image", _url(part.image_url), where)
        case VideoPart():
            return MediaReference("video", _url(part.video_url), where)
        case AudioPart():
            return MediaReference("audio", _url(part.audio_url), where)
        case InputAudioPart():
            return MediaReference("audio", f"data:audio;base64,{part.input_audio.data}", where)
    return None


def _url(media: Media | str) -> str:
    return media if isinstance(media, str) else media.url


def _is_system(message: SystemMessage | UserMessage | AssistantMessage) -> bool:
    return isinstance(message, SystemMessage)


def _text(content: str | Sequence[Part]) -> str:
    return (
        content if isinstance(content, str) else "\n".join(part.text for part in content if isinstance(part, TextPart))
    )


def _check(system: str | None, turns: Sequence[AskedTurn], model: ServedModel, limits: RequestLimits) -> None:
    for turn in turns:
        if not turn.question.strip():
            raise ApiError(400, "a message of role user has no text: ask a question", param="messages")
    n_files = sum(len(turn.media) for turn in turns)
    if n_files > limits.files:
        raise ApiError(400, f"{n_files} files; the limit is {limits.files}", param="messages")
    texts = [system or "", *chain(*((turn.question, turn.answer or "") for turn in turns))]
    if not all(map(is_unicode, texts)):
        raise ApiError(400, "a text has half of a surrogate pair, which is no character", param="messages")
    if (n_characters := sum(map(len, texts))) > model.max_text:
        raise ApiError(
            400,
            f"a text of {n_characters} characters exceeds the decoder's context of {model.max_context} tokens",
            param="messages",
            code="context_length_exceeded",
        )


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded: JSON may hold lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
