"""Settings of the audio encoders. Imports no torch.

Besides its fields, the Config of an audio encoder says ``takes_frames``, whether the encoder takes frames as well as sound, and
``processor``, the registered name of the processor that makes its input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from video_llama.checkpoints.sources.references import WeightsSource


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """Size of a trunk."""

    embed_dim: Annotated[int, Ge(1)]
    """D: width of the blocks."""

    depth: Annotated[int, Ge(1)]
    """Number of blocks."""

    num_heads: Annotated[int, Ge(1)]
    """Heads of each attention."""


@dataclass(frozen=True, kw_only=True)
class ImageBindConfig:
    """Sizes of ImageBind; the defaults are ImageBind-Huge's."""

    takes_frames: ClassVar[bool] = True
    processor: ClassVar[str] = "imagebind_audio"

    audio: TrunkConfig = TrunkConfig(embed_dim=768, depth=12, num_heads=12)
    """The trunk for sound."""

    vision: TrunkConfig = TrunkConfig(embed_dim=1280, depth=32, num_heads=16)
    """The trunk for frames."""

    image_size: Annotated[int, Ge(1)] = 224
    """Side of the frames that the positions are made for, in pixels."""

    patch_size: Annotated[int, Ge(1)] = 14
    """Side of a patch of a frame, in pixels."""

    out_embed_dim: Annotated[int, Ge(1)] = 1024
    """E: width of the space that sounds and frames share."""


@dataclass(frozen=True, kw_only=True)
class WhisperConfig:
    """Settings of the Whisper encoder."""

    takes_frames: ClassVar[bool] = False
    processor: ClassVar[str] = "waveform_audio"

    model: Annotated[str, WeightsSource(kind="dir")]
    """Folder of a Whisper model in Hugging Face format, or its id on the hub, org/name; its encoder is used."""
