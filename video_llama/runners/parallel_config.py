"""How the processes of a run hold the parts of the model: ``run.parallel``. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Placement = Literal["replicate", "shard"]


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """For each large part: replicate, whole in every process; or shard, where each process holds its share of every layer, and
    layers are gathered from all of them while they compute (FSDP2). The results are the same."""

    vision: Placement = "replicate"
    """The frame encoder, which must be frozen to be sharded."""

    decoder: Placement = "replicate"
    """The decoder, frozen or trained."""

    @property
    def sharded(self) -> frozenset[str]:
        """The parts that are sharded."""
        placements = {"vision": self.vision, "decoder": self.decoder}
        return frozenset(part for part, placement in placements.items() if placement == "shard")
