"""Frames to language-model tokens: the trainable vision-language branch (Video-LLaMA, section 2.1.1, figure 1).

Shapes: N clips, T frames, Q image queries, V video queries, D Q-Former width, H decoder width.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from video_llama.common.errors import TooManyFrames
from video_llama.models.config import QFormerConfig
from video_llama.models.qformer import QFormer


class VideoBranch(nn.Module):
    """Frame position embedding, video Q-Former, linear layer to the decoder's width.

    Args:
        num_queries: V, tokens that a clip or an image takes in the decoder's sequence.
        max_frames: longest clip, in frames.
        num_layers: layers of the video Q-Former, each with cross-attention to the frames.
        decoder_width: H.
        config: sizes that the video Q-Former shares with the image Q-Former.
    """

    def __init__(
        self, num_queries: int, max_frames: int, num_layers: int, decoder_width: int, config: QFormerConfig
    ) -> None:
        super().__init__()
        width = config.hidden_size
        self.frame_position = nn.Embedding(max_frames, width)
        self.qformer = QFormer(num_queries, width, config, num_layers=num_layers, cross_attention_frequency=1)
        self.to_decoder = nn.Linear(width, decoder_width)

    def check_length(self, n_frames: int) -> None:
        """Raise TooManyFrames for a clip with more frames than there are frame positions."""
        max_frames = self.frame_position.num_embeddings
        if n_frames > max_frames:
            raise TooManyFrames(
                f"a clip of {n_frames} frames: the branch has {max_frames} frame positions. "
                "Lower n_frms, or raise model.max_frame_pos and train the branch with it."
            )

    def forward(self, frame_queries: Tensor) -> Tensor:
        """Fuse the queries of each frame over time.

        Args:
            frame_queries: float[N, T, Q, D], the image Q-Former's output for each frame.
        Returns:
            float[N, V, H], to be spliced into the decoder's sequence.
        Raises:
            TooManyFrames: T exceeds the frame position table.
        """
        n_frames = frame_queries.shape[1]
        self.check_length(n_frames)
        x = frame_queries + rearrange(self.frame_position.weight[:n_frames], "t d -> t 1 d")
        return self.to_decoder(self.qformer(rearrange(x, "n t q d -> n (t q) d")))
