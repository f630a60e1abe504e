"""What the log of a step costs: toy steps with everything that is counted, measured and written, and without, in turn.

    python -m benchmarks.log_cost

Prints the medians of the processor time of a step of each kind, and their ratio.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from benchmarks.train_step import made_up_batch
from video_llama.common.distributed import join_world
from video_llama.common.types import IGNORE_LABEL, Batch
from video_llama.config.loader import load_config
from video_llama.models.video_llama import VideoLLaMA
from video_llama.runners.config import RunConfig
from video_llama.runners.output import open_output
from video_llama.runners.runner_base import RunnerBase
from video_llama.runners.tally import Tally

STEPS = 25


class Totals(Tally):
    """Counts no parts of a step."""

    def counts(self, batches: Sequence[Batch]) -> list[float]:
        """Return the totals that a step needs."""
        samples = sum(len(b.ids) for b in batches)
        return [sum(b.n_target_tokens for b in batches), samples, *[0] * 5, float("nan"), *[0] * 2 * len(self._column)]

    def losses(self, batches: Sequence[Batch], sample_losses: Any) -> list[float]:
        """Return nothing of the parts."""
        return [0.0] * len(self._column)


class OneDataset:
    """Stands in for a mixture: its steps are made up."""

    name = "made_up"
    datasets: Sequence[Any] = ()

    def __len__(self) -> int:
        return 1


def main() -> None:
    """Take steps of both kinds in turn."""
    config = load_config("train_configs/toy/stage1_pretrain.yaml", ["paths.world=."], need=("model",)).model
    model = VideoLLaMA.from_config(config)
    batch = made_up_batch(model)
    with tempfile.TemporaryDirectory() as folder:
        run_config = RunConfig(
            init_lr=1e-4,
            max_epoch=1,
            iters_per_epoch=10**6,
            batch_size_train=32,
            output_dir=folder,
            device="cpu",
            amp=False,
        )
        output = open_output(folder, join_world("cpu"), "{}")
        mixture: Any = OneDataset()
        mixture.datasets = [mixture]
        runner = RunnerBase(run_config, model, mixture, output, pad_id=0)
        model.train()
        full, bare = runner.tally, Totals(["made_up"])
        decoder: Any = model.decoder
        logged_loss, plain_loss = decoder.target_loss, plain(model)
        times: dict[str, list[float]] = {"with": [], "without": []}
        with runner.callbacks.running(runner.run()):
            for i in range(2 * STEPS):
                kind = ("with", "without")[i % 2]
                runner.tally = full if kind == "with" else bare
                decoder.target_loss = logged_loss if kind == "with" else plain_loss
                times[kind].append(seconds(runner, batch, logs=kind == "with"))
    best = {kind: statistics.median(values[5:]) for kind, values in times.items()}
    print(f"step without its log {1000 * best['without']:.1f} ms, with it {1000 * best['with']:.1f} ms")
    pairs = [w / o for w, o in zip(times["with"][5:], times["without"][5:], strict=True)]
    print(
        f"ratio of the medians {best['with'] / best['without']:.3f}, median of the ratios {statistics.median(pairs):.3f}"
    )


def seconds(runner: RunnerBase, batch: Batch, *, logs: bool) -> float:
    """Take a step, and write its line."""
    started = time.process_time()
    metrics = runner.train_step([batch])
    if logs:
        metrics = replace(metrics, **runner.gauges.read(metrics, time.process_time() - started))
    runner.state.count(metrics)
    runner.callbacks.after_step(runner.run(), metrics)
    return time.process_time() - started


def plain(model: VideoLLaMA) -> Callable[..., tuple[Tensor, None]]:
    """Return the loss alone, without its part of each sample."""

    def target_loss(inputs_embeds: Tensor, attention_mask: Tensor, labels: Tensor) -> tuple[Tensor, None]:
        next_labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE_LABEL)
        columns = (next_labels != IGNORE_LABEL).any(dim=0).nonzero().squeeze(1)
        out = model.decoder.lm(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, use_cache=False, logits_to_keep=columns
        )
        logits = out.logits.float().flatten(0, 1)
        targets = next_labels[:, columns].flatten()
        return F.cross_entropy(logits, targets, ignore_index=IGNORE_LABEL, reduction="sum"), None

    return target_loss


if __name__ == "__main__":
    main()
