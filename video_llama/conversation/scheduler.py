"""Continuous batching: prompts join between decoding steps, finished answers leave; rows do not affect each other."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from video_llama.common.errors import OutOfMemory, VideoLlamaError
from video_llama.conversation.generation import check_room, check_stops
from video_llama.conversation.oom import within_memory
from video_llama.conversation.prefill import MediaPrefixes, Prompt, prefill, prefix_key
from video_llama.conversation.row_cache import RowCache
from video_llama.conversation.sampling import TokenChooser, choose
from video_llama.conversation.settings import GenerationSettings
from video_llama.conversation.streaming import AnswerText
from video_llama.prompts.tokenizer import Tokenizer

log = logging.getLogger(__name__)

CALM = 64
"""Answers after which one row more is tried, once memory has run out."""

CONTEXT = 4
"""Tokens before one that are decoded with it: some add another text, such as a space, at the start of an answer."""

FinishReason: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt, and how it is answered."""

    prompt: Prompt
    settings: GenerationSettings
    """Of one beam."""
    stops: Sequence[str]
    """Strings that end the answer."""
    n_likeliest: int | None = None
    """Log-probabilities are wanted, of each token of the answer and of so many likeliest ones; None: of none."""


class Answer:
    """The answer to a request, as far as it is generated.

    Args:
        request: what is answered.
        tokenizer: turns ids into text.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self.request = request
        self.tokens: list[int] = []
        """With those of a stop string, or the end token."""
        self.text = AnswerText(tokenizer, request.stops)
        self.chooser = TokenChooser(request.settings)
        self.finish_reason: FinishReason | None = None
        """Why the answer ended: a stop string or the end token, or the length limit. None while it goes on."""

    @property
    def prompt(self) -> Prompt:
        """The prompt with the tokens so far: what an answer continues from."""
        return self.request.prompt._replace(input_ids=[*self.request.prompt.input_ids, *self.tokens])

    def take(self, token: int) -> str:
        """Add a token; return the text that is final now."""
        self.tokens.append(token)
        piece = self.text.feed(token)
        if len(self.tokens) == self.request.settings.max_new_tokens:
            piece += self.text.end()
        if self.text.done:
            self.finish_reason = "stop" if self.text.stopped else "length"
        return piece


class TokenChance(NamedTuple):
    """A token, and the natural logarithm of its probability by the model's own logits: before penalties and temperature."""

    token: str
    """The text that it adds to the answer."""
    logprob: float
    top: Sequence[tuple[str, float]]
    """The likeliest tokens there, in descending order."""


def token_chance(
    tokenizer: Tokenizer, before: Sequence[int], token: int, log_prob: float, likeliest: Sequence[tuple[int, float]]
) -> TokenChance:
    """Return log-probabilities with the texts of their tokens.

    Args:
        tokenizer: turns ids into text.
        before: the answer so far.
        token: the next token.
        log_prob: its log-probability.
        likeliest: the likeliest tokens, with theirs.
    """
    before = list(before[-CONTEXT:])
    n_known = len(tokenizer.decode(before))

    def text(token: int) -> str:
        return tokenizer.decode([*before, token])[n_known:]

    return TokenChance(text(token), log_prob, [(text(other), value) for other, value in likeliest])


class Event(NamedTuple):
    """Progress of an answer: a token, or an error, which ends it."""

    answer: Answer
    tokens: Sequence[int] = ()
    """The new token; none with an error."""
    piece: str = ""
    """Text that is final now; the pieces add up to the answer's text."""
    done: bool = False
    error: VideoLlamaError | None = None
    chance: TokenChance | None = None
    """Of the new token, if the request wants log-probabilities."""


