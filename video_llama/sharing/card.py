"""The model card of an export, ``README.md``: what it is, how to use it, what it was made from, and on what terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from video_llama import __version__
from video_llama.checkpoints.sources.known import find_known
from video_llama.config.fields import UNSET
from video_llama.config.loader import JobConfig
from video_llama.sharing.inventory import Inventory
from video_llama.sharing.scores import Score

_WHAT = {
    "llama_model": "decoder",
    "vit_ckpt": "frame encoder",
    "q_former_model": "image Q-Former",
    "imagebind_ckpt_path": "audio encoder",
    "audio_encoder": "audio encoder",
    "ckpt": "trained parts",
}
"""Key of the model section -> what its weights are."""
_LAYOUTS = {
    "bundle": "This folder holds what was trained. Its parents, which stayed frozen, are published elsewhere; their tensors are "
    "compared with the digests in `weights.json` when the model is loaded.",
    "full": "This folder holds the whole model. `decoder/` is an ordinary transformers model.",
}


@dataclass(frozen=True)
class Training:
    """What is known of how the weights were trained."""

    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name -> ``type``, and ``records`` if known."""
    step: int | None = None
    """Steps taken."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the validation after these steps."""


def card(
    name: str,
    job: JobConfig,
    inventory: Inventory,
    training: Training | None = None,
    scores: Sequence[Score] = (),
) -> str:
    """Return the text of a model card.

    Args:
        name: of the model: its folder, or its id on the hub.
        job: its config.
        inventory: its parts.
        training: None: nothing is known.
        scores: on benchmarks.
    """
    sections = [
        f"# {name.rpartition('/')[2]}",
        _introduction(job, inventory),
        "## Use",
        _use(name, inventory),
        "## Parts",
        _parts(inventory),
        "## Training data",
        _data(training),
        *_metrics(training),
        *_benchmarks(scores),
        "## Licence",
        "The terms of all parts apply. This list says what is known of them; it is no legal advice.",
        _terms(inventory),
        "## Citation",
        "Hang Zhang, Xin Li, Lidong Bing, *Video-LLaMA: An Instruction-tuned Audio-Visual Language Model for Video "
        "Understanding*, arXiv:2306.02858, 2023.",
    ]
    return "\n\n".join([_front(name, job, inventory, scores), *sections]) + "\n"


def _front(name: str, job: JobConfig, inventory: Inventory, scores: Sequence[Score]) -> str:
    bases = sorted({part.origin.repo_id for part in inventory.parts.values() if part.origin.repo_id})
    data: dict[str, Any] = {
        "license": "other",
        "library_name": "video_llama",
        "pipeline_tag": "video-text-to-text",
        "tags": ["video", "audio"] if job.model.equip_audio_branch else ["video"],
    }
    if bases:
        data["base_model"] = bases
    if bases and inventory.layout == "bundle":
        data["base_model_relation"] = "adapter"
    if scores:
        results = [
            {
                "task": {"type": "video-text-to-text"},
                "dataset": {"name": score.benchmark, "type": score.benchmark},
                "metrics": [{"type": score.metric, "value": score.value}],
            }
            for score in scores
        ]
        data["model-index"] = [{"name": name, "results": results}]
    return f"---\n{yaml.safe_dump(data, sort_keys=False)}---"


def _introduction(job: JobConfig, inventory: Inventory) -> str:
    takes = "clips with their sound, images and sounds" if job.model.equip_audio_branch else "clips and images"
    return (
        f"A Video-LLaMA model that answers questions about {takes}, exported by video_llama {__version__}. "
        f"{_LAYOUTS[inventory.layout]}"
    )


def _use(name: str, inventory: Inventory) -> str:
    missing = [part.origin for part in inventory.parts.values() if not part.held and part.origin.source == UNSET]
    options = "".join(f', "model.{origin.key}=PATH"' for origin in missing).removeprefix(", ")
    first = f'chat = Chat.from_pretrained("{name}"' + (f", options=[{options}])" if missing else ")")
    lines = [
        "```python",
        "from video_llama.conversation.chat import Chat",
        "",
        f"{first}  # this folder, or its id on the hub",
        'chat.upload(video="clip.mp4")',
        'print(chat.ask("What happens here?"))',
        "```",
    ]
    if missing:
        names = ", ".join(f"`{origin.name}` as `model.{origin.key}`" for origin in missing)
        lines += ["", f"Name your own copies of {names}; they are compared with those that the model was trained with."]
    return "\n".join(lines)


def _parts(inventory: Inventory) -> str:
    rows = ["| part | in this folder | from | SHA-256 |", "|---|---|---|---|"]
    for key, part in inventory.parts.items():
        origin = part.origin
        rows.append(f"| {_WHAT[key]} | {'yes' if part.held else 'no'} | {origin.where} | `{part.sha256}` |")
    return "\n".join(rows)


def _data(training: Training | None) -> str:
    if training is None or not training.datasets:
        return "Not recorded with the weights."
    rows = ["| data set | type | records |", "|---|---|---|"]
    for name, data in training.datasets.items():
        rows.append(f"| {name} | {data.get('type', name)} | {data.get('records', '')} |")
    steps = "" if training.step is None else f"\n\n{training.step} steps."
    return "\n".join(rows) + steps


def _metrics(training: Training | None) -> list[str]:
    if training is None or not training.metrics:
        return []
    rows = ["| metric | value |", "|---|---|", *(f"| {key} | {value:.4g} |" for key, value in training.metrics.items())]
    return ["## Validation", f"After {training.step} steps, on data held out from training:", "\n".join(rows)]


def _benchmarks(scores: Sequence[Score]) -> list[str]:
    if not scores:
        return []
    rows = ["| benchmark | metric | value | 95 % interval | questions |", "|---|---|---|---|---|"]
    for score in scores:
        interval = "" if score.interval is None else f"{score.interval[0]:.4g} to {score.interval[1]:.4g}"
        rows.append(f"| {score.benchmark} | {score.metric} | {score.value:.4g} | {interval} | {score.n or ''} |")
    return ["## Benchmarks", "\n".join(rows)]


def _terms(inventory: Inventory) -> str:
    lines = []
    for key, part in inventory.parts.items():
        origin = part.origin
        known = find_known(origin.source) or find_known(f"hf://{origin.repo_id}/{origin.file}")
        if known is not None:
            terms = known.licence
        elif origin.source.startswith("${package}"):
            terms = "BSD-3-Clause"
        elif origin.repo_id:
            terms = f"see the model card of `{origin.repo_id}`"
        else:
            terms = "to be stated by whoever publishes this folder" if key == "ckpt" else "see its publisher"
        lines.append(f"- {_WHAT[key]}: {terms}")
    return "\n".join(lines)
