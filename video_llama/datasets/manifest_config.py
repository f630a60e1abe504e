"""Settings of ``manifest``, the layout for people's own data. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from video_llama.config.fields import ExistingPath
from video_llama.config.inference_config import misplaced, processor_disagreements
from video_llama.datasets.config import DatasetConfig, ProcessorsConfig, TextProcessorConfig

SoundPolicy = Literal["use", "ignore", "require"]
"""What is done with the sound of a clip: it is used if there is any, it is ignored, or a clip without it is a bad record."""


@dataclass(frozen=True, kw_only=True)
class ManifestFilesConfig:
    """Paths of a manifest and its media."""

    manifest: Annotated[str, ExistingPath(kind="file")]
    """File with a JSON object on each line, or a JSON list of them."""

    media_dir: Annotated[str, ExistingPath(kind="dir")] | None = None
    """Folder that paths in the manifest start from. null: the folder of the manifest."""

    allow_outside: bool = False
    """Accept paths that leave that folder: absolute ones, and those with too many '..'."""


@dataclass(frozen=True, kw_only=True)
class ManifestConfig(DatasetConfig):
    """Your own data: ``{"video" | "image" | "audio" | "frames", "caption" | "conversations"}`` on each line."""

    data_type: ClassVar[str] = "video"
    """Its vis_processor reads clips, also for a model in use."""

    build_info: ManifestFilesConfig | None = None
    """Paths of the manifest and the media."""

    image_processor: ProcessorsConfig | None = None
    """How images are read, beside the clips that vis_processor reads. null: as frames of clips are, whole or cropped."""

    text_processor: TextProcessorConfig | None = None
    """How captions are cleaned. null: they are used as they are."""

    audio: SoundPolicy = "use"
    """What is done with the sound of clips, unless a record says otherwise."""

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield a processor that reads something else."""
        yield from super().check()
        for key, what in (("vis_processor", "clips"), ("image_processor", "images")):
            processors = getattr(self, key)
            found = misplaced(processors, train=what, eval=what) if processors is not None else ()
            yield from ((f"{key}.{split}", message) for split, message in found)

    def disagreements(self, model: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield (dotted key, message) for each setting that contradicts the model's."""
        yield from super().disagreements(model)
        for split in ("train", "eval") if self.image_processor is not None else ():
            for key, message in processor_disagreements(getattr(self.image_processor, split), model):
                yield f"image_processor.{split}.{key}", message