class Scheduler:
    """Answers requests, several at once, with a decoder that ``takes_rows``.

    >>> answer = scheduler.add(Request(prompt, GenerationSettings(), ["###"]))
    >>> while scheduler.busy:
    ...     for event in scheduler.step():
    ...         print(event.piece, end="")

    Requests start in the order in which they were added. If memory runs out, fewer are answered at once; those that have to
    wait continue later where they were. The media of questions on the same clip run through the decoder once, if their
    features are the same tensors. The weights must not change while requests are answered. Use it from one thread at a time.

    Args:
        model: a ``ChatModel``.
        tokenizer: the decoder's.
        max_rows: most requests answered at once.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, max_rows: int) -> None:
        self._model, self._tokenizer, self._max_rows = model, tokenizer, max_rows
        self._waiting: deque[Answer] = deque()
        self._live: list[Answer] = []
        self._cache = RowCache()
        # Room for questions about several versions of a clip in turn, and for the next clip.
        self._prefixes = MediaPrefixes(2 * max_rows)
        self._limit, self._n_calm = max_rows, 0
        self._n_suspects = 0  # requests to start one by one, to find the one that fails

    @property
    def busy(self) -> bool:
        """Whether an answer is not finished."""
        return bool(self._live or self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether another request would start with the next step."""
        return len(self._live) + len(self._waiting) < self._limit

    def add(self, request: Request) -> Answer:
        """Take a request.

        Raises:
            PromptTooLong: the prompt and its answer do not fit into the decoder's context.
            VideoLlamaError: the stop strings make no sense.
        """
        check_stops(request.stops)
        check_room(len(request.prompt.input_ids), request.settings, self._model.decoder.max_context)
        answer = Answer(request, self._tokenizer)
        self._waiting.append(answer)
        return answer

    def cancel(self, answer: Answer) -> None:
        """End an answer; it gives no more events. It may be finished already."""
        if answer in self._waiting:
            self._waiting.remove(answer)
        elif answer in self._live:
            self._leave(self._live.index(answer))

    @torch.no_grad()
    def step(self) -> list[Event]:
        """Start as many waiting requests as there is room for, and generate a token for every row.

        Returns:
            What happened; nothing if memory ran out, and the next step tries less at once.
        """
        events: list[Event] = []
        group: list[Answer] = []
        try:
            while group := self._next_group():
                events += self._start(group)
            if self._live:
                events += self._take(self._logits(), range(len(self._live)))
        except OutOfMemory as error:
            events += self._shed(group, error)
        return events

    def _next_group(self) -> list[Answer]:
        """Take the requests that start together. A question on media that one of them begins with waits for its prefix."""
        group: list[Answer] = []
        later: list[Answer] = []
        begun = set()
        room = min(self._limit - len(self._live), 1 if self._n_suspects else self._limit)
        while self._waiting and len(group) + len(later) < room:
            answer = self._waiting.popleft()
            key = prefix_key(answer.prompt)
            (later if key in begun else group).append(answer)
            if key is not None and self._prefixes.get(answer.prompt) is None:
                begun.add(key)
        self._waiting.extendleft(reversed(later))
        self._n_suspects = max(0, self._n_suspects - len(group))
        return group

    def _start(self, group: Sequence[Answer]) -> list[Event]:
        """Compute the prompts of a group, and the first tokens of their answers."""
        try:
            logits = self._prefill([answer.prompt for answer in group])
        except OutOfMemory:
            raise
        except VideoLlamaError as error:
            if len(group) == 1:
                return [Event(group[0], done=True, error=error.with_traceback(None))]
            self._waiting.extendleft(reversed(group))
            self._n_suspects = len(group)
            return []
        first = len(self._live)
        self._live += group
        return self._take(logits, range(first, len(self._live)))

    @within_memory
    def _prefill(self, prompts: Sequence[Prompt]) -> Tensor:
        rows, logits = prefill(self._model, prompts, [self._prefixes.get(prompt) for prompt in prompts])
        self._cache.add(rows)
        for prompt, row in zip(prompts, rows, strict=True):
            self._prefixes.put(prompt, row)
        return logits

    @within_memory
    def _logits(self) -> Tensor:
        """Return the logits of the next token of each row, float[B, W]."""
        lm = self._model.decoder.lm
        newest = torch.tensor([[answer.tokens[-1]] for answer in self._live], device=lm.device)
        inputs = self._cache.step_inputs(lm.device)
        logits: Tensor = lm(input_ids=newest, past_key_values=self._cache, use_cache=True, **inputs).logits[:, -1]
        self._cache.finish_step()
        return logits

    def _take(self, logits: Tensor, rows: range) -> list[Event]:
        """Choose the next token of some rows; finished answers leave."""
        answers = [self._live[row] for row in rows]
        tokens = within_memory(choose)(logits, [answer.chooser for answer in answers])
        events = []
        for answer, token, scores in zip(answers, tokens, logits, strict=True):
            chance = None if answer.request.n_likeliest is None else self._chance(answer, token, scores)
            piece = answer.take(token)
            events.append(Event(answer, [token], piece, answer.text.done, chance=chance))
        for row in reversed(rows):
            if self._live[row].text.done:
                self._leave(row)
                self._n_calm += 1
        if self._limit < self._max_rows and self._n_calm >= CALM:
            self._limit, self._n_calm = self._limit + 1, 0
        return events

    def _chance(self, answer: Answer, token: int, logits: Tensor) -> TokenChance:
        """Return the texts and the log-probabilities of the next token, from float[W]."""
        log_probs = logits.float().log_softmax(-1)
        values, tokens = log_probs.topk(min(answer.request.n_likeliest or 0, len(log_probs)))
        likeliest = list(zip(tokens.tolist(), values.tolist(), strict=True))
        return token_chance(self._tokenizer, answer.tokens, token, float(log_probs[token]), likeliest)

    def _leave(self, row: int) -> None:
        """Free a row; the last one takes its place."""
        self._cache.remove(row)
        self._live[row] = self._live[-1]
        self._live.pop()

    def _shed(self, group: Sequence[Answer], error: OutOfMemory) -> list[Event]:
        """Free all memory, and answer half as many requests at once. One that does not fit alone fails."""
        stopped = [*self._live, *(answer for answer in group if answer not in self._live)]
        n_prefixes = len(self._prefixes)
        self._live.clear()
        self._cache.clear()
        self._prefixes.clear()
        if len(stopped) == 1 and not n_prefixes:
            return [Event(stopped[0], done=True, error=error.with_traceback(None))]
        log.warning(
            "out of memory with %d at once: continued with half as many. Smaller batches save the time.", len(stopped)
        )
        self._waiting.extendleft(reversed(stopped))
        self._limit, self._n_calm = max(1, len(stopped) // 2), 0
        return []
