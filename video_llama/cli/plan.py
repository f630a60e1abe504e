"""``video-llama plan``: the memory, arithmetic and speed of a config, without its weights."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from video_llama.common.errors import VideoLlamaError

if TYPE_CHECKING:
    from video_llama.config.loader import JobConfig
    from video_llama.planning.plan import Plan, Target, Way


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--cfg-path", required=True, metavar="YAML", help="the config: a file, or a shipped name")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    parser.add_argument(
        "--gpu-memory",
        type=float,
        metavar="GB",
        help="memory of a GPU in GB (default: that of this machine's GPU, or 24); with run.device: cpu, of this computer",
    )
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="GPUs that train together (default: 1)")
    parser.add_argument(
        "--text-tokens",
        type=int,
        metavar="N",
        help="tokens of text of a training sample (default: as many as the settings allow)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the plan; return 1 if the config fits neither in training nor in use."""
    for flag, value in (("--gpu-memory", args.gpu_memory), ("--gpus", args.gpus), ("--text-tokens", args.text_tokens)):
        if value is not None and value <= 0:
            raise VideoLlamaError(f"{flag}: {value}; expected more than 0")
    from video_llama.config.loader import load_config  # slow to import

    job = load_config(
        args.cfg_path, args.options, need=(), also=("model", "datasets", "run", "inference"), allow_unset=True
    )
    from video_llama.planning.plan import make_plan

    plan = make_plan(job, _target(args, job))
    if args.json:
        print(json.dumps(_plain(plan), ensure_ascii=False))
    else:
        print("\n".join(_lines(args.cfg_path, plan)))
    as_configured = [ways[0] for ways in (plan.training, plan.use) if ways]
    return 0 if any(way.fits for way in as_configured) else 1


def _plain(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON has it: with the total of each need."""
    content = asdict(plan)
    for key, ways in (("training", plan.training), ("use", plan.use)):
        for each, way in zip(content[key], ways, strict=True):
            each["need"]["total"] = way.need.total
    return content


def _target(args: argparse.Namespace, job: JobConfig) -> Target:
    import torch

    from video_llama.planning.plan import Target

    on_cpu = getattr(job.run, "device", "cuda") == "cpu"
    if args.gpu_memory is not None:
        memory = int(args.gpu_memory * 1e9)
    elif on_cpu:
        from video_llama.common.memory import available_memory

        memory = available_memory()
    elif torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
    else:
        memory = 24 * 10**9
    return Target(memory, args.gpus, on_cpu, args.text_tokens)


def _lines(name: str, plan: Plan) -> list[str]:
    """Return the plan for a terminal."""
    device = "this computer" if plan.target.on_cpu else "a GPU"
    lines = [f"{name}, for {device} of {plan.target.memory / 1e9:.3g} GB", ""]
    lines += _parts(plan)
    if plan.training:
        assert plan.training_work is not None
        lines += [
            "",
            f"training, with batches of {plan.training_work.named()}, all of it with loss; GB of each process",
        ]
        lines += _ways(plan.training, plan.target, trains=True)
    if plan.use:
        assert plan.use_work is not None
        clip = f"a clip of {plan.use_work.frames} frames"
        lines += [
            "",
            f"use, in a dialogue about {clip} with {plan.use_work.text} more tokens, its answers included; GB",
        ]
        lines += _ways(plan.use, plan.target, trains=False)
    if plan.cards:
        lines += ["", *_cards(plan)]
    return [*lines, "", *_notes(plan)]


def _parts(plan: Plan) -> list[str]:
    per = "a sample" if plan.training else "the dialogue"
    rows: list[tuple[str, ...]] = [
        ("part", "parameters", "trained", "weights, GB", "stored as", f"TFLOP forward, {per}")
    ]
    for part in plan.parts:
        flops = plan.flops.get(part.name, 0.0)
        rows.append(
            (
                part.name,
                _count(part.parameters),
                _count(part.trained),
                _gb(part.n_bytes),
                part.stored,
                f"{flops / 1e12:.3g}",
            )
        )
    rows.append(
        (
            "all",
            _count(sum(part.parameters for part in plan.parts)),
            _count(sum(part.trained for part in plan.parts)),
            _gb(sum(part.n_bytes for part in plan.parts)),
            "",
            f"{sum(plan.flops.values()) / 1e12:.3g}",
        )
    )
    if plan.training_flops is not None:
        rows.append(("", "", "", "", "", f"{plan.training_flops / 1e12:.3g} with backward"))
    return _table(rows)


def _ways(ways: list[Way], target: Target, *, trains: bool) -> list[str]:
    head = [
        "",
        "weights",
        *(["optimiser"] if trains else []),
        "activations",
        "reserve",
        "peak",
        f"fits {_gb(target.memory)}",
    ]
    rows = [(*head, "batch x accumulation that fits") if trains else tuple(head)]
    for way in ways:
        need = way.need
        changes = ", ".join(change.removeprefix("model.").removeprefix("run.") for change in way.changes)
        cells = [changes or "as configured", _gb(need.weights)]
        cells += [_gb(need.optimizer)] if trains else []
        cells += [_gb(need.activations), _gb(need.reserve), _gb(need.total), "yes" if way.fits else "no"]
        if trains:
            best = f"{way.batch} x {way.accumulation}" if way.batch else "none"
            cells.append(best)
        rows.append(tuple(cells))
    return _table(rows)


def _cards(plan: Plan) -> list[str]:
    trains, used = bool(plan.training), bool(plan.use)
    head = ["card", "GB"]
    head += ["training fits", "samples/s at most", "expected"] if trains else []
    head += ["use fits", "tokens/s at most"] if used else []
    rows = [tuple(head)]
    for card in plan.cards:
        cells = [card.card, f"{card.memory_gb:g}"]
        if trains:
            cells += [_yes(card.training_fits), _rate(card.samples_at_roof), _rate(card.samples_expected)]
        cells += [_yes(card.use_fits), _rate(card.tokens_at_roof)] if used else []
        rows.append(tuple(cells))
    return [f"as configured, on {plan.target.gpus} of each card" if trains else "as configured", *_table(rows)]


def _notes(plan: Plan) -> list[str]:
    """Say what the numbers rest on."""
    from video_llama.planning.speed import LAUNCH, SHARE

    notes = [
        "Memory is estimated by tracing the model's own code with tensors that have shapes and no values. The reserve is what "
        "the process and its libraries usually take, a constant. GB are 10^9 bytes.",
    ]
    if plan.cards:
        notes.append(
            "At most: every operation at the card's peak arithmetic or bandwidth by its data sheet. Expected: at "
            f"{SHARE:.0%} of that, and {LAUNCH * 1e6:.0f} µs at least, which is an assumption, not a measurement; data must "
            "come fast enough."
        )
    return notes


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Align columns: names to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f}" if n_bytes < 100e9 else f"{n_bytes / 1e9:.0f}"


def _count(n: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return str(n)


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[value]
