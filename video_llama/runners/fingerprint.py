"""What a run rests on and does not save: its data and the frozen parts of its model, as digests that show a change."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from video_llama.common.sharded_tensors import own_rows
from video_llama.datasets.mixture import Mixture

_VALUES = 64
"""Values of each frozen tensor that count. Other weights differ everywhere, and 13 GB would take long to read."""


def data_fingerprint(mixture: Mixture) -> dict[str, dict[str, Any]]:
    """Return the number of records and the digest of the annotations of each data set."""
    return {dataset.name: {"records": len(dataset), "digest": dataset.digest()} for dataset in mixture.datasets}


def frozen_fingerprint(model: nn.Module) -> dict[str, str]:
    """Return a digest of each part of a model that has frozen parameters: of names, shapes, types and some values.

    For encoders that the model goes without, as their output is stored, it is what the store says.
    The digest of a part is the same whether or not it is sharded; if it is, every process must call this.
    """
    digests: dict[str, Any] = defaultdict(hashlib.sha256)
    for name, p in model.named_parameters():
        if not p.requires_grad:
            shape = f"{name} {tuple(p.shape)} {p.dtype}"
            digests[name.split(".")[0]].update(shape.encode() + _some_values(p))
    stored: dict[str, str] = getattr(model, "stored_fingerprint", {})
    return {**stored, **{part: digest.hexdigest() for part, digest in digests.items()}}


def _some_values(tensor: Tensor) -> bytes:
    n = tensor.numel()
    positions = torch.arange(0, n, max(1, n // _VALUES))[:_VALUES]
    some = _values_at(tensor, positions) if isinstance(tensor, DTensor) else tensor.detach().reshape(-1)[positions]
    return some.contiguous().view(torch.uint8).cpu().numpy().tobytes()


def _values_at(tensor: DTensor, positions: Tensor) -> Tensor:
    """Return values of a sharded tensor; every process must call it."""
    local, width = tensor.to_local().detach().reshape(-1), tensor.numel() // max(1, tensor.shape[0])
    rows = own_rows(tensor)
    mine = (positions >= rows.start * width) & (positions < rows.stop * width)
    found = local.new_zeros(len(positions))
    found[mine] = local[positions[mine] - rows.start * width]
    dist.all_reduce(found.view(torch.uint8), group=tensor.device_mesh.get_group())  # the others have zeros
    return found


def changed_sources(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each data set whose annotations are not those of the saved ``data_fingerprint``.

    With others, a position in the order of the data means another record. A data set that was added or removed is a change of
    the config, which says so itself.
    """
    return [
        f"datasets.{name}: {saved[name]['records']} records in the checkpoint's run, {found['records']} now"
        if saved[name]["records"] != found["records"]
        else f"datasets.{name}: {found['records']} records as before, with other content"
        for name, found in now.items()
        if name in saved and saved[name] != found
    ]


def changed_parts(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return a line for each frozen part of the model whose ``frozen_fingerprint`` is not the saved one."""
    parts = [part for part in sorted(saved.keys() | now.keys()) if saved.get(part) != now.get(part)]
    return [f"model: the frozen weights of '{part}' are not those that its run had" for part in parts]
