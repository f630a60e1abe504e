"""Settings of the data sets, and their agreement with the model's. Imports no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt

from video_llama.checkpoints.sources.hub import HubReference
from video_llama.checkpoints.sources.references import parse
from video_llama.common.registry import BENCHMARKS, PROCESSORS
from video_llama.config.fields import UNSET, ExistingPath, Operational, Registered
from video_llama.config.inference_config import misplaced, processor_disagreements
from video_llama.datasets.annotations import unread_files
from video_llama.datasets.shards.storage import ExistingShards
from video_llama.processors.config import CaptionConfig, ImageConfig, VideoConfig


@dataclass(frozen=True, kw_only=True)
class ProcessorsConfig:
    """A processor for training and, if it differs, one for inference."""

    train: Annotated[Any, Registered(PROCESSORS, key="name")]
    """Processor of training samples, by registered name."""

    eval: Annotated[Any, Registered(PROCESSORS, key="name")] | None = None
    """Processor for inference. null: the one for training, without its randomness."""

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield a processor that reads something else."""
        yield from misplaced(self, train="clips or images", eval="clips or images")


@dataclass(frozen=True, kw_only=True)
class TextProcessorConfig:
    """How captions are cleaned."""

    train: Annotated[Any, Registered(PROCESSORS, key="name")]
    """Processor of captions, by registered name."""

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield a processor that reads something else."""
        yield from misplaced(self, train="captions")


@dataclass(frozen=True, kw_only=True)
class ConversationTextConfig(TextProcessorConfig):
    """The ``text_processor`` that published YAMLs set on conversations, which are not cleaned."""

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield any processor but the published one."""
        if self.train not in (CaptionConfig(), CaptionConfig(max_words=50)):
            yield "train", "has no effect on conversations, which are not cleaned. Leave text_processor out."


@dataclass(frozen=True, kw_only=True)
class FilesConfig:
    """Paths of an annotation file and its media (the published ``build_info``)."""

    anno_dir: Annotated[str, ExistingPath()]
    """Annotation file, or a folder of them."""

    videos_dir: Annotated[str, ExistingPath(kind="dir")]
    """Folder of the clips or images."""


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Settings of every data set."""

    PUBLISHED: ClassVar[tuple[str, ...]] = ("num_video_query_token", "tokenizer_name", "model_type")
    """Keys of published YAMLs that set nothing: they must agree with the model section."""

    vis_processor: ProcessorsConfig
    """How images or clips are read."""

    split: str = "train"
    """train, or the name of a split in run.valid_splits or run.test_splits; then it is read by the vis_processor's eval."""

    evaluator: Annotated[Any, Registered(BENCHMARKS, key="name")] | None = None
    """Benchmark that is scored, beside the loss, when this data set is validated on: a registered name and its settings."""

    views: Annotated[int, Ge(1)] | None = None
    """K: frames and crops that a processor draws at random are drawn once for each of K views of a file, and each sample takes
    one of them. Views can be stored as features. null: new ones for each sample."""

    sample_ratio: Annotated[float, Ge(0)] = 1.0
    """Share of the samples drawn from this data set, relative to the shares of the others."""

    num_video_query_token: int | None = None
    """Repeats model.num_video_query_token; must agree with it."""

    tokenizer_name: str | None = None
    """Repeats model.llama_model; must agree with it."""

    model_type: str | None = None
    """Repeats model.model_type, with or without its pretrain_; must agree with it."""

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield a share that is no number to divide by."""
        if math.isinf(self.sample_ratio):
            yield "sample_ratio", "must be finite, got inf"

    def notes(self, trains: bool) -> Iterable[tuple[str, str]]:
        """Yield (dotted key, message) for each setting without effect.

        Args:
            trains: whether the file is for training, and not for use alone.
        """
        for key, default in (("build_info", None), ("text_processor", None), ("sample_ratio", 1.0)):
            if not trains and getattr(self, key, default) != default:
                yield key, "has no effect: this file is not for training"
        if self.views is not None and not any(map(_draws, (self.vis_processor.train, self.vis_processor.eval))):
            yield "views", "has no effect: the vis_processor draws neither frames nor crops"
        if trains and self.split == "train" and self.evaluator is not None:
            yield "evaluator", "has no effect: the split is train, and only others are validated on"
        if trains and self.split != "train" and self.sample_ratio != 1:
            yield "sample_ratio", f"has no effect: nothing is drawn from the split {self.split}"

    def warnings(self) -> Iterable[tuple[str, str]]:
        """Yield (dotted key, message) for each setting whose effect is probably not what is meant."""
        if self.split == "train" and self.sample_ratio == 0:
            yield "sample_ratio", "0: nothing is drawn from this data set"

    def disagreements(self, model: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield (dotted key, message) for each setting that contradicts the model's.

        Args:
            model: the settings of the model section that a data set repeats or depends on.
        """
        for key, repeated in _REPEATED.items():
            value = getattr(self, key)
            if value not in (None, UNSET) and key in model and repeated(value) != repeated(model[key]):
                yield key, f"{value!r}, but the model has {model[key]!r}. Leave it out here."
        for split in ("train", "eval"):
            processor = getattr(self.vis_processor, split)
            yield from (
                (f"vis_processor.{split}.{key}", message) for key, message in processor_disagreements(processor, model)
            )
        n_frms = getattr(self.vis_processor.train, "n_frms", None)
        if n_frms is not None and n_frms > model.get("max_audio_pos", n_frms):
            yield (
                "vis_processor.train.n_frms",
                f"{n_frms} frames for the audio branch, but model.max_audio_pos is {model['max_audio_pos']}. Lower it, "
                "or set model.interpolate_audio_pos: true.",
            )


