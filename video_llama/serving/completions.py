"""From a request to its answers: checks, files, the worker, and the reply, whole or as a stream of events."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.settings import MAX_SEED, GenerationSettings
from video_llama.conversation.worker import Ask, ShownTurn
from video_llama.serving.api_error import ApiError
from video_llama.serving.chat_reply import ReplyWriter
from video_llama.serving.chat_request import MAX_STOPS, ChatRequest, check_unsupported
from video_llama.serving.media_source import MediaSource, Opened, ReadAs
from video_llama.serving.progress import Answerer, ProgressStream
from video_llama.serving.served_file import Sampling
from video_llama.serving.served_model import RequestLimits, ServedModel
from video_llama.serving.server_metrics import RequestTimes, ServerMetrics
from video_llama.serving.turns import AskedDialogue, asked_dialogue, is_unicode

log = logging.getLogger(__name__)


@dataclass
class Completions:
    """Answers requests with one model."""

    worker: Answerer
    model: ServedModel
    media: MediaSource
    metrics: ServerMetrics

    @property
    def limits(self) -> RequestLimits:
        """Limits on requests."""
        return self.media.limits

    async def respond(self, request: ChatRequest, client: str) -> Response:
        """Answer a request.

        A stream begins once the files are read and the prompt is made, so that an error of these has a status of its own.

        Raises:
            ApiError: it is refused, or fails.
        """
        async with AsyncExitStack() as stack:
            times = stack.enter_context(self.metrics.request())
            if request.model != self.model.name:
                raise ApiError(
                    404, f"The model `{request.model[:100]}` does not exist.", param="model", code="model_not_found"
                )
            check_unsupported(request)
            dialogue = asked_dialogue(request.messages, self.model, self.limits)
            settings, read_as, stops = settings_of(request), read_as_of(request, self.model), stops_of(request)
            references = [reference for turn in dialogue.turns for reference in turn.media]
            files = await self.media.open(references, read_as, stack)
            ask = Ask(
                turns=shown_turns(dialogue, files),
                settings=settings,
                stops=stops,
                system=dialogue.system,
                n=request.n or 1,
                top_logprobs=top_logprobs_of(request),
                client=client,
                deadline_s=self.limits.deadline_s,
            )
            answering = _Answering(self._writer(request), files.labels, times)
            try:
                progress = await stack.enter_async_context(ProgressStream(self.worker, ask))
                answering.writer.start(await progress.started())
            except VideoLlamaError as error:
                raise ApiError.of(error, files.labels, "messages") from error
            times.prompt_made()
            if request.stream:
                events = answering.events(progress, request)
                return EventStream(events, stack.pop_all())
            return JSONResponse(await answering.reply(progress))

    def _writer(self, request: ChatRequest) -> ReplyWriter:
        return ReplyWriter(
            f"chatcmpl-{uuid.uuid4().hex}",
            int(time.time()),
            self.model.name,
            request.n or 1,
            with_logprobs=bool(request.logprobs),
        )


@dataclass
class _Answering:
    """A request whose prompt is made."""

    writer: ReplyWriter
    labels: Mapping[str, str]
    times: RequestTimes

    async def reply(self, progress: ProgressStream) -> dict[str, Any]:
        """Wait for the answers; return the whole reply."""
        try:
            async for piece in progress.pieces():
                self._count(piece.index, piece.n_tokens)
                self.writer.add(piece)
        except VideoLlamaError as error:
            raise ApiError.of(error, self.labels) from error
        self._finish()
        return self.writer.reply()

    async def events(self, progress: ProgressStream, request: ChatRequest) -> AsyncIterator[bytes]:
        """Yield server-sent events as the answers grow. An error is an event too, since the status is sent by then."""
        options = request.stream_options
        with_usage = bool(options and options.continuous_usage_stats)
        for chunk in self.writer.first_chunks():
            yield event(chunk)
        try:
            async for piece in progress.pieces():
                self._count(piece.index, piece.n_tokens)
                self.writer.add(piece)
                for chunk in self.writer.chunks(piece):
                    yield event({**chunk, "usage": self.writer.usage.model_dump()} if with_usage else chunk)
        except VideoLlamaError as error:
            self.times.reason = "error"
            yield event(ApiError.of(error, self.labels).body)
        else:
            self._finish()
            if options and options.include_usage:
                yield event(self.writer.usage_chunk())
        yield b"data: [DONE]\n\n"

    def _count(self, index: int, n_tokens: int) -> None:
        for _ in range(n_tokens):
            self.times.token(index)

    def _finish(self) -> None:
        self.times.usage = self.writer.usage
        self.times.reason = self.writer.finish_reason


class EventStream(StreamingResponse):
    """A stream of events, and what it needs until it ends, or the client is gone, or it never begins."""

    def __init__(self, events: AsyncIterator[bytes], stack: AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        async with self._stack:
            await super().__call__(scope, receive, send)


def event(content: Mapping[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def settings_of(request: ChatRequest) -> GenerationSettings:
    """Return how tokens are chosen.

    Raises:
        ApiError: a value is outside its range.
    """
    given: dict[str, Any] = {
        "max_new_tokens": request.max_completion_tokens or request.max_tokens,
        "temperature": request.temperature,
        "repetition_penalty": request.repetition_penalty,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "seed": None if request.seed is None else request.seed % (MAX_SEED + 1),
    }
    top_p = 1.0 if request.top_p is None else request.top_p
    try:
        return GenerationSettings(top_p=top_p, **{name: value for name, value in given.items() if value is not None})
    except VideoLlamaError as error:
        raise ApiError(400, str(error), param=str(error).partition(":")[0]) from error


def stops_of(request: ChatRequest) -> list[str]:
    """Return the strings that end an answer."""
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if len(stops) > MAX_STOPS or not all(0 < len(stop) <= 1000 and is_unicode(stop) for stop in stops):
        raise ApiError(400, f"expected up to {MAX_STOPS} texts of 1 to 1000 characters", param="stop")
    return stops


def top_logprobs_of(request: ChatRequest) -> int | None:
    """Return of how many likely tokens log-probabilities are wanted; None: of none."""
    if not request.logprobs:
        if request.top_logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
        return None
    return request.top_logprobs or 0


def read_as_of(request: ChatRequest, model: ServedModel) -> ReadAs:
    """Return how clips are read.

    Raises:
        ApiError: fields contradict each other, or the model.
    """
    theirs = request.media_io_kwargs.video if request.media_io_kwargs else None
    their_audio = request.mm_processor_kwargs.use_audio_in_video if request.mm_processor_kwargs else None
    n_frames = _one(request.num_frames, theirs and theirs.num_frames, "num_frames", "media_io_kwargs.video.num_frames")
    fps = _one(request.fps, theirs and theirs.fps, "fps", "media_io_kwargs.video.fps")
    use_audio = _one(request.use_audio, their_audio, "use_audio", "mm_processor_kwargs.use_audio_in_video")
    rule = request.sampling or (None if fps is None else "fps")
    if (rule == "fps") != (fps is not None):
        raise ApiError(400, "sampling: fps and fps belong together: give both, or fps alone", param="sampling")
    if n_frames is not None and model.max_frames is not None and n_frames > model.max_frames:
        raise ApiError(400, f"{n_frames} frames; the model takes up to {model.max_frames}", param="num_frames")
    return ReadAs(use_audio, Sampling(n_frames, rule, fps))


def _one(ours: Any, theirs: Any, our_name: str, their_name: str) -> Any:
    """Return the value that one of two fields gives."""
    if ours is not None and theirs is not None and ours != theirs:
        raise ApiError(400, f"{our_name} and {their_name} differ: leave one out", param=our_name)
    return theirs if ours is None else ours


def shown_turns(dialogue: AskedDialogue, files: Opened) -> list[ShownTurn[Any]]:
    """Return the turns of a dialogue with its files, which are in the order of the messages."""
    left = iter(files)
    return [ShownTurn(turn.question, [next(left) for _ in turn.media], turn.answer) for turn in dialogue.turns]
