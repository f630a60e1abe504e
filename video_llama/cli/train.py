"""``video-llama train``: one training run from one YAML."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--cfg-path", required=True, metavar="YAML", help="configuration of the run: a file or a name")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")


def run(args: argparse.Namespace) -> int:
    """Train."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(args.cfg_path, args.options)
    return 0


def train(cfg_path: str, options: Sequence[str] = ()) -> None:
    """Build everything in a YAML, and train."""
    from video_llama.config.loader import load_config

    job = load_config(cfg_path, options, need=("model", "datasets", "run"))

    import torch  # after the config is checked, so that mistakes in it are reported at once

    from video_llama.common.distributed import join_world
    from video_llama.common.registry import DATASETS, MODELS, RUNNERS
    from video_llama.config.serialize import registered_class
    from video_llama.datasets.mixture import Mixture
    from video_llama.runners.output import open_output

    world = join_world(job.run.device)
    logging.getLogger().setLevel(logging.INFO if world.is_main else logging.WARNING)
    try:
        output = open_output(job.run.output_dir, world, job.to_yaml(), job.run.resume_ckpt_path)
        model_class = registered_class(MODELS, job.model)
        spec = model_class.sample_spec(job.model)
        datasets = [registered_class(DATASETS, config)(config, spec, name) for name, config in job.datasets.items()]
        ratios = [config.sample_ratio for config in job.datasets.values()]
        torch.manual_seed(job.run.seed)
        model = model_class.from_config(job.model)
        mixture = Mixture(datasets, ratios, job.run.seed)
        runner_class = registered_class(RUNNERS, job.run)
        runner_class(job.run, model, mixture, output, pad_id=spec.tokenizer.pad_id).train()
    finally:
        world.close()
