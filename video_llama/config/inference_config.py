"""The ``inference`` section of a YAML: how files are read and questions are put to a model in use. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from video_llama.common.registry import PROCESSORS
from video_llama.config.fields import Registered


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How chat, infer, evaluation and the web page read files and begin a dialogue."""

    video: Annotated[Any, Registered(PROCESSORS, key="name")] | None = None
    """Processor of clips, by registered name. null: that of datasets.*.vis_processor, as in published YAMLs, else
    alpro_video_eval."""

    image: Annotated[Any, Registered(PROCESSORS, key="name")] | None = None
    """Processor of images, by registered name. null: that of datasets.*.vis_processor, else blip2_image_eval."""

    system: str | None = None
    """System message of all dialogues; "": none. null: that of the conversation template, which in the original's templates
    depends on the media shown and on whether the model has an audio branch."""

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield a processor that reads something else."""
        yield from misplaced(self, video="clips", image="images")

    def disagreements(self, model: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield (dotted key, message) for each setting that contradicts the model's.

        Args:
            model: the settings of the model section that processors depend on.
        """
        if self.system and not model.get("takes_system", True):
            yield "system", f"model_type {model['model_type']} has no system message. Leave it out."
        for kind in ("video", "image"):
            for key, message in processor_disagreements(getattr(self, kind), model):
                yield f"{kind}.{key}", message


def misplaced(config: Any, **wanted: str) -> Iterable[tuple[str, str]]:
    """Yield (key, message) for each processor that reads the wrong thing.

    Args:
        config: holds the Configs of processors; one from outside need not say what it ``reads``.
        wanted: for each key, what its processor must read: clips, images, sound or captions, or two of them with "or".
    """
    for key, expected in wanted.items():
        reads = getattr(getattr(config, key), "reads", expected)
        if reads not in (expected, *expected.split(" or ")):
            yield key, f"this processor reads {reads}, not {expected}"


def processor_disagreements(processor: Any, model: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield (key, message) for each setting of a processor's Config that contradicts the model's."""
    n_frms, image_size = getattr(processor, "n_frms", None), getattr(processor, "image_size", None)
    if n_frms is not None and n_frms > model.get("max_frame_pos", n_frms):
        yield "n_frms", f"{n_frms} frames, but model.max_frame_pos is {model['max_frame_pos']}"
    if image_size is not None and image_size != model.get("image_size", image_size):
        yield "image_size", f"{image_size}, but model.image_size is {model['image_size']}"
