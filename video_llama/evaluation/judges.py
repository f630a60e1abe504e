"""Judges: language models that grade answers, in a folder on this machine or behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2

from video_llama import __version__
from video_llama.common.errors import ConfigError, VideoLlamaError
from video_llama.common.files import sha256_of
from video_llama.evaluation.judge_prompts import Message

KEY_VARIABLE = "VIDEO_LLAMA_JUDGE_KEY"
"""Environment variable with the key of an endpoint."""
MAX_NEW_TOKENS = 128
CONCURRENT = 8
"""Requests to an endpoint at once."""
_SETTINGS = {"temperature": 0, "max_tokens": MAX_NEW_TOKENS}
TIMEOUT_S = 120.0
ATTEMPTS = 5
PAUSE_S = 1.0
"""Before the second attempt; doubled before each further one."""
LONGEST_PAUSE_S = 60.0
MOST_FAILURES = 16
"""Requests in a row without a reply after which an endpoint is not asked again."""
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses that a later attempt may not get."""


class NoReply(VideoLlamaError):
    """A judge gave no reply."""


class Reply(NamedTuple):
    """What a judge said."""

    text: str
    model: str
    """The model that replied, as it calls itself."""


class Judge(ABC):
    """Grades answers."""

    name: str
    """As given to ``--judge``."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what decides its replies besides the messages."""

    @abstractmethod
    def replies(self, asked: Sequence[list[Message]]) -> Iterator[tuple[int, Reply | NoReply]]:
        """Yield the reply to each conversation, or why there is none, with its number, as they come."""


def judge_of(spec: str, device: str = "auto") -> Judge:
    """Return a judge.

    Args:
        spec: ``local:FOLDER``, or ``openai:URL#MODEL`` with the URL that ``/chat/completions`` follows.
        device: of a local one.
    Raises:
        ConfigError: there is no such judge.
    """
    kind, _, place = spec.partition(":")
    if kind == "local" and place:
        return LocalJudge(Path(place), device)
    url, _, model = place.partition("#")
    if kind == "openai" and model and urlsplit(url).scheme in ("http", "https"):
        return EndpointJudge(url, model)
    raise ConfigError([f"--judge: {spec!r}; expected local:FOLDER, or openai:URL#MODEL with http or https"])


class LocalJudge(Judge):
    """A causal language model of transformers, asked greedily through its chat template. It is loaded when it is asked.

    Args:
        folder: of the model and its tokenizer.
        device: cpu, cuda, or auto: a GPU if there is one.
        batch_size: conversations at once.
    Raises:
        ConfigError: the folder holds no model, or its tokenizer no chat template.
    """

    def __init__(self, folder: Path, device: str = "auto", batch_size: int = 8) -> None:
        self.name, self.folder, self.device, self.batch_size = f"local:{folder}", folder, device, batch_size
        if not (folder / "config.json").is_file():
            raise ConfigError([f"--judge: {folder}: no config.json here; name the folder of a causal language model"])
        if not self._tokenizer.chat_template:
            raise ConfigError([f"--judge: {folder}: its tokenizer has no chat template"])

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True, padding_side="left")
        except Exception as error:  # transformers raises nearly anything on a damaged folder
            raise ConfigError(
                [f"--judge: {self.folder}: its tokenizer cannot be loaded: {' '.join(str(error).split())[:300]}"]
            ) from error

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        from video_llama.common.distributed import choose_device

        device = choose_device(self.device)
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype, local_files_only=True)
        except Exception as error:
            raise ConfigError(
                [f"--judge: {self.folder}: cannot be loaded: {' '.join(str(error).split())[:300]}"]
            ) from error
        return model.to(device).eval()

    def identity(self) -> dict[str, Any]:
        """Return the digests of its files."""
        files = sorted(
            path for path in self.folder.iterdir() if path.suffix in (".safetensors", ".bin", ".json", ".model")
        )
        return {"weights": [{"file": path.name, "sha256": sha256_of(path)} for path in files]}

    def replies(self, asked: Sequence[list[Message]]) -> Iterator[tuple[int, Reply | NoReply]]:
        """Yield the reply to each conversation; see ``Judge``. Similar lengths are computed together."""
        texts = [self._tokenizer.apply_chat_template(one, tokenize=False, add_generation_prompt=True) for one in asked]
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        for start in range(0, len(order), self.batch_size):
            numbers = order[start : start + self.batch_size]
            for n, text in zip(numbers, self._generated([texts[n] for n in numbers]), strict=True):
                yield n, Reply(text, self.folder.name)

    def _generated(self, texts: list[str]) -> list[str]:
        import torch

        tokenizer, model = self._tokenizer, self._model
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        # The template has written all special tokens already.
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        with torch.no_grad():
            out = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id,
            )
        found: list[str] = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return found


