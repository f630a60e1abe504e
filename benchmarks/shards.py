"""Samples per second from shards and from the files that they were made of, in turn, through the loader of a training run.

    python -m benchmarks.shards [CLIP ...] [--records 128] [--workers 2]

The clips, or without any some of the toy world, are copied until there are as many records. In one process, each record is read
from the files and from the shards in turn, so that the noise of the machine affects both alike. The loader passes through all.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from benchmarks.minima import ROUNDS
from benchmarks.samples import full_size_spec, toy_clips
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
        print(f"{len(files)} records, least times of {ROUNDS} rounds")
        each = by_record(sets)
        for name, seconds in each.items():
            print(f"one process, {name}: {1 / seconds:.1f} samples/s ({each['files'] / seconds:.3f} of files)")
        for name, (seconds, cpu) in by_pass(sets, args.workers).items():
            rate = f"{len(files) / seconds:.1f} samples/s, {1000 * cpu / len(files):.2f} ms of CPU a sample"
            print(f"loader with {args.workers} workers, {name}: {rate}")


def by_record(sets: Mapping[str, Dataset]) -> dict[str, float]:
    """Read each record from all sets in turn, in this process; return the mean of the least seconds of each."""
    n = len(sets["files"])
    best = {name: np.full(n, np.inf) for name in sets}
    for _ in range(ROUNDS):
        for i in np.random.default_rng(0).permutation(n).tolist():
            for name, dataset in sets.items():
                started = time.perf_counter()
                dataset.sample(i, np.random.default_rng(0))
                best[name][i] = min(best[name][i], time.perf_counter() - started)
    return {name: float(seconds.mean()) for name, seconds in best.items()}


def by_pass(sets: Mapping[str, Dataset], workers: int) -> dict[str, tuple[float, float]]:
    """Pass through all sets in turn, with loader processes; return the least seconds, and the least seconds of CPU."""
    best = dict.fromkeys(sets, (np.inf, np.inf))
    for number in range(ROUNDS):
        for name, dataset in list(sets.items())[:: 1 if number % 2 else -1]:
            seconds, cpu = read(dataset, workers)
            best[name] = min(best[name][0], seconds), min(best[name][1], cpu)
    return best


def write_files(folder: Path, clips: list[Path], n: int) -> WebVid:
    """Write n clips and their captions in WebVid's layout."""
    contents = [clip.read_bytes() for clip in clips or toy_clips(folder)]
    (folder / "videos" / "p").mkdir(parents=True)
    for i in range(n):
        (folder / "videos" / "p" / f"{i}.mp4").write_bytes(contents[i % len(contents)])
    with open(folder / "captions.csv", "w", newline="", encoding="utf-8") as file:
        rows = ((str(i), "p", f"clip number {i}") for i in range(n))
        csv.writer(file).writerows([("videoid", "page_dir", "name"), *rows])
    build = FilesConfig(anno_dir=str(folder / "captions.csv"), videos_dir=str(folder / "videos"))
    config = WebVidConfig(build_info=build, vis_processor=CLIPS, text_processor=CAPTIONS)
    return WebVid(config, full_size_spec(), "webvid")


CLIPS = ProcessorsConfig(train=VideoConfig())
CAPTIONS = TextProcessorConfig(train=CaptionConfig())


def webvid_wds(storage: str, window: int = 10) -> WebVidShards:
    """Open shards."""
    build = ShardsConfig(storage=storage)
    config = VideoShardsConfig(build_info=build, vis_processor=CLIPS, text_processor=CAPTIONS, shuffle_window=window)
    return WebVidShards(config, full_size_spec(), "webvid")


def read(dataset: Dataset, workers: int) -> tuple[float, float]:
    """Read every record once; return the seconds, and the seconds of CPU of the workers."""
    mixture = Mixture([dataset], [1.0], seed=0)
    plan = BatchPlan(batch_size=BATCH, accumulation=1, world_size=1, steps_per_epoch=len(dataset) // BATCH)
    batches = list(RankBatches(mixture, plan, 0, range(plan.steps_per_epoch)))
    started, cpu = time.perf_counter(), cpu_of_children()
    for _ in DataLoader(mixture, batch_sampler=batches, num_workers=workers, collate_fn=len):
        pass
    return time.perf_counter() - started, cpu_of_children() - cpu


def cpu_of_children() -> float:
    """Return the seconds of CPU of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
