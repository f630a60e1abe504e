"""``video-llama train``: one training run from one YAML."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from video_llama.common.distributed import World
    from video_llama.config.loader import JobConfig
    from video_llama.runners.output import RunOutput
    from video_llama.runners.sessions import Session
    from video_llama.runners.stop import Stop

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

    job = load_config(cfg_path, options, need=("model", "datasets", "run"), also=("inference",))

    # after the config is checked, so that mistakes in it are reported at once: these import torch
    from video_llama.checkpoints.sources.references import fetched
    from video_llama.common.distributed import join_world, restarts
    from video_llama.runners.changes import recorded_model
    from video_llama.runners.folder_lock import locked
    from video_llama.runners.stop import Stop

    with Stop(job.run.max_hours).listening() as stop:
        # Before the processes meet: others may have to wait for the download longer than they would wait for each other.
        auto = job.run.resume == "auto" or restarts() > 0
        job = replace(job, model=fetched(job.model, recorded_model(job.run, auto=auto)))
        world = join_world(job.run.device, 60 * job.run.collective_timeout)
        logging.getLogger().setLevel(logging.INFO if world.is_main else logging.WARNING)
        error: BaseException | None = None
        try:
            with locked(Path(job.run.output_dir)) if world.is_main else nullcontext():
                run_job(job, world, stop, auto=auto, allow_changed=allow_changed)
        except BaseException as caught:
            error = caught
            raise
        finally:
            world.close(error)


def run_job(job: JobConfig, world: World, stop: Stop, *, auto: bool, allow_changed: bool) -> None:
    """Build the model and the data of a job, and train, or only evaluate.

    Args:
        job: the config.
        world: the processes that train together.
        stop: requests to stop.
        auto: go on from the newest checkpoint in the output folder, if there is one.
        allow_changed: as for ``train``.
    """
    from video_llama.runners.changes import check_changes
    from video_llama.runners.output import open_output
    from video_llama.runners.revisions import check_same_revisions

    check_same_revisions(job.model, world)
    output = open_output(
        job.run.output_dir,
        world,
        job.to_yaml(),
        resume_ckpt_path=job.run.resume_ckpt_path,
        auto=auto,
    )
    if output.resume_from is not None:
        check_changes(output.resume_from, job, allowed=allow_changed)
    elif allow_changed and world.is_main and job.run.resume is None:
        log.warning("warning: --allow-changed has no effect: the run is not resumed")
    with _reported(output) as session:
        _train(job, world, output, stop, session, allow_changed=allow_changed)


def _train(
    job: JobConfig, world: World, output: RunOutput, stop: Stop, session: Session | None, *, allow_changed: bool
) -> None:
    """Build the model and the data, and train in an output folder that is open."""
    import torch

    from video_llama.common.registry import MODELS, RUNNERS
    from video_llama.config.serialize import registered_class
    from video_llama.datasets.mixture import build_mixture
    from video_llama.evaluation.validation_checks import ValidationData
    from video_llama.runners.effects import idle_settings
    from video_llama.runners.parallel import sharding_of
    from video_llama.runners.runner_base import RunnerBase
    from video_llama.runners.sessions import facts

    model_class = registered_class(MODELS, job.model)
    spec = model_class.sample_spec(job.model)
    mixture = build_mixture(job.datasets, spec, job.run.seed)
    validation = ValidationData(job, spec)
    if world.is_main:
        for note in job.notes:
            log.info("note: %s", note)
        for warning in (*job.warnings, *idle_settings(job, spec, mixture, world.size)):
            log.warning("warning: %s", warning)
    sharding = sharding_of(job, model_class, world, generates=validation.generates)
    torch.manual_seed(job.run.seed)
    model = model_class.from_config(job.model, world.device, *([] if sharding is None else [sharding]))
    if getattr(job.run, "batch_size_train", None) == "auto":
        from video_llama.planning.batch_search import settled

        job = settled(job, model, mixture, world, pad_id=spec.tokenizer.pad_id)
    runner = registered_class(RUNNERS, job.run)(
        job.run,
        model,
        mixture,
        output,
        pad_id=spec.tokenizer.pad_id,
        checks=validation.checks(model),
        stop=stop,
        allow_changed=allow_changed,
    )
    if session is not None and isinstance(runner, RunnerBase):
        session.add(**facts(runner))
    if job.run.evaluate:
        runner.evaluate()
    else:
        runner.train()


@contextmanager
def _reported(output: RunOutput) -> Iterator[Session | None]:
    """Write down how the run starts and ends, and at the end its report; None in all but the first process."""
    from video_llama.runners.run_report import write_report
    from video_llama.runners.sessions import recorded

    if not output.world.is_main:
        yield None
        return
    try:
        with recorded(output.folder, processes=output.world.size) as session:
            yield session
    finally:
        write_report(output.folder)
