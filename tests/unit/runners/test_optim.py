"""Weight decay applies to matrices alone, and optimiser state is kept by parameter name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from video_llama.common.errors import WeightsError
from video_llama.runners.optim import build_optimizer, load_named_state, named_state, parameter_groups


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


def test_on_a_cpu_the_optimiser_is_not_fused():
    assert not build_optimizer(nn.Linear(2, 2), lr=0.1, weight_decay=0.5, beta2=0.999).defaults["fused"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_one_kernel_takes_the_step_that_the_cpu_takes():
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = nn.Linear(3, 2).to(device)
        optimizer = build_optimizer(model, lr=0.1, weight_decay=0.5, beta2=0.999)
        assert bool(optimizer.defaults["fused"]) == (device == "cuda")
        for p in model.parameters():
            p.grad = torch.linspace(-1, 1, p.numel(), device=device).view_as(p)
        optimizer.step()
        found.append([p.detach().cpu() for p in model.parameters()])
    torch.testing.assert_close(found[1], found[0])


def stepped(*names: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model with parameters of these names, in this order, after a step with gradients of its own."""
    model = nn.ParameterDict({name: nn.Parameter(torch.ones(2, 2)) for name in names})
    optimizer = build_optimizer(model, lr=0.1, weight_decay=0.0, beta2=0.999)
    for name in names:
        model[name].grad = torch.full((2, 2), float(ord(name)))
    optimizer.step()
    return model, optimizer


def test_optimiser_state_follows_the_names_of_parameters_and_not_their_order():
    one, other = stepped("a", "b"), stepped("b", "a")
    state = named_state(*one)
    assert state["a"]["exp_avg"].mean() != state["b"]["exp_avg"].mean()
    load_named_state(*other, {name: {**s, "exp_avg": s["exp_avg"] + 1} for name, s in state.items()})
    for name in ("a", "b"):
        assert torch.equal(named_state(*other)[name]["exp_avg"], state[name]["exp_avg"] + 1)


def test_optimiser_state_of_different_parameters_is_refused():
    with pytest.raises(WeightsError, match="optimiser state is of other parameters than this model trains: b, c"):
        load_named_state(*stepped("a", "b"), named_state(*stepped("a", "c")))
