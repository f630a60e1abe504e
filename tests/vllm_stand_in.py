"""A stand-in for vLLM on this machine: as much of its server as a client with embeddings meets.

It checks a request as vLLM 0.32 does, with its messages, and generates with the same decoder through transformers, one token of one
request at a time: it does not batch. ``tests/fixtures/vllm/exchanges.json`` holds what a real one answered; see
``tests/vllm_exchanges.py``.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from tests.file_server import running

FIELDS = {
    *("model", "prompt", "prompt_embeds", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stream"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "stop", "stop_token_ids", "ignore_eos"),
    *("logprobs", "return_token_ids", "return_tokens_as_token_ids", "stream_options"),
}
"""The fields of vLLM's CompletionRequest that this one knows. vLLM ignores others; here, they are refused."""
DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""What vLLM takes from generation_config.json if a request leaves it out, and its own defaults."""
MAX_LOGPROBS = 20


class Refused(Exception):
    """A request that vLLM refuses."""

    def __init__(self, message: str, param: str | None = None, kind: str = "BadRequestError", code: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _invalid(param: str, message: str, value: object = None) -> Refused:
    more = "" if value is None else f", value={value}"
    return Refused(f"{message} (parameter={param}{more})", param)


@dataclass
class StandIn:
    """A server; a test changes the fields between requests."""

    folder: Path
    takes_embeds: bool = True
    """--enable-prompt-embeds."""
    max_model_len: int | None = None
    name: str | None = None
    """--served-model-name."""
    api_key: str | None = None
    version: str = "0.32.0"
    returns_ids: bool = True
    """False: as versions before 0.10.2."""
    token_s: float = 0.0
    """Seconds that each token takes, besides the computation."""
    event_after: tuple[int, str] | None = None
    """After so many tokens, the next stream sends this instead of the rest."""
    cut_after: int | None = None
    """After so many tokens, the next stream breaks."""
    statuses: list[int] = field(default_factory=list)
    """Errors that the next completions get."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The completions that were accepted."""
    prompts: list[Tensor] = field(default_factory=list)
    """Their embeddings."""
    n_open: int = 0
    most_open: int = 0
    n_aborted: int = 0
    """Streams whose client went away."""
    url: str = ""

    def __post_init__(self) -> None:
        self.lm: Any = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.folder)
        self.max_model_len = self.max_model_len or self.lm.config.max_position_embeddings
        self.name = self.name or str(self.folder)
        self.width = self.lm.get_input_embeddings().embedding_dim
        file = self.folder / "generation_config.json"
        content = json.loads(file.read_text()) if file.exists() else {}
        self.defaults = {name: content.get(name, value) for name, value in DEFAULTS.items()}
        self.eos = self.lm.config.eos_token_id
        self.lock = threading.Lock()

    def card(self) -> dict[str, Any]:
        card = {"id": self.name, "object": "model", "created": 0, "owned_by": "vllm", "root": str(self.folder)}
        return {
            "object": "list",
            "data": [{**card, "parent": None, "max_model_len": self.max_model_len, "permission": []}],
        }

    def prompt(self, body: dict[str, Any]) -> tuple[Tensor, list[int]]:
        """Check a request; return float[L, H] and the ids that vLLM counts as the prompt's."""
        if unknown := body.keys() - FIELDS:
            raise AssertionError(f"not known to the stand-in: {unknown}")
        if body.get("prompt") in (None, "") and body.get("prompt_embeds") in (None, []):
            raise _invalid("prompt", "Either prompt or prompt_embeds must be provided and non-empty.")
        if body.get("model") not in (None, self.name):
            message = f"The model `{body['model']}` does not exist. Valid aliases: {self.name}."
            raise Refused(message, "model", "NotFoundError", 404)
        if body.get("prompt_embeds") is not None:
            embeds = self.embeds(body["prompt_embeds"])
            ids = [0] * len(embeds)
        else:
            ids = body["prompt"]
            if isinstance(ids, str):
                ids = self.tokenizer(ids)["input_ids"]
            embeds = self.lm.get_input_embeddings()(torch.tensor(ids)).detach()
        if len(ids) == self.max_model_len:
            raise _invalid("max_tokens", "max_tokens must be at least 1, got 0.", 0)
        if len(ids) > self.max_model_len:
            raise _invalid(
                "input_tokens",
                f"This model's maximum context length is {self.max_model_len} tokens. However, your prompt contains {len(ids)} "
                "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
                "prompt.",
                len(ids),
            )
        if not ids:
            raise Refused("The decoder prompt cannot be empty")
        temperature = self.setting(body, "temperature")
        if temperature < 0:
            raise _invalid("temperature", f"temperature must be non-negative, got {temperature}.", temperature)
        if (n := body.get("logprobs")) is not None and n > MAX_LOGPROBS:
            message = f"Requested sample logprobs of {n}, which is greater than max allowed: {MAX_LOGPROBS}"
            raise _invalid("logprobs", message, n)
        return embeds, ids

    def embeds(self, text: Any) -> Tensor:
        """Load ``prompt_embeds`` as vLLM's renderer does."""
        if not isinstance(text, str):
            raise Refused("1 validation error", "body.prompt_embeds", "Bad Request")
        if not self.takes_embeds:
            raise _invalid("prompt_embeds", "You must set `--enable-prompt-embeds` to input `prompt_embeds`.")
        try:
            content = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise Refused("Non-base64 digit found") from error
        try:
            tensor = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        except Exception as error:
            message = f"`prompt_embeds` could not be deserialized as a torch tensor: {error}"
            raise _invalid("prompt_embeds", message) from error
        if not isinstance(tensor, Tensor):
            raise _invalid("prompt_embeds", "`prompt_embeds` payload did not deserialize to a torch.Tensor.")
        tensor = tensor.to_dense()
        tensor = tensor.squeeze(0) if tensor.dim() > 2 else tensor
        if tensor.dim() != 2:
            message = "`prompt_embeds` must be a 2D tensor of shape (num_tokens, hidden_size); got shape"
            raise _invalid("prompt_embeds", f"{message} {tuple(tensor.shape)}.")
        if tensor.shape[1] != self.width:
            message = (
                f"`prompt_embeds` hidden_size {tensor.shape[1]} does not match the model's hidden_size {self.width}."
            )
            raise _invalid("prompt_embeds", message)
        if not tensor.is_floating_point():
            message = f"`prompt_embeds` dtype {tensor.dtype} is not a floating-point type, cannot safely cast to the model's dtype"
            raise _invalid("prompt_embeds", f"{message} {self.lm.dtype}.")
        return tensor.to(self.lm.dtype)

    def setting(self, body: dict[str, Any], name: str) -> Any:
        return self.defaults[name] if body.get(name) is None else body[name]

    def choices(self, body: dict[str, Any], embeds: Tensor, prompt_ids: list[int]) -> Iterator[dict[str, Any]]:
        """Generate; yield a choice for each token."""
        generator = torch.Generator()
        generator.seed() if body.get("seed") is None else generator.manual_seed(body["seed"])
        cache, inputs = DynamicCache(config=self.lm.config), {"inputs_embeds": embeds[None]}
        ids: list[int] = []
        before = [] if body.get("prompt_embeds") else prompt_ids
        n_tokens = min(body.get("max_tokens") or 16, self.max_model_len - len(prompt_ids))
        while len(ids) < n_tokens:
            with self.lock, torch.no_grad():
                logits = self.lm(**inputs, past_key_values=cache, use_cache=True).logits[0, -1]
            time.sleep(self.token_s)
            token = self.chosen(body, logits, prompt_ids, ids, generator)
            ids.append(token)
            inputs = {"input_ids": torch.tensor([[token]])}
            ends = token in (body.get("stop_token_ids") or ()) or (token == self.eos and not body.get("ignore_eos"))
            reason = "stop" if ends else "length" if len(ids) == n_tokens else None
            known, text = (
                self.tokenizer.decode([*before, *part], skip_special_tokens=True) for part in (ids[:-1], ids)
            )
            choice = {"index": 0, "text": text[len(known) :], "logprobs": self.log_probs(body, logits, token)}
            choice |= {"finish_reason": reason, "stop_reason": token if ends and body.get("ignore_eos") else None}
            choice["prompt_token_ids"] = choice["token_ids"] = None
            if body.get("return_token_ids") and self.returns_ids:
                choice |= {"prompt_token_ids": prompt_ids if len(ids) == 1 else None, "token_ids": [token]}
            if ends:
                choice["text"] = ""
            yield choice
            if ends:
                return

    def chosen(
        self, body: dict[str, Any], logits: Tensor, prompt_ids: list[int], ids: list[int], generator: torch.Generator
    ) -> int:
        scores = logits.clone()
        penalty = self.setting(body, "repetition_penalty")
        known = torch.tensor(sorted({*prompt_ids, *ids}))
        scores[known] = torch.where(scores[known] > 0, scores[known] / penalty, scores[known] * penalty)
        for token in ids:
            scores[token] -= body.get("frequency_penalty") or 0.0
        for token in set(ids):
            scores[token] -= body.get("presence_penalty") or 0.0
        if (temperature := self.setting(body, "temperature")) == 0:
            return int(scores.argmax())
        likelihoods, order = (scores / temperature).softmax(-1).sort(descending=True)
        left = likelihoods.cumsum(-1) - likelihoods < self.setting(body, "top_p")
        left &= likelihoods >= self.setting(body, "min_p") * likelihoods[0]
        if (top_k := self.setting(body, "top_k")) > 0:
            left[top_k:] = False
        return int(order[torch.multinomial(likelihoods * left, 1, generator=generator)])

    def log_probs(self, body: dict[str, Any], logits: Tensor, token: int) -> dict[str, Any] | None:
        if (n := body.get("logprobs")) is None:
            return None
        log_probs = logits.log_softmax(-1)
        top = dict.fromkeys([token, *log_probs.topk(n).indices.tolist()])
        named = body.get("return_tokens_as_token_ids")
        names = {i: f"token_id:{i}" if named else self.tokenizer.decode([i]) for i in top}
        own = {names[i]: float(log_probs[i]) for i in top}
        return {
            "text_offset": [0],
            "token_logprobs": [float(log_probs[token])],
            "tokens": [names[token]],
            "top_logprobs": [own],
        }


