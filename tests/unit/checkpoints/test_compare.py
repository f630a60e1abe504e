"""Filling a module: every tensor of the file and of the module is accounted for, or nothing is filled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from video_llama.checkpoints.compare import compare, fill, listed, not_finite
from video_llama.common.errors import WeightsError


class Tower(nn.Module):
    """Two layers and a buffer."""

    def __init__(self, n_layers: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 3) for _ in range(n_layers))
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("cache", torch.zeros(1), persistent=False)


def values(module: nn.Module, value: float = 7.0) -> dict[str, Tensor]:
    return {name: torch.full_like(tensor, value) for name, tensor in module.state_dict().items()}


def refused(tower: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """The lines of the refusal; the module must be as it was."""
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        fill(tower, tensors, "mine.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in tower.state_dict().items())
    return str(caught.value).splitlines()


def test_every_parameter_and_buffer_takes_the_value_of_its_name() -> None:
    tower = Tower()
    fill(tower, values(tower), "mine.pth")
    assert all(bool((tensor == 7).all()) for tensor in tower.state_dict().values())


def test_parameters_stay_the_same_objects_and_stay_trainable() -> None:
    tower = Tower()
    before = dict(tower.named_parameters())
    fill(tower, values(tower), "mine.pth")
    assert all(p is before[name] and p.requires_grad for name, p in tower.named_parameters())


def test_values_take_the_number_format_of_the_module() -> None:
    tower = Tower()
    fill(tower, {name: t.half() for name, t in values(tower, 0.5).items()}, "mine.pth")
    assert {t.dtype for t in tower.state_dict().values()} == {torch.float32}
    assert float(tower.scale) == 0.5


def test_a_tensor_that_the_module_does_not_have_is_named() -> None:
    tensors = values(Tower()) | {"layers.2.weight": torch.ones(3, 2)}
    assert refused(Tower(), tensors) == ["mine.pth does not fit Tower:", "  + unexpected: layers.2.weight"]


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    tensors = values(Tower()) | {"layers.0.weight": torch.ones(2, 3)}
    assert refused(Tower(), tensors) == [
        "mine.pth does not fit Tower:",
        "  ! shape: layers.0.weight: file (2, 3), model (3, 2)",
    ]


def test_all_problems_are_reported_at_once_and_long_lists_are_shortened() -> None:
    tensors = {f"other.{i}": torch.ones(1) for i in range(8)} | {"scale": torch.ones(2)}
    assert refused(Tower(4), tensors) == [
        "mine.pth does not fit Tower:",
        *(f"  + unexpected: other.{i}" for i in range(5)),
        "  + unexpected: and 3 more",
        "  ! shape: scale: file (2,), model (1,)",
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_that_is_not_finite_is_named(value: float, dtype: torch.dtype) -> None:
    tensors = {name: t.to(dtype) for name, t in values(Tower()).items()} | {"steps": torch.tensor([3])}
    assert not_finite(tensors) == []
    tensors["layers.1.weight"][2, 1] = value
    assert not_finite(tensors) == ["layers.1.weight"]


def test_a_partial_file_fills_its_tensors_and_leaves_the_others() -> None:
    tower = Tower()
    before = tower.layers[1].weight.clone()
    fill(tower, {"layers.0.weight": torch.full((3, 2), 7.0)}, "mine.pth")
    assert bool((tower.layers[0].weight == 7).all())
    assert torch.equal(tower.layers[1].weight, before)


def test_a_partial_file_may_hold_nothing_else() -> None:
    tensors = {"layers.0.weight": torch.ones(3, 2), "optimizer": torch.ones(1)}
    assert refused(Tower(), tensors) == ["mine.pth does not fit Tower:", "  + unexpected: optimizer"]


def test_a_buffer_that_is_not_saved_is_not_missing() -> None:
    assert "cache" not in values(Tower())
    assert refused(Tower(), values(Tower()) | {"cache": torch.zeros(1)})[1:] == ["  + unexpected: cache"]


# --- the report


class Towers(nn.Module):
    """Two towers with two components each."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.ModuleDict({"stem": nn.Linear(2, 3), "head": nn.Linear(3, 1)})
        self.right = nn.ModuleDict({"stem": nn.Linear(2, 3), "head": nn.Linear(3, 1)})


def test_the_report_counts_by_component_and_names_every_mismatch() -> None:
    with torch.device("meta"):
        towers = Towers()
    tensors = {name: torch.ones(t.shape) for name, t in towers.state_dict().items() if not name.startswith("left.")}
    del tensors["right.stem.bias"]
    tensors["right.head.weight"] = torch.ones(1, 4)
    tensors["optimizer"] = torch.ones(1)
    assert compare(towers, tensors).lines() == [
        "  right.stem: 1 matched, 1 missing",
        "  right.head: 1 matched",
        "  - missing: right.stem.bias",
        "  + unexpected: optimizer",
        "  ! shape: right.head.weight: file (1, 4), model (1, 3)",
    ]


def test_a_component_that_is_not_in_the_file_is_not_missing() -> None:
    tensors = {"left.stem.weight": torch.ones(3, 2), "left.stem.bias": torch.ones(3)}
    assert compare(Towers(), tensors).lines() == ["  left.stem: 2 matched"]


def test_a_long_list_is_shortened() -> None:
    assert listed("x", []) == []
    assert listed("x", "abcde") == [f"  x: {name}" for name in "abcde"]
    assert listed("x", "abcdefg") == [*(f"  x: {name}" for name in "abcde"), "  x: and 2 more"]
