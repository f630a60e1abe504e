"""The page's API, used through ``gradio_client``."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from tests.demo_server import ENDLESS, Server, wait_until
from video_llama.toy.encode import write_clip, write_still
from video_llama.toy.scene import Scene

gradio_client = pytest.importorskip("gradio_client", reason="this needs gradio_client: pip install -e '.[demo]'")
COLOUR, SHAPE = "What colour is the shape?", "What shape is it?"


class Client:
    """A client of the page's API."""

    def __init__(self, url: str) -> None:
        self.gradio = gradio_client.Client(url, verbose=False)

    def upload(self, path: Path, **options: object) -> dict:
        return self.gradio.predict(gradio_client.handle_file(path), **options, api_name="/upload")

    def ask(self, question: object, **options: object) -> str:
        return self.gradio.predict(question, **options, api_name="/ask")


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    client = Client(server.url)
    yield client
    client.gradio.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red circle with a low sound."""
    path = tmp_path_factory.mktemp("clip") / "red.mp4"
    write_clip(path, Scene("circle", "red", "left", "large", seed=1))
    return path


def test_there_are_four_endpoints(client):
    assert set(client.gradio.view_api(return_format="dict")["named_endpoints"]) == {
        *("/upload", "/ask", "/stop", "/reset")
    }


def test_a_clip_can_be_uploaded_and_asked_about(client, clip):
    shown = client.upload(clip)
    assert (shown["kind"], shown["sound"]) == ("video", "used")
    assert shown["frame_times"] == [0.0, 0.5, 1.0, 1.5]
    assert shown["segment_times"][0] == 0.0
    assert client.ask(COLOUR) == "It is red."
    assert client.ask("What sound does it make?") == "It makes a low sound."


def test_a_clip_can_be_used_without_its_sound_or_for_its_sound_alone(client, clip):
    assert client.upload(clip, use_audio=False)["sound"] == "off"
    heard = client.upload(clip, kind="audio")
    assert (heard["kind"], heard["frame_times"]) == ("audio", [])
    assert client.ask("What sound does it make?") == "It makes a low sound."


def test_an_answer_is_streamed(client, clip):
    client.upload(clip)
    answers = list(client.gradio.submit(COLOUR, api_name="/ask"))
    assert len(answers) > 2
    assert answers[-1] == "It is red."
    assert all(later.startswith(earlier) for earlier, later in pairwise(answers))


def test_after_a_stopped_answer_the_next_question_is_answered(client, clip):
    client.upload(clip)
    job = client.gradio.submit(ENDLESS, api_name="/ask")
    wait_until(lambda: len(job.outputs()) > 3)
    client.gradio.predict(api_name="/stop")
    assert "and so on" in job.result(timeout=20)
    assert client.ask(COLOUR) == "It is red."


def test_two_clients_have_separate_dialogues(client, server, clip, tmp_path):
    other = Client(server.url)
    client.upload(clip)
    write_still(tmp_path / "blue.jpg", Scene("star", "blue", "still", "large", seed=2))
    assert other.upload(tmp_path / "blue.jpg")["kind"] == "image"
    assert client.ask(COLOUR) == "It is red."
    assert other.ask(COLOUR) == "It is blue."
    other.gradio.close()


def test_twenty_dialogues_at_once_get_the_answers_that_each_would_get_alone(server, tmp_path):
    scenes = [
        Scene(shape, colour, "still", "large", seed=1) for shape in ("circle", "star") for colour in ("red", "blue")
    ]
    pictures = [tmp_path / f"{k}.jpg" for k in range(len(scenes))]
    for picture, scene in zip(pictures, scenes, strict=True):
        write_still(picture, scene)

    def dialogue(k: int) -> list[str]:
        client = Client(server.url)
        client.upload(pictures[k % 4])
        answers = [client.ask(question) for question in (COLOUR, SHAPE, COLOUR)]
        client.gradio.close()
        return answers

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(dialogue, range(20)))
    for k, of_one in enumerate(answers):
        scene = scenes[k % 4]
        assert of_one == [f"It is {scene.colour}.", f"It is a {scene.shape}.", f"It is {scene.colour}."]


def test_reset_forgets_the_file(client, clip):
    client.upload(clip)
    client.gradio.predict(api_name="/reset")
    with pytest.raises(gradio_client.exceptions.AppError, match="Upload a video, image or audio file first"):
        client.ask(COLOUR)


@pytest.mark.parametrize(
    ("question", "settings", "message"),
    [
        ("  ", {}, "The question is empty"),
        ("x" * 5000, {}, "5000 characters; the limit is 4000"),
        (COLOUR, {"num_beams": 0}, "num_beams: 0"),
        (COLOUR, {"num_beams": 1000}, "num_beams: 1000; the limit is 10"),
        (COLOUR, {"temperature": -1}, "temperature: -1"),
        (COLOUR, {"max_new_tokens": "many"}, "max_new_tokens: 'many'"),
    ],
)
def test_an_invalid_question_is_reported_and_the_dialogue_goes_on(client, clip, question, settings, message):
    client.upload(clip)
    with pytest.raises(gradio_client.exceptions.AppError, match=message):
        client.ask(question, **settings)
    assert client.ask(COLOUR) == "It is red."


def test_settings_are_honoured(client, clip):
    client.upload(clip)
    assert client.ask(SHAPE, num_beams=3) == "It is a circle."
    assert client.ask(SHAPE, max_new_tokens=2) in "It is a circle."


def test_an_unreadable_file_is_reported_without_its_folder(client, server, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    with pytest.raises(gradio_client.exceptions.AppError, match=r"^broken\.mp4: cannot open it as video or sound"):
        client.upload(tmp_path / "broken.mp4")
