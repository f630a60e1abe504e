"""A training step of middle size beside the original's way of computing it, with frames and with stored features.

python -m benchmarks.train_step
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.mid_size import mid_size_model, noise_batch
from benchmarks.minima import timed
from benchmarks.original_path import OriginalPath, as_loaded
from benchmarks.rows import Row, time_rows, write
from video_llama.common.types import Batch
from video_llama.models.video_llama import VideoLLaMA

ORIGINAL, OURS, STORED = "the original's path", "ours", "ours, stored features"
COMPILED = "ours, compile: towers"
ENCODERS = "frozen encoders of ours"


def main() -> None:
    """Measure."""
    torch.set_num_threads(2)
    model = mid_size_model()
    original, batch = OriginalPath(model), noise_batch(model)
    stored = replace(batch, media=model.encode_frozen(batch.media))
    compiled = mid_size_model(compile="towers")
    ways: dict[str, Callable[[], object]] = {
        ORIGINAL: partial(step, original, lambda batch: original(as_loaded(batch)), batch),
        OURS: partial(step, model, partial(mean_loss, model), batch),
        COMPILED: partial(step, compiled, partial(mean_loss, compiled), batch),
        STORED: partial(step, model, partial(mean_loss, model), stored),
        ENCODERS: partial(model.encode_frozen, batch.media),
    }
    for way in ways.values():
        way()
    times = timed(ways, rounds=5)
    rows = time_rows(times, ORIGINAL, bounds={OURS: ">= 1.25", COMPILED: ">= 1.25", STORED: ">= 3.5"})
    rows = [replace(row, ratio=None) if row.name == ENCODERS else row for row in rows]
    share = times[ENCODERS].minimum / times[OURS].minimum
    write("train_step", [*rows, Row("share of the frozen encoders in a step of ours", 100 * share, "%")])


def mean_loss(model: VideoLLaMA, batch: Batch) -> Tensor:
    """Return the loss per target token."""
    return model(batch).loss_sum / batch.n_target_tokens


def step(model: torch.nn.Module, loss: Callable[[Batch], Tensor], batch: Batch) -> None:
    """Run forward and backward once."""
    loss(batch).backward()
    model.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