class EndpointJudge(Judge):
    """A model behind an OpenAI-compatible endpoint, asked several times at once. The key is in the environment.

    Args:
        url: that ``/chat/completions`` follows.
        model: its name there.
    """

    def __init__(self, url: str, model: str) -> None:
        self.name, self.model = f"openai:{url}#{model}", model
        self.address = url if url.endswith("/chat/completions") else f"{url.rstrip('/')}/chat/completions"
        self._given_up = Event()
        self._failures = 0

    def identity(self) -> dict[str, Any]:
        """Return address, model and settings."""
        return {"url": self.address, "model": self.model, **_SETTINGS}

    def replies(self, asked: Sequence[list[Message]]) -> Iterator[tuple[int, Reply | NoReply]]:
        """Yield the reply to each conversation; see ``Judge``. After many failures in a row, the others are not asked."""
        headers = {"User-Agent": f"video_llama/{__version__}"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        self._given_up.clear()
        self._failures = 0
        left, asking = iter(enumerate(asked)), deque[tuple[int, Future[Reply | NoReply]]]()
        with httpx2.Client(timeout=TIMEOUT_S, headers=headers) as client, ThreadPoolExecutor(CONCURRENT) as pool:
            try:
                while True:
                    new = islice(left, 2 * CONCURRENT - len(asking))
                    asking.extend((n, pool.submit(self._ask, client, one)) for n, one in new)
                    if not asking:
                        return
                    n, waiting = asking.popleft()
                    yield n, waiting.result()
            finally:
                self._given_up.set()  # ends pauses, if the caller has gone
                pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, client: httpx2.Client, messages: list[Message]) -> Reply | NoReply:
        problem, pause = "", 0.0
        for attempt in range(ATTEMPTS):
            if self._given_up.is_set():
                return NoReply(problem or f"not asked, after {MOST_FAILURES} requests in a row without a reply")
            if self._given_up.wait(pause):
                continue
            pause = min(PAUSE_S * 2**attempt, LONGEST_PAUSE_S)
            try:
                response = client.post(self.address, json={"model": self.model, "messages": messages, **_SETTINGS})
            except (httpx2.RequestError, httpx2.InvalidURL) as error:
                problem = f"{self.address}: {type(error).__name__}: {error}"[:300]
                continue
            if response.status_code == 200:
                self._failures = 0
                return self._reply(response)
            problem = f"{self.address}: status {response.status_code}: {' '.join(response.text.split())[:200]}"
            if response.status_code not in _PASSING:
                break
            pause = min(max(pause, _retry_after(response)), LONGEST_PAUSE_S)
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            self._given_up.set()
        return NoReply(problem)

    def _reply(self, response: httpx2.Response) -> Reply | NoReply:
        try:
            content = response.json()
            text = content["choices"][0]["message"]["content"]
            if not isinstance(text, str):
                raise TypeError("its content is no text")
            return Reply(text, str(content.get("model") or self.model))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            return NoReply(f"{self.address}: no chat completion ({error!r}): {response.text[:120]!r}")


def _retry_after(response: httpx2.Response) -> float:
    """Return the seconds that a server asks to wait; 0: it does not."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", 0)))
    except ValueError:  # a date
        return 0.0
