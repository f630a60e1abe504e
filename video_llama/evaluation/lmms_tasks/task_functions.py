"""What the tasks' YAML files refer to: our adapters read the published files, and our scorers score.

``VIDEO_LLAMA_ANNOTATIONS`` and ``VIDEO_LLAMA_MEDIA`` are the folders that ``video-llama evaluate`` takes as ``--annotations`` and
``--media-dir``: as there, folders in them that are named after the benchmark are used. ``VIDEO_LLAMA_PROMPT``, if set, replaces
the prompt.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from video_llama.common.errors import ConfigError
from video_llama.common.registry import BENCHMARKS
from video_llama.evaluation.published_benchmark import PublishedBenchmark
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.scorers import CaptionScorer

Doc = Mapping[str, Any]
FOLDERS = {"annotations": "VIDEO_LLAMA_ANNOTATIONS", "media_dir": "VIDEO_LLAMA_MEDIA"}


@cache
def benchmark(name: str) -> PublishedBenchmark:
    """Return a benchmark, read from the folders that the environment names.

    Raises:
        ConfigError: one is not named, or is not there.
        DataError: the annotations cannot be used.
    """
    settings: dict[str, str] = {}
    for key, variable in FOLDERS.items():
        root = Path(os.environ.get(variable, ""))
        if not os.environ.get(variable) or not root.exists():
            raise ConfigError([f"{variable}: {str(root)!r} is no folder; name that of the {key.partition('_')[0]}"])
        settings[key] = str(root / name if (root / name).is_dir() else root)
    config: Any = BENCHMARKS.config(name)
    built: PublishedBenchmark = BENCHMARKS.get(name)(
        config(**settings, prompt=os.environ.get("VIDEO_LLAMA_PROMPT") or None)
    )
    built.warn(name)
    return built


@cache
def _records(name: str) -> dict[str, QuestionRecord]:
    return {record.id: record for record in benchmark(name).all_records}


def _docs(name: str) -> Callable[[Any], Any]:
    def process_docs(placeholder: Any) -> Any:
        """Return the questions whose clips are there, in the order of the file."""
        from datasets import Dataset

        found = benchmark(name)
        return Dataset.from_list(
            [_doc(name, found, record) for record in found.all_records if record.id in found.paths]
        )

    return process_docs


msvd_qa, msrvtt_qa, music_avqa, avsd, audiocaps = map(
    _docs, ("msvd_qa", "msrvtt_qa", "music_avqa", "avsd", "audiocaps")
)


def _doc(name: str, found: PublishedBenchmark, record: QuestionRecord) -> dict[str, Any]:
    return {
        "benchmark": name,
        "id": record.id,
        "clip": record.clip,
        "kind": record.kind,
        "path": str(found.paths[record.id]),
        "prompt": record.prompt,
        "references": list(record.references),
    }


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return the clip and the question. lmms-eval's own messages would take a .webm for sound."""
    return [
        {
            "role": "user",
            "content": [{"type": doc["kind"], "url": doc["path"]}, {"type": "text", "text": doc["prompt"]}],
        }
    ]


def doc_to_visual(doc: Doc) -> list[str]:
    """Return the clip."""
    return [doc["path"]]


def doc_to_text(doc: Doc) -> str:
    """Return the question."""
    return str(doc["prompt"])


def doc_to_target(doc: Doc) -> str:
    """Return the first reference."""
    return str(doc["references"][0]) if doc["references"] else ""


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return, for each metric, the question and its answer; with its score, unless that depends on the other clips."""
    found = benchmark(doc["benchmark"])
    answered = {"benchmark": doc["benchmark"], "id": doc["id"], "clip": doc["clip"], "answer": results[0]}
    record = _records(doc["benchmark"])[doc["id"]]
    if not record.references:
        return {}
    metrics = found.scorer([record], {record.id: results[0]})
    if isinstance(found.scorer, CaptionScorer):
        return dict.fromkeys(metrics, answered)
    return {name: {**answered, "score": metric.value} for name, metric in metrics.items()}


def _score(metric: str) -> Callable[[Sequence[Mapping[str, str]]], float]:
    def aggregate(answered: Sequence[Mapping[str, str]]) -> float:
        """Return a metric of all questions."""
        found = benchmark(answered[0]["benchmark"])
        answers: dict[str | int, str] = {one["id"]: one["answer"] for one in answered}
        return found.scorer([record for record in found.all_records if record.id in answers], answers)[metric].value

    return aggregate


_METRICS = ("accuracy", "exact_match", "CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L")
accuracy, exact_match, cider, bleu_1, bleu_2, bleu_3, bleu_4, rouge_l = map(_score, _METRICS)
