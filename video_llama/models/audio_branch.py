"""Segments of sound to language-model tokens: the trainable audio-language branch (Video-LLaMA, section 2.1.2).

Shapes: N sounds, S segments, E width of the audio encoder's vectors, A audio queries, H decoder width.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from video_llama.common.errors import TooManySegments
from video_llama.models.config import QFormerConfig
from video_llama.models.qformer import QFormer

NUM_LAYERS = 2
"""Layers of the audio Q-Former, each with cross-attention to the segments."""


class AudioBranch(nn.Module):
    """Segment position embedding, audio Q-Former, linear layer to the decoder's width.

    Args:
        num_queries: A, tokens that a sound takes in the decoder's sequence.
        max_segments: length of the position table.
        interpolate: stretch the table over longer sounds, instead of refusing them.
        source_width: E.
        decoder_width: H.
        config: sizes that the audio Q-Former shares with the image Q-Former.
    """

    def __init__(
        self,
        num_queries: int,
        max_segments: int,
        interpolate: bool,
        source_width: int,
        decoder_width: int,
        config: QFormerConfig,
    ) -> None:
        super().__init__()
        self.interpolate = interpolate
        self.segment_position = nn.Embedding(max_segments, source_width)
        self.qformer = QFormer(num_queries, source_width, config, num_layers=NUM_LAYERS, cross_attention_frequency=1)
        self.to_decoder = nn.Linear(config.hidden_size, decoder_width)

    def check_length(self, n_segments: int) -> None:
        """Raise TooManySegments for a sound of more segments than there are positions, unless they are interpolated."""
        longest = self.segment_position.num_embeddings
        if n_segments > longest and not self.interpolate:
            raise TooManySegments(
                f"a sound of {n_segments} segments: the branch has {longest} segment positions. Lower "
                "model.audio_segments (n_frms for frames), raise model.max_audio_pos and train the branch "
                "with it, or set model.interpolate_audio_pos."
            )

    def forward(self, vectors: Tensor) -> Tensor:
        """Fuse the segments' vectors over time.

        Args:
            vectors: float[N, S, E], the audio encoder's output for each segment.
        Returns:
            float[N, A, H], to be spliced into the decoder's sequence.
        Raises:
            TooManySegments: S exceeds the position table.
        """
        n_segments = vectors.shape[1]
        self.check_length(n_segments)
        return self.to_decoder(self.qformer(vectors + self._positions(n_segments)))

    def _positions(self, n_segments: int) -> Tensor:
        """Return float[S, E]."""
        table = self.segment_position.weight
        if n_segments <= len(table):
            return table[:n_segments]
        stretched = F.interpolate(rearrange(table, "s e -> 1 e s"), n_segments, mode="linear", align_corners=True)
        return rearrange(stretched, "1 e s -> s e")
