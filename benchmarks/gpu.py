"""The 7B model on one GPU: a training step of stage 1 beside the original's way of computing it, decoding, and one answer.

    python -m benchmarks.gpu

Weights are random and are written to a temporary folder first: 14 GB on disk. Takes a few minutes; peak memory is that of PyTorch's
allocator.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from benchmarks import gpu_claims
from benchmarks.loading import with_noise
from benchmarks.mid_size import noise_batch
from benchmarks.minima import timed
from benchmarks.original_path import OriginalPath, as_loaded
from benchmarks.rows import Row, write
from benchmarks.train_step import mean_loss
from video_llama.common.types import Batch
from video_llama.conversation.prefill import Prompt
from video_llama.conversation.scheduler import Request, Scheduler
from video_llama.conversation.settings import GenerationSettings
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.video_llama import VideoLLaMA
from video_llama.planning.workload import Workload, batch_of, use_media
from video_llama.runners.device_peaks import peak_flops
from video_llama.runners.optim import build_optimizer

BATCH, FRAMES, TEXT, TARGETS = 32, 8, 32, 24
PROMPT, NEW_TOKENS = 64, 128
WITH_SOUND: dict[str, Any] = {"equip_audio_branch": True}
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
    device = torch.device("cuda")
    with tempfile.TemporaryDirectory() as folder:
        write_decoder(Path(folder))
        model = full_size_model(folder)
        rows = [*stage_1(model, device), *decoding(model.eval(), device)]
        del model
        torch.cuda.empty_cache()
        rows.append(one_answer(full_size_model(folder, **WITH_SOUND).eval(), device))
    write("gpu", rows)


def write_decoder(folder: Path) -> None:
    """Write a random 7B decoder in bf16."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        lm = LlamaForCausalLM(SEVEN_B)
        torch.set_default_dtype(torch.float32)
    lm.save_pretrained(folder)
    del lm
    torch.cuda.empty_cache()


def full_size_model(decoder: str, **changes: Any) -> VideoLLaMA:
    """Build ViT-G, the Q-Formers and a decoder in bf16 on the GPU, in training mode.

    Args:
        decoder: its folder.
        changes: settings of the model section that differ.
    """
    config = VideoLLaMAConfig(llama_model=decoder, llama_precision="bf16", vit_precision="bf16", **changes)
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


def decoding(model: VideoLLaMA, device: torch.device) -> list[Row]:
    """Measure the generation of ``NEW_TOKENS`` tokens for 1 and for 32 prompts of text, without turning them into text.

    Args:
        model: on the device, in eval mode.
        device: where it is.
    """
    found = {}
    for n_rows in (1, 32):
        prompts = torch.randint(5, SEVEN_B.vocab_size, (n_rows, PROMPT)).tolist()
        ways = {
            "loop": partial(plain_loop, model.decoder.lm, torch.tensor(prompts, device=device)),
            "ours": partial(scheduled, model, prompts),
        }
        for way in ways.values():
            way()
        seconds = {name: times.minimum for name, times in timed(ways, rounds=ROUNDS).items()}
        found[f"rate {n_rows}"] = n_rows * NEW_TOKENS / seconds["ours"]
        found[f"speedup {n_rows}"] = seconds["loop"] / seconds["ours"]
    values = {
        gpu_claims.DECODE_1: found["rate 1"],
        gpu_claims.DECODE_1_SPEEDUP: found["speedup 1"],
        gpu_claims.DECODE_32_SPEEDUP: found["speedup 32"],
    }
    rows = [replace(row, value=values[row.name]) for row in gpu_claims.GPU_CLAIMS if row.name in values]
    return [*rows, Row("decoding, batch 32: rate", found["rate 32"], "tokens/s")]


@torch.no_grad()
def plain_loop(lm: Any, input_ids: Tensor) -> list[list[int]]:
    """Decode greedily with a cache that grows by one token a step. Args: input_ids: int64[B, L]."""
    cache, tokens = DynamicCache(), []
    for _ in range(NEW_TOKENS):
        logits = lm(input_ids=input_ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        input_ids = logits.argmax(-1)
        tokens.append(input_ids[:, 0].tolist())
    return tokens


def scheduled(model: VideoLLaMA, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Decode greedily as ``infer`` does."""
    scheduler = Scheduler(model, Wordless(), len(prompts))  # type: ignore[arg-type]
    settings = GenerationSettings(max_new_tokens=NEW_TOKENS)
    answers = [scheduler.add(Request(Prompt(prompt, ()), settings, ["never"])) for prompt in prompts]
    while scheduler.busy:
        scheduler.step()
    return [answer.tokens for answer in answers]


class Wordless:
    """A tokenizer of empty words: a random decoder says nothing, and has no end."""

    eos_id = -1

    def decode(self, ids: Sequence[int]) -> str:
        """Return no text."""
        return ""

    def may_change(self, ids: Sequence[int], text: str) -> bool:
        """Return False: text is final."""
        return False


def one_answer(model: VideoLLaMA, device: torch.device) -> Row:
    """Measure the most memory of a model with sound while it answers a question on a clip.

    Args:
        model: on the device, in eval mode.
        device: where it is.
    """
    work = Workload(FRAMES, TEXT)
    batch = with_noise(batch_of(model.config, work, use_media(model.config))).to(device)

    def answer() -> None:
        with torch.no_grad():
            media = model.encode_frozen(batch.media)
        prompt = Prompt(batch.input_ids[0].tolist(), media)
        scheduler = Scheduler(model, Wordless(), 1)  # type: ignore[arg-type]
        scheduler.add(Request(prompt, GenerationSettings(max_new_tokens=NEW_TOKENS), ["never"]))
        while scheduler.busy:
            scheduler.step()

    (claim,) = [row for row in gpu_claims.GPU_CLAIMS if row.name == gpu_claims.IN_USE]
    return replace(claim, value=peak_of(answer, device) / 1e9)


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
