"""What tests of several parts share. Hypothesis draws the same examples each time and knows no deadline."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from video_llama.prompts.sample_spec import SampleSpec
from video_llama.prompts.templates import VICUNA
from video_llama.prompts.tokenizer import Tokenizer, load_tokenizer

FIXTURES = Path(__file__).parent / "fixtures"

hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A LLaMA tokenizer of 480 pieces with byte fallback."""
    return load_tokenizer(FIXTURES / "reference/text/tokenizer")


@pytest.fixture(scope="session")
def spec(tokenizer: Tokenizer) -> SampleSpec:
    """What a Vicuna decoder of 512 tokens asks of samples, with 8 tokens for an image or clip."""
    return SampleSpec(
        tokenizer=tokenizer,
        template=VICUNA,
        tokens_per_slot={"image": 8, "video": 8},
        max_txt_len=32,
        max_instruct_len=512,
        max_context=512,
        caption_prompts=("###Human: <Image><ImageHere></Image> Describe it. ###Assistant: ",),
        shared_settings={
            "num_video_query_token": 8,
            "tokenizer_name": "models/vicuna",
            "model_type": "vicuna",
            "image_size": 224,
            "max_frame_pos": 32,
        },
    )
