"""``video-llama preview``: a web page of the first samples of a run, as the model will get them."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from video_llama.cli.job_data import add_config_flags, load_data_config
from video_llama.common.errors import VideoLlamaError

if TYPE_CHECKING:
    from video_llama.common.types import Sample
    from video_llama.config.loader import JobConfig
    from video_llama.datasets.mixture import Mixture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config_flags(parser)
    parser.add_argument("--n", type=int, default=16, metavar="N", help="samples to show (default: %(default)s)")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N draws of the run")
    parser.add_argument(
        "--output", type=Path, metavar="HTML", help="the page (default: preview.html in the run's output_dir)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page. No weights are read.

    Raises:
        VideoLlamaError: the config or its data cannot be used, or the page cannot be written.
    """
    from video_llama.cli.page import write_page

    for flag, value, least in (("--n", args.n, 1), ("--skip", args.skip, 0)):
        if value < least:
            raise VideoLlamaError(f"{flag}: {value}; expected at least {least}")
    job, spec = load_data_config(args.cfg_path, args.options)

    from video_llama.datasets.mixture import build_mixture  # slow to import

    mixture = build_mixture(job.datasets, spec, job.run.seed)
    samples = first_samples(job, mixture, args.skip, args.n)
    path = args.output or Path(job.run.output_dir, "preview.html")
    write_page(path, preview_html(job, args.cfg_path, samples, spec.tokenizer, args.skip))
    print(path)
    return 0


def first_samples(job: JobConfig, mixture: Mixture, skip: int, n: int) -> list[Sample]:
    """Return the samples of the first draws of a run, over all its processes, in the order of the draws."""
    from video_llama.runners.config import RunConfig

    epoch_draws = len(mixture)
    if isinstance(job.run, RunConfig):
        processes = job.run.world_size
        epoch_draws = job.run.steps_per_epoch(len(mixture), processes) * job.run.samples_per_step(processes)
    samples = []
    for position in range(skip, skip + n):
        epoch, within = divmod(position, epoch_draws)
        samples += [mixture[ref] for ref in mixture.draws(epoch, epoch_draws, range(within, within + 1))]
    return samples


def preview_html(job: JobConfig, name: str, samples: list[Sample], tokenizer: Any, skip: int = 0) -> str:
    """Return the page.

    Args:
        job: the config.
        name: of its YAML.
        samples: what is shown.
        tokenizer: the decoder's.
        skip: draws of the run before the first of them.
    """
    from html import escape

    from video_llama.cli.page import figures, page
    from video_llama.cli.sample_page import LEGEND, counts, sample_html, summary

    longest = max(counts(sample)[0] for sample in samples)
    drawn = Counter(sample.dataset for sample in samples)
    shares = ", ".join(f"{n} from <b>{escape(dataset)}</b>" for dataset, n in drawn.most_common())
    which = f"The first {len(samples)} draws" if not skip else f"Draws {skip + 1} to {skip + len(samples)}"
    cards = "\n".join(
        sample_html(number, sample, tokenizer, longest) for number, sample in enumerate(samples, skip + 1)
    )
    title = f"What {Path(name).stem} is trained on"
    body = f"""<h1>{escape(title)}</h1>
<p class="lead">{which} of the run with seed {job.run.seed}: {shares}. Frames, sound and tokens are those that the model gets.</p>
{figures(summary(samples))}
{LEGEND}
{cards}"""
    return page(title, body, "cards.css", "preview.css")
