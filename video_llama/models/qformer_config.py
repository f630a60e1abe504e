"""Sizes of the Q-Formers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval


@dataclass(frozen=True, kw_only=True)
class QFormerConfig:
    """Size of a Q-Former; the defaults are BLIP-2's."""

    hidden_size: Annotated[int, Ge(1)] = 768
    """D: width of the queries."""

    num_hidden_layers: Annotated[int, Ge(1)] = 12
    """Layers of the image Q-Former; the video Q-Former has ``fusion_head_layers``."""

    num_attention_heads: Annotated[int, Ge(1)] = 12
    """Heads of each attention."""

    intermediate_size: Annotated[int, Ge(1)] = 3072
    """Width of the feed-forward layers."""

    cross_attention_frequency: Annotated[int, Ge(1)] = 2
    """The image Q-Former attends to its source in every n-th layer."""

    dropout: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Dropout of a Q-Former in training mode; frozen ones never drop."""

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield the settings that contradict each other."""
        if self.hidden_size % self.num_attention_heads:
            yield (
                "num_attention_heads",
                f"{self.num_attention_heads} heads do not divide hidden_size {self.hidden_size}",
            )
