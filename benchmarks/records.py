"""What annotations cost at scale: the start, the memory of each process, and the draws of a step.

    python -m benchmarks.records --rows 10000000

Writes a table of WebVid's shape to a temporary folder, and reads it as a run would: once with an empty cache, then again, each
time in a process of its own. Private memory is what a process has written (``Private_Dirty``): pages of the mapped file are
shared by all processes, and the kernel drops them when it needs room.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.samples import full_size_spec
from video_llama.common.cache import HOME
from video_llama.datasets.captions import WebVid
from video_llama.datasets.config import FilesConfig, ProcessorsConfig, TextProcessorConfig, WebVidConfig
from video_llama.datasets.mixture import BatchPlan, Mixture, RankBatches
from video_llama.processors.config import CaptionConfig, VideoTrainConfig

WORKERS, READS, SAMPLES = 4, 100_000, 256
WORDS = (
    "aerial view of the city at night young woman walking in park with her dog close up slow motion of waves time lapse "
    "clouds over mountain lake hands typing on laptop keyboard happy family having breakfast isolated green screen"
)


def main() -> None:
    """Write the table, then measure a first and a second start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "annotations").mkdir()
        write_table(folder / "annotations" / "results.csv", args.rows)
        size = (folder / "annotations" / "results.csv").stat().st_size
        print(f"{args.rows:,} rows, {size / 1e9:.2f} GB")
        for start in ("first start", "second start"):
            print(f"{start}:", flush=True)
            command = [sys.executable, "-m", "benchmarks.records", "--measure", str(folder)]
            subprocess.run(command, check=True, env={**os.environ, HOME: str(folder / "cache")})


def write_table(path: Path, rows: int) -> None:
    """Write a CSV file of WebVid's columns and lengths."""
    draw = random.Random(0)
    words = WORDS.split()
    captions = [" ".join(draw.choices(words, k=draw.randint(5, 25))) for _ in range(10_000)]
    captions[::50] = [f'"{caption}, {caption}"' for caption in captions[::50]]
    with open(path, "w", encoding="utf-8") as file:
        file.write("videoid,contentUrl,duration,page_dir,name\n")
        for i in range(rows):
            url = f"https://ak.picdn.net/shutterstock/videos/{i + 1000}/preview/stock-footage.mp4"
            page = f"{i // 50 * 50:06d}_{i // 50 * 50 + 49:06d}"
            file.write(f"{i + 1000},{url},PT00H00M{i % 60:02d}S,{page},{captions[i % len(captions)]}\n")


def measure(folder: Path) -> None:
    """Open the data set in this process, read it in workers, draw steps, and print what all that takes."""
    spec = full_size_spec()
    config = WebVidConfig(
        vis_processor=ProcessorsConfig(train=VideoTrainConfig()),
        text_processor=TextProcessorConfig(train=CaptionConfig()),
        build_info=FilesConfig(anno_dir=str(folder / "annotations"), videos_dir=str(folder)),
    )
    memory, cpu, started = private_memory(), time.process_time(), time.perf_counter()
    webvid = WebVid(config, spec, "webvid")
    digest = webvid.digest()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(f"  {seconds:.2f} s ({cpu:.2f} s of CPU) to {len(webvid):,} records and their digest {digest[:8]}")
    print(f"  main process: {(private_memory() - memory) / 1e6:.1f} MB of private memory for them")
    print(f"  main process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB at its peak, all in all")
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        grown = pool.map(growth, [(webvid, seed) for seed in range(WORKERS)], chunksize=1)
    each = ", ".join(f"{n / 1e6:.1f}" for n in grown)
    print(f"  {WORKERS} workers: each grew by {each} MB over {READS:,} random records")
    plan = BatchPlan(batch_size=SAMPLES // 8, accumulation=1, world_size=8, steps_per_epoch=len(webvid) // SAMPLES)
    draws = draw_times(Mixture([webvid], [1.0], 42), plan)
    print(
        f"  draws of a step of {SAMPLES} samples: {statistics.median(draws) * 1e3:.2f} ms, at most {max(draws) * 1e3:.2f} ms"
    )


def growth(what: tuple[Any, int]) -> int:
    """Read random records; return by how many bytes the private memory of this process grew."""
    webvid, seed = what
    records = np.random.default_rng(seed).integers(len(webvid), size=READS)
    webvid.records[0]
    before = private_memory()
    for index in records:
        webvid.records[index]
        webvid.record_id(index)
    return private_memory() - before


def draw_times(mixture: Mixture, plan: BatchPlan) -> list[float]:
    """Draw steps all over ten epochs, for all ranks; return the seconds of processor time of each."""
    steps, times = np.random.default_rng(0).integers(10 * plan.steps_per_epoch, size=100), []
    for step in steps.tolist():
        started = time.process_time()
        for rank in range(plan.world_size):
            list(RankBatches(mixture, plan, rank, range(step, step + 1)))
        times.append(time.process_time() - started)
    return times


def private_memory() -> int:
    """Return the bytes that this process has written."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_Dirty"))


if __name__ == "__main__":
    main()
