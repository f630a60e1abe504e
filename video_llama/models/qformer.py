"""Learned queries that read a feature sequence: the Q-Former (BLIP-2, figure 2).

Shapes: N sequences, S source tokens of width W, Q queries of width D.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from video_llama.models.config import QFormerConfig


class QFormer(nn.Module):
    """A BERT with learned queries that cross-attend to a source sequence.

    Args:
        num_queries: Q.
        source_width: W.
        config: the sizes.
        num_layers: overrides ``config.num_hidden_layers``.
        cross_attention_frequency: overrides ``config.cross_attention_frequency``.
    """

    def __init__(
        self,
        num_queries: int,
        source_width: int,
        config: QFormerConfig,
        num_layers: int | None = None,
        cross_attention_frequency: int | None = None,
    ) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.empty(1, num_queries, config.hidden_size).normal_(std=0.02))
        self.bert = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=config.hidden_size,
                num_hidden_layers=num_layers or config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                intermediate_size=config.intermediate_size,
                cross_attention_frequency=cross_attention_frequency or config.cross_attention_frequency,
                encoder_hidden_size=source_width,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                layer_norm_eps=1e-12,
            )
        )

    def forward(self, attend_to: Tensor) -> Tensor:
        """Read a source sequence.

        Args:
            attend_to: float[N, S, W].
        Returns:
            float[N, Q, D].
        """
        queries = self.query_tokens.expand(attend_to.shape[0], -1, -1)
        return self.bert(query_embeds=queries, encoder_hidden_states=attend_to).last_hidden_state
