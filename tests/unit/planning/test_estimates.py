"""What is planned from shapes is what PyTorch's allocator then counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests import tiny
from video_llama.common.types import Batch
from video_llama.models.config import QFormerConfig
from video_llama.models.precision import NumberFormat
from video_llama.models.video_llama import VideoLLaMA
from video_llama.planning.estimate import Formats, PlannedModel
from video_llama.planning.tracing import tracing, valueless, without_values
from video_llama.planning.workload import Workload, batch_of, training_media, use_media

FP32 = NumberFormat(torch.float32, torch.float32)
MID: dict[str, Any] = {
    "vit_args": {"embed_dim": 384, "depth": 6, "num_heads": 6, "patch_size": 14, "mlp_ratio": 4.0},
    "image_size": 224,
    "qformer": QFormerConfig(hidden_size=768, num_hidden_layers=4, num_attention_heads=12, dropout=0.1),
    "num_query_token": 32,
    "num_video_query_token": 32,
    "max_frame_pos": 32,
}
"""Half way to the real sizes."""


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    return tiny.write_decoder(tmp_path / "decoder", width=64, num_hidden_layers=3)


def with_values(batch: Batch) -> Batch:
    """Give the media of a planned batch values."""
    return replace(
        batch,
        media=tuple(
            replace(
                group,
                data=torch.randint(256, group.data.shape, dtype=torch.uint8)
                if group.data.dtype == torch.uint8
                else torch.randn(group.data.shape),
            )
            for group in batch.media
        ),
    )


def allocated(work: Any) -> int:
    """Return the most bytes that PyTorch's allocator had given out at any time of some work, above those at its start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        work()
    live = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def media_bytes(batch: Batch) -> int:
    return sum(group.data.nbytes for group in batch.media)


@pytest.mark.parametrize(
    ("work", "settings"),
    [
        (Workload(frames=4, text=40, batch=6), {}),
        (Workload(frames=4, text=40, batch=6), {"use_grad_checkpoint": True}),
        (Workload(frames=4, text=20, batch=3), {**tiny.AUDIO, "audio_source": "sound"}),
        (Workload(frames=4, text=20, batch=2), {**tiny.AUDIO_ALONE, "audio_source": "frames"}),
        (Workload(frames=2, text=20, batch=2), {"freeze_vit": False, "freeze_qformer": False}),
    ],
    ids=["video", "checkpointing", "video and sound", "audio branch on frames", "trained encoder"],
)
def test_the_planned_peak_of_a_step_is_the_measured_one(
    decoder: Path, work: Workload, settings: dict[str, Any]
) -> None:
    config = tiny.config(decoder, **settings)
    batch = batch_of(config, work, training_media(config))
    planned = PlannedModel(VideoLLaMA, config, Formats(FP32, FP32, FP32)).in_training(batch)
    model, real = VideoLLaMA.from_config(config).train(), with_values(batch)
    measured = allocated(lambda: model(real).loss_sum.backward()) + media_bytes(real)
    assert planned.peak == pytest.approx(measured, rel=0.05)


@pytest.mark.slow
def test_the_planned_peak_of_a_mid_size_step_is_the_measured_one(tmp_path: Path) -> None:
    decoder = tiny.write_decoder(
        tmp_path / "mid",
        width=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        intermediate_size=1376,
        vocab_size=32000,
    )
    config = tiny.config(decoder, **MID)
    work = Workload(frames=8, text=64, batch=4)
    batch = batch_of(config, work, training_media(config))
    planned = PlannedModel(VideoLLaMA, config, Formats(FP32, FP32, FP32)).in_training(batch)
    model, real = VideoLLaMA.from_config(config).train(), with_values(batch)
    measured = allocated(lambda: model(real).loss_sum.backward()) + media_bytes(real)
    assert planned.peak == pytest.approx(measured, rel=0.05)


def test_the_planned_peak_of_a_prompt_is_the_measured_one(decoder: Path) -> None:
    config = tiny.config(decoder, **{**tiny.AUDIO, "frozen_audio_Qformer": True})
    batch = batch_of(config, Workload(frames=4, text=200), use_media(config))
    planned = PlannedModel(VideoLLaMA, config, Formats(FP32, FP32, FP32)).in_use(batch)
    model, real = VideoLLaMA.from_config(config).eval(), with_values(batch)

    @torch.no_grad()
    def prompt() -> None:
        embeds = model.embed_prompt(real.input_ids, real.media)
        model.decoder.lm(inputs_embeds=embeds, use_cache=True, logits_to_keep=1)

    assert planned.peak == pytest.approx(allocated(prompt) + media_bytes(real), rel=0.05)


def test_the_bytes_of_the_parts_are_those_of_the_model(decoder: Path) -> None:
    config = tiny.config(decoder, **tiny.AUDIO, lora=None)
    model = VideoLLaMA.from_config(config)
    parts = {part.name: part for part in PlannedModel(VideoLLaMA, config, Formats(FP32, FP32, FP32)).parts}
    for name, part in model.named_children():
        tensors = [*part.parameters(), *part.buffers()]
        assert parts[name].n_bytes == sum(t.nbytes for t in tensors), name
        assert parts[name].trained == sum(p.numel() for p in part.parameters() if p.requires_grad)


def test_gradients_of_earlier_batches_count(decoder: Path) -> None:
    config = tiny.config(decoder)
    model = PlannedModel(VideoLLaMA, config, Formats(FP32, FP32, FP32))
    batch = batch_of(config, Workload(frames=4, text=20, batch=2), training_media(config))
    alone, accumulated = model.in_training(batch).peak, model.in_training(batch, accumulation=4).peak
    assert alone < accumulated <= alone + 2 * model.trained_bytes()


def test_the_traced_flops_of_a_forward_pass_are_those_of_the_formula(decoder: Path) -> None:
    config = tiny.config(decoder)
    batch = batch_of(config, Workload(frames=4, text=20, batch=2), training_media(config))
    traced = PlannedModel(VideoLLaMA, config, Formats(FP32, FP32, FP32)).in_training(batch)
    formula = VideoLLaMA.from_config(config).training_flops(with_values(batch))
    assert traced.flops == pytest.approx(formula, rel=0.05)


def test_half_stored_weights_that_compute_in_float32_count_as_stored(decoder: Path) -> None:
    config = tiny.config(decoder)
    widened = NumberFormat(torch.float16, torch.float32)
    full, half = (PlannedModel(VideoLLaMA, config, Formats(FP32, chosen, FP32)) for chosen in (FP32, widened))
    size = {model: {part.name: part.n_bytes for part in model.parts}["decoder"] for model in (full, half)}
    assert size[half] == pytest.approx(size[full] / 2, rel=0.01)


def test_tied_weights_count_once() -> None:
    with torch.device("meta"):
        first, second = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)
    second.weight = first.weight
    pair = without_values(torch.nn.Sequential(first, second))
    assert pair[0].weight is pair[1].weight


def test_memory_that_is_freed_no_longer_counts() -> None:
    x = valueless((1000,), torch.float32)
    with tracing(torch.nn.Identity()) as trace, torch.no_grad():
        y = x * 2
        y = y * 2  # the first product is freed only now
        del y
    assert (trace.peak, trace.live) == (8000, 0)


def test_a_tensor_with_values_keeps_them() -> None:
    ids = torch.tensor([3, 0, 5])
    with tracing(torch.nn.Identity()):
        assert (ids > 0).nonzero().flatten().tolist() == [0, 2]
        assert valueless((6, 2), torch.float32)[ids].shape == (3, 2)
