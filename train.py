"""Train from one YAML: ``torchrun --nproc_per_node=8 train.py --cfg-path train_configs/<name>.yaml``."""

from __future__ import annotations

import argparse
import logging
import sys

from video_llama.common.errors import VideoLlamaError
from video_llama.config.loader import load_config, registered_class


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cfg-path", required=True, metavar="YAML", help="configuration of the run")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    return parser.parse_args()


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


def main() -> int:
    """Train; errors a user can cause are printed without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = parse_args()
    try:
        train(args.cfg_path, args.options)
    except VideoLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
