"""``video-llama train``: one training run from one YAML."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--cfg-path", required=True, metavar="YAML", help="configuration of the run: a file or a name")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    parser.add_argument(
        "--allow-changed",
        action="store_true",
        help="resume a run although settings that alter training have changed; they are listed",
    )


def run(args: argparse.Namespace) -> int:
    """Train."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(args.cfg_path, args.options, allow_changed=args.allow_changed)
    return 0


def train(cfg_path: str, options: Sequence[str] = (), *, allow_changed: bool = False) -> None:
    """Build everything in a YAML, and train.

    Args:
        cfg_path: a file, or the name of a shipped one.
        options: ``key=value`` overrides.
        allow_changed: resume although settings that alter training are not those of the checkpoint's run.
    """
    from video_llama.config.loader import load_config

    job = load_config(cfg_path, options, need=("model", "datasets", "run"))

    import torch  # after the config is checked, so that mistakes in it are reported at once

    from video_llama.checkpoints.sources.references import fetched
    from video_llama.common.distributed import join_world
    from video_llama.common.registry import MODELS, RUNNERS
    from video_llama.config.serialize import registered_class
    from video_llama.datasets.mixture import build_mixture
    from video_llama.runners.changes import check_changes, recorded_model
    from video_llama.runners.effects import idle_settings
    from video_llama.runners.output import open_output
    from video_llama.runners.revisions import check_same_revisions

    # Before the processes meet: others may have to wait for the download longer than they would wait for each other.
    job = replace(job, model=fetched(job.model, recorded_model(job.run.resume_ckpt_path)))
    world = join_world(job.run.device)
    logging.getLogger().setLevel(logging.INFO if world.is_main else logging.WARNING)
    try:
        check_same_revisions(job.model, world)
        output = open_output(job.run.output_dir, world, job.to_yaml(), job.run.resume_ckpt_path)
        if job.run.resume_ckpt_path:
            check_changes(job.run.resume_ckpt_path, job, allowed=allow_changed)
        elif allow_changed and world.is_main:
            log.warning("warning: --allow-changed has no effect: run.resume_ckpt_path is not set")
        model_class = registered_class(MODELS, job.model)
        spec = model_class.sample_spec(job.model)
        mixture = build_mixture(job.datasets, spec, job.run.seed)
        if world.is_main:
            for note in job.notes:
                log.info("note: %s", note)
            for warning in (*job.warnings, *idle_settings(job, spec, mixture, world.size)):
                log.warning("warning: %s", warning)
        torch.manual_seed(job.run.seed)
        model = model_class.from_config(job.model, world.device)
        runner_class = registered_class(RUNNERS, job.run)
        runner_class(job.run, model, mixture, output, pad_id=spec.tokenizer.pad_id).train()
    finally:
        world.close()
