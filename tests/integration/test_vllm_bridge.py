"""A model whose decoder runs in a vLLM answers as the whole model does: about text, images, clips, sound, in dialogues."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.integration.conftest import ROOT
from tests.vllm_stand_in import StandIn, serving
from video_llama.common.errors import DecoderUnavailable, VideoLlamaError
from video_llama.conversation.decoding import Failed, Piece, Progress
from video_llama.conversation.engine import Engine
from video_llama.conversation.file import File
from video_llama.conversation.settings import GenerationSettings
from video_llama.conversation.vllm_bridge import bridge, vllm_address
from video_llama.conversation.vllm_server import VllmServer
from video_llama.conversation.worker import Ask, ShownTurn, Worker

DECODER = ROOT / "video_llama/toy/weights/decoder"
CONFIG = "eval_configs/toy.yaml"
START_S = 300


class Answer(NamedTuple):
    ids: list[int]
    text: str


def answer(worker: Worker, turns: list[ShownTurn[File]]) -> Answer:
    events: SimpleQueue[Progress] = SimpleQueue()
    worker.submit(Ask(turns, GenerationSettings(max_new_tokens=40)), events.put)
    found = Answer([], "")
    while True:
        event = events.get(timeout=120)
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Piece):
            found = Answer([*found.ids, *event.ids], found.text + event.text)
            if event.finish_reason is not None:
                return found


@pytest.fixture(scope="module")
def dialogues(world: Path) -> dict[str, list[ShownTurn[File]]]:
    clips = sorted((world / "heldout/videos").glob("*.mp4"))
    images = sorted(path for path in world.rglob("*") if path.suffix in (".jpg", ".png"))
    clip, other, sound = File("video", clips[0]), File("video", clips[1]), File("audio", clips[2])
    silent, image = File("video", clips[3], use_audio=False), File("image", images[0])
    return {
        "text": [ShownTurn("What colour is the shape?")],
        "image": [ShownTurn("What colour is the shape?", [image])],
        "clip with its sound": [ShownTurn("What sound does it make?", [clip])],
        "clip without its sound": [ShownTurn("How does it move?", [silent])],
        "sound": [ShownTurn("What sound does it make?", [sound])],
        "all three": [ShownTurn("Describe what you see.", [image, other, sound])],
        "dialogue": [
            ShownTurn("What colour is the shape?", [clip], "It is red."),
            ShownTurn("How does it move?", [], "It moves left."),
            ShownTurn("And this one?", [other]),
        ],
    }


@pytest.fixture(scope="module")
def own(loaded: Engine, dialogues: dict[str, list[ShownTurn[File]]]) -> dict[str, Answer]:
    """The answers of the whole model."""
    with Worker(loaded) as worker:
        return {name: answer(worker, turns) for name, turns in dialogues.items()}


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with serving(StandIn(DECODER)) as served:
        yield served


def bridged(url: str) -> Worker:
    return Worker(*bridge(VllmServer(url), ROOT / CONFIG, device="cpu"))


def test_the_answers_are_those_of_the_whole_model(stand_in, own, dialogues):
    with bridged(stand_in.url) as worker:
        assert {name: answer(worker, turns) for name, turns in dialogues.items()} == own


def test_the_layers_of_the_decoder_are_not_loaded(stand_in, loaded):
    engine, decoding = bridge(VllmServer(stand_in.url), ROOT / CONFIG, device="cpu")
    decoding.close()
    kept = [name for name, _ in engine.model.named_parameters() if name.startswith("decoder.")]
    assert kept == ["decoder.lm.embedding.weight"]
    rest = [name for name, _ in loaded.model.named_parameters() if not name.startswith("decoder.")]
    assert [name for name, _ in engine.model.named_parameters() if not name.startswith("decoder.")] == rest


def test_the_context_is_that_of_the_vllm(stand_in, dialogues, monkeypatch):
    monkeypatch.setattr(stand_in, "max_model_len", 100)
    with bridged(stand_in.url) as worker, pytest.raises(VideoLlamaError, match="decoder's context of 100 tokens"):
        answer(worker, dialogues["dialogue"])


def test_an_export_brings_the_decoder_for_vllm(tmp_path, command, own, dialogues):
    code, _, err = command("export", "--cfg-path", CONFIG, "--output", tmp_path / "toy", "--layout", "full")
    assert code == 0, err
    decoder = tmp_path / "toy/decoder"
    assert {file.stat().st_mode for file in decoder.iterdir()} == {(tmp_path / "toy/config.yaml").stat().st_mode}
    with serving(StandIn(decoder)) as served:
        with Worker(*bridge(VllmServer(served.url), tmp_path / "toy", device="cpu")) as worker:
            assert answer(worker, dialogues["image"]) == own["image"]
        assert served.requests


def test_another_decoder_is_refused_before_anything_is_asked(tmp_path, root):
    from tests import tiny

    with (
        serving(StandIn(tiny.write_decoder(tmp_path))) as other,
        pytest.raises(DecoderUnavailable, match="hidden_size 160 does not match the model's hidden_size 16"),
    ):
        bridge(VllmServer(other.url), CONFIG, device="cpu")


def test_the_engine_flag_names_a_vllm_or_none():
    assert vllm_address("local") is None
    address = vllm_address("vllm=http://127.0.0.1:8001")
    assert address is not None
    assert address.url == "http://127.0.0.1:8001"
    for wrong in ("vllm", "http://127.0.0.1:8001", "vllm=127.0.0.1:8001"):
        with pytest.raises(VideoLlamaError, match=r"expected"):
            vllm_address(wrong)


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real vLLM with the toy decoder."""
    command = os.environ.get("VIDEO_LLAMA_VLLM") or shutil.which("vllm")
    if command is None:
        pytest.skip("vLLM is not installed: no command vllm, and VIDEO_LLAMA_VLLM names none")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [command, "serve", str(DECODER), "--host", "127.0.0.1", "--port", str(port), "--enable-prompt-embeds"]
    words += ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    env |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    log = tmp_path_factory.mktemp("vllm") / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(words, stdout=output, stderr=output, env=env, cwd=log.parent) as process,
    ):
        try:
            deadline = time.monotonic() + START_S
            while not _is_healthy(f"http://127.0.0.1:{port}"):
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _is_healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.slow
@pytest.mark.vllm
def test_the_answers_of_a_real_vllm_are_those_of_the_whole_model(vllm, own, dialogues):
    with bridged(vllm) as worker:
        assert {name: answer(worker, turns) for name, turns in dialogues.items()} == own


@pytest.mark.slow
@pytest.mark.vllm
def test_a_real_vllm_answers_as_the_stand_in_does(vllm):
    from tests.unit.test_vllm_stand_in import close
    from tests.vllm_exchanges import answers

    with serving(StandIn(DECODER)) as stand_in:
        expected = dict(answers(stand_in.url))
    found = dict(answers(vllm))
    found["/version"] = expected["/version"]
    assert {name for name in expected if not close(joined(found[name]), joined(expected[name]))} == set()


def joined(answer: dict[str, Any]) -> Any:
    """An answer; of a stream, all tokens together, since a busy vLLM sends several at once."""
    if not isinstance(answer["body"], list):
        return answer
    choices = [choice for event in answer["body"][:-1] for choice in event["choices"]]
    tokens = [token for choice in choices for token in choice.get("token_ids", [])]
    chances = [chance for choice in choices for chance in choice.get("logprobs", {}).get("top_logprobs", [])]
    text = "".join(choice["text"] for choice in choices)
    return [answer["type"], tokens, chances, text, choices[-1]["finish_reason"], answer["body"][-1]]
