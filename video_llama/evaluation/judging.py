"""Judging the answers of a ``results.json``: a step of its own after answering, resumable, whose failures are never wrong answers."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from video_llama.common.errors import DataError
from video_llama.evaluation.judge_prompts import AXES, JUDGED, VERSION, Axis, Message
from video_llama.evaluation.judges import Judge, NoReply
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.results import score_record
from video_llama.evaluation.scorers import mean_of
from video_llama.inference.journal import Journal, Record, read_journals

log = logging.getLogger(__name__)

Item = Mapping[str, Any]


@dataclass(frozen=True)
class _Case:
    """One judgement: an axis, and the items that it is about."""

    axis: str
    ids: tuple[str, ...]
    messages: list[Message]
    known: Record | str | None = None
    """What needs no judge: the values of a question without an answer, or why there is no judgement."""


def judged(content: Mapping[str, Any], judge: Judge, folder: Path) -> dict[str, Any]:
    """Return results with the scores of a judge.

    An item without an answer gets 0, as everywhere. One whose judgement is missing has no score, and is not part of the means.

    Args:
        content: of a ``results.json``.
        judge: that is asked.
        folder: gets a journal of replies beside the results: what is in it is not asked again.
    Raises:
        DataError: no benchmark in the results has answers for a judge.
        ConfigError: the judge cannot be loaded.
    """
    axes = {name: axes_of(name, record) for name, record in content["benchmarks"].items()}
    if not any(axes.values()):
        raise DataError(
            f"--judge: none of {', '.join(axes) or 'the benchmarks'} has free answers with references. Judged are "
            + ", ".join(JUDGED)
        )
    benchmarks = {}
    identity = judge.identity()
    for name, record in content["benchmarks"].items():
        if not axes[name]:
            log.warning("%s: not judged: it has no free answers with references", name)
            benchmarks[name] = record
            continue
        benchmarks[name] = _judged_benchmark(name, record, axes[name], judge, identity, folder)
    return {**content, "benchmarks": benchmarks}


def axes_of(name: str, record: Mapping[str, Any]) -> Sequence[str]:
    """Return what is judged of a benchmark's answers; nothing of letters, captions and answers without references."""
    items = record["items"]
    if name == "manifest" and not record["scores"].keys() & {"accuracy", "vqa_accuracy"}:
        return ()
    if any(item.get("options") for item in items) or not any(item.get("references") for item in items):
        return ()
    return JUDGED.get(name, ())


