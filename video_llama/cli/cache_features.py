"""``video-llama cache-features``: store what the frozen encoders make of a run's files, so that training needs no encoders."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from video_llama.cli.job_data import add_config_flags
from video_llama.common.errors import ConfigError, DataError, VideoLlamaError

if TYPE_CHECKING:
    from video_llama.common.distributed import World
    from video_llama.config.loader import JobConfig
    from video_llama.datasets.base import Dataset
    from video_llama.processors.feature_shards import Manifest
    from video_llama.runners.feature_caching import Estimate

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config_flags(parser)
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="the store, for model.features; it may have features already",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that read files for each process that encodes (default: one for each core, 16 at most)",
    )
    parser.add_argument(
        "--shard-megabytes", type=int, default=256, metavar="N", help="size of a shard (default: %(default)s)"
    )
    parser.epilog = (
        "Starts under torchrun on several GPUs or machines. If it is killed or stopped, run it again: it goes on after the last "
        "shard. It adds to a complete store what another YAML needs."
    )


def run(args: argparse.Namespace) -> int:
    """Fill the store; return 1 if files could not be read."""
    for flag, value in (("--workers", args.workers), ("--shard-megabytes", args.shard_megabytes)):
        if value is not None and value < 1:
            raise VideoLlamaError(f"{flag}: {value}; expected at least 1")
    from video_llama.config.loader import load_config

    # the store need not be there yet
    job = load_config(args.cfg_path, [*args.options, "model.features=null"], need=("model", "datasets", "run"))

    from video_llama.checkpoints.sources.references import fetched  # these import torch
    from video_llama.common.distributed import choose_device, join_apart
    from video_llama.runners.folder_lock import locked

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    job = replace(job, model=fetched(job.model))
    world = join_apart(choose_device(job.run.device))
    logging.getLogger().setLevel(logging.INFO if world.is_main else logging.WARNING)
    error: BaseException | None = None
    try:
        with locked(args.output, "--output") if world.is_main else nullcontext():
            return cache_features(job, args.output, world, args.workers, args.shard_megabytes * 1_000_000)
    except BaseException as caught:
        error = caught
        raise
    finally:
        world.close(error)


def cache_features(job: JobConfig, folder: Path, world: World, workers: int | None, shard_bytes: int) -> int:
    """Store the features that the training and the validation of a job need; return 1 if files could not be read.

    Raises:
        VideoLlamaError: the model has no frozen encoders, the folder holds features of others, or cannot be written.
    """
    from video_llama.common.registry import MODELS
    from video_llama.config.serialize import registered_class
    from video_llama.datasets.held_out import build_held_out
    from video_llama.datasets.mixture import build_mixture
    from video_llama.models.stored_encoders import described
    from video_llama.processors.feature_shards import GrowingShards, complete
    from video_llama.runners.feature_caching import FeatureCaching
    from video_llama.runners.feature_listing import n_views
    from video_llama.runners.fingerprint import frozen_fingerprint

    model_class: Any = registered_class(MODELS, job.model)
    if not hasattr(model_class, "without_decoder"):
        raise VideoLlamaError(f"model.arch: features cannot be stored for {model_class.__name__}")
    spec = model_class.sample_spec(job.model)
    if spec.modalities.audio_source == "both":
        raise ConfigError(
            [
                "model.audio_source: both draws what is read of a clip, so that it cannot be stored. Choose frames or sound"
            ]
        )
    mixture = build_mixture(job.datasets, spec, job.run.seed)
    splits = dict.fromkeys((*job.run.valid_splits, *(job.run.test_splits if job.run.evaluate else ())))
    held_out = [dataset for split in splits for dataset in build_held_out(job.datasets, spec, split)]
    datasets = [*mixture.datasets, *held_out]
    model = model_class.without_decoder(job.model, world.device).eval()
    encoders = described(model, frozen_fingerprint(model))
    manifest = _claimed(folder, encoders, job.model) if world.is_main else None
    world.barrier()
    caching = FeatureCaching(
        datasets,
        model.encode_frozen,
        GrowingShards(folder, {kind: about["digest"] for kind, about in encoders.items()}, shard_bytes, world.rank),
        world,
        workers=workers or min(16, os.cpu_count() or 1),
        batch_size=job.run.eval_batch_size,
        read_timeout=job.run.read_timeout,
    )
    tasks = caching.tasks()
    n_all = sum(world.gather_objects(len(tasks)))
    if world.is_main:
        print(f"{n_all:,} records have files whose features are not stored yet", file=sys.stderr)

    def tell(estimate: Estimate) -> None:
        if world.is_main:
            views = sum(n_views(datasets[task.dataset]) for task in tasks) / len(tasks)
            samples = (
                len(mixture)
                if job.run.iters_per_epoch is None
                else job.run.iters_per_epoch * job.run.samples_per_step(world.size)
            )
            epochs = estimate.break_even(n_all, views, samples)
            _tell(estimate, n_all, world.size, epochs, job.run.max_epoch, folder)

    caching.run(tasks, tell)
    drawn = set().union(*world.gather_objects(caching.drawn))
    bad = [reason for reasons in world.gather_objects(caching.bad) for reason in reasons]
    n_bytes, n_malformed = sum(world.gather_objects(caching.n_bytes)), caching.n_malformed
    if manifest is not None:
        _add_readers(manifest, datasets, drawn)
        complete(folder, manifest)
        _summarise(folder, n_bytes, n_malformed, bad)
    world.barrier()
    return 1 if bad else 0


def _claimed(folder: Path, encoders: dict[str, dict[str, Any]], config: Any) -> Manifest:
    """Return the manifest of a store, new or of these encoders, after what is broken there is removed.

    Raises:
        DataError: the folder holds something else.
        WeightsError: it holds features of other encoders.
    """
    from video_llama.models.stored_encoders import check_same_encoders
    from video_llama.processors.feature_shards import MANIFEST, Manifest, drop_broken
    from video_llama.runners.folder_lock import LOCK

    content = [path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name != LOCK]
    if MANIFEST in content:
        manifest = Manifest.read(folder)
        check_same_encoders(folder, manifest.encoders, encoders, config)
    elif content:
        raise DataError(
            f"--output: {folder} holds something other than features, such as {content[0]}. Choose another folder"
        )
    else:
        manifest = Manifest(encoders={})
    for name in drop_broken(folder):
        log.warning("%s: not whole, so its features are made again", folder / name)
    manifest.encoders = {**manifest.encoders, **encoders}
    manifest.write(folder)
    return manifest


def _add_readers(manifest: Manifest, datasets: Sequence[Dataset], drawn: set[str]) -> None:
    """Write down what has read the files, besides what did before."""
    from video_llama.processors.feature_shards import reader_of

    found = {json.dumps({**one, "views": None}, sort_keys=True): one for one in manifest.readers}
    for dataset in datasets:
        for processor in dataset.processors().values():
            reader = reader_of(processor)
            draws = json.dumps(reader, sort_keys=True) in drawn
            one = {**reader, "draws": draws, "views": getattr(dataset.config, "views", None) if draws else None}
            key = json.dumps({**one, "views": None}, sort_keys=True)
            before = found.get(key, one)
            found[key] = {**one, "views": max(one["views"], before["views"]) if draws else None}
    manifest.readers = list(found.values())


def _tell(estimate: Estimate, n_all: int, processes: int, epochs: float, max_epoch: int, folder: Path) -> None:
    """Say how large the store will be, how long that takes, and when it pays off.

    Raises:
        DataError: the disk has no room for it.
    """
    from tqdm import tqdm

    n_bytes, free = estimate.records * processes * estimate.bytes_each, shutil.disk_usage(folder).free
    pays = "it does not pay off" if epochs == float("inf") else f"it pays off after {epochs:.1f} epochs"
    time_left = tqdm.format_interval(estimate.records * estimate.seconds_each)
    tqdm.write(
        f"{_size(n_all * estimate.bytes_each)} of features in all, {_size(n_bytes)} still to write and {_size(free)} free; about "
        f"{time_left} to go. Reading a record's features takes {1e3 * estimate.load_seconds_each:.1f} ms instead of "
        f"{1e3 * estimate.seconds_each:.1f} ms, so {pays}; this run has {max_epoch}.",
        file=sys.stderr,
    )
    if n_bytes > free:
        raise DataError(
            f"--output: {folder}: {_size(n_bytes)} are needed, {_size(free)} are free on this disk. Choose another folder, or "
            "fewer views"
        )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def _summarise(folder: Path, n_bytes: int, n_malformed: int, bad: Sequence[str]) -> None:
    print(f"{_size(n_bytes)} of features are new in {folder}. In the YAML:\n  model: {{features: {folder}}}")
    if n_malformed:
        print(f"{n_malformed:,} records are malformed; video-llama check-data says why", file=sys.stderr)
    if bad:
        print(
            f"{len(bad):,} records cannot be read, and are bad records in training as before:\n  "
            + "\n  ".join(bad[:10])
            + (f"\n  and {len(bad) - 10:,} more" if bad[10:] else ""),
            file=sys.stderr,
        )
