"""What /metrics reports, in Prometheus' format. The meaning of each metric is that of vLLM's of a similar name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from video_llama.serving.chat_reply import Usage

PREFIX = "video_llama"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class ServerMetrics:
    """Counters of one server.

    Args:
        model: name of the model, a label of each metric.
        n_running, n_waiting: dialogues that are being answered, and that wait.
        n_held_bytes: bytes of files of requests on disk.
    """

    def __init__(
        self,
        model: str,
        n_running: Callable[[], float],
        n_waiting: Callable[[], float],
        n_held_bytes: Callable[[], float],
    ) -> None:
        self._registry = CollectorRegistry()
        self._model = model
        self._gauge("requests_running", "Dialogues that are being answered.").set_function(n_running)
        self._gauge("requests_waiting", "Dialogues whose files are being read, or that wait for a row.").set_function(
            n_waiting
        )
        self._gauge("held_file_bytes", "Bytes of the files of requests on disk.").set_function(n_held_bytes)
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts, with those of media.")
        self._media_tokens = self._counter("media_tokens", "Tokens of media in prompts.")
        self._answer_tokens = self._counter("generation_tokens", "Tokens of answers.")
        self._ended = self._ending("requests", "Requests for answers, by how they ended.", "finished_reason")
        self._responses = self._ending("http_responses", "Responses, by status.", "status")
        self._to_media = self._seconds("request_media_seconds", "From a request to its prompt: its files are read.")
        self._to_first = self._seconds("time_to_first_token_seconds", "From a request to the first token.")
        self._between = self._seconds("inter_token_latency_seconds", "Between tokens of an answer.")
        self._total = self._seconds("e2e_request_latency_seconds", "From a request to the end of its answers.")
        self._prompt_sizes = self._tokens("request_prompt_tokens", "Tokens of the prompt of a request.")
        self._answer_sizes = self._tokens("request_generation_tokens", "Tokens of the answers to a request.")

    def response(self, status: int) -> None:
        """Count a response."""
        self._responses.labels(self._model, str(status)).inc()

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    @contextmanager
    def request(self) -> Iterator[RequestTimes]:
        """Measure a request for answers, for the time of the block."""
        times = RequestTimes(self)
        try:
            yield times
        except BaseException as error:
            # An error of the request or the model is an Exception; a client that has gone cancels the task.
            times.reason = "error" if isinstance(error, Exception) else "cancelled"
            raise
        finally:
            self._finish(times)

    def _finish(self, times: RequestTimes) -> None:
        self._ended.labels(self._model, times.reason).inc()
        self._total.labels(self._model).observe(time.monotonic() - times.start)
        if times.usage is not None:
            prompt, answer = times.usage.prompt_tokens, times.usage.completion_tokens
            self._prompt_tokens.labels(self._model).inc(prompt)
            self._media_tokens.labels(self._model).inc(times.usage.prompt_tokens_details.multimodal_tokens)
            self._answer_tokens.labels(self._model).inc(answer)
            self._prompt_sizes.labels(self._model).observe(prompt)
            self._answer_sizes.labels(self._model).observe(answer)

    def observe_media(self, seconds: float) -> None:
        """Note the time from a request to its prompt."""
        self._to_media.labels(self._model).observe(seconds)

    def observe_token(self, seconds: float, *, first: bool) -> None:
        """Note the time from a request to its first token, or between two tokens."""
        (self._to_first if first else self._between).labels(self._model).observe(seconds)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, ["model_name"], registry=self._registry).labels(self._model)

    def _counter(self, name: str, text: str) -> Counter:
        return self._ending(name, text)

    def _ending(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, ["model_name", *labels], registry=self._registry)

    def _seconds(self, name: str, text: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, ["model_name"], buckets=SECONDS, registry=self._registry)

    def _tokens(self, name: str, text: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, ["model_name"], buckets=TOKENS, registry=self._registry)


class RequestTimes:
    """The times of one request."""

    reason = "cancelled"
    """How it ended: stop, length, error or cancelled."""
    usage: Usage | None = None

    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics = metrics
        self.start = time.monotonic()
        self._last: dict[int, float] = {}

    def prompt_made(self) -> None:
        """Note that the prompt is made."""
        self._metrics.observe_media(time.monotonic() - self.start)

    def token(self, index: int) -> None:
        """Note a token of an answer."""
        now = time.monotonic()
        if index in self._last or not self._last:
            self._metrics.observe_token(now - self._last.get(index, self.start), first=not self._last)
        self._last[index] = now
