"""Messages as turns."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from video_llama.serving.api_error import ApiError
from video_llama.serving.chat_request import Message
from video_llama.serving.served_model import RequestLimits, ServedModel
from video_llama.serving.turns import AskedDialogue, asked_dialogue

MODEL = ServedModel(name="toy", max_context=100)


def dialogue(*messages: tuple[str, Any], model: ServedModel = MODEL, **limits: Any) -> AskedDialogue:
    adapter = TypeAdapter(list[Message])
    parsed = adapter.validate_python([{"role": role, "content": content} for role, content in messages])
    return asked_dialogue(parsed, model, RequestLimits(**limits))


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_questions_and_answers_become_turns():
    found = dialogue(("system", "Be brief."), ("user", "a?"), ("assistant", "b"), ("user", [image("x"), text("c?")]))
    assert found.system == "Be brief."
    assert [(turn.question, turn.answer) for turn in found.turns] == [("a?", "b"), ("c?", None)]
    (reference,) = found.turns[1].media
    assert reference == ("image", "x", "messages[3].content[0]")


def test_parts_and_messages_in_a_row_are_one_question():
    found = dialogue(("user", [image("x"), text("a"), image("y"), text("b")]), ("user", [image("z")]), ("user", "c"))
    assert found.turns[0].question == "a\nb\nc"
    assert [reference.url for reference in found.turns[0].media] == ["x", "y", "z"]


def test_no_system_message_leaves_the_models_own_and_an_empty_one_removes_it():
    assert dialogue(("user", "a")).system is None
    assert dialogue(("system", ""), ("user", "a")).system == ""
    assert dialogue(("developer", "x"), ("system", [text("y")]), ("user", "a")).system == "x\ny"


def test_a_bare_string_is_a_url_and_sound_comes_as_data_too():
    parts = [{"type": "video_url", "video_url": "v"}, {"type": "audio_url", "audio_url": "a"}]
    sound = {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}
    found = dialogue(("user", [*parts, sound, text("?")])).turns[0].media
    assert [(one.kind, one.url) for one in found] == [
        ("video", "v"),
        ("audio", "a"),
        ("audio", "data:audio;base64,QQ=="),
    ]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([("system", "x")], "messages[0]"),
        ([("user", "a"), ("assistant", "b")], "messages[1]"),
        ([("assistant", "b"), ("user", "a")], "messages[0]"),
        ([("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")], "messages[2]"),
        ([("user", "a"), ("system", "b"), ("user", "c")], "messages[1]"),
        ([("user", "  ")], "messages"),
        ([("user", [image("x")]), ("assistant", "b"), ("user", "c")], "messages"),
        ([("user", "x" * 3201)], "messages"),
        ([("user", [*[image("x")] * 65, text("a")])], "messages"),
    ],
)
def test_other_orders_and_too_much_are_refused(messages, param):
    with pytest.raises(ApiError) as raised:
        dialogue(*messages)
    assert (raised.value.status, raised.value.param) == (400, param)


def test_a_template_without_a_place_for_a_system_message_has_none():
    model = ServedModel(name="toy", max_context=100, takes_system=False)
    with pytest.raises(ApiError, match="no system message"):
        dialogue(("system", "x"), ("user", "a"), model=model)
    assert dialogue(("system", ""), ("user", "a"), model=model).system == ""
