"""Samples per second from shards and from the files that they were made of, in turn, through the loader of a training run.

    python -m benchmarks.shards [CLIP ...] [--records 128] [--workers 2]

The clips, or without any those of the toy world, are read by turns until there are as many records. Each round passes once
through all of them from the files and once from the shards; the ratio is that of the shortest times.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from functools import partial
from pathlib import Path

from torch.utils.data import DataLoader

from benchmarks.minima import minima
from video_llama.common.cache import HOME
from video_llama.datasets.base import Dataset
from video_llama.datasets.captions import WebVid
from video_llama.datasets.config import (
    FilesConfig,
    ProcessorsConfig,
    ShardsConfig,
    TextProcessorConfig,
    VideoShardsConfig,
    WebVidConfig,
)
from video_llama.datasets.mixture import BatchPlan, Mixture, RankBatches
from video_llama.datasets.shards.packing import Packing
from video_llama.datasets.shards.sharded import WebVidShards
from video_llama.processors.config import CaptionConfig, VideoConfig
from video_llama.prompts.sample_spec import SampleSpec
from video_llama.prompts.templates import VICUNA
from video_llama.prompts.tokenizer import load_tokenizer
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene

BATCH, PER_SHARD = 8, 16


def main() -> None:
    """Write the records as files and as shards, and measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--records", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ[HOME] = str(folder / "cache")
        files = write_files(folder, args.clips, args.records)
        packing = Packing(files, folder / "shards", PER_SHARD)
        packing.write(threads=2)
        sets = {
            "files": files,
            "shards": webvid_wds(packing.storage),
            "shards, window of 2": webvid_wds(packing.storage, window=2),
        }
        best = minima({name: partial(read, dataset, args.workers) for name, dataset in sets.items()})
        for name, seconds in best.items():
            ratio = best["files"] / seconds
            print(f"{name}: {len(files) / seconds:.1f} samples/s ({ratio:.2f} of files), {args.workers} workers")


def write_files(folder: Path, clips: list[Path], n: int) -> WebVid:
    """Write n clips and their captions in WebVid's layout."""
    contents = [clip.read_bytes() for clip in clips]
    if not contents:
        for colour in ("red", "green", "blue"):
            write_clip(folder / "toy.mp4", Scene("circle", colour, "left", "small", 0))
            contents.append((folder / "toy.mp4").read_bytes())
    (folder / "videos" / "p").mkdir(parents=True)
    for i in range(n):
        (folder / "videos" / "p" / f"{i}.mp4").write_bytes(contents[i % len(contents)])
    with open(folder / "captions.csv", "w", newline="", encoding="utf-8") as file:
        rows = ((str(i), "p", f"clip number {i}") for i in range(n))
        csv.writer(file).writerows([("videoid", "page_dir", "name"), *rows])
    build = FilesConfig(anno_dir=str(folder / "captions.csv"), videos_dir=str(folder / "videos"))
    return WebVid(WebVidConfig(build_info=build, vis_processor=CLIPS, text_processor=CAPTIONS), spec(), "webvid")


CLIPS = ProcessorsConfig(train=VideoConfig())
CAPTIONS = TextProcessorConfig(train=CaptionConfig())


def webvid_wds(storage: str, window: int = 10) -> WebVidShards:
    """Open shards."""
    build = ShardsConfig(storage=storage)
    config = VideoShardsConfig(build_info=build, vis_processor=CLIPS, text_processor=CAPTIONS, shuffle_window=window)
    return WebVidShards(config, spec(), "webvid")


def spec() -> SampleSpec:
    """Return the sample spec of a model of the original's size, with the toy tokenizer."""
    return SampleSpec(
        tokenizer=load_tokenizer(Path("video_llama/toy/weights/decoder")),
        template=VICUNA,
        tokens_per_slot={"image": 32, "video": 32},
        max_txt_len=160,
        max_instruct_len=512,
        max_context=2048,
        caption_prompts=("###Human: <Video><ImageHere></Video> Describe it. ###Assistant: ",),
    )


def read(dataset: Dataset, workers: int) -> None:
    """Read every record once."""
    mixture = Mixture([dataset], [1.0], seed=0)
    plan = BatchPlan(batch_size=BATCH, accumulation=1, world_size=1, steps_per_epoch=len(dataset) // BATCH)
    batches = RankBatches(mixture, plan, 0, range(plan.steps_per_epoch))
    for _ in DataLoader(mixture, batch_sampler=batches, num_workers=workers, collate_fn=len):
        pass


if __name__ == "__main__":
    main()
