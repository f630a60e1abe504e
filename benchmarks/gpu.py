"""A training step of stage 1 at the size of the 7B model, on one GPU, beside the original's way of computing it.

    python -m benchmarks.gpu

Weights are random and are written to a temporary folder first: 14 GB on disk. Takes a few minutes; peak memory is that of PyTorch's
allocator.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import gpu_claims
from benchmarks.mid_size import noise_batch
from benchmarks.minima import timed
from benchmarks.original_path import OriginalPath, as_loaded
from benchmarks.rows import Row, write
from benchmarks.train_step import mean_loss
from video_llama.common.types import Batch
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.video_llama import VideoLLaMA
from video_llama.runners.device_peaks import peak_flops
from video_llama.runners.optim import build_optimizer

BATCH, FRAMES, TEXT, TARGETS = 32, 8, 32, 24
STEPS, ROUNDS = 4, 4
"""Steps of a measurement, and measurements of each way, in turn."""
SEVEN_B = LlamaConfig(max_position_embeddings=2048)
"""LLaMA's defaults are the sizes of 7B."""


def main() -> None:
    """Measure."""
    if not torch.cuda.is_available():
        sys.exit(
            "benchmarks.gpu needs a CUDA device, and PyTorch finds none here. docs/performance.md lists what waits for one."
        )
    write("gpu", stage_1(full_size_model(), torch.device("cuda")))


def full_size_model() -> VideoLLaMA:
    """Build ViT-G, the Q-Formers and a 7B decoder in bf16 on the GPU, in training mode."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        with torch.device("cuda"):
            torch.set_default_dtype(torch.bfloat16)
            lm = LlamaForCausalLM(SEVEN_B)
            torch.set_default_dtype(torch.float32)
        lm.save_pretrained(folder)
        del lm
        torch.cuda.empty_cache()
        config = VideoLLaMAConfig(llama_model=folder, llama_precision="bf16", vit_precision="bf16")
        return VideoLLaMA.from_config(config, torch.device("cuda")).train()


def stage_1(model: VideoLLaMA, device: torch.device) -> list[Row]:
    """Measure whole steps: forward, backward, AdamW.

    Args:
        model: on the device, in training mode; it recomputes activations afterwards.
        device: CUDA.
    """
    batch = noise_batch(model, BATCH, FRAMES, TEXT, TARGETS)
    flops = model.training_flops(batch)
    batch, loaded = batch.to(device), as_loaded(batch).to(device)
    stored = replace(batch, media=model.encode_frozen(batch.media))
    original = OriginalPath(model, amp_dtype=torch.bfloat16)
    amp = torch.autocast(device.type, torch.bfloat16)
    ours: dict[str, Callable[[], None]] = {
        "original": partial(steps, original, original, loaded),
        "ours": partial(steps, model, amp(partial(mean_loss, model)), batch),
        "stored": partial(steps, model, amp(partial(mean_loss, model)), stored),
    }
    peaks = {name: peak_of(way, device) for name, way in ours.items()}
    seconds = {name: times.minimum / STEPS for name, times in timed(ours, rounds=ROUNDS).items()}
    rates = {name: BATCH / each for name, each in seconds.items()}
    model.recompute_activations("full")
    found = {
        gpu_claims.STEP: rates["ours"],
        gpu_claims.SPEEDUP: rates["ours"] / rates["original"],
        gpu_claims.PEAK: peaks["ours"] / peaks["original"],
        gpu_claims.CHECKPOINTED: peak_of(ours["ours"], device) / 1e9,
        gpu_claims.CACHED: rates["stored"] / rates["ours"],
    }
    rows = [replace(row, value=found[row.name]) for row in gpu_claims.GPU_CLAIMS if row.name in found]
    rows.append(Row("stage 1, batch 32: peak memory", peaks["ours"] / 1e9, "GB"))
    if flops is not None and (roof := peak_flops(device)) is not None:
        rows.append(
            Row("stage 1, batch 32: share of the GPU's arithmetic that is used", flops / seconds["ours"] / roof, "")
        )
    return rows


def steps(model: nn.Module, loss: Callable[[Batch], Tensor], batch: Batch) -> None:
    """Take a few optimiser steps, with a learning rate that changes nothing, and wait for the device."""
    optimizer = build_optimizer(model, lr=0.0, weight_decay=0.0, beta2=0.999)
    for _ in range(STEPS):
        loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if batch.input_ids.is_cuda:
        torch.cuda.synchronize()


def peak_of(way: Callable[[], None], device: torch.device) -> float:
    """Return the most bytes allocated while a way runs."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    way()
    return float(torch.cuda.max_memory_allocated(device))


if __name__ == "__main__":
    main()
