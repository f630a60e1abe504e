"""An exported model through the Auto classes of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoProcessor

import video_llama.conversation.auto_classes
import video_llama.toy
from tests.unit.sharing.conftest import job
from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.chat import Chat
from video_llama.sharing.export import export

CLIP = str(Path(video_llama.toy.__file__).parent / "hello.mp4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exports") / "toy"
    export(job("toy"), path, "full")
    return path


def user(*content: dict[str, Any] | str) -> dict[str, Any]:
    return {"role": "user", "content": [c if isinstance(c, dict) else {"type": "text", "text": c} for c in content]}


def test_a_dialogue_through_them_has_the_answers_of_chat(folder):
    model = AutoModel.from_pretrained(folder, device="cpu")
    processor = AutoProcessor.from_pretrained(folder)
    chat = Chat(model.engine)
    chat.upload(video=CLIP)
    messages = [user({"type": "video", "path": CLIP}, "What colour is the shape?")]
    for question in ("What sound does it make?", None):
        inputs = processor.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, tokenize=True)
        ids = model.generate(**inputs, max_new_tokens=20)
        assert ids.shape[0] == 1
        assert ids.dtype == torch.int64
        (answer,) = processor.batch_decode(ids)
        assert answer == chat.ask(messages[-1]["content"][-1]["text"], max_new_tokens=20)
        if question:
            messages += [{"role": "assistant", "content": answer}, user(question)]
    assert model.device.type == "cpu"


def test_arguments_without_a_meaning_are_refused(folder):
    with pytest.raises(VideoLlamaError, match=r"device_map: has no meaning for this model. Use options="):
        AutoModel.from_pretrained(folder, device_map="auto")
    processor = AutoProcessor.from_pretrained(folder)
    with pytest.raises(VideoLlamaError, match=r"content .*'page'.*; expected type: video, image or audio"):
        processor.apply_chat_template([user({"type": "page", "path": "x"}, "What?")])
    with pytest.raises(VideoLlamaError, match="a message of the role 'system'"):
        processor.apply_chat_template([{"role": "system", "content": "Be brief."}])
    with pytest.raises(VideoLlamaError, match="top_k: no such setting"):
        video_llama.conversation.auto_classes.VideoLlamaModel.generate(None, None, None, top_k=3)
