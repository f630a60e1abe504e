"""Chunks of positions give the loss and the gradients of all at once, and keep no logits."""

from __future__ import annotations

from weakref import WeakSet

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from video_llama.models.decoder import chunked_loss
from video_llama.models.decoder.chunked_loss import chunked_losses
from video_llama.models.decoder.output_head import OutputHead

N, WIDTH, VOCABULARY = 11, 16, 64


class Kept:
    """A tensor that autograd saves; it is collected with the graph that needs it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@pytest.fixture
def head(monkeypatch):
    monkeypatch.setattr(chunked_loss, "CHUNK_BYTES", 4 * 4 * VOCABULARY)  # four positions
    config = AutoConfig.for_model(
        "llama", hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, vocab_size=VOCABULARY
    )
    torch.manual_seed(0)
    return OutputHead(AutoModelForCausalLM.from_config(config).requires_grad_(False))


def positions() -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, targets, and a weight for each loss, as a mixed-precision scaler or a mean would give."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(N, WIDTH, generator=generator).requires_grad_()
    return hidden, torch.randint(VOCABULARY, (N,), generator=generator), torch.rand(N, generator=generator)


@pytest.mark.parametrize("trained", [False, True])
def test_losses_and_gradients_are_those_of_one_chunk(head, trained):
    weight = head._lm.lm_head.weight.requires_grad_(trained)
    wanted = [positions()[0], weight] if trained else [positions()[0]]
    _, targets, factors = positions()
    hidden = wanted[0]
    whole = F.cross_entropy(F.linear(hidden, weight), targets, reduction="none")
    losses = chunked_losses(head, hidden, targets)
    torch.testing.assert_close(losses, whole)
    expected, found = (torch.autograd.grad((each * factors).sum(), wanted) for each in (whole, losses))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("trained", [False, True])
def test_no_logits_are_kept_for_the_backward_pass(head, trained):
    head._lm.lm_head.weight.requires_grad_(trained)
    hidden, targets, _ = positions()
    kept = WeakSet[Kept]()

    def pack(tensor: Tensor) -> Kept:
        kept.add(saved := Kept(tensor))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        loss = chunked_losses(head, hidden, targets).sum()
    assert loss.requires_grad
    assert {each.tensor.shape[-1] for each in kept if each.tensor.ndim > 1} == {WIDTH}


def test_at_most_a_chunk_of_logits_is_computed_at_once(head):
    rows: list[int] = []
    hidden, targets, _ = positions()
    with head._lm.lm_head.register_forward_hook(lambda _, __, logits: rows.append(logits.shape[1])):
        chunked_losses(head, hidden, targets)
    assert rows == [4, 4, 3]


@torch.no_grad()
def test_without_gradients_there_are_the_same_losses(head):
    hidden, targets, _ = positions()
    with torch.enable_grad():
        expected = chunked_losses(head, hidden, targets).detach()
    assert torch.equal(chunked_losses(head, hidden, targets), expected)


def test_no_target_gives_a_loss_of_zero_that_can_be_differentiated(head):
    hidden, targets, _ = positions()
    loss = chunked_losses(head, hidden[:0], targets[:0]).sum()
    assert loss == 0
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert not gradient.any()