@contextmanager
def serving(stand_in: StandIn) -> Iterator[StandIn]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with suppress(OSError):  # the client has gone
                super().handle()

        def do_GET(self) -> None:
            found = {"/v1/models": stand_in.card(), "/version": {"version": stand_in.version}, "/health": ""}
            if self._is_allowed():
                self._send(200, found[self.path]) if self.path in found else self._send(404, {"detail": "Not Found"})

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._is_allowed():
                return
            assert self.path == "/v1/completions"
            if stand_in.statuses:
                error = {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": None}
                code = stand_in.statuses.pop(0)
                self._send(code, {"error": {**error, "code": code}})
                return
            try:
                assert self.headers["Content-Type"].startswith("application/json")
                body = json.loads(content)
                prompt = stand_in.prompt(body)
            except Refused as refused:
                self._send(refused.code, refused.body)
                return
            stand_in.requests.append(body)
            stand_in.prompts.append(prompt[0])
            self.is_open = False
            self._count(True)
            try:
                self._stream(body, *prompt) if body.get("stream") else self._whole(body, *prompt)
            except OSError:  # the client has gone
                stand_in.n_aborted += 1
                self.close_connection = True
            finally:
                self._count(False)

        def _count(self, is_open: bool) -> None:
            with stand_in.lock:
                stand_in.n_open += is_open - self.is_open
                stand_in.most_open = max(stand_in.most_open, stand_in.n_open)
                self.is_open = is_open

        def _is_allowed(self) -> bool:
            given = self.headers.get("Authorization")
            if not self.path.startswith("/v1") or stand_in.api_key is None or given == f"Bearer {stand_in.api_key}":
                return True
            self._send(401, {"error": "Unauthorized"})
            return False

        def _send(self, code: int, content: Any) -> None:
            body = json.dumps(content).encode() if content else b""
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _reply(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
            return {
                "id": "cmpl-0",
                "object": "text_completion",
                "created": 0,
                "model": stand_in.name,
                "choices": choices,
                **more,
            }

        def _whole(self, body: dict[str, Any], embeds: Tensor, ids: list[int]) -> None:
            choices = list(stand_in.choices(body, embeds, ids))
            choice = {**choices[0], "text": "".join(c["text"] for c in choices), "prompt_logprobs": None}
            choice |= {name: choices[-1][name] for name in ("finish_reason", "stop_reason")} | {"routed_experts": None}
            if body.get("return_token_ids"):
                choice["token_ids"] = [i for c in choices for i in c["token_ids"] or ()]
            if body.get("logprobs") is not None:
                choice["logprobs"] = {k: [c["logprobs"][k][0] for c in choices] for k in choices[0]["logprobs"]}
            self._send(200, self._reply([choice], usage=self._usage(ids, len(choices))))

        def _stream(self, body: dict[str, Any], embeds: Tensor, ids: list[int]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            n_tokens = 0
            for n_tokens, choice in enumerate(stand_in.choices(body, embeds, ids), 1):
                if choice["finish_reason"] is not None:  # the client may send its next request as soon as it knows
                    self._count(False)
                self._event(json.dumps(self._reply([choice])))
                if stand_in.cut_after is not None and n_tokens >= stand_in.cut_after:
                    stand_in.cut_after, self.close_connection = None, True
                    return
                if stand_in.event_after is not None and n_tokens >= stand_in.event_after[0]:
                    (_, event), stand_in.event_after = stand_in.event_after, None
                    self._event(event)
                    break
            if (body.get("stream_options") or {}).get("include_usage"):
                self._event(json.dumps(self._reply([], usage=self._usage(ids, n_tokens))))
            self._event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

        def _usage(self, ids: list[int], n_tokens: int) -> dict[str, int]:
            return {"prompt_tokens": len(ids), "total_tokens": len(ids) + n_tokens, "completion_tokens": n_tokens}

        def _event(self, data: str) -> None:
            event = f"data: {data}\n\n".encode()
            self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            self.wfile.flush()

        def log_message(self, *args: object) -> None:
            pass

    with running(Handler) as port:
        stand_in.url = f"http://127.0.0.1:{port}"
        yield stand_in
