"""Parameters without values, until a file fills them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests import tiny
from video_llama.checkpoints.compare import fill
from video_llama.common.errors import WeightsError
from video_llama.models.encoders.factory import build_audio_encoder
from video_llama.models.encoders.vision import VisionEncoder
from video_llama.models.qformer import QFormer
from video_llama.models.weights.unfilled import drop_values, leave_out, parameters_without_values


def unfilled() -> nn.Module:
    with parameters_without_values():
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_parameters_have_no_values_and_buffers_do():
    before = torch.get_rng_state()
    module = unfilled()
    assert {p.device.type for p in module.parameters()} == {"meta"}
    assert torch.equal(module[1].running_var, torch.ones(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_modules_that_are_built_later_have_values():
    with pytest.raises(ZeroDivisionError), parameters_without_values():
        1 / 0  # noqa: B018
    assert nn.Linear(3, 2).weight.device.type == "cpu"


def test_a_frozen_parameter_takes_the_tensor_itself_and_a_trained_one_a_copy():
    module = unfilled()
    module[0].weight.requires_grad_(False)
    tensors = {"0.weight": torch.randn(2, 3), "0.bias": torch.randn(2)}
    fill(module, tensors, "a file")
    assert module[0].weight.data_ptr() == tensors["0.weight"].data_ptr()
    assert module[0].bias.data_ptr() != tensors["0.bias"].data_ptr()
    assert torch.equal(module[0].bias, tensors["0.bias"])
    assert [p.requires_grad for p in module[0].parameters()] == [False, True]


def test_tensors_are_converted_to_the_format_of_the_parameter():
    module = unfilled().requires_grad_(False)
    fill(module, {"0.weight": torch.randn(2, 3).half()}, "a file")
    assert module[0].weight.dtype == torch.float32


def test_tensors_that_do_not_fit_fill_nothing():
    module = unfilled()
    with pytest.raises(WeightsError, match=r"0\.bias"):
        fill(module, {"0.weight": torch.randn(2, 3), "0.bias": torch.randn(3)}, "a file")
    assert module[0].weight.is_meta


def test_values_that_files_will_fill_are_dropped_and_others_kept():
    module = nn.Sequential(nn.Linear(3, 2).requires_grad_(False), nn.Linear(2, 2))
    kept = module[1].weight.clone()
    drop_values(module, {"0.weight", "1.bias"})
    assert {name for name, p in module.named_parameters() if p.is_meta} == {"0.weight", "1.bias"}
    assert [p.requires_grad for p in module.parameters()] == [False, False, True, True]
    assert torch.equal(module[1].weight, kept)


@pytest.mark.parametrize("part", ["vision", "qformer", "audio_encoder"])
def test_what_is_built_after_an_encoder_that_is_left_out_has_the_values_it_has_after_one_that_is_built(decoder, part):
    model = tiny.model(decoder, **tiny.AUDIO)
    build = {
        "vision": lambda: VisionEncoder(model.config.vit_model, tiny.SIDE, model.config.vit_args),
        "qformer": lambda: QFormer(4, 16, model.config.qformer),
        "audio_encoder": lambda: build_audio_encoder(model.config),
    }[part]
    states = []
    for make in (lambda: None, build, lambda: leave_out(build)):
        torch.manual_seed(0)
        make()
        states.append(torch.get_rng_state())
    assert torch.equal(states[1], states[2])
    assert not torch.equal(states[0], states[1])


def test_nothing_is_drawn_where_nothing_gets_values():
    before = torch.get_rng_state()
    with parameters_without_values():
        leave_out(lambda: nn.Linear(3, 2))
    with torch.device("meta"):
        leave_out(lambda: nn.Linear(3, 2))
    assert torch.equal(torch.get_rng_state(), before)
