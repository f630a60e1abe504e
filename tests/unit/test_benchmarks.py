"""Facts about the benchmarks themselves: the port of the original's path, and the script for a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_claims
from benchmarks.mid_size import noise_batch
from benchmarks.original_path import OriginalPath, as_loaded
from benchmarks.train_step import mean_loss
from tests import tiny
from video_llama.models.video_llama import VideoLLaMA

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def model(tmp_path: Path) -> VideoLLaMA:
    return tiny.model(tiny.write_decoder(tmp_path))


def test_the_originals_path_has_the_loss_and_the_gradients_of_ours(model):
    batch = noise_batch(model, size=2, frames=2, text=12, targets=5)
    original = OriginalPath(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    losses = original(as_loaded(batch)), mean_loss(model, batch)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    for a, b in zip(*(torch.autograd.grad(loss, trained) for loss in losses), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_the_originals_path_shares_all_weights(model):
    own = {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in OriginalPath(model).parameters()} == own


def test_the_originals_path_leaves_the_model_as_it_is(model):
    before = model.decoder.lm.config._attn_implementation
    OriginalPath(model)
    assert before == "sdpa" == model.decoder.lm.config._attn_implementation
    assert all(block.attn.fused_attn for block in model.vision.vit.blocks)


def test_without_a_gpu_its_benchmark_says_so_and_fails():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.strip().startswith("benchmarks.gpu needs a CUDA device")
    assert "Traceback" not in done.stderr


def test_what_is_measured_of_stage_1_on_a_gpu_are_its_claims(model, monkeypatch):
    """On the CPU, so that the script is not tried on a lent machine for the first time."""
    sizes = {"BATCH": 2, "FRAMES": 2, "TEXT": 8, "TARGETS": 4, "STEPS": 1, "ROUNDS": 1}
    for name, value in sizes.items():
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu, "peak_of", lambda way, device: way() or 1e9)
    found = {row.name: row for row in gpu.stage_1(model, torch.device("cpu"))}
    claimed = {row.name for row in gpu_claims.GPU_CLAIMS if row.name.startswith("stage 1")}
    assert claimed <= found.keys()
    assert all(row.value is not None and row.value > 0 for row in found.values())


def test_what_is_measured_of_decoding_on_a_gpu_are_its_claims_and_both_ways_decode_the_same(model, monkeypatch):
    model.eval()
    for name, value in {"PROMPT": 5, "NEW_TOKENS": 4, "ROUNDS": 1}.items():
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu.SEVEN_B, "vocab_size", tiny.VOCABULARY)
    found = {row.name for row in gpu.decoding(model, torch.device("cpu"))}
    assert {row.name for row in gpu_claims.GPU_CLAIMS if row.name.startswith("decoding")} <= found
    prompts = [[5, 6, 7], [8, 9, 10]]
    columns = gpu.plain_loop(model.decoder.lm, torch.tensor(prompts))
    assert gpu.scheduled(model, prompts) == [list(row) for row in zip(*columns, strict=True)]


def test_what_is_measured_of_an_answer_on_a_gpu_is_its_claim(model, monkeypatch):
    for name, value in {"FRAMES": 4, "TEXT": 8, "NEW_TOKENS": 4}.items():
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu, "peak_of", lambda way, device: way() or 1e9)
    assert gpu.one_answer(model.eval(), torch.device("cpu")).name == gpu_claims.IN_USE
