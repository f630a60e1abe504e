"""Errors of requests, in the shape and with the statuses of OpenAI's API."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from video_llama.common.errors import (
    DeadlineExceeded,
    DecodeError,
    DecoderUnavailable,
    Draining,
    InternalFault,
    NoSoundTrack,
    OutOfMemory,
    PromptTooLong,
    QueueFull,
    TooManyFrames,
    TooManySegments,
    VideoLlamaError,
)

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5
"""Seconds after which a client may try again, where nothing better is known."""

STATUSES: dict[type[VideoLlamaError], tuple[int, str]] = {
    QueueFull: (429, "queue_full"),
    Draining: (503, "shutting_down"),
    OutOfMemory: (503, "out_of_memory"),
    DecoderUnavailable: (503, "decoder_unavailable"),
    InternalFault: (500, "internal_error"),
    DeadlineExceeded: (504, "deadline_exceeded"),
    PromptTooLong: (400, "context_length_exceeded"),
    DecodeError: (400, "undecodable_media"),
    NoSoundTrack: (400, "no_sound_track"),
    TooManyFrames: (400, "too_many_frames"),
    TooManySegments: (400, "too_many_segments"),
}
"""Status and code of each error of the model. Any other is 400: the request asks for something that the model cannot do."""


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str = Field(description="invalid_request_error, rate_limit_error or server_error")
    param: str | None = Field(description="the field of the request that is wrong")
    code: str | None


class ErrorReply(BaseModel):
    """The body of an error."""

    error: ErrorDetail


class ApiError(Exception):
    """A request that is refused, or that failed."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = {} if retry_after_s is None else {"retry-after": str(max(1, math.ceil(retry_after_s)))}
        super().__init__(message)

    @classmethod
    def of(cls, error: VideoLlamaError, labels: Mapping[str, str] | None = None, param: str | None = None) -> ApiError:
        """Return an error of the model as one of a request.

        Args:
            labels: what is said in place of a path, which is the server's own business.
        """
        found = (STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
        status, code = next(found, (400, None))
        message = str(error)
        if isinstance(error, DecoderUnavailable):  # it names addresses and folders
            message = "the decoder cannot be reached, or has failed; the server's log says why"
        elif isinstance(error, InternalFault):
            log.error("a request failed: %s", error)
            message = "the answer failed; the server's log says why"
        for path, label in (labels or {}).items():
            message = message.replace(path, label)
        retry_after_s = getattr(error, "retry_after_s", RETRY_AFTER_S) if status in (429, 503) else None
        return cls(status, message, param=param, code=code, retry_after_s=retry_after_s)

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        kind = "rate_limit_error" if self.status == 429 else "server_error" if self.status >= 500 else None
        detail = ErrorDetail(
            message=_valid(self.message),
            type=kind or "invalid_request_error",
            param=None if self.param is None else _valid(self.param),
            code=self.code or HTTPStatus(self.status).name.lower(),
        )
        return ErrorReply(error=detail).model_dump()


def _valid(text: str) -> str:
    """Return a text without lone surrogates, which JSON may hold and UTF-8 may not."""
    return text.encode("utf-8", "replace").decode()