def _draws(processor: Any) -> bool:
    """Return whether a processor may draw frames or crops; one of another kind of Config is taken to do so."""
    if type(processor) in (VideoConfig, ImageConfig):
        return getattr(processor, "sampling", None) == "headtail"
    return processor is not None


def _decoder_of(name: str) -> str:
    """Return what a name of a decoder stands for: the folder, or the repository of the hub at any revision."""
    source = parse(name)
    return os.path.realpath(source.repo if isinstance(source, HubReference) else name)


_REPEATED: dict[str, Callable[[Any], Any]] = {
    "num_video_query_token": int,
    "tokenizer_name": _decoder_of,
    "model_type": lambda name: name.removeprefix("pretrain_"),
}
"""Settings of the model that a data set may repeat, and the form in which the two are compared."""


@dataclass(frozen=True, kw_only=True)
class CaptionsConfig(DatasetConfig):
    """Settings of every data set of captions."""

    text_processor: TextProcessorConfig | None = None
    """How captions are cleaned; needed for training."""


@dataclass(frozen=True, kw_only=True)
class ConversationsConfig(DatasetConfig):
    """Settings of every data set of conversations."""

    PUBLISHED: ClassVar[tuple[str, ...]] = (*DatasetConfig.PUBLISHED, "text_processor")

    text_processor: ConversationTextConfig | None = None
    """No effect: conversations are not cleaned. Published YAMLs set it to blip_caption."""

    def notes(self, trains: bool) -> Iterable[tuple[str, str]]:
        """Yield (dotted key, message) for each setting without effect."""
        yield from super().notes(trains)
        if trains and self.text_processor is not None:
            yield "text_processor", "has no effect on conversations, which are not cleaned"


@dataclass(frozen=True, kw_only=True)
class WebVidConfig(CaptionsConfig):
    """WebVid: ``*.csv`` or ``*.tsv`` with videoid, page_dir and name; clips at videos_dir/page_dir/videoid.mp4."""

    data_type: Literal["video"] = "video"
    """Kind of media."""

    build_info: FilesConfig | None = None
    """Paths of the annotations and the clips."""

    def warnings(self) -> Iterable[tuple[str, str]]:
        """Yield the files of the annotation folder that are not read."""
        yield from super().warnings()
        folder = Path(self.build_info.anno_dir) if self.build_info else None
        if folder is not None and folder.is_dir() and (unread := unread_files(folder)) is not None:
            yield "build_info.anno_dir", unread


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """Path of a set of images with captions."""

    storage: Annotated[str, ExistingPath(kind="dir")]
    """Folder with filter_cap.json and image/."""


@dataclass(frozen=True, kw_only=True)
class CCSBUAlignConfig(CaptionsConfig):
    """``filter_cap.json`` with ``annotations: [{image_id, caption}]``; images at image/<image_id>.jpg."""

    data_type: Literal["images"] = "images"
    """Kind of media."""

    build_info: StorageConfig | None = None
    """Paths of the annotations and the images."""

    def notes(self, trains: bool) -> Iterable[tuple[str, str]]:
        """Yield (dotted key, message) for each setting without effect."""
        yield from super().notes(trains)
        yield from _clip_settings(self.vis_processor)


