"""Settings of the data sets, and their agreement with the model's. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge

from video_llama.common.registry import PROCESSORS
from video_llama.config.fields import ExistingPath, Registered


@dataclass(frozen=True, kw_only=True)
class ProcessorsConfig:
    """A processor for training and, where it differs, one for use."""

    train: Annotated[Any, Registered(PROCESSORS, key="name")]
    """Processor of training samples, by registered name."""

    eval: Annotated[Any, Registered(PROCESSORS, key="name")] | None = None
    """Processor when the model is used. null: the one for training without its randomness."""


@dataclass(frozen=True, kw_only=True)
class FilesConfig:
    """Where an annotation file and its media lie (the published ``build_info``)."""

    anno_dir: Annotated[str, ExistingPath()]
    """Annotation file, or a folder of them."""

    videos_dir: Annotated[str, ExistingPath(kind="dir")]
    """Folder of the clips or images."""


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What is common to all data sets."""

    vis_processor: ProcessorsConfig
    """How images or clips are read."""

    text_processor: ProcessorsConfig | None = None
    """How captions are cleaned. Conversations are taken as they are."""

    sample_ratio: Annotated[float, Ge(0)] = 1.0
    """Share of the samples drawn from this data set, relative to the others' shares."""

    num_video_query_token: int | None = None
    """Repeats model.num_video_query_token; must agree with it."""

    tokenizer_name: str | None = None
    """Repeats model.llama_model; must agree with it."""

    model_type: str | None = None
    """Repeats model.model_type, with or without its pretrain_; must agree with it."""

    def disagreements(self, model: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield (dotted key, message) for each setting that contradicts the model's.

        Args:
            model: what the model section says of what both know.
        """
        for key, repeated in _REPEATED.items():
            value = getattr(self, key)
            if value is not None and key in model and repeated(value) != repeated(model[key]):
                yield key, f"{value!r}, but the model has {model[key]!r}. Leave it out here."
        for split in ("train", "eval"):
            processor = getattr(self.vis_processor, split)
            place = f"vis_processor.{split}"
            n_frms, image_size = getattr(processor, "n_frms", None), getattr(processor, "image_size", None)
            if n_frms is not None and n_frms > model.get("max_frame_pos", n_frms):
                yield f"{place}.n_frms", f"{n_frms} frames, but model.max_frame_pos is {model['max_frame_pos']}"
            if split == "train" and n_frms is not None and n_frms > model.get("max_audio_pos", n_frms):
                yield (
                    f"{place}.n_frms",
                    f"{n_frms} frames for the audio branch, but model.max_audio_pos is {model['max_audio_pos']}. Lower it, "
                    "or set model.interpolate_audio_pos: true.",
                )
            if image_size is not None and image_size != model.get("image_size", image_size):
                yield f"{place}.image_size", f"{image_size}, but model.image_size is {model['image_size']}"


_REPEATED: dict[str, Callable[[Any], Any]] = {
    "num_video_query_token": int,
    "tokenizer_name": os.path.realpath,
    "model_type": lambda name: name.removeprefix("pretrain_"),
}
"""Settings of the model that a data set may repeat, and what of a value counts when the two are compared."""


@dataclass(frozen=True, kw_only=True)
class WebVidConfig(DatasetConfig):
    """WebVid: ``*.csv`` or ``*.tsv`` with videoid, page_dir and name; clips at videos_dir/page_dir/videoid.mp4."""

    data_type: Literal["video"] = "video"
    """Kind of media."""

    build_info: FilesConfig | None = None
    """Where the annotations and clips lie."""


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """Where an image caption set lies."""

    storage: Annotated[str, ExistingPath(kind="dir")]
    """Folder with filter_cap.json and image/."""


@dataclass(frozen=True, kw_only=True)
class CCSBUAlignConfig(DatasetConfig):
    """``filter_cap.json`` with ``annotations: [{image_id, caption}]``; images at image/<image_id>.jpg."""

    data_type: Literal["images"] = "images"
    """Kind of media."""

    build_info: StorageConfig | None = None
    """Where the annotations and images lie."""


@dataclass(frozen=True, kw_only=True)
class LlavaInstructConfig(DatasetConfig):
    """LLaVA: ``[{"image", "conversations": [{"from": "human" | "gpt", "value"}]}]``; records without image are text."""

    data_type: Literal["images"] = "images"
    """Kind of media."""

    build_info: FilesConfig | None = None
    """Where the annotations and images lie."""

    image_prefix: str = "COCO_train2014_"
    """Put before each file name of the annotations; LLaVA names COCO images without it."""


@dataclass(frozen=True, kw_only=True)
class WebVidInstructConfig(DatasetConfig):
    """VideoChat: ``[{"video", "QA": [{"q", "a"}]}]``; clips at videos_dir/video."""

    data_type: Literal["video"] = "video"
    """Kind of media."""

    build_info: FilesConfig | None = None
    """Where the annotations and clips lie."""
