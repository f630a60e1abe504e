"""``results.json``: scores with intervals, each answer, and everything that decides them. Written alike by any number of processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from video_llama import __version__
from video_llama.checkpoints.sources.references import find_local
from video_llama.common.errors import OutputError
from video_llama.common.files import replacing, sha256_of
from video_llama.common.versions import versions_of
from video_llama.config.loader import InferenceConfig
from video_llama.config.serialize import named_paths, plain
from video_llama.conversation.processors import inference_config
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.benchmark import Benchmark, BenchmarkResult
from video_llama.evaluation.conditions import FULL, SWAPS
from video_llama.evaluation.intervals import mean_interval
from video_llama.evaluation.published_benchmark import PublishedBenchmark
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.reliance import Answered, Asked, reliance_tables
from video_llama.evaluation.scorers import Metric
from video_llama.inference.job import Outcomes
from video_llama.inference.model import ConfiguredModel

FORMAT = 1
PACKAGES = (
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "tokenizers",
    "sentencepiece",
    "av",
    "decord",
    "numpy",
    "timm",
)
"""Whose versions may decide an answer."""


def results(
    model: ConfiguredModel, settings: GenerationSettings, scored: Mapping[str, tuple[Benchmark, BenchmarkResult]]
) -> dict[str, Any]:
    """Return the content of ``results.json``.

    Args:
        model: that answered.
        settings: of its answers.
        scored: each benchmark with its result, by name.
    """
    return {
        "format": FORMAT,
        "model": model_record(model),
        "generation": asdict(settings),
        "versions": {"video_llama": __version__, **versions_of(PACKAGES)},
        "benchmarks": {name: benchmark_record(*pair) for name, pair in scored.items()},
    }


def model_record(model: ConfiguredModel) -> dict[str, Any]:
    """Return what a model is: its resolved config, how it reads files, and the digests of its weights."""
    files = [find_local(path) for path in named_paths(model.job.model)]
    return {
        "cfg_path": model.cfg_path,
        "options": list(model.options),
        "config": model.job.as_dict()["model"],
        "inference": plain(InferenceConfig, inference_config(model.job)),
        "weights": [
            {"file": file.name, "sha256": sha256_of(file)}
            for path in files
            if path is not None
            for file in _files(path)
        ],
    }


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def benchmark_record(benchmark: Benchmark, result: BenchmarkResult) -> dict[str, Any]:
    """Return scores and items of a benchmark."""
    config = getattr(benchmark, "config", None)
    outcomes = result.outcomes
    record: dict[str, Any] = {
        "settings": plain(type(config), config) if is_dataclass(config) else None,
        "answered": len(outcomes.answers),
        "failed": len(outcomes.errors),
        "without_sound_track": outcomes.n_without_track,
    }
    under = {FULL: outcomes, **outcomes.under}
    files = _Files(benchmark, result)
    if isinstance(benchmark, PublishedBenchmark):
        metrics = {name: benchmark.metrics(there.answers) for name, there in under.items()}
        return {
            **record,
            "prompt": benchmark.template,
            "annotations": benchmark.files.digests(),
            "published_file": benchmark.version,
            "counts": asdict(benchmark.counts),
            "missing_clips": benchmark.missing,
            "clips_without_questions": benchmark.without_questions,
            "scores": {name: score_record(metric, benchmark.records) for name, metric in metrics[FULL].items()},
            **_reliance(benchmark.records, under, metrics, lambda condition: values_of(metrics[condition])),
            "items": [
                {
                    **_question(question),
                    **files.of(question.id),
                    **_answered(question.id, outcomes, metrics[FULL]),
                    **_under_conditions(question.id, outcomes, metrics, files),
                }
                for question in benchmark.records
            ],
        }
    asked = benchmark.items()
    nothing: dict[str, dict[str, Metric]] = {name: {} for name in under}
    items = [
        {
            "id": item.id,
            "prompt": item.asked.question,
            **files.of(item.id),
            **_outcome(item.id, outcomes),
            **_under_conditions(item.id, outcomes, nothing, files),
        }
        for item in asked
    ]
    questions = [_Unscored(item.id, str(item.asked.file.path)) for item in asked]
    return {
        **record,
        "scores": {name: {"value": value} for name, value in result.scores.items()},
        **_reliance(questions, under, nothing, lambda condition: dict(benchmark.score(under[condition].answers))),
        "items": items,
    }


@dataclass(frozen=True)
class _Unscored:
    """A question of a benchmark that scores answers together."""

    id: str | int
    clip: str
    types: Mapping[str, str] = field(default_factory=dict)


class _Files:
    """The files of a benchmark's questions, as they are written in the results."""

    def __init__(self, benchmark: Benchmark, result: BenchmarkResult) -> None:
        self._folder = benchmark.media_dir if isinstance(benchmark, PublishedBenchmark) else None
        self._files = {item.id: item.asked.file for item in benchmark.items()}
        self._partners = result.partners

    def of(self, id: str | int) -> dict[str, str]:
        """Return the file of a question, and its kind."""
        return {"file": self._written(self._files[id].path), "media": self._files[id].kind}

    def partner(self, id: str | int, condition: str) -> dict[str, str]:
        """Return the file whose frames or sound replace a question's, under a condition that takes one."""
        partner = self._partners.get(id)
        return {} if partner is None or condition not in SWAPS else {"partner": self._written(partner.path)}

    def _written(self, path: str | Path) -> str:
        if self._folder is None or not Path(path).is_relative_to(self._folder):
            return str(path)
        return str(Path(path).relative_to(self._folder))


