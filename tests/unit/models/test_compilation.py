"""Compiled blocks compute what plain ones do; where nothing compiles, the model runs all the same."""

from __future__ import annotations

import logging

import pytest
import torch
from torch._dynamo.utils import counters

from tests import tiny
from video_llama.models import compilation
from video_llama.models.compilation import CompiledForward

BATCH = tiny.batch(tiny.sample("a", 2), tiny.sample("b", 1, words=4))


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(CompiledForward, "failed", False)
    yield
    torch._dynamo.reset()


def with_backend(monkeypatch, backend) -> None:
    """Compile with another backend than inductor, which takes half a minute."""
    compiled = torch.compile
    monkeypatch.setattr(compilation.torch, "compile", lambda f, dynamic: compiled(f, dynamic=dynamic, backend=backend))


@pytest.mark.parametrize(
    "settings",
    [
        {"compile": "towers"},
        {"compile": "all"},
        *({"compile": "all", "use_grad_checkpoint": how} for how in ("full", "selective")),
    ],
)
def test_compiled_blocks_change_neither_loss_nor_names_nor_gradients(decoder, monkeypatch, settings):
    with_backend(monkeypatch, "aot_eager")
    plain, compiled = tiny.model(decoder), tiny.model(decoder, **settings)
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    losses = [model(BATCH).loss_sum for model in (plain, compiled)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=1e-6)
    for loss in losses:
        loss.backward()
    for p, q in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-6)
    assert counters["stats"]["unique_graphs"] > 0
    assert not CompiledForward.failed


def test_blocks_of_one_tower_share_what_is_compiled(decoder, monkeypatch):
    with_backend(monkeypatch, "aot_eager")
    graphs = []
    for depth in (2, 4):
        torch._dynamo.reset()
        counters.clear()
        vit = {"embed_dim": 16, "depth": depth, "num_heads": 2, "patch_size": 16, "mlp_ratio": 2.0}
        model = tiny.model(decoder, compile="towers", vit_args=vit)
        model.encode_frozen(BATCH.media)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1]


def test_a_machine_that_cannot_compile_says_so_once_and_computes_the_same(decoder, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise RuntimeError("no C++ compiler found\nand more")

    with_backend(monkeypatch, broken)
    with caplog.at_level(logging.WARNING):
        model = tiny.model(decoder, compile="all")
        loss = model(BATCH).loss_sum
    assert torch.equal(loss, tiny.model(decoder)(BATCH).loss_sum)
    lines = [record.getMessage() for record in caplog.records if "model.compile" in record.getMessage()]
    assert len(lines) == 1
    assert "no C++ compiler found" in lines[0]
    assert "and more" not in lines[0]


@pytest.mark.slow
def test_towers_compile_with_the_compiler_that_runs_use(decoder):
    compiled = tiny.model(decoder, compile="towers")
    expected = tiny.model(decoder).encode_frozen(BATCH.media)
    for ours, plain in zip(compiled.encode_frozen(BATCH.media), expected, strict=True):
        torch.testing.assert_close(ours.data, plain.data, rtol=1e-4, atol=1e-4)
    assert not CompiledForward.failed
