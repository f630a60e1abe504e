"""``video-llama make-shards``: write a data set into shards, tar files in webdataset's layout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from video_llama.common.errors import ConfigError, VideoLlamaError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--cfg-path", required=True, metavar="YAML", help="a file, or a shipped name, with the data set"
    )
    parser.add_argument("--dataset", required=True, metavar="NAME", help="its key under datasets")
    parser.add_argument("--output", required=True, metavar="DIR", type=Path, help="folder for the shards")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    parser.add_argument(
        "--records-per-shard", type=int, default=1000, metavar="N", help="(default: %(default)s; fewer for long clips)"
    )
    parser.add_argument(
        "--threads", type=int, default=8, metavar="N", help="shards written at once (default: %(default)s)"
    )
    parser.epilog = (
        "If the command is killed or stopped, run it again: it continues where it left off, and writes the same bytes. At the "
        "end, all shards are read back and checked."
    )


def run(args: argparse.Namespace) -> int:
    """Write the shards; return 1 if files of records are missing."""
    for flag in ("records_per_shard", "threads"):
        if getattr(args, flag) < 1:
            raise VideoLlamaError(f"--{flag.replace('_', '-')}: {getattr(args, flag)}; expected at least 1")
    from video_llama.datasets.shards.packing import Packing  # slow to import

    packing = Packing(_dataset(args), args.output, args.records_per_shard)
    missing = packing.write(args.threads)
    n_shards = len(packing.shards)
    print(
        f"{len(packing.dataset):,} records in {n_shards:,} shard{'s' * (n_shards != 1)}, checked. In the YAML:\n"
        f"  {args.dataset}:\n    name: {packing.dataset.packed_as}\n    build_info: {{storage: '{packing.storage}'}}"
    )
    if not missing:
        return 0
    print(
        f"{len(missing):,} records have no file, and are bad records in the shards as they are here:\n  "
        + "\n  ".join(missing[:10])
        + (f"\n  and {len(missing) - 10:,} more" if missing[10:] else ""),
        file=sys.stderr,
    )
    return 1


def _packable() -> list[str]:
    """Return the layouts that can be packed."""
    from video_llama.common.registry import DATASETS

    return sorted(name for name in DATASETS if getattr(DATASETS.get(name), "packed_as", None))


def _dataset(args: argparse.Namespace) -> Any:
    """Read the annotations of the data set, without a model.

    Raises:
        VideoLlamaError: there is no such data set, or it cannot be read or packed.
    """
    from video_llama.common.registry import DATASETS
    from video_llama.config.loader import load_config
    from video_llama.config.serialize import registered_class
    from video_llama.prompts.sample_spec import SampleSpec

    configs = load_config(args.cfg_path, args.options, need=("datasets",)).datasets
    if args.dataset not in configs:
        raise ConfigError(
            [f"--dataset: no {args.dataset} under datasets in {args.cfg_path}; it has {', '.join(configs)}"]
        )
    dataset_class: Any = registered_class(DATASETS, configs[args.dataset])
    if getattr(dataset_class, "packed_as", None) is None:
        raise ConfigError([f"--dataset: {args.dataset} cannot be packed into shards; {', '.join(_packable())} can"])
    no_model: Any = None  # packing makes no samples
    spec = SampleSpec(no_model, no_model, {}, max_txt_len=0, max_instruct_len=0, max_context=0)
    return dataset_class(configs[args.dataset], spec, args.dataset)
