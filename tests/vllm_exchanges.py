"""Requests to vLLM with the toy decoder, and what a real one answered; the stand-in has to answer the same.

``python -m tests.vllm_exchanges URL`` asks a vLLM that serves the toy decoder, as in docs/serving.md with ``--dtype float32``, and
writes the answers to ``tests/fixtures/vllm/exchanges.json``. Those there are of vLLM 0.32.0 on a CPU.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import torch
from safetensors.torch import load_file

from tests.tiny import TOKENIZER as TOY_DECODER

EXCHANGES = Path(__file__).parent / "fixtures/vllm/exchanges.json"
IDS = [1, 295, 524, 379, 481, 515, 265, 514, 305, 350, 356, 296, 524]
"""A question to the toy decoder, in tokens."""
VARYING = ("id", "created", "system_fingerprint", "model", "root", "permission", "text_offset")


def packed(content: object) -> str:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def embeds() -> torch.Tensor:
    table = load_file(TOY_DECODER / "model.safetensors")["model.embed_tokens.weight"]
    return table[torch.tensor(IDS)].float()


def bodies() -> dict[str, dict[str, Any]]:
    """Requests by what they try."""
    greedy = {"max_tokens": 5, "temperature": 0.0, "repetition_penalty": 1.0}
    ours = {**greedy, "top_k": -1, "min_p": 0.0, "ignore_eos": True, "stop_token_ids": [2], "return_token_ids": True}
    chances = {"logprobs": 2, "return_tokens_as_token_ids": True}
    good = packed(embeds())
    zeros = torch.zeros
    return {
        "our stream": {**ours, "prompt_embeds": good, "stream": True},
        "log-probabilities": {**ours, **chances, "prompt_embeds": good, "stream": True},
        "usage": {**ours, "prompt_embeds": good, "stream": True, "stream_options": {"include_usage": True}},
        "a stop token": {**ours, "prompt_embeds": good, "stream": True, "stop_token_ids": [305]},
        "token ids as the prompt": {**ours, **chances, "prompt": IDS, "max_tokens": 1},
        "penalties": {
            **ours,
            "prompt_embeds": good,
            "frequency_penalty": 1.5,
            "presence_penalty": 1.0,
            "max_tokens": 12,
        },
        "half precision": {**ours, "prompt_embeds": packed(embeds().half())},
        "one prompt as a batch": {**ours, "prompt_embeds": packed(embeds()[None])},
        "without token ids": {**greedy, "prompt_embeds": good, "stream": True},
        "more tokens than there is room for": {
            **ours,
            "prompt_embeds": packed(embeds().repeat(39, 1)),
            "max_tokens": 40,
        },
        "no prompt": greedy,
        "no base64": {**ours, "prompt_embeds": "!!!"},
        "no tensor": {**ours, "prompt_embeds": packed({"a": 1})},
        "a vector": {**ours, "prompt_embeds": packed(zeros(160))},
        "a batch": {**ours, "prompt_embeds": packed(zeros(2, 4, 160))},
        "another width": {**ours, "prompt_embeds": packed(zeros(4, 100))},
        "whole numbers": {**ours, "prompt_embeds": packed(zeros(4, 160, dtype=torch.int64))},
        "no tokens": {**ours, "prompt_embeds": packed(zeros(0, 160))},
        "too many tokens": {**ours, "prompt_embeds": packed(zeros(512, 160))},
        "another model": {**ours, "prompt_embeds": good, "model": "other"},
        "too many log-probabilities": {**ours, "prompt_embeds": good, "logprobs": 21},
        "a negative temperature": {**ours, "prompt_embeds": good, "temperature": -1.0},
    }


def answers(url: str) -> Iterator[tuple[str, Any]]:
    """Ask a server; yield what it answers, without what differs each time."""
    with httpx2.Client(timeout=60, trust_env=False) as client:
        for path in ("/v1/models", "/version", "/health", "/nothing"):
            response = client.get(url + path)
            yield path, {"status": response.status_code, "body": steady(response.json() if response.content else None)}
        for name, body in bodies().items():
            response = client.post(f"{url}/v1/completions", json=body)
            kind = response.headers["content-type"]
            if kind.startswith("text/event-stream"):
                events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
                content: Any = [steady(json.loads(event)) if event.startswith("{") else event for event in events]
            else:
                content = steady(response.json())
            yield name, {"status": response.status_code, "type": kind, "body": content}


def steady(content: Any) -> Any:
    """Leave out what differs each time, and what vLLM says of features that no request here uses."""
    if isinstance(content, dict):
        return {k: steady(v) for k, v in content.items() if k not in VARYING and v is not None}
    if isinstance(content, list):
        return [steady(item) for item in content]
    return content.split(" Valid aliases")[0] if isinstance(content, str) else content


if __name__ == "__main__":
    EXCHANGES.parent.mkdir(exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in answers(sys.argv[1])]
    EXCHANGES.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
