"""Parts of the model that the processes of a run share: each holds its rows of every tensor (FSDP2, ``fully_shard``).

Before a layer computes, its rows are gathered from all processes, and freed afterwards. So all processes must call the sharded
parts equally often, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from video_llama.common.distributed import World
from video_llama.common.errors import ConfigError
from video_llama.common.sharded_tensors import own_rows, with_local
from video_llama.models.weights.unfilled import parameter_names


@dataclass(frozen=True)
class Sharding:
    """Which parts are sharded, over all processes of a run."""

    world: World
    parts: frozenset[str]
    """Names of submodules, such as ``decoder``."""
    amp_dtype: torch.dtype | None = None
    """Number format in which trained parts compute, from fp32 weights. None: fp32."""

    @cached_property
    def mesh(self) -> DeviceMesh:
        """All processes, in one dimension."""
        return init_device_mesh(self.world.device.type, (self.world.size,))

    def shard(
        self, root: nn.Module, units: Iterable[nn.Module], *, trained: bool = False, methods: Iterable[str] = ()
    ) -> None:
        """Shard a module. If its parameters are on the meta device, ``fill_shards`` gives them values afterwards.

        Gradients are summed over processes, as ``World.sum_gradients`` does.

        Args:
            root: its parameters outside of the units stay gathered from forward to backward.
            units: submodules that are gathered one at a time.
            trained: compute in ``amp_dtype``, and sum gradients in fp32.
            methods: those of the root that are called from outside, besides ``forward``.
        """
        policy = MixedPrecisionPolicy()
        if trained and self.amp_dtype is not None:
            policy = MixedPrecisionPolicy(param_dtype=self.amp_dtype, reduce_dtype=torch.float32)
        for unit in units:
            fully_shard(unit, mesh=self.mesh, mp_policy=policy)
        fully_shard(root, mesh=self.mesh, mp_policy=policy, reshard_after_forward=False)
        for module in root.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        for name in methods:
            register_fsdp_forward_method(root, name)

    def fill_shards(self, module: nn.Module, read: Callable[[str, slice], Tensor]) -> None:
        """Give the parameters of a sharded module their values, one at a time.

        Args:
            module: its parameters are on the meta device.
            read: returns some rows of a parameter, by its name.
        """
        filled: dict[str, nn.Parameter] = {}
        for p, own in parameter_names(module).items():
            assert isinstance(p, DTensor), f"{own[0]} is not sharded"
            local = read(own[0], own_rows(p)).to(self.world.device, p.dtype)
            filled |= dict.fromkeys(own, nn.Parameter(with_local(local, p), requires_grad=p.requires_grad))
        module.load_state_dict(filled, strict=False, assign=True)


def check_sharding(config: Any, sharding: Sharding | None) -> None:
    """Check that the parts of a model can be sharded.

    Args:
        config: a ``VideoLLaMAConfig``.
        sharding: the parts.
    Raises:
        ConfigError: some cannot; each is named.
    """
    parts = frozenset[str]() if sharding is None else sharding.parts
    problems = []
    if "vision" in parts and config.features is not None:
        problems.append("run.parallel.vision: shard, but there is no frame encoder: model.features has what it makes")
    elif "vision" in parts and not config.modalities.video:
        problems.append("run.parallel.vision: shard, but there is no frame encoder: the audio branch alone is trained")
    elif "vision" in parts and not config.freeze_vit:
        problems.append(
            "run.parallel.vision: shard, but model.freeze_vit is false: a trained frame encoder cannot be sharded"
        )
    if "decoder" in parts and (config.decoder_quantization or config.decoder_folder.is_quantized):
        key = "model.low_resource" if config.low_resource else "model.quantization"
        how = (
            f"{key} asks for {config.decoder_quantization}" if config.decoder_quantization else "it is stored quantised"
        )
        problems.append(f"run.parallel.decoder: shard, but {how}: packed weights cannot be sharded")
    if problems:
        raise ConfigError([f"{problem}. Set it to replicate." for problem in problems])
