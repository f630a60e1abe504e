"""Judges for tests: an OpenAI-compatible endpoint on this machine that answers as a test says, and a random model in a folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.decoders import FAMILIES


@dataclass
class JudgeServer:
    """What is replied, and what was asked."""

    reply: Callable[[str], str]
    """The content of a reply, from the user's message."""
    statuses: list[int] = field(default_factory=list)
    """Errors that the next requests get; 0 closes the connection."""
    body: bytes | None = None
    """Sent instead of a chat completion."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of errors."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0

    @property
    def spec(self) -> str:
        return f"openai:http://127.0.0.1:{self.port}/v1#a-judge"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        content = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.requests.append({"path": handler.path, **content})
            self.keys.append(handler.headers.get("Authorization"))
            status = self.statuses.pop(0) if self.statuses else 200
        if status == 0:
            handler.close_connection = True
            return
        body = b'{"error": {"message": "not now"}}'
        if status == 200:
            text = self.reply(content["messages"][-1]["content"])
            message = {"role": "assistant", "content": text}
            body = self.body or json.dumps({"model": "a-judge-2026", "choices": [{"message": message}]}).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(self.headers if status != 200 else {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


def write_random_judge(folder: Path) -> Path:
    """Write a tiny random LLaMA with a chat template."""
    FAMILIES["qwen2"].write_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **sizes)).save_pretrained(folder)
    return folder
