"""Requests answered one after the other, for decoders whose rows cannot come and go."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial

from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.scheduler import Answer, Event, Request
from video_llama.conversation.streaming import in_thread
from video_llama.prompts.tokenizer import Tokenizer


class SerialScheduler:
    """Does what a ``Scheduler`` does, with transformers' own loop.

    Args:
        generate: answers a request, and passes on its tokens.
        tokenizer: the decoder's.
    """

    def __init__(
        self, generate: Callable[[Request, Callable[[Sequence[int]], None]], None], tokenizer: Tokenizer
    ) -> None:
        self._generate, self._tokenizer = generate, tokenizer
        self._waiting: deque[Answer] = deque()
        self._answer: Answer | None = None
        self._tokens: Generator[Sequence[int], None, None] | None = None

    @property
    def busy(self) -> bool:
        """Whether an answer is not finished."""
        return self._answer is not None or bool(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether another request would start with the next step."""
        return not self.busy

    def add(self, request: Request) -> Answer:
        """Take a request. Its answer comes without log-probabilities."""
        answer = Answer(request, self._tokenizer)
        self._waiting.append(answer)
        return answer

    def cancel(self, answer: Answer) -> None:
        """End an answer; it gives no more events. It may be finished already."""
        if answer in self._waiting:
            self._waiting.remove(answer)
        elif answer is self._answer:
            self._finish()

    def step(self) -> list[Event]:
        """Wait for the next token of the present answer; start one if there is none."""
        if self._answer is None:
            self._answer = self._waiting.popleft()
            self._tokens = in_thread(partial(self._generate, self._answer.request))
        answer = self._answer
        assert self._tokens is not None
        try:
            tokens = next(self._tokens, None)
        except VideoLlamaError as error:
            self._finish()
            return [Event(answer, done=True, error=error.with_traceback(None))]
        if tokens is None:  # which cannot be before its last token
            self._finish()
            return []
        events = []
        for token in tokens:
            piece = answer.take(token)
            events.append(Event(answer, [token], piece, answer.text.done))
        if answer.text.done:
            self._finish()
        return events

    def _finish(self) -> None:
        """Stop generating."""
        if self._tokens is not None:
            self._tokens.close()
        self._answer = self._tokens = None