def values_of(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Return the values of some metrics."""
    return {name: metric.value for name, metric in metrics.items()}


def _reliance(
    questions: Sequence[Asked],
    under: Mapping[str, Outcomes],
    metrics: Mapping[str, Mapping[str, Metric]],
    scores: Callable[[str], dict[str, float]],
) -> dict[str, Any]:
    """Return how answers under conditions compare; nothing if they were asked under none."""
    if len(under) == 1:
        return {}
    name = next((name for name, metric in metrics[FULL].items() if metric.is_mean), None)
    answered = {
        condition: Answered(there.answers, metrics[condition][name].each if name else {}, there.altered)
        for condition, there in under.items()
    }
    return {
        "reliance": {
            "conditions": list(under),
            "metric": name,
            "scores": {condition: scores(condition) for condition in under},
            **reliance_tables(questions, answered),
        }
    }


def _under_conditions(
    id: str | int, outcomes: Outcomes, metrics: Mapping[str, Mapping[str, Metric]], files: _Files
) -> dict[str, Any]:
    """Return the answers to a question under each condition; nothing if it was asked under none."""
    if not outcomes.under:
        return {}
    return {
        "conditions": {
            name: {
                **_answered(id, there, metrics[name]),
                **({"same_input": True} if id in there.answers and id not in there.altered else {}),
                **files.partner(id, name),
            }
            for name, there in outcomes.under.items()
        }
    }


def _answered(id: Any, outcomes: Outcomes, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Return the answer to a question, or its error, with its scores."""
    scores = {name: metric.each[id] for name, metric in metrics.items() if id in metric.each}
    return {**_outcome(id, outcomes), **_likelihoods(id, outcomes), "scores": scores}


def _question(question: QuestionRecord) -> dict[str, Any]:
    part = {"span": list(question.span) if question.span else None, "fps": question.fps}
    return {
        "id": question.id,
        "clip": question.clip,
        "types": dict(question.types),
        "prompt": question.prompt,
        "options": list(question.options),
        "references": list(question.references),
        **{key: value for key, value in part.items() if value is not None},
    }


def _outcome(id: str | int, outcomes: Outcomes) -> dict[str, str]:
    if id in outcomes.answers:
        return {"answer": outcomes.answers[id]}
    return {"error": outcomes.reasons.get(id, "not answered")}


def _likelihoods(id: str | int, outcomes: Outcomes) -> dict[str, list[float]]:
    """Return how likely each option is, if options were compared."""
    if id not in outcomes.likelihoods:
        return {}
    found = outcomes.likelihoods[id]
    return {"log_likelihoods": [one.log_likelihood for one in found], "n_tokens": [one.n_tokens for one in found]}


def score_record(metric: Metric, questions: Sequence[QuestionRecord]) -> dict[str, Any]:
    """Return a metric with its interval and what it stands on; also by type, if it is a mean."""
    if not metric.is_mean:
        return {"value": metric.value, "n": len(metric.each) or None}
    scored = [question for question in questions if question.id in metric.each]
    kinds = sorted({kind for question in scored for kind in question.types})
    by: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        values = sorted({question.types[kind] for question in scored if kind in question.types})
        by[kind] = {
            value: _mean(metric, [question for question in scored if question.types.get(kind) == value])
            for value in values
        }
    return {**_mean(metric, scored), "by": by}


def _mean(metric: Metric, questions: Sequence[QuestionRecord]) -> dict[str, Any]:
    found = mean_interval([metric.each[q.id] for q in questions], [q.clip for q in questions])
    return {"value": found.mean, "n": found.n, "n_clips": found.n_clusters, "interval": [found.low, found.high]}


def write_results(folder: Path, content: Mapping[str, Any], name: str = "results.json") -> Path:
    """Write results into a folder.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / name
    try:
        with replacing(path) as temporary:
            temporary.write_text(
                json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n",
                encoding="utf-8",
                errors="backslashreplace",
            )
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def summary_lines(content: Mapping[str, Any]) -> Iterable[str]:
    """Yield a line of JSON for each benchmark: its scores, and what they stand on."""
    for name, record in content["benchmarks"].items():
        scores = {metric: score["value"] for metric, score in record["scores"].items()}
        line = {"benchmark": name, "scores": scores, "answered": record["answered"], "failed": record["failed"]}
        if "counts" in record:
            line |= {"scored": record["counts"]["scored"], "missing": record["counts"]["missing"]}
        yield json.dumps(line, ensure_ascii=False)
