"""What benchmarks of data sets ask of samples, and clips for them."""

from __future__ import annotations

from pathlib import Path

from video_llama.prompts.sample_spec import SampleSpec
from video_llama.prompts.templates import VICUNA
from video_llama.prompts.tokenizer import load_tokenizer
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene


def full_size_spec() -> SampleSpec:
    """Return the sample spec of a model of the original's size, with the toy tokenizer."""
    return SampleSpec(
        tokenizer=load_tokenizer(Path("video_llama/toy/weights/decoder")),
        template=VICUNA,
        tokens_per_slot={"image": 32, "video": 32},
        max_txt_len=160,
        max_instruct_len=512,
        max_context=2048,
        caption_prompts=("###Human: <Video><ImageHere></Video> Describe it. ###Assistant: ",),
    )


def toy_clips(folder: Path) -> list[Path]:
    """Write three clips of the toy world."""
    clips = [folder / f"{colour}.mp4" for colour in ("red", "green", "blue")]
    for clip in clips:
        write_clip(clip, Scene("circle", clip.stem, "left", "small", 0))
    return clips
