"""The properties of a model that data sets and chat need for its samples and prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from video_llama.common.modalities import MediaKind, Modalities
from video_llama.prompts.templates import Template
from video_llama.prompts.tokenizer import Tokenizer


@dataclass(frozen=True)
class SampleSpec:
    """The properties of a model that its samples depend on, derived once from the model section."""

    tokenizer: Tokenizer
    template: Template
    tokens_per_slot: Mapping[MediaKind, int]
    """Tokens that an item of each kind takes in the decoder's sequence."""
    max_txt_len: int
    """Longest text of a caption, in tokens."""
    max_instruct_len: int
    """Longest instruction sample, in tokens."""
    max_context: int
    """Longest sequence the decoder takes, in tokens."""
    caption_prompts: tuple[str, ...] = ()
    """Prompts for captions, in their template and with ``<ImageHere>``; one is drawn for each sample."""
    label_mask: Literal["answers", "original"] = "answers"
    """Tokens of an instruction sample with loss: those of the answers, or those of the original."""
    modalities: Modalities = field(default_factory=Modalities)
    """The parts of a file that are read."""
    audio_processor: Any = None
    """Makes the audio encoder's input from an open sound track. None: the model has no audio branch."""
    shared_settings: Mapping[str, Any] = field(default_factory=dict)
    """Model settings that the published keys of a data set may repeat; the two must agree."""