def _judged_benchmark(
    name: str, record: Mapping[str, Any], axes: Sequence[str], judge: Judge, identity: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    items = {item["id"]: item for item in record["items"] if item["references"]}
    cases = [case for axis in axes for case in _cases(axis, items, str(record.get("prompt", "")))]
    values: dict[str, dict[str, float]] = {}
    reasons: dict[str, str] = {}
    models: set[str] = set()
    found: dict[str, dict[str, Any]] = {id: {} for id in items}
    for case, outcome in _outcomes(name, cases, judge, identity, folder):
        if isinstance(outcome, str):
            judgement: dict[str, Any] = {"error": outcome}
            reasons |= dict.fromkeys(case.ids, outcome)
        else:
            judgement = _judgement(outcome["values"], AXES[case.axis])
            models |= {model} if (model := outcome.get("model")) else set()
            for metric, value in outcome["values"].items():
                values.setdefault(metric, {}).update(dict.fromkeys(case.ids, value))
        for id in case.ids:
            found[id][case.axis] = judgement
    questions = [
        QuestionRecord(id=id, clip=i["clip"], names=(), prompt="", types=i["types"]) for id, i in items.items()
    ]
    in_order = {metric: {id: each[id] for id in items if id in each} for metric, each in values.items()}
    metrics = {metric: in_order.get(metric, {}) for axis in axes for metric in AXES[axis].metrics}
    scores = {
        metric: score_record(mean_of(each), questions) if each else {"value": None, "n": 0}
        for metric, each in metrics.items()
    }
    for id, reason in list(reasons.items())[:3]:
        log.warning("%s: %s: not judged: %s", name, id, reason)
    return {
        **record,
        "scores": {**record["scores"], **scores},
        "judge": {
            "judge": judge.name,
            **identity,
            "answered_by": sorted(models),
            "prompt_version": VERSION,
            "prompts": {axis: AXES[axis].messages(_PLACES) for axis in axes},
            "judged": len(items) - len(reasons),
            "missing": len(reasons),
            "missing_items": {id: reasons[id] for id in items if id in reasons},
        },
        "items": [_with_judgement(item, found.get(item["id"]), metrics) for item in record["items"]],
    }


def _judgement(values: Mapping[str, float], axis: Axis) -> dict[str, Any]:
    """Return a score and, of the axes that have one, the verdict."""
    score, *verdict = (values[metric] for metric in axis.metrics)
    return {"score": int(score), **({"yes": bool(verdict[0])} if verdict else {})}


_PLACES = {place: f"<{place}>" for place in ("question", "question_2", "reference", "answer", "answer_2")}


def _with_judgement(
    item: Item, found: Mapping[str, Any] | None, metrics: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    if found is None:
        return {key: value for key, value in item.items() if key != "judge"}
    own = {name: value for name, value in item["scores"].items() if name not in metrics}
    judged_values = {name: each[item["id"]] for name, each in metrics.items() if item["id"] in each}
    return {**item, "scores": {**own, **judged_values}, "judge": dict(found)}


def _cases(axis: str, items: Mapping[str, Item], template: str) -> Iterator[_Case]:
    """Yield what is to be judged: each item, or each pair of questions with one answer."""
    asked = AXES[axis]
    for id, item in items.items():
        together = [item]
        if asked.n_questions == 2:
            if not id.endswith("_Q1"):
                continue
            together += [items[other]] if (other := f"{id[:-1]}2") in items else []
        texts = {"reference": " / ".join(dict.fromkeys(item["references"]))}
        for number, one in enumerate(together, start=1):
            ending = "" if number == 1 else f"_{number}"
            texts |= {f"question{ending}": _question(one["prompt"], template), f"answer{ending}": one.get("answer", "")}
        ids = tuple(one["id"] for one in together)
        if len(together) < asked.n_questions:
            yield _Case(axis, ids, [], "the other question of its pair was not asked")
        elif any("answer" not in one for one in together):
            yield _Case(axis, ids, [], {"values": dict.fromkeys(asked.metrics, 0.0)})
        else:
            yield _Case(axis, ids, asked.messages(texts))


def _question(prompt: str, template: str) -> str:
    """Return the question within a prompt, without the words that ask for a form of the answer."""
    before, found, after = template.partition("<question>")
    if found and prompt.startswith(before) and prompt.endswith(after):
        return prompt[len(before) : len(prompt) - len(after)]
    return prompt


def _outcomes(
    name: str, cases: Sequence[_Case], judge: Judge, identity: Mapping[str, Any], folder: Path
) -> Iterator[tuple[_Case, Record | str]]:
    """Yield the values of each case, or why there are none, in their order."""
    output = folder / f"{name}.judge"
    keys = [_key(judge, identity, case) for case in cases]
    known = read_journals(output)
    found: dict[int, Record | str] = {}
    left = []
    for n, case in enumerate(cases):
        if case.known is not None:
            found[n] = case.known
        elif isinstance(record := _read(case.axis, known.get(keys[n], {})), str):
            left.append(n)
        else:
            found[n] = record
    with Journal(output, 0) as journal, tqdm(
        total=len(cases), initial=len(cases) - len(left), desc=f"judging {name}", unit="answer",
        mininterval=0.2 if sys.stderr.isatty() else 10,
    ) as bar:  # fmt: skip
        for k, reply in judge.replies([cases[n].messages for n in left]):
            n = left[k]
            if isinstance(reply, NoReply):
                found[n] = str(reply)
            else:
                record = {"key": keys[n], "answer": reply.text, "model": reply.model}
                journal.append([record])
                found[n] = _read(cases[n].axis, record)
            bar.set_postfix(missing=sum(isinstance(one, str) for one in found.values()), refresh=False)
            bar.update()
    for n, case in enumerate(cases):
        yield case, found.get(n, "the judge gave no reply")


def _read(axis: str, record: Record) -> Record | str:
    """Return the values of a recorded reply, with its model, or what is wrong with it."""
    if "answer" not in record:
        return "not asked yet"
    try:
        return {"values": AXES[axis].values(record["answer"]), "model": record.get("model")}
    except DataError as error:
        return str(error)


def _key(judge: Judge, identity: Mapping[str, Any], case: _Case) -> str:
    content = json.dumps([judge.name, identity, case.messages], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def judge_lines(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each judged benchmark: how many judgements are missing, and why the first is."""
    for name, record in content["benchmarks"].items():
        if found := record.get("judge"):
            first = next(iter(found["missing_items"].items()), None)
            reason = f"; the first, {first[0]}: {first[1]}" if first else ""
            yield f"{name}: {found['judged']} judged by {found['judge']}, {found['missing']} missing{reason}"
