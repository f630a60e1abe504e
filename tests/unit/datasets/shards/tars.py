"""Shards for tests: written by webdataset's own writer or, where it would refuse, by hand; and data sets over them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import webdataset

from tests.unit.datasets.folder import CAPTIONS, CLIPS, IMAGES, Folder
from video_llama.datasets.config import ImageShardsConfig, InstructShardsConfig, ShardsConfig, VideoShardsConfig
from video_llama.datasets.shards.sharded import CCSBUShards, InstructShards, WebVidShards


def write_shard(path: Path, samples: Iterable[Mapping[str, Any]]) -> Path:
    """Write a shard with webdataset: a value under ``json`` is an object, others are bytes or text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(dict(sample))
    return path


def clip(key: str, caption: str = "a cat", text: str = "", **more: Any) -> dict[str, Any]:
    """A clip whose content is ``text``, and its caption."""
    return {"__key__": key, "mp4": text.encode(), "json": {"caption": caption, **more}}


def write_members(path: Path, *members: tuple[str, bytes]) -> Path:
    """Write a tar with members of any name, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def webvid_wds(folder: Folder, storage: str | Path, **settings: Any) -> WebVidShards:
    """Captioned clips in shards."""
    defaults = {"vis_processor": CLIPS, "text_processor": CAPTIONS, "build_info": ShardsConfig(storage=str(storage))}
    return WebVidShards(VideoShardsConfig(**(defaults | settings)), folder.spec, "webvid")


def cc_sbu(folder: Folder, storage: str | Path, **settings: Any) -> CCSBUShards:
    """Captioned images in shards."""
    defaults = {"vis_processor": IMAGES, "text_processor": CAPTIONS, "build_info": ShardsConfig(storage=str(storage))}
    return CCSBUShards(ImageShardsConfig(**(defaults | settings)), folder.spec, "cc_sbu_align")


def instruct_wds(folder: Folder, storage: str | Path, **settings: Any) -> InstructShards:
    """Conversations in shards."""
    defaults = {"vis_processor": CLIPS, "build_info": ShardsConfig(storage=str(storage))}
    return InstructShards(InstructShardsConfig(**(defaults | settings)), folder.spec, "instruct")
