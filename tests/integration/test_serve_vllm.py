"""``video-llama serve --engine vllm=...``: the server is the same, and its decoder runs elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api_server import ApiServer, api_server, data_url, part, user
from tests.integration.conftest import ROOT
from tests.vllm_stand_in import StandIn, serving
from video_llama.conversation.chat import Chat
from video_llama.conversation.engine import Engine
from video_llama.conversation.settings import GenerationSettings

openai = pytest.importorskip("openai", reason="this needs the official client: pip install -e '.[dev]'")
pytest.importorskip("fastapi", reason="the server needs fastapi: pip install -e '.[serve]'")

QUESTION = "What colour is the shape?"


@pytest.fixture(scope="module")
def vllm() -> Iterator[StandIn]:
    with serving(StandIn(ROOT / "video_llama/toy/weights/decoder")) as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def server(vllm: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("serve"), "--engine", f"vllm={vllm.url}") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Any:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


def create(client: Any, *parts: Any, **fields: Any) -> Any:
    return client.chat.completions.create(model="toy", messages=[user(QUESTION, *parts)], max_tokens=30, **fields)


def test_a_clip_is_answered_as_the_whole_model_does(client: Any, loaded: Engine, world: Path):
    clip = sorted((world / "heldout/videos").glob("*.mp4"))[0]
    chat = Chat(loaded)
    chat.upload(video=clip)
    expected = chat.ask(QUESTION, GenerationSettings(max_new_tokens=30))
    video = part("video", data_url(clip, "video/mp4"))
    reply = create(client, video, temperature=0)
    assert reply.choices[0].message.content == expected
    assert reply.usage.completion_tokens == chat.last.answer_tokens
    chunks = list(create(client, video, temperature=0, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected


def test_what_vllm_cannot_do_is_the_fault_of_the_request(client: Any):
    with pytest.raises(openai.BadRequestError, match="repetition_penalty"):
        create(client, extra_body={"repetition_penalty": 1.5})


def test_a_vllm_that_fails_is_told_apart_and_its_address_is_not_told(client: Any, vllm: StandIn, server: ApiServer):
    vllm.statuses = [500]
    with pytest.raises(openai.InternalServerError) as caught:
        create(client)
    assert (caught.value.status_code, caught.value.code) == (503, "decoder_unavailable")
    assert vllm.url not in str(caught.value)
    assert f"{vllm.url} answers 500" in server.log.read_text()
    assert create(client).choices[0].message.content


def test_a_server_without_its_vllm_does_not_start(root: Path, command: Any):
    code, _, err = command(
        "serve", "--cfg-path", "toy", "--device", "cpu", "--port", 0, "--engine", "vllm=http://127.0.0.1:9"
    )
    assert code == 1
    assert "http://127.0.0.1:9: vLLM cannot be reached" in err
    code, _, err = command("serve", "--cfg-path", "toy", "--device", "cpu", "--port", 0, "--engine", "sglang")
    assert (code, err.strip()) == (1, "error: --engine sglang: expected local, or vllm=http://HOST:PORT")
