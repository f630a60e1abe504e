"""Data sets over files of a few bytes: a processor for tests reads the text in a clip or image file as its media."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from video_llama.common.errors import DecodeError
from video_llama.common.file_part import open_binary
from video_llama.common.registry import PROCESSORS
from video_llama.common.types import Media
from video_llama.datasets.base import Dataset
from video_llama.datasets.captions import CCSBUAlign, WebVid
from video_llama.datasets.config import (
    CCSBUAlignConfig,
    FilesConfig,
    LlavaInstructConfig,
    ProcessorsConfig,
    StorageConfig,
    TextProcessorConfig,
    WebVidConfig,
    WebVidInstructConfig,
)
from video_llama.datasets.instruct import LlavaInstruct, WebVidInstruct, WebVidInstructZh
from video_llama.datasets.manifest import Manifest
from video_llama.datasets.manifest_config import ManifestConfig, ManifestFilesConfig
from video_llama.processors.config import CaptionConfig
from video_llama.prompts.sample_spec import SampleSpec

TIMES = "The video contains 2 frames sampled at 0.0, 0.5 seconds. "
"""The content of clip files."""


@dataclass(frozen=True, kw_only=True)
class FakeVisionConfig:
    """Settings of the test processors, named as those of the real ones."""

    n_frms: int = 2
    image_size: int = 224


class FakeClip:
    """Turns every file into a clip of ``n_frms`` frames of random brightness; the file's text becomes its message.

    A file that says ``broken`` is broken.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(FakeVisionConfig):
        """Its settings."""

        reads: ClassVar[str] = "clips"

    def __init__(self, config: Any) -> None:
        self.config = config

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        try:
            with open_binary(path) as file:
                text = file.read().decode()
        except OSError as error:
            raise DecodeError(str(path), "no such file") from error
        if text == "broken":
            raise DecodeError(str(path), "moov atom not found")
        return self.media(text, torch.full((3, self.config.n_frms, 2, 2), int(rng.integers(256)), dtype=torch.uint8))

    def media(self, text: str, frames: torch.Tensor) -> Media:
        return Media("video", frames, text)


class FakeImage(FakeClip):
    """Turns every file into an image."""

    @dataclass(frozen=True, kw_only=True)
    class Config(FakeVisionConfig):
        """Its settings."""

        reads: ClassVar[str] = "images"

    def media(self, text: str, frames: torch.Tensor) -> Media:
        return Media("image", frames[:, :1])


@contextmanager
def fake_processors() -> Iterator[None]:
    """Register both processors while the context is open."""
    with PROCESSORS.scoped():
        PROCESSORS.register("fake_clip")(FakeClip)
        PROCESSORS.register("fake_image")(FakeImage)
        yield


CLIPS = ProcessorsConfig(train=FakeClip.Config())
IMAGES = ProcessorsConfig(train=FakeImage.Config())
CAPTIONS = TextProcessorConfig(train=CaptionConfig())


