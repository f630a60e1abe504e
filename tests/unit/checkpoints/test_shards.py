"""Tensors of every kind are written as safetensors reads them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from video_llama.checkpoints.delta.shards import Planned, write_shards
from video_llama.common.errors import WeightsError

TYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool),
)


def test_all_number_formats_and_shapes_are_read_back_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = {"scalar": (), "none": (0, 3), "odd": (3,), "matrix": (5, 7), "transposed": (7, 5)}
    values = {
        f"{dtype}.{name}": (100 * torch.randn(shape, generator=generator)).to(dtype)
        for dtype in TYPES
        for name, shape in shapes.items()
    }
    values = {name: tensor.T if name.endswith("transposed") else tensor for name, tensor in values.items()}

    def rows(name: str, wanted: slice) -> Tensor:
        return values[name][wanted] if values[name].ndim else values[name]

    write_shards(tmp_path, [[Planned(n, tuple(t.shape), t.dtype) for n, t in values.items()]], rows, "writing")
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == values.keys()
    assert [n for n, t in values.items() if found[n].dtype != t.dtype or not torch.equal(found[n], t)] == []


def test_a_type_that_is_not_written_is_refused_with_the_tensor(tmp_path):
    with pytest.raises(WeightsError, match=r"phase: is in torch.complex64, which is not written here"):
        write_shards(tmp_path, [[Planned("phase", (2,), torch.complex64)]], lambda *_: torch.zeros(2), "writing")
