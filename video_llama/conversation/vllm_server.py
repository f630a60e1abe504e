"""A vLLM that serves the decoder: its address, what it says of itself, and whether it takes our embeddings for what they are.

Shapes: L tokens, H decoder width.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import httpx2
from torch import Tensor

from video_llama.common.errors import DecoderUnavailable, VideoLlamaError
from video_llama.conversation.vllm_wire import error_message, packed

log = logging.getLogger(__name__)

OLDEST = (0, 22)
"""Earlier versions take embeddings of any width, and may crash on them."""
API_KEY = "VLLM_API_KEY"
"""Environment variable with the key that vLLM was started with, if any; vLLM reads the same one."""
TIMEOUT_S = 30.0
TOLERANCE = 0.1
"""Largest difference of log-probabilities, in nats, between a prompt of tokens and the same prompt as embeddings."""


@dataclass(frozen=True)
class VllmServer:
    """The address of a vLLM. What it says of itself is asked for once."""

    url: str
    """Such as http://127.0.0.1:8001."""

    def __post_init__(self) -> None:
        """Raise VideoLlamaError unless it is an address without a password."""
        if "@" in self.url:
            raise VideoLlamaError(f"the address of the vLLM holds a password: put its key in {API_KEY} instead")
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
            valid = valid and parts.port != 0
        except ValueError:  # of urlsplit, or of the port
            valid = False
        if not valid:
            raise VideoLlamaError(f"{self.url}: expected the address of a vLLM, such as http://127.0.0.1:8001")
        object.__setattr__(self, "url", self.url.rstrip("/").removesuffix("/v1"))

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        key = os.environ.get(API_KEY)
        return {"Authorization": f"Bearer {key}"} if key else {}

    @cached_property
    def _card(self) -> Mapping[str, Any]:
        """What vLLM says of its model."""
        found = self._get("/v1/models")
        cards = found.get("data") if isinstance(found, dict) else None
        own = [card for card in cards or () if isinstance(card, dict) and not card.get("parent")]
        if not own or not isinstance(own[0].get("max_model_len"), int) or not isinstance(own[0].get("id"), str):
            raise DecoderUnavailable(
                f"{self.url}/v1/models names no model with a max_model_len; is this a vLLM, or another server?"
            )
        return own[0]

    @property
    def model(self) -> str:
        """The name of the model."""
        return str(self._card["id"])

    @property
    def folder(self) -> str:
        """Where vLLM found the model: a folder on its machine, or an id on the hub."""
        return str(self._card.get("root") or self.model)

    @property
    def max_context(self) -> int:
        """Longest sequence, in tokens."""
        return int(self._card["max_model_len"])

    def check_version(self) -> None:
        """Raise DecoderUnavailable if vLLM is too old, or cannot be reached."""
        found = self._get("/version")
        version = str(found.get("version")) if isinstance(found, dict) else ""
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if numbers is None:  # of a development build, say
            log.warning("%s: vLLM of version %r; %d.%d or later is needed", self.url, version, *OLDEST)
        elif (int(numbers[1]), int(numbers[2])) < OLDEST:
            raise DecoderUnavailable(
                f"{self.url}: vLLM {version} is too old: {OLDEST[0]}.{OLDEST[1]} or later is needed"
            )
        log.info("%s: vLLM %s with %s, %d tokens", self.url, version, self.folder, self.max_context)

    def check_embeddings(self, ids: Sequence[int], embeds: Tensor) -> None:
        """Check that vLLM takes embeddings, and that they mean the same tokens to it as to the model here.

        The next token after a short prompt is asked for twice: with the prompt as token ids, which vLLM embeds, and as
        embeddings. A decoder with another vocabulary, another token embedding or another scale of it answers differently.

        Args:
            ids: the prompt.
            embeds: float[L, H], the same as embeddings.
        Raises:
            DecoderUnavailable: it does not, or cannot be reached.
        """
        by_ids = self._next_token({"prompt": list(ids)})
        by_embeds = self._next_token({"prompt_embeds": packed(embeds)})
        if not by_ids.keys() & by_embeds.keys() or any(
            abs(log_prob - by_embeds[token]) > TOLERANCE for token, log_prob in by_ids.items() if token in by_embeds
        ):
            raise DecoderUnavailable(
                f"{self.url} serves {self.folder}, which takes the embeddings of model.llama_model for other tokens than they "
                "are. Serve the folder that model.llama_model names."
            )

    def _next_token(self, prompt: Mapping[str, Any]) -> dict[str, float]:
        """Return log-probabilities of the likeliest next tokens."""
        body = {"model": self.model, "max_tokens": 1, "temperature": 0.0, "repetition_penalty": 1.0, "ignore_eos": True}
        body |= {"logprobs": 3, "return_tokens_as_token_ids": True, "return_token_ids": True}
        choice = self._post("/v1/completions", {**body, **prompt})["choices"][0]
        if not choice.get("token_ids"):
            raise DecoderUnavailable(f"{self.url} returns no token ids; vLLM {OLDEST[0]}.{OLDEST[1]} or later does")
        found: dict[str, float] = choice["logprobs"]["top_logprobs"][0]
        return found

    def _get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        try:
            with httpx2.Client(headers=self.headers, timeout=TIMEOUT_S, trust_env=False) as client:
                response = client.request(method, self.url + path, json=body)
            if response.status_code != 200:
                raise self.refusal(response.status_code, response.text)
            return response.json()
        except httpx2.HTTPError as error:
            raise self.unreachable(error) from error
        except ValueError as error:
            raise DecoderUnavailable(f"{self.url}{path}: no JSON; is this a vLLM, or another server?") from error

    def refusal(self, status: int, body: str) -> DecoderUnavailable:
        """Return an error about a status other than 200."""
        message = error_message(body)
        if status == 401:
            return DecoderUnavailable(f"{self.url} wants a key: put the one that vLLM was started with in {API_KEY}")
        if "enable-prompt-embeds" in message:
            message = "it takes no embeddings. Start vLLM with --enable-prompt-embeds"
        elif "hidden_size" in message:
            message = f"it serves {self.folder}, a decoder of another width than model.llama_model: {message}"
        return DecoderUnavailable(f"{self.url} answers {status}: {message}")

    def unreachable(self, error: Exception) -> DecoderUnavailable:
        """Return an error about a connection."""
        reason = " ".join(str(error).split()) or type(error).__name__
        return DecoderUnavailable(
            f"{self.url}: vLLM cannot be reached ({reason}). Is it running, and has it loaded its model?"
        )
