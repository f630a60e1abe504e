"""Answers from a vLLM: prompts are embedded here and sent whole, and token ids stream back."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import cast

import httpx2

from video_llama.common.errors import DecoderUnavailable, InternalFault, VideoLlamaError
from video_llama.conversation.decoding import Piece, Progress, Ticket
from video_llama.conversation.engine import Engine
from video_llama.conversation.prefill import embedded
from video_llama.conversation.queued_decoding import QueuedDecoding
from video_llama.conversation.scheduler import Answer, Request, TokenChance, token_chance
from video_llama.conversation.settings import GenerationSettings
from video_llama.conversation.vllm_server import VllmServer
from video_llama.conversation.vllm_wire import check_settings, completion, packed, read_step

log = logging.getLogger(__name__)

CONNECT_S = 10.0
SILENCE_S = 300.0
"""Longest wait for the next token; vLLM may keep a request waiting for others."""


class VllmDecoding(QueuedDecoding):
    """A ``Decoding`` by a vLLM, which batches the answers continuously.

    vLLM only generates tokens. Where an answer ends and what its text is are decided here, as with the model's own decoder;
    closing the stream ends the answer there too.

    Args:
        engine: embeds prompts; its decoder may be an ``EmbeddingAlone``.
        server: the vLLM.
        max_rows: most answers generated at once.
        max_waiting: most prompts that wait.
    """

    def __init__(self, engine: Engine, server: VllmServer, *, max_rows: int = 64, max_waiting: int = 256) -> None:
        super().__init__(max_rows, max_waiting)
        self._engine, self._server = engine, server
        self._tasks: dict[Ticket, asyncio.Task[None]] = {}  # of the thread alone, like the following
        self._timers: dict[Ticket, asyncio.TimerHandle] = {}
        self._embedder = ThreadPoolExecutor(1, "video_llama embedding")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="video_llama vllm", daemon=True)
        self._thread.start()

    def check(self, settings: GenerationSettings, n_likeliest: int | None) -> None:
        """See ``Decoding``."""
        check_settings(settings, n_likeliest)

    def close(self) -> None:
        """See ``Decoding``."""
        self._end_all()
        if self._thread.is_alive():
            self._in_loop(self._loop.stop)
            self._thread.join()
        self._embedder.shutdown()

    def reserve(
        self, on_event: Callable[[Progress], None], *, client: str = "", deadline_s: float | None = None
    ) -> Ticket:
        """See ``Decoding``."""
        ticket = super().reserve(on_event, client=client, deadline_s=deadline_s)
        if ticket.deadline is not None:
            self._in_loop(self._watch, ticket, ticket.deadline)
        return ticket

    def fill(self, ticket: Ticket, requests: Sequence[Request]) -> None:
        """See ``Decoding``."""
        super().fill(ticket, requests)
        self._in_loop(self._start)

    def _on_end(self, ticket: Ticket, started: bool) -> None:
        self._in_loop(self._stop, ticket)

    def _in_loop(self, call: Callable[..., object], *args: object) -> None:
        """Call something in the thread, unless it has ended."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._client = httpx2.AsyncClient(
            headers=self._server.headers,
            timeout=httpx2.Timeout(SILENCE_S, connect=CONNECT_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=self._max_rows),
            trust_env=False,  # prompts go to vLLM alone
        )
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._finish())
            self._loop.close()

    async def _finish(self) -> None:
        """Close all streams, and wait until they are."""
        while tasks := asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()
        await self._loop.shutdown_asyncgens()

    def _start(self) -> None:
        """Send waiting prompts while there is room."""
        while sum(len(ticket.requests) for ticket in self._tasks) < self._max_rows:
            if (ticket := self._take()) is None:
                return
            self._tasks[ticket] = self._loop.create_task(self._answer(ticket))

    def _stop(self, ticket: Ticket) -> None:
        """Close the streams of a ticket, and let others start."""
        if (timer := self._timers.pop(ticket, None)) is not None:
            timer.cancel()
        if (task := self._tasks.pop(ticket, None)) is not None:
            task.cancel()
        self._start()

    def _watch(self, ticket: Ticket, deadline: float) -> None:
        self._timers[ticket] = self._loop.call_at(deadline, self._end_late, ticket)

    async def _answer(self, ticket: Ticket) -> None:
        """Answer a ticket's requests, and end it."""
        streams = [self._loop.create_task(self._stream(ticket, *numbered)) for numbered in enumerate(ticket.requests)]
        try:
            await asyncio.gather(*streams)
        except DecoderUnavailable as error:
            self._fail_for(ticket, error)
        except VideoLlamaError as error:
            self.fail(ticket, error)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            self._fail_for(ticket, self._server.unreachable(error))
        except Exception as error:  # a fault of one answer must not keep its client waiting
            log.exception("an answer of vLLM could not be read")
            self.fail(ticket, InternalFault(f"answering failed: {error!r}"))
        else:
            self._end(ticket)
        finally:
            for stream in streams:
                stream.cancel()

    def _fail_for(self, ticket: Ticket, error: DecoderUnavailable) -> None:
        """End a ticket because of vLLM, which concerns whoever runs the server."""
        log.error("%s", error)
        self.fail(ticket, error)

    async def _stream(self, ticket: Ticket, index: int, request: Request) -> None:
        """Pass on one answer."""
        tokenizer = self._engine.spec.tokenizer
        answer = Answer(request, tokenizer)
        body = await self._loop.run_in_executor(self._embedder, self._body, request)
        address = f"{self._server.url}/v1/completions"
        headers = {"Content-Type": "application/json"}
        async with self._client.stream("POST", address, content=body, headers=headers) as response:
            if response.status_code != 200:
                raise self._server.refusal(response.status_code, (await response.aread()).decode(errors="replace"))
            reason: str | None = None
            source = cast("AsyncGenerator[httpx2.ServerSentEvent, None]", aiter(httpx2.EventSource(response)))
            async with aclosing(source) as events:
                async for event in events:
                    if event.data == "[DONE]":
                        break
                    step = read_step(event.data, request.n_likeliest)
                    for token, log_probs in zip(step.ids, step.log_probs, strict=True):
                        chances: Sequence[TokenChance] = ()
                        if log_probs is not None:
                            chances = [token_chance(tokenizer, answer.tokens, token, *log_probs)]
                        text = answer.take(token)
                        if not self.has_ended(ticket):
                            ticket.tell(Piece(index, text, chances, 1, answer.finish_reason, [token]))
                        if answer.finish_reason is not None:
                            return
                    reason = step.finish_reason or reason
        raise DecoderUnavailable(
            f"{self._server.url}: vLLM ended an answer before its end ({reason or 'no reason given'})"
        )

    def _body(self, request: Request) -> bytes:
        embeds = embedded(self._engine.model, request.prompt)
        return completion(self._server.model, packed(embeds), request, self._engine.spec.tokenizer.eos_id)
