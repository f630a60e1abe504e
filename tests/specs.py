"""A ``SampleSpec`` without a model, for tests of data sets."""

from __future__ import annotations

from video_llama.prompts.sample_spec import SampleSpec
from video_llama.prompts.templates import VICUNA
from video_llama.prompts.tokenizer import Tokenizer


def sample_spec(tokenizer: Tokenizer, max_txt_len: int = 32) -> SampleSpec:
    """What a Vicuna decoder of 512 tokens asks of samples, with 8 tokens for an image or clip."""
    return SampleSpec(
        tokenizer=tokenizer,
        template=VICUNA,
        tokens_per_slot={"image": 8, "video": 8},
        max_txt_len=max_txt_len,
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
