"""Requests and replies, with a scripted worker."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.unit.serving.conftest import answer, failure
from video_llama.common.errors import (
    DeadlineExceeded,
    DecodeError,
    Draining,
    InternalFault,
    OutOfMemory,
    PromptTooLong,
    QueueFull,
    VideoLlamaError,
)
from video_llama.conversation.worker import Piece, Started, TokenChance
from video_llama.serving.api_error import ApiError
from video_llama.serving.chat_request import UNSUPPORTED, ChatRequest, check_unsupported
from video_llama.serving.media_source import ReadAs, decoded, shown
from video_llama.serving.served_file import Sampling, SentFrames

USER = {"role": "user", "content": "What is it?"}


def picture(size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return file.getvalue()


def image(content: bytes) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def events(response: Any) -> list[Any]:
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_reply_has_the_shape_of_the_protocol(server):
    reply = server.ask(image(picture()), n=2).json()
    assert reply["id"].startswith("chatcmpl-")
    assert (reply["object"], reply["model"]) == ("chat.completion", "toy")
    message = {"role": "assistant", "content": "It is red."}
    assert reply["choices"] == [
        {"index": k, "message": message, "logprobs": None, "finish_reason": "stop"} for k in range(2)
    ]
    assert reply["usage"] == {
        "prompt_tokens": 18,
        "completion_tokens": 8,
        "total_tokens": 26,
        "prompt_tokens_details": {"multimodal_tokens": 8},
    }
    assert (reply["sound"], reply["damage"]) == (["off"], [""])


def test_fields_reach_the_worker(server):
    fields = {
        "temperature": 0.5, "top_p": 0.8, "seed": 7, "max_completion_tokens": 9, "max_tokens": 3, "stop": ["x", "y"], "n": 3,
        "frequency_penalty": 0.5, "presence_penalty": -0.5, "repetition_penalty": 1.2, "logprobs": True, "top_logprobs": 4,
    }  # fmt: skip
    assert server.ask(**fields).status_code == 200
    (ask,) = server.worker.asks
    settings = ask.settings
    assert (settings.temperature, settings.top_p, settings.seed, settings.max_new_tokens) == (0.5, 0.8, 7, 9)
    assert (settings.frequency_penalty, settings.presence_penalty, settings.repetition_penalty) == (0.5, -0.5, 1.2)
    assert (ask.n, ask.top_logprobs, list(ask.stops), ask.system) == (3, 4, ["x", "y"], None)
    assert ask.deadline_s == server.limits.deadline_s
    assert ask.client == "testclient"


def test_without_fields_the_answer_is_that_of_infer(server):
    server.ask(seed=-1, stop="x")
    (ask,) = server.worker.asks
    assert (ask.settings.temperature, ask.settings.top_p, ask.settings.max_new_tokens) == (0, 1, 300)
    assert (ask.settings.seed, list(ask.stops), ask.top_logprobs) == (2**63 - 1, ["x"], None)


def test_a_stream_has_a_chunk_for_each_piece(server):
    found = events(server.ask(image(picture()), stream=True, stream_options={"include_usage": True}))
    deltas = [chunk["choices"][0]["delta"] for chunk in found[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[1:] == [{"content": "It"}, {"content": " is"}, {"content": " red."}, {}]
    assert (found[0]["sound"], found[0]["damage"]) == (["off"], [""])
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert (found[-1]["choices"], found[-1]["usage"]["completion_tokens"]) == ([], 4)
    assert all("usage" not in chunk for chunk in found[:-1])
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}


def test_log_probabilities_have_bytes(server):
    chance = TokenChance("é", -0.5, [("é", -0.5), ("", -2.0)])
    server.worker.events = lambda ask: [Started(1, 0, []), Piece(0, "é", [chance], 1, "length")]
    choice = server.ask(logprobs=True, top_logprobs=2).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    (token,) = choice["logprobs"]["content"]
    assert (token["token"], token["logprob"], token["bytes"]) == ("é", -0.5, [0xC3, 0xA9])
    assert [top["bytes"] for top in token["top_logprobs"]] == [[0xC3, 0xA9], []]
    first, second, last = events(server.ask(logprobs=True, stream=True))
    assert first["choices"][0]["logprobs"] is None
    assert second["choices"][0]["logprobs"]["content"][0]["token"] == "é"
    assert last["choices"][0]["finish_reason"] == "length"


ERRORS = [
    (PromptTooLong("a prompt of 600 tokens"), 400, "context_length_exceeded", "600"),
    (DecodeError("/secret/folder/x.mp4", "damaged"), 400, "undecodable_media", "damaged"),
    (DeadlineExceeded("no answer within 3 seconds"), 504, "deadline_exceeded", "3 seconds"),
    (OutOfMemory("too much"), 503, "out_of_memory", "too much"),
    (VideoLlamaError("the model has no audio branch"), 400, "bad_request", "audio branch"),
]


@pytest.mark.parametrize(("error", "status", "code", "words"), ERRORS)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_before_the_first_token_have_a_status(server, error, status, code, words, stream):
    server.worker.events = failure(error)
    response = server.ask(stream=stream)
    assert response.status_code == status
    detail = response.json()["error"]
    assert detail["code"] == code
    assert words in detail["message"]
    assert ("retry-after" in response.headers) == (status == 503)
    assert server.worker.tickets[-1].cancelled.is_set()


@pytest.mark.parametrize(
    ("error", "status", "retry_after"), [(QueueFull(64, 7.2), 429, "8"), (Draining("stopping"), 503, "5")]
)
def test_a_worker_that_takes_no_more_says_when_to_come_back(server, error, status, retry_after):
    server.worker.refusal = error
    response = server.ask()
    assert (response.status_code, response.headers["retry-after"]) == (status, retry_after)


def test_an_error_in_a_stream_is_an_event(server):
    server.worker.events = failure(DeadlineExceeded("too late"), Started(1, 0, []), Piece(0, "It"))
    *_, last = events(server.ask(stream=True))
    assert last["error"]["code"] == "deadline_exceeded"
    assert server.ask().status_code == 504


def test_an_unexpected_error_of_the_model_keeps_its_details_to_itself(server):
    server.worker.events = failure(InternalFault("answering failed: KeyError('/etc/secret')"), Started(1, 0, []))
    response = server.ask()
    assert response.status_code == 500
    assert "secret" not in response.text
    server.worker.refusal = RuntimeError("/etc/secret")
    response = server.ask()
    assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in response.text


def test_paths_of_the_server_are_replaced_by_places_in_the_request(server):
    def script(ask: Any) -> list[Any]:
        path = ask.turns[0].files[0].path
        return failure(DecodeError(str(path), "damaged"))(ask)

    server.worker.events = script
    response = server.ask(image(picture()))
    assert response.json()["error"]["message"] == "messages[0].content[0]: damaged"


def test_equal_files_are_equal_for_caches(server):
    server.ask(image(picture()), image(picture()), image(picture((9, 9))))
    first, second, other = server.worker.asks[0].turns[0].files
    assert (first, first.path) == (second, second.path)
    assert other.path != first.path


def test_clips_may_be_sent_as_frames(server):
    text = ",".join(base64.b64encode(picture((8, 8), "JPEG")).decode() for _ in range(3))
    part = {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{text}"}}
    server.ask(part, num_frames=2)
    (file,) = server.worker.asks[0].turns[0].files
    assert isinstance(file, SentFrames)
    assert (file.kind, file.sampling.n_frames) == ("video", 2)
    too_many = {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64," + "QQ==," * 100}}
    assert server.ask(too_many).json()["error"]["param"] == "messages[0].content[0]"


def test_how_clips_are_read(server):
    from video_llama.serving.completions import read_as_of

    def read_as(**fields: Any) -> ReadAs:
        request = ChatRequest.model_validate({"model": "toy", "messages": [USER], **fields})
        return read_as_of(request, server.model)

    assert read_as() == ReadAs()
    assert read_as(num_frames=4, sampling="uniform", use_audio=False) == ReadAs(False, Sampling(4, "uniform"))
    assert read_as(fps=2) == ReadAs(None, Sampling(None, "fps", 2))
    theirs = {"media_io_kwargs": {"video": {"num_frames": 4}}, "mm_processor_kwargs": {"use_audio_in_video": True}}
    assert read_as(**theirs) == ReadAs(True, Sampling(4))
    for fields, param in (
        ({"num_frames": 33}, "num_frames"),
        ({"sampling": "fps"}, "sampling"),
        ({"sampling": "uniform", "fps": 1}, "sampling"),
        ({"num_frames": 5, **theirs}, "num_frames"),
        ({"use_audio": False, **theirs}, "use_audio"),
    ):
        with pytest.raises(ApiError) as raised:
            read_as(**fields)
        assert raised.value.param == param


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_what_would_change_the_answer_is_refused_by_name(name):
    def check(value: Any) -> None:
        check_unsupported(ChatRequest.model_validate({"model": "toy", "messages": [USER], name: value}))

    for neutral in (None, *UNSUPPORTED[name]):
        check(neutral)
    for value in ("something", 12, ["x"], {"x": 1}):
        with pytest.raises(ApiError) as raised:
            check(value)
        assert (raised.value.status, raised.value.param) == (400, name)


def test_one_is_not_true(server):
    assert server.ask(top_k=True).status_code == 400
    assert server.ask(num_beams=True).status_code == 400


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 3}}]}]}, "messages[0].content[0].image_url.url"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"stop": [1]}, "stop[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"n": 1.5}, "n"),
        ({"temperature": True}, "temperature"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
        ({"stop": "\ud800"}, "stop"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_place(server, change, param):
    body = json.dumps({"model": "toy", "messages": [USER], **change})
    response = server.client().post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_numbers_that_are_none_are_refused(server):
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        body = f'{{"model": "toy", "messages": [{{"role": "user", "content": "x"}}], "temperature": {number}}}'
        response = server.client().post(
            "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
        assert response.status_code == 400, number


def test_draining_refuses_questions_and_tells_balancers(server):
    server.is_draining = True
    assert server.ask().status_code == 503
    assert server.client().get("/ready").status_code == 503
    assert server.client().get("/health").status_code == 200
    assert server.worker.asks == []


def test_metrics_have_times_and_reasons(server):
    client = server.client()
    body = {"model": "toy", "messages": [USER]}
    client.post("/v1/chat/completions", json=body)
    server.worker.events = answer("It is", "length")
    client.post("/v1/chat/completions", json={**body, "stream": True})
    client.post("/v1/chat/completions", json={**body, "model": "other"})
    text = client.get("/metrics").text
    for line in (
        *(f'requests_total{{finished_reason="{why}",model_name="toy"}} 1.0' for why in ("stop", "length", "error")),
        'generation_tokens_total{model_name="toy"} 7.0',
        'prompt_tokens_total{model_name="toy"} 20.0',
        'time_to_first_token_seconds_count{model_name="toy"} 2.0',
        'inter_token_latency_seconds_count{model_name="toy"} 5.0',
        'e2e_request_latency_seconds_count{model_name="toy"} 3.0',
        'http_responses_total{model_name="toy",status="404"} 1.0',
    ):
        assert f"video_llama_{line}" in text


@pytest.mark.parametrize("text", ["====", "QQ", "Q Q=", "é", "QQ==x", ""])
def test_only_base64_is_decoded(text):
    with pytest.raises(ApiError):
        decoded(text)


def test_base64_may_be_broken_into_lines():
    assert decoded("UV\nFR\r\n") == b"QQQ"


def test_long_urls_are_cut_in_messages():
    assert len(shown("x" * 1000)) == 81


def test_the_guide_names_every_field_metric_and_route(server):
    guide = (Path(__file__).parents[3] / "docs/serving.md").read_text(encoding="utf-8")
    for field in ChatRequest.model_fields:
        assert f"`{field}`" in guide or field in ("model", "messages"), field
    client = server.client()
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("# TYPE") and not line.split()[2].endswith("_created"):
            assert f"`{line.split()[2]}" in guide, line
    for path in client.get("/openapi.json").json()["paths"]:
        assert path.replace("{name}", "NAME") in guide, path
