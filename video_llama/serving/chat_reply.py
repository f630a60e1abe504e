"""The answers to a request, whole or in chunks, in the shape of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, Field

from video_llama.conversation.worker import Piece, Started, TokenChance

FinishReason = Literal["stop", "length"]


class LikelyToken(BaseModel):
    """A token that the model might have chosen."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(LikelyToken):
    """A token of the answer."""

    top_logprobs: list[LikelyToken]


class LogProbs(BaseModel):
    """Log-probabilities of the tokens of an answer."""

    content: list[ChosenToken]


class AnswerMessage(BaseModel):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    content: str


class Delta(BaseModel):
    """What a chunk adds to an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class Choice(BaseModel):
    """One of the n answers."""

    index: int
    message: AnswerMessage
    logprobs: LogProbs | None
    finish_reason: FinishReason


class ChunkChoice(BaseModel):
    """What a chunk adds to one of the n answers."""

    index: int
    delta: Delta
    logprobs: LogProbs | None
    finish_reason: FinishReason | None


class PromptDetails(BaseModel):
    """What the prompt consists of."""

    multimodal_tokens: int


class Usage(BaseModel):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class Reply(BaseModel):
    """What whole answers and their chunks have in common."""

    id: str
    created: int = Field(description="seconds since 1970")
    model: str


class ChatReply(Reply):
    """The answers to a request."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[Choice]
    usage: Usage
    sound: list[str] = Field(
        description="for each file of the dialogue, whether its sound was used: `used`, `silent`, `no track`, `off`, or why "
        "it could not be decoded"
    )
    damage: list[str] = Field(description="for each file, what is reported of a damaged one; empty: nothing")


class ChatChunk(Reply):
    """A part of the answers to a request. The first one has `sound` and `damage`."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]
    usage: Usage | None = None
    sound: list[str] | None = None
    damage: list[str] | None = None


@dataclass
class _Answer:
    text: str = ""
    tokens: list[ChosenToken] = field(default_factory=list)
    finish_reason: FinishReason | None = None


class ReplyWriter:
    """Turns the progress of answers into a reply, or into chunks.

    Args:
        id, created, model: of the reply.
        n: answers.
        with_logprobs: whether log-probabilities are wanted.
    """

    def __init__(self, id: str, created: int, model: str, n: int, *, with_logprobs: bool) -> None:
        self._head: dict[str, Any] = {"id": id, "created": created, "model": model}
        self._answers = [_Answer() for _ in range(n)]
        self._with_logprobs = with_logprobs
        self._started: Started | None = None
        self._n_tokens = 0

    def start(self, started: Started) -> None:
        """Take what is known before the first token."""
        self._started = started

    def add(self, piece: Piece) -> None:
        """Take a step of an answer."""
        answer = self._answers[piece.index]
        answer.text += piece.text
        answer.tokens += _chosen(piece.tokens)
        answer.finish_reason = piece.finish_reason or answer.finish_reason
        self._n_tokens += piece.n_tokens

    @property
    def finish_reason(self) -> str:
        """Why the answers ended, once all have: length, if that cut one of them; else stop."""
        return "length" if any(answer.finish_reason == "length" for answer in self._answers) else "stop"

    @property
    def usage(self) -> Usage:
        """Numbers of tokens so far."""
        prompt, media = (self._started.prompt_tokens, self._started.media_tokens) if self._started else (0, 0)
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=self._n_tokens,
            total_tokens=prompt + self._n_tokens,
            prompt_tokens_details=PromptDetails(multimodal_tokens=media),
        )

    def reply(self) -> dict[str, Any]:
        """Return the whole reply, once it is complete."""
        choices = [
            {
                "index": k,
                "message": AnswerMessage(content=answer.text),
                "logprobs": LogProbs(content=answer.tokens) if self._with_logprobs else None,
                "finish_reason": answer.finish_reason,
            }
            for k, answer in enumerate(self._answers)
        ]
        return ChatReply.model_validate(
            {**self._head, "choices": choices, "usage": self.usage, **self._files()}
        ).model_dump()

    def first_chunks(self) -> list[dict[str, Any]]:
        """Return the chunks before the first token."""
        opening = Delta(role="assistant", content="")
        chunks = [self._chunk(k, opening) for k in range(len(self._answers))]
        return [{**chunks[0], **self._files()}, *chunks[1:]]

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """Return the chunks of a step, of which ``add`` was told."""
        found = []
        if piece.text or piece.tokens:
            logprobs = LogProbs(content=_chosen(piece.tokens)) if self._with_logprobs else None
            found.append(self._chunk(piece.index, Delta(content=piece.text), logprobs=logprobs))
        if piece.finish_reason is not None:
            found.append(self._chunk(piece.index, Delta(), finish_reason=piece.finish_reason))
        return found

    def usage_chunk(self) -> dict[str, Any]:
        """Return the chunk that has no choice, and the numbers of tokens."""
        return {**self._chunk(0, Delta()), "choices": [], "usage": self.usage.model_dump()}

    def _chunk(
        self,
        index: int,
        delta: Delta,
        logprobs: LogProbs | None = None,
        finish_reason: FinishReason | None = None,
    ) -> dict[str, Any]:
        choice = ChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=finish_reason)
        chunk = ChatChunk(**self._head, choices=[choice]).model_dump()
        chunk["choices"][0]["delta"] = delta.model_dump(exclude_none=True)
        return {name: value for name, value in chunk.items() if value is not None}

    def _files(self) -> dict[str, list[str]]:
        files = self._started.files if self._started else ()
        return {"sound": [str(file.audio_status) for file in files], "damage": [file.damage for file in files]}


def _chosen(tokens: Sequence[TokenChance]) -> list[ChosenToken]:
    return [
        ChosenToken(
            token=chance.token,
            logprob=chance.logprob,
            bytes=list(chance.token.encode()),
            top_logprobs=[
                LikelyToken(token=text, logprob=logprob, bytes=list(text.encode())) for text, logprob in chance.top
            ],
        )
        for chance in tokens
    ]
