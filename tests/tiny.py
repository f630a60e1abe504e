"""A model small enough for a test, and samples for it: random, made on the spot, the same each time.

Shapes: B samples, T frames, S segments, V = 3 tokens that an image or clip takes, A = 2 that sound takes, D = H = 16
widths, E = 12, W = 560 vocabulary.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import video_llama.toy
from video_llama.common.types import IGNORE_LABEL, Batch, Media, Sample, slot_id
from video_llama.datasets.collate import collate
from video_llama.models.config import QFormerConfig
from video_llama.models.encoders.config import ImageBindConfig, TrunkConfig
from video_llama.models.sharding import Sharding
from video_llama.models.video_llama import VideoLLaMA, VideoLLaMAConfig
from video_llama.processors.audio import MEL_BINS, MEL_FRAMES

TOKENIZER = Path(video_llama.toy.__file__).parent / "weights" / "decoder"
VOCABULARY = 560
BOS = 1
SIDE = 32
"""Pixels."""
TOKENS_PER_SLOT = 3
TOKENS_PER_SOUND = 2
TRUNK = TrunkConfig(embed_dim=16, depth=2, num_heads=2)
IMAGEBIND = ImageBindConfig(audio=TRUNK, vision=TRUNK, image_size=SIDE, patch_size=16, out_embed_dim=12)
AUDIO: dict[str, Any] = {
    "equip_audio_branch": True,
    "frozen_audio_Qformer": False,
    "audio_encoder": IMAGEBIND,
    "audio_segments": 2,
    "max_audio_pos": 4,
    "num_audio_query_token": TOKENS_PER_SOUND,
}
"""Settings of a model with an audio branch."""
AUDIO_ALONE: dict[str, Any] = {**AUDIO, "frozen_video_Qformer": True, "frozen_llama_proj": True}
"""Settings that train the audio branch alone."""


def write_decoder(folder: Path, width: int = 16, **changes: Any) -> Path:
    """Write the folder of a random LLaMA with the toy tokenizer, for ``model.llama_model``."""
    settings = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,  # far from flat, so that the likeliest token is clearly so
        "vocab_size": VOCABULARY,
        "pad_token_id": 0,
        **changes,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(folder)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder)
    return folder


def config(decoder: Path, dropout: float = 0.0, **changes: Any) -> VideoLLaMAConfig:
    """The model section of a YAML, tiny."""
    settings: dict[str, Any] = {
        "vit_args": {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 16, "mlp_ratio": 2.0},
        "vit_precision": "fp32",
        "image_size": SIDE,
        "audio_source": "sound",
        "qformer": QFormerConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, dropout=dropout
        ),
        "num_query_token": 4,
        "num_video_query_token": TOKENS_PER_SLOT,
        "max_frame_pos": 4,
        "llama_model": str(decoder),
        "llama_precision": "fp32",
        **changes,
    }
    return VideoLLaMAConfig(**settings)


def model(decoder: Path, seed: int = 0, sharding: Sharding | None = None, **changes: Any) -> VideoLLaMA:
    """A model with random weights, in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = VideoLLaMA.from_config(config(decoder, **changes), sharding=sharding)
        for name in ("vision", "qformer", "video_branch", "audio_encoder", "audio_branch"):
            if hasattr(built, name):
                livelier(getattr(built, name))
    return built


@torch.no_grad()
def livelier(module: nn.Module) -> None:
    """Draw matrices large enough that every input changes the output; the usual 0.02 hides it at these sizes."""
    for p in module.parameters():
        if p.ndim > 1:
            p.normal_(std=0.3)


def sound(n_segments: int, seed: int = 0) -> Media:
    """Segments of sound: ImageBind's input."""
    generator = torch.Generator().manual_seed(seed)
    return Media("audio", torch.randn(n_segments, 1, MEL_BINS, MEL_FRAMES, generator=generator))


def sample(name: str, *shown: int | Media, words: int = 6) -> Sample:
    """A sample with media, or an image (1) or a clip (more) for each number of frames, and an answer of so many words."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    context, media = [BOS], []
    for k, item in enumerate(shown):
        if isinstance(item, int):
            frames = torch.randint(256, (3, item, SIDE, SIDE), generator=generator, dtype=torch.uint8)
            item = Media("image" if item == 1 else "video", frames)
        media.append(item)
        n_tokens = TOKENS_PER_SOUND if item.kind.startswith("audio") else TOKENS_PER_SLOT
        context += [slot_id(k)] * n_tokens + [20 + k]
    answer = torch.randint(3, VOCABULARY, (words,), generator=generator).tolist()
    return Sample(
        id=name,
        input_ids=torch.tensor([*context, *answer]),
        labels=torch.tensor([IGNORE_LABEL] * len(context) + answer),
        media=tuple(media),
    )


def batch(*samples: Sample) -> Batch:
    """Samples as the loader collates them."""
    return collate(samples, pad_id=0)
