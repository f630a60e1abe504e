"""What is sent to vLLM, and how its replies are read."""

from __future__ import annotations

import base64
import io
import json

import pytest
import torch

from video_llama.common.errors import DecoderUnavailable, VideoLlamaError
from video_llama.conversation.prefill import Prompt
from video_llama.conversation.scheduler import Request
from video_llama.conversation.settings import GenerationSettings
from video_llama.conversation.vllm_wire import completion, packed, read_step


def unpacked(text: str) -> torch.Tensor:
    content = base64.b64decode(text, validate=True)
    return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")


def body(n_likeliest: int | None = None, **settings: object) -> dict[str, object]:
    request = Request(Prompt([1], []), GenerationSettings(**settings), ["###"], n_likeliest)
    return json.loads(completion("mine", "AA==", request, eos_id=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_embeddings_arrive_bit_for_bit_in_their_number_format(dtype):
    embeds = torch.randn(5, 16).to(dtype)
    found = unpacked(packed(embeds))
    assert found.dtype == dtype
    assert torch.equal(found, embeds)


def test_a_row_of_a_batch_is_sent_alone_and_without_gradients():
    batch = torch.randn(1000, 5, 16, requires_grad=True)
    assert len(packed(batch[3])) < 5000
    assert not unpacked(packed(batch[3])).requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e5])
def test_embeddings_that_would_spoil_the_cache_of_vllm_are_not_sent(bad):
    with pytest.raises(VideoLlamaError, match="hold NaN, or values beyond fp16"):
        packed(torch.tensor([[0.0, bad]]))


def test_every_setting_is_named_because_vllm_would_take_it_from_its_model_otherwise():
    greedy = body()
    assert greedy == {
        "model": "mine",
        "prompt_embeds": "AA==",
        "max_tokens": 300,
        "temperature": 0.0,
        "top_p": 0.9,
        "top_k": -1,
        "min_p": 0.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "seed": None,
        "ignore_eos": True,
        "stop_token_ids": [2],
        "return_token_ids": True,
        "stream": True,
    }
    settings = {"temperature": 0.7, "top_p": 0.5, "seed": 3, "frequency_penalty": 1.0, "presence_penalty": -1.0}
    assert body(**settings, max_new_tokens=7).items() >= {**settings, "max_tokens": 7}.items()


def test_log_probabilities_are_asked_for_by_token_id():
    assert body(4).items() >= {"logprobs": 4, "return_tokens_as_token_ids": True}.items()
    assert "logprobs" not in body()


def test_what_vllm_cannot_do_is_refused():
    with pytest.raises(VideoLlamaError, match=r"repetition_penalty: 1.2; .*frequency_penalty"):
        body(repetition_penalty=1.2)
    with pytest.raises(VideoLlamaError, match="num_beams: 2"):
        body(num_beams=2)
    with pytest.raises(VideoLlamaError, match="top_logprobs: 21; vLLM reports up to 20"):
        body(21)


def event(**choice: object) -> str:
    return json.dumps({"choices": [{"index": 0, "text": "a", "finish_reason": None, "token_ids": [5], **choice}]})


def test_a_step_may_bring_several_tokens_or_none():
    assert read_step(event(token_ids=[5, 6], finish_reason="length")) == ([5, 6], [None, None], "length")
    assert read_step(event(token_ids=[], text="")) == ([], [], None)
    assert read_step(event(token_ids=None, text="")) == ([], [], None)
    assert read_step(json.dumps({"choices": [], "usage": {"prompt_tokens": 3}})) == ((), (), None)


def test_the_chosen_token_is_not_among_the_likeliest_unless_it_is_one_of_them():
    top = {"token_id:9": -5.0, "token_id:3": -0.5, "token_id:4": -1.0}
    step = read_step(event(token_ids=[9], logprobs={"token_logprobs": [-5.0], "top_logprobs": [top]}), n_likeliest=2)
    assert step.log_probs == [(-5.0, [(3, -0.5), (4, -1.0)])]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"error": {"message": "EngineCore\\nis dead", "code": 500}}', "could not go on: EngineCore is dead"),
        ('{"error": "Unauthorized"}', "could not go on"),
        ("<html>", "no JSON: <html>"),
        ("[1]", "something else than an object"),
        ('{"choices": 5}', "something else than tokens"),
        (event(token_ids=None), "something else than tokens"),
        (event(token_ids=["x"]), "something else than tokens"),
        (event(logprobs={"token_logprobs": [], "top_logprobs": []}), "0 log-probabilities of 1 tokens"),
    ],
)
def test_anything_else_in_a_stream_is_an_error_of_the_server(data, message):
    with pytest.raises(DecoderUnavailable, match=message):
        read_step(data)
