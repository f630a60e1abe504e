"""``video-llama train``: train from one YAML, in this process or as one of those that ``torchrun`` starts."""

from __future__ import annotations

import argparse
import logging

from video_llama.config.loader import load_config, registered_class


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--cfg-path", required=True, metavar="YAML", help="configuration of the run: a file or a name")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")


def run(args: argparse.Namespace) -> int:
    """Train."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(args.cfg_path, args.options)
    return 0


def train(cfg_path: str, options: list[str]) -> None:
    """Build everything that the YAML names, and train."""
    job = load_config(cfg_path, options, need=("model", "datasets", "run"))

    import torch  # after the config is known to be right, so that a typing error costs no waiting

    from video_llama.common.distributed import join_world
    from video_llama.common.registry import DATASETS, MODELS, RUNNERS
    from video_llama.datasets.mixture import Mixture
    from video_llama.runners.output import RunOutput

    world = join_world(job.run.device)
    logging.getLogger().setLevel(logging.INFO if world.is_main else logging.WARNING)
    try:
        files = RunOutput(job.run.output_dir, world, job.run.resume_ckpt_path)
        model_class = registered_class(MODELS, job.model)
        context = model_class.sample_spec(job.model)
        datasets = [registered_class(DATASETS, config)(config, context, name) for name, config in job.datasets.items()]
        ratios = [config.sample_ratio for config in job.datasets.values()]
        torch.manual_seed(job.run.seed)
        model = model_class.from_config(job.model)
        runner = registered_class(RUNNERS, job.run)(
            job.run,
            model,
            Mixture(datasets, ratios, job.run.seed),
            pad_id=context.tokenizer.pad_id,
            world=world,
            files=files,
            resolved_config=job.to_yaml(),
        )
        runner.train()
    finally:
        world.close()
