"""``video-llama serve`` with the toy model, through the official client and through bodies of evaluation kits."""

from __future__ import annotations

import base64
import io
import json
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.api_server import ROOT, ApiServer, api_server, data_url, part, user
from tests.demo_server import wait_until

openai = pytest.importorskip("openai", reason="this needs the official client: pip install -e '.[dev]'")
httpx2 = pytest.importorskip("httpx2")
pytest.importorskip("fastapi", reason="the server needs fastapi: pip install -e '.[serve]'")

QUESTIONS = ["What colour is the shape?", "What shape is it?", "How does it move?", "What sound does it make?"]


@pytest.fixture(scope="module")
def media(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip, its picture and its sound."""
    import av

    folder = tmp_path_factory.mktemp("media")
    clips = sorted((world / "heldout/videos").glob("*.mp4"))
    for k, clip in enumerate(clips[:4]):
        (folder / f"clip{k}.mp4").write_bytes(clip.read_bytes())
    with av.open(str(clips[0])) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    for k in range(0, 8, 2):
        frames[k].save(folder / f"frame{k}.jpg", quality=95)
    frames[0].save(folder / "picture.png")
    with av.open(str(clips[1])) as source, av.open(str(folder / "sound.wav"), "w") as target:
        stream = target.add_stream("pcm_s16le", rate=16000, layout="mono")
        resampler = av.AudioResampler("s16", "mono", 16000)
        for frame in source.decode(audio=0):
            for piece in resampler.resample(frame):
                target.mux(stream.encode(piece))
        target.mux(stream.encode(None))
    return folder


@pytest.fixture(scope="module")
def server(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("serve"), "--media-root", media) as running:
        yield running
        assert running.held_files() == []


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Any:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def ask(client: Any) -> Callable[..., Any]:
    """Ask, and return the reply."""

    def run(question: str, *parts: dict[str, Any], **fields: Any) -> Any:
        return client.chat.completions.create(model="toy", messages=[user(question, *parts)], **fields)

    return run


@pytest.fixture(scope="module")
def post(server: ApiServer) -> Callable[..., Any]:
    """Send a body as it is; return the response."""

    def run(body: Any, **options: Any) -> Any:
        return httpx2.post(f"{server.url}/chat/completions", json=body, timeout=60, **options)

    return run


def clip(media: Path, k: int = 0) -> dict[str, Any]:
    return part("video", data_url(media / f"clip{k}.mp4", "video/mp4"))


def test_answers_are_those_of_infer(ask, media, command, tmp_path):
    files = [("video", f"clip{k}.mp4") for k in range(4)] + [("image", "picture.png"), ("audio", "sound.wav")]
    rows = [{"id": f"{name} {q}", kind: str(media / name), "question": q} for kind, name in files for q in QUESTIONS]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = command(
        "infer",
        "--cfg-path",
        "toy",
        "--device",
        "cpu",
        "--input",
        tmp_path / "in.jsonl",
        "--output",
        tmp_path / "out.jsonl",
    )
    assert result.code == 0, result.err
    expected = {row["id"]: row["answer"] for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}
    types = {"video": "video/mp4", "image": "image/png", "audio": "audio/wav"}

    def answer(file: tuple[str, str], question: str) -> tuple[str, str]:
        kind, name = file
        reply = ask(question, part(kind, data_url(media / name, types[kind])))
        return f"{name} {question}", reply.choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        found = dict(pool.map(lambda args: answer(*args), [(file, q) for file in files for q in QUESTIONS]))
    assert found == expected
    assert len(set(expected.values())) > 5


def test_all_kinds_of_media_in_one_message(ask, media):
    reply = ask(
        "What is there?",
        clip(media),
        part("image", data_url(media / "picture.png", "image/png")),
        part("audio", data_url(media / "sound.wav", "audio/wav")),
        {
            "type": "input_audio",
            "input_audio": {"data": base64.b64encode((media / "sound.wav").read_bytes()).decode(), "format": "wav"},
        },
    )
    assert reply.sound == ["used", "off", "used", "used"]
    assert reply.damage == [""] * 4
    assert reply.usage.prompt_tokens_details.multimodal_tokens == 8 * 5  # a clip has two items
    assert reply.choices[0].message.content


def test_a_dialogue_goes_on(client, media):
    messages = [user("What colour is the shape?", clip(media))]
    first = client.chat.completions.create(model="toy", messages=messages)
    messages.append({"role": "assistant", "content": first.choices[0].message.content})
    messages.append({"role": "user", "content": "What shape is it?"})
    second = client.chat.completions.create(model="toy", messages=messages)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    alone = client.chat.completions.create(model="toy", messages=[user("What shape is it?", clip(media))])
    assert second.choices[0].message.content == alone.choices[0].message.content


def test_a_dialogue_is_that_of_chat(client, media, loaded):
    from video_llama.conversation.chat import Chat

    chat = Chat(loaded)
    chat.upload(video=media / "clip1.mp4")
    answers = [chat.ask(QUESTIONS[0]), chat.ask(QUESTIONS[1])]
    messages = [
        user(QUESTIONS[0], clip(media, 1)),
        {"role": "assistant", "content": answers[0]},
        {"role": "user", "content": QUESTIONS[1]},
    ]
    assert client.chat.completions.create(model="toy", messages=messages).choices[0].message.content == answers[1]


def test_a_system_message_replaces_the_models_own(client, media):
    messages = [user(QUESTIONS[0], clip(media))]
    without = client.chat.completions.create(model="toy", messages=messages)
    text = "Answer in a great many words, and never in one."
    with_text = client.chat.completions.create(model="toy", messages=[{"role": "system", "content": text}, *messages])
    assert with_text.usage.prompt_tokens != without.usage.prompt_tokens


def test_a_stream_adds_up_to_the_answer(ask, media):
    whole = ask("Describe the video.", clip(media))
    chunks = list(ask("Describe the video.", clip(media), stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].sound == ["used"]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len(chunks) > 5
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_has_the_events_of_the_protocol(post, media):
    body = {"model": "toy", "messages": [user(QUESTIONS[0], clip(media))], "stream": True}
    response = post(body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    first, *_, last = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert "usage" not in last
    usage = post({**body, "stream_options": {"continuous_usage_stats": True}}).text
    assert '"completion_tokens": 1,' in usage


def test_a_stop_string_ends_an_answer(ask, media):
    whole = ask("Describe the video.", clip(media)).choices[0].message.content
    word = whole.split()[3]
    reply = ask("Describe the video.", clip(media), stop=[word, "no such text"])
    assert reply.choices[0].message.content == whole[: whole.index(word)].rstrip()
    assert reply.choices[0].finish_reason == "stop"


def test_max_tokens_cuts_an_answer(ask, media):
    for name in ("max_tokens", "max_completion_tokens"):
        reply = ask("Describe the video.", clip(media), **{name: 2})
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage.completion_tokens == 2


def test_several_answers_are_sampled_with_seeds_in_a_row(ask, media):
    sampling = {"temperature": 3.0, "max_tokens": 12}
    three = ask("Describe the video.", clip(media), n=3, seed=5, **sampling)
    texts = [choice.message.content for choice in three.choices]
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert texts == [
        ask("Describe the video.", clip(media), seed=5 + k, **sampling).choices[0].message.content for k in range(3)
    ]
    assert len(set(texts)) == 3
    streamed = [""] * 3
    for chunk in ask("Describe the video.", clip(media), n=3, seed=5, stream=True, **sampling):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_log_probabilities_of_tokens(ask, media):
    reply = ask(QUESTIONS[0], clip(media), logprobs=True, top_logprobs=3)
    tokens = reply.choices[0].logprobs.content
    assert len(tokens) == reply.usage.completion_tokens
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)
    assert all(token.top_logprobs[0].token == token.token for token in tokens)  # greedy
    assert "".join(token.token for token in tokens).strip().startswith(reply.choices[0].message.content)
    streamed = ask(QUESTIONS[0], clip(media), logprobs=True, stream=True)
    logged = [
        token for chunk in streamed for choice in chunk.choices if choice.logprobs for token in choice.logprobs.content
    ]
    assert [token.token for token in logged] == [token.token for token in tokens]


def test_a_repetition_penalty_below_one_makes_an_answer_repeat_itself(ask, media):
    reply = ask("Describe the video.", clip(media), max_tokens=30, extra_body={"repetition_penalty": 0.1})
    words = reply.choices[0].message.content.split()
    assert len(set(words)) < len(words)


def test_how_clips_are_read_is_up_to_the_request(ask, media):
    def prompt_tokens(**extra: Any) -> int:
        return ask("What is it?", clip(media), extra_body={"use_audio": False, **extra}).usage.prompt_tokens

    # Without sound, the prompt says when each frame is shown.
    assert prompt_tokens(num_frames=2) < prompt_tokens() < prompt_tokens(num_frames=8)
    assert prompt_tokens(media_io_kwargs={"video": {"num_frames": 2}}) == prompt_tokens(num_frames=2)
    assert prompt_tokens(fps=1, num_frames=8) == prompt_tokens(num_frames=2)  # clips take 2 s
    silent = ask("What is it?", clip(media), extra_body={"use_audio": False})
    assert silent.sound == ["off"]
    assert silent.usage.prompt_tokens_details.multimodal_tokens == 8
    used = ask("What is it?", clip(media), extra_body={"mm_processor_kwargs": {"use_audio_in_video": True}})
    assert used.sound == ["used"]


def test_a_clip_may_be_sent_as_frames(ask, media):
    frames = [base64.b64encode((media / f"frame{k}.jpg").read_bytes()).decode() for k in range(0, 8, 2)]
    reply = ask("What colour is the shape?", part("video", "data:video/jpeg;base64," + ",".join(frames)))
    assert reply.sound == ["no track"]
    assert reply.usage.prompt_tokens_details.multimodal_tokens == 8
    assert reply.choices[0].message.content == ask("What colour is the shape?", clip(media)).choices[0].message.content
    with pytest.raises(openai.BadRequestError, match=r"no sound track"):
        ask("What is it?", part("video", "data:video/jpeg;base64," + ",".join(frames)), extra_body={"use_audio": True})


def test_files_below_the_root_are_read_by_url_and_by_path(ask, media):
    by_value = ask(QUESTIONS[0], clip(media)).choices[0].message.content
    for url in (f"file://{media}/clip0.mp4", f"file://localhost{media}/clip0.mp4", f"{media}/clip0.mp4"):
        assert ask(QUESTIONS[0], {"type": "video_url", "video_url": url}).choices[0].message.content == by_value


@pytest.mark.parametrize(
    ("fields", "error", "param", "words"),
    [
        ({"model": "nope"}, "NotFoundError", "model", "`nope` does not exist"),
        ({"messages": []}, "BadRequestError", "messages", "at least 1"),
        ({"messages": [{"role": "user", "content": ""}]}, "BadRequestError", "messages", "no text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "BadRequestError", "messages[0]", "'user'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "BadRequestError", "messages[0]", "without a question"),
        ({"messages": [user("x"), {"role": "assistant", "content": "y"}]}, "BadRequestError", "messages[1]", "role user"),
        ({"messages": [user("x"), {"role": "system", "content": "y"}]}, "BadRequestError", "messages[1]", "before all others"),
        ({"messages": [user("hi " * 2000)]}, "BadRequestError", "messages", "tokens"),
        ({"messages": [user("hi " * 20000)]}, "BadRequestError", "messages", "context of 512 tokens"),
        ({"messages": [user("x", {"type": "file", "file": {}})]}, "BadRequestError", "messages[0].content[0]", "'video_url'"),
        ({"messages": [user("x", part("video", "data:video/mp4;base64,AAAA"))]}, "BadRequestError", "messages[0].content[0]", "no video or sound"),
        ({"messages": [user("x", part("image", "data:image/png;base64,$$$"))]}, "BadRequestError", "messages[0].content[0]", "base64"),
        ({"messages": [user("x", part("image", "data:image/png,abc"))]}, "BadRequestError", "messages[0].content[0]", "base64"),
        ({"messages": [user("x", part("image", "https://example.org/x.png"))]}, "BadRequestError", "messages[0].content[0]", "--allow-fetch"),
        ({"messages": [user("x", part("image", "file:///etc/passwd"))]}, "BadRequestError", "messages[0].content[0]", "--media-root"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "BadRequestError", "tools", "tools"),
        ({"response_format": {"type": "json_object"}}, "BadRequestError", "response_format", "response_format"),
        ({"logit_bias": {"1": 100}}, "BadRequestError", "logit_bias", "logit_bias"),
        ({"extra_body": {"num_beams": 4}}, "BadRequestError", "num_beams", "num_beams"),
        ({"extra_body": {"top_k": 5}}, "BadRequestError", "top_k", "top_k"),
        ({"extra_body": {"num_frames": 100}}, "BadRequestError", "num_frames", "up to 32"),
        ({"extra_body": {"media_io_kwargs": {"video": {"x": 1}}}}, "BadRequestError", "media_io_kwargs.video.x", "not permitted"),
        ({"temperature": -1}, "BadRequestError", "temperature", "greater"),
        ({"temperature": "hot"}, "BadRequestError", "temperature", "number"),
        ({"max_tokens": 0}, "BadRequestError", "max_tokens", "greater"),
        ({"n": 1000}, "BadRequestError", "n", "less"),
        ({"stop": [""]}, "BadRequestError", "stop", "1 to 1000"),
        ({"top_logprobs": 3}, "BadRequestError", "top_logprobs", "logprobs"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_is_refused_is_named(client, fields, error, param, words):
    request = {"model": "toy", "messages": [user("What is it?")], **fields}
    with pytest.raises(getattr(openai, error)) as raised:
        client.chat.completions.create(**request)
    assert raised.value.param == param
    assert words in raised.value.message
    with pytest.raises(getattr(openai, error)):  # before the stream starts
        client.chat.completions.create(**request, stream=True)


def test_values_that_change_nothing_are_accepted(client):
    neutral = {
        "tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "logit_bias": {}, "user": "someone",
        "metadata": {"a": "b"}, "store": False, "parallel_tool_calls": True, "frequency_penalty": 0, "presence_penalty": 0,
        "extra_body": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": False, "no_such_field": 1},
    }  # fmt: skip
    plain = client.chat.completions.create(model="toy", messages=[user("Hello?")])
    reply = client.chat.completions.create(model="toy", messages=[user("Hello?")], **neutral)
    assert reply.choices == plain.choices


def test_a_long_answer_is_cut_where_the_context_ends(client):
    reply = client.chat.completions.create(
        model="toy", messages=[user("Hello?")], max_tokens=16384, extra_body={"repetition_penalty": 1.5}
    )
    assert reply.usage.total_tokens <= 512


def test_a_broken_clip_is_refused_with_its_reason_or_reported_as_damaged(ask, media):
    content = (media / "clip0.mp4").read_bytes()

    def of(content: bytes) -> dict[str, Any]:
        return part("video", f"data:video/mp4;base64,{base64.b64encode(content).decode()}")

    for broken in (b"x" * 2000, content[:200], content[: len(content) // 2]):
        with pytest.raises(openai.BadRequestError) as raised:
            ask("What is it?", of(broken))
        assert raised.value.param == "messages[0].content[0]"
        assert raised.value.code == "undecodable_media"
        assert "/tmp" not in raised.value.message
    middle = len(content) // 2
    damaged = ask("What is it?", of(content[:middle] + bytes(200) + content[middle + 200 :]))
    assert any(damaged.damage) or damaged.sound != ["used"]


def test_models_are_listed_and_described(client, server):
    (model,) = client.models.list().data
    assert (model.id, model.max_model_len) == ("toy", 512)
    assert client.models.retrieve("toy") == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    base = server.url.removesuffix("/v1")
    assert httpx2.get(f"{base}/health").json() == {"status": "ok"}
    assert httpx2.get(f"{base}/ready").json()["status"] == "ready"
    assert httpx2.get(f"{base}/nothing").json()["error"]["code"] == "not_found"
    assert httpx2.get(f"{server.url}/chat/completions").status_code == 405
    assert "/v1/chat/completions" in httpx2.get(f"{base}/openapi.json").json()["paths"]


def test_metrics_count_requests_and_tokens(client, server):
    def read() -> dict[str, float]:
        text = httpx2.get(server.url.replace("/v1", "/metrics")).text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    before = read()
    reply = client.chat.completions.create(model="toy", messages=[user("Hello?")])
    after = read()
    label = '{model_name="toy"}'
    assert (
        after[f"video_llama_generation_tokens_total{label}"] - before[f"video_llama_generation_tokens_total{label}"]
        == reply.usage.completion_tokens
    )
    assert (
        after[f"video_llama_prompt_tokens_total{label}"] - before[f"video_llama_prompt_tokens_total{label}"]
        == reply.usage.prompt_tokens
    )
    first = f"video_llama_time_to_first_token_seconds_count{label}"
    assert after[first] - before[first] == 1
    assert after[f"video_llama_requests_running{label}"] == 0


def test_a_client_that_hangs_up_frees_the_model(server, client):
    body = {
        "model": "toy",
        "messages": [user("Hello?")],
        "max_tokens": 400,
        "repetition_penalty": 2.0,
        "temperature": 5.0,
        "seed": 0,
        "n": 16,  # so that it lasts
    }
    metrics = server.url.replace("/v1", "/metrics")
    for stream in (False, True):
        content = json.dumps({**body, "stream": stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head.encode() + content)
            wait_until(lambda: httpx2.get(server.url.replace("/v1", "/ready")).json()["running"] == 1)
        wait_until(lambda: httpx2.get(server.url.replace("/v1", "/ready")).json()["running"] == 0)
    assert 'video_llama_requests_total{finished_reason="cancelled",model_name="toy"} 2.0' in httpx2.get(metrics).text


def test_the_example_of_the_guide_answers(server, media, monkeypatch, capsys):
    guide = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    code = guide.split("```python\n")[1].split("```")[0]
    (media / "clip.mp4").write_bytes((media / "clip0.mp4").read_bytes())
    monkeypatch.chdir(media)
    exec(code.replace("http://127.0.0.1:8000/v1", server.url), {})
    assert "['used']" in capsys.readouterr().out


VLMEVALKIT_IMAGE = io.BytesIO()
Image.new("RGB", (96, 64), "red").save(VLMEVALKIT_IMAGE, "JPEG")
JPEG = "data:image/jpeg;base64," + base64.b64encode(VLMEVALKIT_IMAGE.getvalue()).decode()


def test_bodies_of_vlmevalkit(post, media):
    wrapper = {
        "model": "toy",
        "messages": [
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": JPEG, "detail": "low"}},
                {"type": "text", "text": "What colour is it?"},
            ]},
        ],
        "n": 1, "temperature": 0, "max_tokens": 2048,
    }  # fmt: skip
    lmdeploy = {
        "model": "toy",
        "messages": [{"role": "user", "content": [
            {"type": "video_url", "video_url": {"url": data_url(media / "clip0.mp4", "video/mp4")}},
            {"type": "text", "text": "What shape is it?"},
        ]}],
        "n": 1, "temperature": 0, "max_tokens": 16384,
    }  # fmt: skip
    by_path = {**lmdeploy, "messages": [user("What shape is it?", part("video", f"file://{media}/clip0.mp4"))]}
    headers = {"Authorization": "Bearer sk-123456"}
    for body in (wrapper, lmdeploy, by_path):
        response = post(body, headers=headers)
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["message"]["content"]


def test_bodies_of_lmms_eval(client, media):
    common = {
        "model": "toy",
        "temperature": 0,
        "top_p": 1.0,
        "seed": 0,
        "n": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "max_tokens": 16,
    }
    frames = [part("image", data_url(media / f"frame{k}.jpg", "image/png")) for k in (0, 4)]
    chat = client.chat.completions.create(**common, messages=[user("What is it?", *frames)])
    assert chat.sound == ["off", "off"]
    video = client.chat.completions.create(
        **common,
        messages=[user("What is it?", part("video", f"file://{media}/clip1.mp4"))],
        extra_body={"media_io_kwargs": {"video": {"num_frames": 4}}},
    )
    assert video.choices[0].message.content
    raw_path = client.chat.completions.create(
        **common, messages=[user("What is it?", part("audio", f"{media}/sound.wav"))]
    )
    assert raw_path.sound == ["used"]


def test_the_asynchronous_client_streams_to_many_at_once(server, media):
    import asyncio

    async def one(client: Any, k: int) -> str:
        text = ""
        async for chunk in await client.chat.completions.create(
            model="toy", messages=[user(QUESTIONS[k % 4], clip(media, k % 3))], stream=True
        ):
            text += chunk.choices[0].delta.content or ""
        return text

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(one(client, k) for k in range(24)))

    found = asyncio.run(all_of_them())
    assert found[:12] == found[12:]
    assert all(found)


def test_keys_are_needed_under_v1_alone(media, tmp_path):
    (tmp_path / "keys").write_text("# of the tests\nfirst-key\n\nsecond-key\n")
    with api_server(tmp_path, "--api-key-file", tmp_path / "keys", "--served-model-name", "org/toy") as server:
        for key, works in (
            ("first-key", True),
            ("second-key", True),
            ("first-ke", False),
            ("", False),
            ("first-key2", False),
        ):
            client = openai.OpenAI(base_url=server.url, api_key=key or "none", max_retries=0)
            if works:
                assert client.models.list().data[0].id == "org/toy"
                assert client.models.retrieve("org/toy").id == "org/toy"
                assert client.chat.completions.create(model="org/toy", messages=[user("Hello?")]).choices
            else:
                with pytest.raises(openai.AuthenticationError, match="API key"):
                    client.chat.completions.create(model="org/toy", messages=[user("Hello?")])
        base = server.url.removesuffix("/v1")
        assert httpx2.get(f"{server.url}/models").status_code == 401
        assert httpx2.get(f"{server.url}/models", headers={"authorization": "Basic first-key"}).status_code == 401
        assert {httpx2.get(f"{base}{path}").status_code for path in ("/health", "/ready", "/metrics")} == {200}
        _stop_while_it_answers(server, openai.OpenAI(base_url=server.url, api_key="first-key", max_retries=0))


def _stop_while_it_answers(server: ApiServer, client: Any) -> None:
    """Send SIGTERM in the middle of answers: they are finished, new ones get 503, and the process ends with 0."""
    wanted = {"model": "org/toy", "messages": [user("Hello?")], "max_tokens": 350, "temperature": 5.0, "n": 4}
    wanted["extra_body"] = {"repetition_penalty": 2.0}
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.chat.completions.create, **wanted, seed=k) for k in range(4)]
        ready = server.url.replace("/v1", "/ready")
        wait_until(lambda: httpx2.get(ready).json()["running"] == 4)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx2.get(ready).status_code == 503)
        with pytest.raises(openai.InternalServerError) as raised:
            client.chat.completions.create(model="org/toy", messages=[user("Hello?")])
        assert raised.value.status_code == 503
        assert raised.value.response.headers["retry-after"]
        replies = [one.result() for one in asked]
    assert all(reply.choices[0].finish_reason for reply in replies)
    assert sum(reply.usage.completion_tokens for reply in replies) > 100
    assert server.process.wait(30) == 0