def _clip_settings(processors: ProcessorsConfig) -> Iterable[tuple[str, str]]:
    """Yield (dotted key, message) for processors of clips in a data set of images."""
    for split in ("train", "eval"):
        if getattr(getattr(processors, split), "reads", None) == "clips":
            yield (
                f"vis_processor.{split}.n_frms",
                f"has no effect: this data set holds images. Use a processor of images, such as blip2_image_{split}",
            )


@dataclass(frozen=True, kw_only=True)
class LlavaInstructConfig(ConversationsConfig):
    """LLaVA: ``[{"image", "conversations": [{"from": "human" | "gpt", "value"}]}]``; records without image are text."""

    data_type: Literal["images", "video"] | None = None
    """Kind of media. null: what the vis_processor reads."""

    build_info: FilesConfig | None = None
    """Paths of the annotations and the images."""

    image_prefix: str = "COCO_train2014_"
    """Put before each file name of the annotations; LLaVA names COCO images without it. Clips have no prefix."""

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield a ``data_type`` that the processor does not read."""
        yield from super().check()
        yield from _other_kind(self.data_type, self.vis_processor)


def _other_kind(data_type: str | None, processors: ProcessorsConfig) -> Iterable[tuple[str, str]]:
    """Yield a ``data_type`` that a processor does not read."""
    reads = getattr(processors.train, "reads", None)
    if data_type and reads in ("images", "clips") and (reads == "images") != (data_type == "images"):
        yield "data_type", f"{data_type}, but its vis_processor reads {reads}"


@dataclass(frozen=True, kw_only=True)
class WebVidInstructConfig(ConversationsConfig):
    """VideoChat: ``[{"video", "QA": [{"q", "a"}]}]``; clips at videos_dir/video."""

    data_type: Literal["video"] = "video"
    """Kind of media."""

    build_info: FilesConfig | None = None
    """Paths of the annotations and the clips."""


@dataclass(frozen=True, kw_only=True)
class ShardsConfig:
    """Where shards are."""

    storage: Annotated[str, ExistingShards()]
    """Shards: a path or an address, with braces as in clips/{000..099}.tar; or a folder, for all .tar files in it."""

    cache_gb: Annotated[float, Gt(0), Operational()] = 50.0
    """What shards on remote stores (http://, s3://, hf://) may take of this machine's disk, in GB. It should hold two windows."""


@dataclass(frozen=True, kw_only=True)
class CaptionShardsConfig(CaptionsConfig):
    """Settings of every data set of captions in shards."""

    build_info: ShardsConfig | None = None
    """Where the shards are."""

    shuffle_window: Annotated[int, Ge(1)] = 10
    """Shards whose records are shuffled together. If there are no more, the order is that of the same records in files."""


@dataclass(frozen=True, kw_only=True)
class ImageShardsConfig(CaptionShardsConfig):
    """Tar files of images, each with a caption in ``.json`` or ``.txt`` under the same key, as img2dataset writes them."""

    data_type: Literal["images"] = "images"
    """Kind of media."""

    def notes(self, trains: bool) -> Iterable[tuple[str, str]]:
        """Yield (dotted key, message) for each setting without effect."""
        yield from super().notes(trains)
        yield from _clip_settings(self.vis_processor)


@dataclass(frozen=True, kw_only=True)
class VideoShardsConfig(CaptionShardsConfig):
    """Tar files of clips, each with a caption in ``.json`` or ``.txt`` under the same key, as video2dataset writes them."""

    data_type: Literal["video"] = "video"
    """Kind of media."""


@dataclass(frozen=True, kw_only=True)
class InstructShardsConfig(ConversationsConfig):
    """Tar files of ``.json`` with ``conversations`` as in LLaVA, each with an image, clip or sound, or with none."""

    data_type: Literal["images", "video"] | None = None
    """Kind of media. null: what the vis_processor reads."""

    build_info: ShardsConfig | None = None
    """Where the shards are."""

    shuffle_window: Annotated[int, Ge(1)] = 10
    """Shards whose records are shuffled together. If there are no more, the order is that of the same records in files."""

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield a ``data_type`` that the processor does not read."""
        yield from super().check()
        yield from _other_kind(self.data_type, self.vis_processor)
