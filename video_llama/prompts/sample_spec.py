"""What data sets and chat need to know of a model to make its samples and prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from video_llama.common.modalities import MediaKind, Modalities
from video_llama.prompts.templates import Template
from video_llama.prompts.tokenizer import Tokenizer


@dataclass(frozen=True)
class SampleSpec:
    """What data sets need to know of the model. Derived once from the model section; nobody repeats it."""

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
    """Prompts for captions, with the template around them and ``<ImageHere>`` in them; one is drawn for each sample."""
    label_mask: Literal["answers", "original"] = "answers"
    """Which tokens of an instruction sample carry loss: those of the answers, or those that did in the original."""
    modalities: Modalities = field(default_factory=Modalities)
    """What is read of a file."""
    audio_processor: Any = None
    """Makes the audio encoder's input of an open sound track. None: the model has no audio branch."""
    shared_settings: Mapping[str, Any] = field(default_factory=dict)
    """Model settings that a data set's published keys may repeat: checked against them."""
