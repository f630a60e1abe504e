"""A model of middle size with random weights, and batches for it: large enough that arithmetic decides, small enough for a CPU.

Shapes: B = 4 clips of T = 8 frames of 224 pixels, 64 tokens of text, of which a quarter are targets.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from video_llama.common.types import IGNORE_LABEL, Batch, Media, Sample, slot_id
from video_llama.datasets.collate import collate
from video_llama.models.config import QFormerConfig, VideoLLaMAConfig
from video_llama.models.video_llama import VideoLLaMA

BATCH, FRAMES, SIDE, TEXT = 4, 8, 224, 64
TARGETS = TEXT // 4
VOCABULARY = 32_000
VIT = {"embed_dim": 384, "depth": 6, "num_heads": 6}
QFORMER = QFormerConfig(hidden_size=768, num_hidden_layers=4, num_attention_heads=12, intermediate_size=3072)
DECODER = LlamaConfig(
    hidden_size=512,
    intermediate_size=1376,
    num_hidden_layers=4,
    num_attention_heads=8,
    max_position_embeddings=256,
    vocab_size=VOCABULARY,
)


def mid_size_model(**changes: object) -> VideoLLaMA:
    """Build a model in training mode, in fp32.

    Args:
        changes: settings of the model section that differ.
    """
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(DECODER).save_pretrained(folder)
        settings = {
            "vit_args": VIT,
            "vit_precision": "fp32",
            "qformer": QFORMER,
            "llama_model": str(Path(folder)),
            "llama_precision": "fp32",
            **changes,
        }
        return VideoLLaMA.from_config(VideoLLaMAConfig(**settings)).train()  # type: ignore[arg-type]


def noise_batch(
    model: VideoLLaMA, size: int = BATCH, frames: int = FRAMES, text: int = TEXT, targets: int = TARGETS
) -> Batch:
    """Make a batch of clips of noise, each with random text.

    Args:
        model: that will take it.
        size: B.
        frames: T.
        text: tokens after those of the clip.
        targets: how many of them, at the end, have a loss.
    """
    generator = torch.Generator().manual_seed(0)
    side, vocabulary = model.config.image_size, model.config.decoder_folder.config.vocab_size
    slots = torch.full((model.config.num_video_query_token,), slot_id(0))
    samples = []
    for i in range(size):
        ids = torch.cat([slots, torch.randint(3, vocabulary, (text,), generator=generator)])
        labels = torch.full_like(ids, IGNORE_LABEL)
        labels[-targets:] = ids[-targets:]
        clip = torch.randint(0, 256, (3, frames, side, side), generator=generator, dtype=torch.uint8)
        samples.append(Sample(str(i), ids, labels, (Media("video", clip),)))
    return collate(samples, pad_id=0)
