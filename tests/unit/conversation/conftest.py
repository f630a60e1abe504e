"""The tiny decoder that the models of these tests share, and tokenizers of all kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tests.unit.conversation.tokenizers import WRITERS
from video_llama.common.errors import DecodeError
from video_llama.common.types import Media
from video_llama.conversation.chat import Chat
from video_llama.conversation.engine import Engine
from video_llama.models.video_llama import VideoLLaMA
from video_llama.prompts.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="session", params=WRITERS)
def any_tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Each kind of tokenizer in turn."""
    folder = tmp_path_factory.mktemp("tokenizer")
    WRITERS[request.param](folder)
    return load_tokenizer(folder)


def read(kind: str, n_frames: int) -> Callable[..., Media]:
    """A processor that derives frames from the letters of the path."""

    def processor(path: str | Path, rng: np.random.Generator) -> Media:
        if "broken" in str(path):
            raise DecodeError(str(path), "it is broken")
        frames = tiny.sample(str(path), n_frames).media[0].data
        return Media(kind, frames, "Look.", tuple(float(t) for t in range(n_frames)))

    return processor


@pytest.fixture
def engine(decoder: Path) -> Engine:
    """A tiny random model, with a context of 256 tokens."""
    model = tiny.model(decoder).eval()
    return Engine(model, VideoLLaMA.sample_spec(model.config), read("video", 4), read("image", 1))


@pytest.fixture
def chat(engine: Engine) -> Chat:
    """A dialogue with a tiny random model."""
    return Chat(engine)


class Concurrency:
    """Counts the forward passes of a decoder that run at the same time.

    Args:
        lm: the decoder's language model.
    """

    def __init__(self, lm: torch.nn.Module) -> None:
        self.inside, self.most = 0, 0
        lm.register_forward_pre_hook(self._enter)
        lm.register_forward_hook(self._leave)

    def _enter(self, *_: object) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)

    def _leave(self, *_: object) -> None:
        self.inside -= 1
