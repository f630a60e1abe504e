"""What is sent to vLLM's completions endpoint, and what comes back, for prompts that are embeddings.

Shapes: L tokens, H decoder width.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from video_llama.common.errors import DecoderUnavailable, VideoLlamaError
from video_llama.conversation.scheduler import Request
from video_llama.conversation.settings import GenerationSettings

MAX_LOGPROBS = 20
"""Most likeliest tokens that vLLM reports, unless it is started with another --max-logprobs."""
_TOKEN_ID = "token_id:"


def packed(embeds: Tensor) -> str:
    """Return embeddings as vLLM takes them: base64 of what ``torch.save`` writes.

    Args:
        embeds: float[L, H].
    Raises:
        VideoLlamaError: they hold NaN or infinity, or would in fp16. vLLM would keep that in its cache, where it spoils all
            answers that come after it.
    """
    if not bool((embeds.abs() <= torch.finfo(torch.float16).max).all()):
        raise VideoLlamaError("the prompt's embeddings hold NaN, or values beyond fp16: nothing was sent to vLLM")
    buffer = io.BytesIO()
    torch.save(embeds.detach().cpu().clone(memory_format=torch.contiguous_format), buffer)  # a view is saved whole
    return base64.b64encode(buffer.getvalue()).decode()


def check_settings(settings: GenerationSettings, n_likeliest: int | None) -> None:
    """Raise VideoLlamaError for what vLLM cannot do with embeddings."""
    if n_likeliest is not None and n_likeliest > MAX_LOGPROBS:
        raise VideoLlamaError(f"top_logprobs: {n_likeliest}; vLLM reports up to {MAX_LOGPROBS}")
    if settings.repetition_penalty != 1:
        raise VideoLlamaError(
            f"repetition_penalty: {settings.repetition_penalty}; vLLM would apply it to the prompt too, whose tokens it does "
            "not know. Use frequency_penalty or presence_penalty, or a server without --engine vllm."
        )
    if settings.num_beams != 1:
        raise VideoLlamaError(f"num_beams: {settings.num_beams}; vLLM answers without beams")


def completion(model: str, embeds: str, request: Request, eos_id: int) -> bytes:
    """Return the body of a request for a stream of tokens.

    Every setting is named, since vLLM takes the others from the ``generation_config.json`` of its model. The token ids that
    come back decide where an answer ends, as everywhere else here, so vLLM looks for no stop string.

    Args:
        model: by its name in vLLM.
        embeds: a ``packed`` prompt.
        request: how it is answered.
        eos_id: the end token.
    Raises:
        VideoLlamaError: vLLM cannot do that.
    """
    settings = request.settings
    check_settings(settings, request.n_likeliest)
    body: dict[str, Any] = {
        "model": model,
        "prompt_embeds": embeds,
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": -1,
        "min_p": 0.0,
        "frequency_penalty": settings.frequency_penalty,
        "presence_penalty": settings.presence_penalty,
        "repetition_penalty": 1.0,
        "seed": settings.seed,
        "ignore_eos": True,
        "stop_token_ids": [eos_id],
        "return_token_ids": True,
        "stream": True,
    }
    if request.n_likeliest is not None:
        body |= {"logprobs": request.n_likeliest, "return_tokens_as_token_ids": True}
    return json.dumps(body).encode()


class LogProbs(NamedTuple):
    """Natural logarithms of probabilities, by the decoder's own logits."""

    chosen: float
    """Of the token that was chosen."""
    likeliest: Sequence[tuple[int, float]]
    """The likeliest tokens, in descending order."""


class Step(NamedTuple):
    """New tokens of an answer."""

    ids: Sequence[int]
    log_probs: Sequence[LogProbs | None]
    """Of each token; None: they were not asked for."""
    finish_reason: str | None
    """None: the answer goes on."""


def read_step(event: str, n_likeliest: int | None = None) -> Step:
    """Read the data of an event of a stream.

    Args:
        event: JSON.
        n_likeliest: of the request.
    Raises:
        DecoderUnavailable: it reports an error, or is not what vLLM sends.
    """
    content = _object(event)
    if "error" in content:
        raise DecoderUnavailable(f"vLLM could not go on: {error_message(event)}")
    try:
        return _step(content["choices"][0], n_likeliest) if content["choices"] else Step((), (), None)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DecoderUnavailable(f"vLLM sent something else than tokens ({error!r}): {event[:200]}") from error


def _step(choice: Mapping[str, Any], n_likeliest: int | None) -> Step:
    ids = choice["token_ids"]
    if ids is None and choice["text"]:
        raise ValueError("no token_ids")
    ids = [int(i) for i in ids or ()]
    log_probs: Sequence[LogProbs | None] = [None] * len(ids)
    if (found := choice.get("logprobs")) is not None:
        log_probs = [
            LogProbs(chosen, _likeliest(top)[:n_likeliest])
            for chosen, top in zip(found["token_logprobs"], found["top_logprobs"], strict=True)
        ]
    if len(log_probs) != len(ids):
        raise ValueError(f"{len(log_probs)} log-probabilities of {len(ids)} tokens")
    return Step(ids, log_probs, choice.get("finish_reason"))


def _likeliest(top: Mapping[str, float]) -> list[tuple[int, float]]:
    """Return token ids in descending order. vLLM adds the chosen token if it is not among the likeliest."""
    found = [(int(name.removeprefix(_TOKEN_ID)), log_prob) for name, log_prob in top.items()]
    return sorted(found, key=lambda item: (-item[1], item[0]))


def error_message(body: str) -> str:
    """Return the message of an error that vLLM reports, or the start of whatever it sent."""
    try:
        return " ".join(str(json.loads(body)["error"]["message"]).split())
    except (ValueError, KeyError, TypeError):
        return " ".join(body.split())[:300] or "no reason was given"


def _object(text: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DecoderUnavailable(f"vLLM sent no JSON: {text[:200]}") from error
    if not isinstance(content, dict):
        raise DecoderUnavailable(f"vLLM sent something else than an object: {text[:200]}")
    return content
