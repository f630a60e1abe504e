"""``results.json``: scores with intervals, each answer, and everything that decides them. Written alike by any number of processes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
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
from video_llama.evaluation.intervals import mean_interval
from video_llama.evaluation.published_benchmark import PublishedBenchmark
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.scorers import Metric
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
    errors = {id: reason for id, reason in result.outcomes.errors if id is not None}
    record: dict[str, Any] = {
        "settings": plain(type(config), config) if is_dataclass(config) else None,
        "answered": len(result.outcomes.answers),
        "failed": len(result.outcomes.errors),
        "without_sound_track": result.outcomes.n_without_track,
    }
    if isinstance(benchmark, PublishedBenchmark):
        metrics = benchmark.metrics(result.outcomes.answers)
        return {
            **record,
            "prompt": benchmark.template,
            "annotations": benchmark.files.digests(),
            "published_file": benchmark.version,
            "counts": asdict(benchmark.counts),
            "missing_clips": benchmark.missing,
            "scores": {name: score_record(metric, benchmark.records) for name, metric in metrics.items()},
            "items": [
                {
                    **_question(question),
                    **_file(question, benchmark),
                    **_outcome(question.id, result.outcomes.answers, errors),
                    "scores": {name: m.each[question.id] for name, m in metrics.items() if question.id in m.each},
                }
                for question in benchmark.records
            ],
        }
    items = [
        {
            "id": item.id,
            "prompt": item.asked.question,
            "file": str(item.asked.file.path),
            "media": item.asked.file.kind,
            **_outcome(item.id, result.outcomes.answers, errors),
        }
        for item in benchmark.items()
    ]
    return {**record, "scores": {name: {"value": value} for name, value in result.scores.items()}, "items": items}


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


def _file(question: QuestionRecord, benchmark: PublishedBenchmark) -> dict[str, str]:
    file = benchmark.paths[question.id].relative_to(benchmark.config.media_dir)
    return {"file": file.as_posix(), "media": question.kind}


def _outcome(id: str | int, answers: Mapping[str | int, str], errors: Mapping[str | int, str]) -> dict[str, str]:
    return {"answer": answers[id]} if id in answers else {"error": errors.get(id, "not answered")}


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


def write_results(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write ``results.json`` into a folder.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / "results.json"
    try:
        with replacing(path) as temporary:
            temporary.write_text(
                json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
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
