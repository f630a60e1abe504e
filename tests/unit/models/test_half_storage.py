"""Half-precision weights that compute in float32: the results, the gradients, and what is kept in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import tiny
from tests.decoders import FAMILIES, write_decoder
from video_llama.models import half_storage
from video_llama.models.config import QFormerConfig
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.decoder.language_model import LanguageModel
from video_llama.models.encoders.imagebind import ImageBind
from video_llama.models.encoders.vision import VisionEncoder
from video_llama.models.half_storage import HALF, WIDENED_AT_ONCE, compute_in_float32
from video_llama.models.qformer import QFormer


def rounded(module: nn.Module, dtype: torch.dtype = torch.float16) -> tuple[nn.Module, nn.Module]:
    """Return a module with its parameters stored in half precision, and the same in float32."""
    module = tiny_values(module).requires_grad_(False)
    for p in module.parameters():
        p.data = p.data.to(dtype)
    exact = copy.deepcopy(module).float()
    compute_in_float32(module)
    return module, exact


def tiny_values(module: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny.livelier(module)
    return module.eval()


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


FRAMES = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 16, "mlp_ratio": 2.0}
PARTS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Tensor]]] = {
    "EVA": (lambda: VisionEncoder(image_size=32, vit_args=VIT), lambda m: m(FRAMES)),
    "another ViT": (lambda: VisionEncoder("timm/vit_tiny_patch16_224", image_size=32), lambda m: m(FRAMES)),
    "Q-Former": (
        lambda: QFormer(4, 16, QFormerConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2)),
        lambda m: m(random(2, 5, 16)),
    ),
    "ImageBind's sound": (
        lambda: ImageBind(tiny.IMAGEBIND),
        lambda m: m.encode_audio(torch.stack([tiny.sound(2).data])),
    ),
}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("part", PARTS)
@torch.no_grad()
def test_an_encoder_of_half_precision_weights_computes_exactly_what_it_does_in_float32(part, dtype):
    build, run = PARTS[part]
    module, exact = rounded(build(), dtype)
    assert {p.dtype for p in module.parameters()} == {dtype}
    assert torch.equal(run(module), run(exact))


@torch.no_grad()
def test_imagebinds_frames_are_encoded_as_in_float32():
    """Not to the last bit: in float32 torch has one kernel for the whole attention, which takes no weights of another kind."""
    module, exact = rounded(ImageBind(tiny.IMAGEBIND))
    frames = FRAMES.unflatten(0, (2, 1)).movedim(1, 2)
    torch.testing.assert_close(module.encode_frames(frames), exact.encode_frames(frames), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_of_half_precision_weights_computes_exactly_what_it_does_in_float32(family, dtype, tmp_path):
    stored = LanguageModel(DecoderFolder(write_decoder(tmp_path / "a", family)), dtype)
    stored.lm.save_pretrained(tmp_path / "b")  # the rounded weights
    stored.requires_grad_(False).compute_in_float32()
    exact = LanguageModel(DecoderFolder(tmp_path / "b"), torch.float32)
    assert {p.dtype for p in stored.parameters()} == {dtype}
    assert stored.lm.dtype == torch.float32
    found = [results(decoder) for decoder in (stored, exact)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def results(decoder: LanguageModel) -> tuple[Tensor, ...]:
    """The loss of some ids, its gradient by their embeddings, and an answer."""
    decoder.requires_grad_(False)
    ids = torch.arange(3, 40)[None]
    embeds = decoder.embed(ids).requires_grad_()
    loss, _ = decoder.target_loss(embeds, torch.ones_like(ids), ids)
    (gradient,) = torch.autograd.grad(loss, embeds)
    answer = decoder.lm.generate(inputs_embeds=embeds.detach(), max_new_tokens=8, do_sample=False, pad_token_id=0)
    return loss, gradient, answer


def test_names_and_stored_values_stay_the_same(tmp_path):
    decoder = LanguageModel(DecoderFolder(write_decoder(tmp_path, "qwen2")), torch.float16).requires_grad_(False)
    before, kinds = decoder.state_dict(), [type(m).__name__ for m in decoder.modules()]
    decoder.compute_in_float32()
    after = decoder.state_dict()
    assert before.keys() == after.keys()
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(before.values(), after.values(), strict=True))
    assert [type(m).__name__ for m in decoder.modules()] == kinds
    assert decoder.lm._parameters == {}
    assert decoder.lm.lm_head._parameters["weight"] is decoder.lm.model.embed_tokens._parameters["weight"]  # tied


# Large layers, which are widened by parts


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (300,)])
def test_a_layer_that_is_widened_by_parts_computes_what_it_does_in_float32(bias, shape):
    inputs, outputs = 1000, 2503
    assert inputs * outputs > 2 * WIDENED_AT_ONCE
    module, exact = rounded(nn.Linear(inputs, outputs, bias=bias))
    found = []
    for layer in (module, exact):
        x = random(*shape, inputs).requires_grad_()
        y = layer(x)
        (gradient,) = torch.autograd.grad(y.square().mean(), x)
        found.append((y.detach(), gradient))
    for a, b in zip(*found, strict=True):  # whether to the last bit depends on the kernels of the machine
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * b.abs().max().item())


def test_no_float32_copy_of_a_weight_is_kept_for_the_backward_pass(tmp_path):
    decoder = LanguageModel(DecoderFolder(write_decoder(tmp_path, "llama")), torch.float16).requires_grad_(False)
    decoder.compute_in_float32()
    weights = {p.numel() for p in decoder.parameters() if p.ndim > 1}
    ids = torch.arange(3, 8)[None]  # few, so that no activation is as large as a weight
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        decoder.target_loss(decoder.embed(ids).requires_grad_(), torch.ones_like(ids), ids)
    large = [t for t in kept if t.numel() in weights]
    assert large
    assert {t.dtype for t in large} == {torch.float16}


def test_widening_takes_a_few_megabytes_however_large_the_weight(monkeypatch):
    module, _ = rounded(nn.Linear(256, 50_000, bias=False))
    sizes = []
    widen = half_storage._in_scratch
    monkeypatch.setattr(half_storage, "_in_scratch", lambda part: sizes.append(part.numel()) or widen(part))
    x = random(3, 256).requires_grad_()
    module(x).sum().backward()
    assert sum(sizes) == 2 * 256 * 50_000  # forward and backward
    assert max(sizes) < 2 * WIDENED_AT_ONCE


# Other uses of a weight


def test_a_look_up_converts_what_it_returns_alone(monkeypatch):
    module, exact = rounded(nn.Embedding(100, 8))
    monkeypatch.setattr(half_storage, "_whole", lambda value: pytest.fail("widened the table"))
    assert torch.equal(module(torch.tensor([3, 97])), exact(torch.tensor([3, 97])))
    assert module.weight.dtype == torch.float32


def test_one_expert_of_many_is_converted_alone(monkeypatch):
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.randn(4, 6, 8))

        def forward(self, x: Tensor, k: int) -> Tensor:
            return F.linear(x, self.up[k])

    module, exact = rounded(Experts())
    expected = exact(random(3, 8), 2)
    monkeypatch.setattr(half_storage, "_whole", lambda value: pytest.fail("widened all experts"))
    assert torch.equal(module(random(3, 8), 2), expected)


@pytest.mark.parametrize(
    "use",
    [
        lambda w: w * 2,
        lambda w: 2 - w,
        lambda w: w.T @ w,
        lambda w: torch.cat([w, w]),
        lambda w: w.expand(2, -1, -1),
        lambda w: w.sum(),
        lambda w: F.linear(w, w),
        lambda w: F.linear(torch.ones(4), weight=w, bias=torch.ones(3)),
        lambda w: torch.addmm(torch.ones(4), torch.ones(2, 3), w),
        lambda w: torch.addmm(torch.ones(4), torch.ones(2, 3), w, beta=0.5),
        lambda w: w[1:, :2],
        lambda w: w.data,
    ],
)
def test_whatever_is_done_with_a_weight_is_done_in_float32(use):
    module, exact = rounded(nn.Linear(4, 3))
    found = use(module.weight) + 0
    assert type(found) is Tensor
    assert found.dtype == torch.float32
    assert torch.equal(found, use(exact.weight))


def test_a_trained_weight_is_refused():
    with pytest.raises(ValueError, match=r"Linear\.weight is trained"):
        compute_in_float32(nn.Linear(2, 2).half())


def test_a_layer_without_half_precision_is_left_as_it_is():
    layer = nn.Linear(2, 2)
    compute_in_float32(layer)
    assert type(layer) is nn.Linear


def test_a_copy_and_a_moved_module_compute_the_same():
    module, exact = rounded(nn.Linear(4, 3))
    x = random(2, 4)
    assert torch.equal(copy.deepcopy(module)(x), exact(x))
    assert torch.equal(module.double()(x.double()), exact.double()(x.double()))
