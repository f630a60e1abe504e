"""Memory of a model's process while its weights load, and then in one pass, beside what ``video-llama plan`` says.

    python -m benchmarks.loading use --cfg-path eval_configs/video_llama_eval_withaudio.yaml --options paths.llama=DIR ...
    python -m benchmarks.loading train --cfg-path train_configs/video_llama_stage1_pretrain.yaml --options paths.llama=DIR ...

``use`` takes a prompt about a clip, ``train`` a forward and a backward pass over one sample, both of noise. Resident memory
includes pages of the weights files that are mapped. On the CPU; prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from video_llama.common.types import Batch
from video_llama.config.loader import load_config
from video_llama.models.video_llama import VideoLLaMA
from video_llama.planning.estimate import PlannedModel
from video_llama.planning.plan import CPU_RESERVE, formats_of
from video_llama.planning.workload import Workload, batch_of, training_media, use_media
from video_llama.runners.numerics import autocast

SECONDS = 0.05
"""Between two looks at the memory."""


class Peak:
    """The most memory that the process had."""

    resident = 0
    """All of it."""
    private = 0
    """Without pages of mapped files."""


def main() -> None:
    """Load a model, take one pass, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("purpose", choices=("use", "train"))
    parser.add_argument("--cfg-path", required=True)
    parser.add_argument("--options", nargs="*", default=[])
    parser.add_argument("--text-tokens", type=int, default=64)
    args = parser.parse_args()
    job = load_config(args.cfg_path, [*args.options, "run.device=cpu"], also=("datasets", "run"))
    config = job.model.frozen() if args.purpose == "use" else job.model
    before, _ = memory()
    started = time.perf_counter()
    with watched() as loading:
        model = VideoLLaMA.from_config(config)
    found: dict[str, object] = {"seconds": round(time.perf_counter() - started, 1)}
    parts = {
        name: sum(t.nbytes for t in (*part.parameters(), *part.buffers())) for name, part in model.named_children()
    }
    weights = sum(parts.values())
    found |= {
        "gb": {name: gb(size) for name, size in parts.items()},
        "weights_gb": gb(weights),
        "process_before_gb": gb(before),
        "resident_over_weights": ratio(memory()[0] - before, weights),
        "peak_over_weights": ratio(loading.resident - before, weights),
    }
    print(json.dumps(found), file=sys.stderr, flush=True)  # the pass may take minutes
    formats = formats_of(config, job.run, on_cpu=True)
    planned, work = PlannedModel(VideoLLaMA, config, formats), Workload(8, args.text_tokens)
    if args.purpose == "use":
        batch = batch_of(config, work, use_media(config))
        trace = planned.in_use(batch)
        step = prompt
    else:
        batch = batch_of(config, work, training_media(config))
        trace = planned.in_training(batch)
        step = training_step
    need = planned.weights() + trace.peak + CPU_RESERVE
    real = with_noise(batch)
    started = time.perf_counter()
    with watched() as passing, autocast(formats.amp if args.purpose == "train" else None, torch.device("cpu")):
        step(model, real)
    found |= {
        "pass_seconds": round(time.perf_counter() - started, 1),
        "pass_peak_gb": gb(passing.resident),
        "planned_gb": gb(need),
        "planned_over_measured": ratio(need, passing.resident),
    }
    print(json.dumps(found, indent=1))


def prompt(model: VideoLLaMA, batch: Batch) -> None:
    """Take a prompt."""
    with torch.no_grad():
        embeds = model.eval().embed_prompt(batch.input_ids, batch.media)
        model.decoder.lm(inputs_embeds=embeds, use_cache=True, logits_to_keep=1)


def training_step(model: VideoLLaMA, batch: Batch) -> None:
    """Go forward and backward."""
    model.train()(batch).loss_sum.backward()


def with_noise(batch: Batch) -> Batch:
    """Give the media of a planned batch values."""
    media = []
    for group in batch.media:
        shape, dtype = group.data.shape, group.data.dtype
        noise = torch.randint(256, shape, dtype=dtype) if dtype == torch.uint8 else torch.randn(shape, dtype=dtype)
        media.append(replace(group, data=noise))
    return replace(batch, media=tuple(media))


@contextmanager
def watched() -> Iterator[Peak]:
    """Watch the memory of this process."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        running = True
        while running:
            running = not done.wait(SECONDS)
            resident, private = memory()
            peak.resident, peak.private = max(peak.resident, resident), max(peak.private, private)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def memory() -> tuple[int, int]:
    """Return the resident and the private bytes of this process."""
    rows = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]]
    sizes = {row[0]: int(row[1]) * 1024 for row in rows}
    return sizes["Rss:"], sizes["Anonymous:"]


def gb(n_bytes: float) -> float:
    """Return GB, 10^9 bytes."""
    return round(n_bytes / 1e9, 3)


def ratio(a: float, b: float) -> float:
    """Return a quotient with three decimals."""
    return round(a / b, 3)


if __name__ == "__main__":
    main()
