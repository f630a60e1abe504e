"""Where the time of a toy training step goes: with the frozen encoders, with their features stored, and both again
with logits at every position instead of at the targets alone.

    python -m benchmarks.train_step

Prints minima over the rounds, taken in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.minima import minima
from video_llama.common.types import IGNORE_LABEL, Batch, Media, Sample, slot_id
from video_llama.config.loader import load_config
from video_llama.datasets.collate import collate
from video_llama.models.video_llama import VideoLLaMA

BATCH, FRAMES, TEXT, TARGETS = 32, 4, 60, 10


def main() -> None:
    """Measure the four ways."""
    model = VideoLLaMA.from_config(load_config("eval_configs/toy.yaml").model).train()
    frames = made_up_batch(model)
    features = replace(frames, media=model.encode_frozen(frames.media))
    dense = torch.where(frames.attention_mask == 1, frames.input_ids.clamp(min=0), IGNORE_LABEL)
    ways: dict[str, Callable[[], None]] = {
        "frames": lambda: step(model, frames),
        "stored features": lambda: step(model, features),
        "frames, all logits": lambda: step(model, replace(frames, labels=dense)),
        "stored features, all logits": lambda: step(model, replace(features, labels=dense)),
    }
    best = minima(ways)
    for name, seconds in best.items():
        print(f"{name:30} {seconds * 1000:7.1f} ms   {seconds / best['frames']:.2f}")


def step(model: VideoLLaMA, batch: Batch) -> None:
    """Run forward and backward once."""
    model(batch).loss_sum.backward()
    model.zero_grad(set_to_none=True)


def made_up_batch(model: VideoLLaMA) -> Batch:
    """Make clips of noise with random text."""
    generator = torch.Generator().manual_seed(0)
    slots = torch.full((model.config.num_video_query_token,), slot_id(0))
    samples = []
    for i in range(BATCH):
        text = torch.randint(3, 500, (TEXT,), generator=generator)
        side = model.config.image_size
        clip = torch.randint(0, 256, (3, FRAMES, side, side), generator=generator, dtype=torch.uint8)
        input_ids = torch.cat([slots, text])
        labels = torch.full_like(input_ids, IGNORE_LABEL)
        labels[-TARGETS:] = input_ids[-TARGETS:]
        samples.append(Sample(str(i), input_ids, labels, (Media("video", clip),)))
    return collate(samples, pad_id=0)


if __name__ == "__main__":
    main()
