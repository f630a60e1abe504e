"""What tests of several parts share. Hypothesis draws the same examples each time and knows no deadline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from tests.specs import sample_spec
from video_llama.prompts.sample_spec import SampleSpec
from video_llama.prompts.tokenizer import Tokenizer, load_tokenizer

FIXTURES = Path(__file__).parent / "fixtures"

hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute with one thread, like the processes that tests start: sums of several threads end in other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A LLaMA tokenizer of 480 pieces with byte fallback."""
    return load_tokenizer(FIXTURES / "reference/text/tokenizer")


@pytest.fixture(scope="session")
def spec(tokenizer: Tokenizer) -> SampleSpec:
    """What a Vicuna decoder of 512 tokens asks of samples, with 8 tokens for an image or clip."""
    return sample_spec(tokenizer)