@dataclass
class Folder:
    """A user's data: writes annotations and media, and makes data sets of them.

    ``spec`` is what the model asks for; settings given to a method go into the data set's section of the YAML.
    """

    path: Path
    spec: SampleSpec
    media: Path = field(init=False)

    def __post_init__(self) -> None:
        self.media = self.path / "media"
        self.media.mkdir()

    def file(self, name: str, content: str | bytes = "") -> Path:
        """Write a file below the folder."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def clips(self, *names: str, content: str = "") -> None:
        """Write clips or images whose text is ``content``."""
        for name in names:
            self.file(f"media/{name}", content)

    def table(self, name: str, rows: Iterable[tuple[str, ...]], columns: tuple[str, ...]) -> Path:
        """Write a CSV or TSV file."""
        path = self.file(f"annotations/{name}")
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t" if name.endswith(".tsv") else ",").writerows([columns, *rows])
        return path

    def webvid(self, *rows: tuple[str, ...], **settings: Any) -> WebVid:
        """Make a WebVid set over ``annotations``; rows of videoid, page_dir, name are written there first."""
        if rows:
            self.table("0.csv", rows, ("videoid", "page_dir", "name"))
        files = FilesConfig(anno_dir=str(self.path / "annotations"), videos_dir=str(self.media))
        defaults = {"build_info": files, "vis_processor": CLIPS, "text_processor": CAPTIONS}
        return WebVid(WebVidConfig(**(defaults | settings)), self.spec, "webvid")

    def cc_sbu_align(self, content: Any, **settings: Any) -> CCSBUAlign:
        """Make an image caption set over ``filter_cap.json``."""
        self.file("cc/filter_cap.json", content if isinstance(content, str | bytes) else json.dumps(content))
        (self.path / "cc" / "image").mkdir(exist_ok=True)
        storage = StorageConfig(storage=str(self.path / "cc"))
        defaults = {"build_info": storage, "vis_processor": IMAGES, "text_processor": CAPTIONS}
        return CCSBUAlign(CCSBUAlignConfig(**(defaults | settings)), self.spec, "cc_sbu_align")

    def llava(self, content: Any, **settings: Any) -> LlavaInstruct:
        """Make a LLaVA set over ``instruct.json``."""
        config = LlavaInstructConfig(
            **({"build_info": self._instructions(content), "vis_processor": IMAGES} | settings)
        )
        return LlavaInstruct(config, self.spec, "llava_instruct")

    def videochat(self, content: Any, chinese: bool = False, **settings: Any) -> WebVidInstruct:
        """Make a VideoChat set over ``instruct.json``."""
        config = WebVidInstructConfig(
            **({"build_info": self._instructions(content), "vis_processor": CLIPS} | settings)
        )
        return (WebVidInstructZh if chinese else WebVidInstruct)(config, self.spec, "webvid_instruct")

    def manifest(
        self, *records: Any, name: str = "mine.jsonl", files: dict[str, Any] | None = None, **settings: Any
    ) -> Manifest:
        """Make a manifest of records; a text or bytes is a line as it is."""
        lines = [
            r if isinstance(r, bytes) else r.encode() if isinstance(r, str) else json.dumps(r).encode() for r in records
        ]
        path = self.file(name, b"".join(line + b"\n" for line in lines))
        info = ManifestFilesConfig(manifest=str(path), **({"media_dir": str(self.media)} | (files or {})))
        defaults = {"build_info": info, "vis_processor": CLIPS, "image_processor": IMAGES}
        return Manifest(ManifestConfig(**(defaults | settings)), self.spec, "mine")

    def _instructions(self, content: Any) -> FilesConfig:
        file = self.file("instruct.json", content if isinstance(content, str | bytes) else json.dumps(content))
        return FilesConfig(anno_dir=str(file), videos_dir=str(self.media))

    def limited(self, **changes: Any) -> Folder:
        """The same folder for a model with another sample spec."""
        self.spec = replace(self.spec, **changes)
        return self


def sample_text(dataset: Dataset, index: int = 0) -> str:
    """The text of a sample, with one ``@`` for each slot token."""
    return "".join(read(dataset, dataset.sample(index, np.random.default_rng(0)).input_ids.tolist()))


def target_text(dataset: Dataset, index: int = 0) -> str:
    """The text of a sample's labels."""
    labels = dataset.sample(index, np.random.default_rng(0)).labels.tolist()
    return dataset.spec.tokenizer.decode([label for label in labels if label >= 0])


def read(dataset: Dataset, ids: list[int]) -> Iterator[str]:
    """Decode ids with slot ids among them."""
    words: list[int] = []
    for i in [*ids, -1000]:
        if i >= 0:
            words.append(i)
            continue
        yield dataset.spec.tokenizer.decode(words)
        words = []
        if i != -1000:
            yield "@"


def turns(*texts: str) -> list[Mapping[str, str]]:
    """A LLaVA conversation."""
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
