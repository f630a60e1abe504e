"""Matrices decay; biases, norms and frozen parameters do not."""

from __future__ import annotations

import torch
from torch import nn

from video_llama.runners.optim import build_optimizer, parameter_groups


def test_weight_decay_applies_to_matrices_and_not_to_vectors():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Embedding(4, 2))
    decayed, plain = parameter_groups(model.named_parameters(), 0.05)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[2].weight)}
    assert {id(p) for p in plain["params"]} == {id(model[0].bias), id(model[1].weight), id(model[1].bias)}


def test_a_frozen_parameter_is_in_no_group():
    model = nn.Linear(3, 2)
    model.weight.requires_grad = False
    optimizer = build_optimizer(model, lr=0.1, weight_decay=0.05, beta2=0.9)
    assert [p for group in optimizer.param_groups for p in group["params"]] == [model.bias]
    assert optimizer.param_groups[1]["betas"] == (0.9, 0.9)


def test_without_a_gradient_only_decayed_parameters_shrink():
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone(), model.bias.detach().clone()
    optimizer = build_optimizer(model, lr=0.1, weight_decay=0.5, beta2=0.999)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias.detach(), before[1])
