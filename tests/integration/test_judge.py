"""Judged evaluations: scores with their judge, missing ones that are never wrong answers, and a journal that saves asking twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.file_server import serving
from tests.integration.conftest import Result
from tests.judge_server import JudgeServer, write_random_judge
from video_llama.conversation.engine import Engine
from video_llama.evaluation import judges
from video_llama.inference.journal import Journal

TOY = "eval_configs/toy.yaml"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """Questions of one's own, and two of Video-ChatGPT's files, on three held-out clips."""
    folder = tmp_path_factory.mktemp("judged")
    questions = [q for q in json.loads((world / "heldout/questions.json").read_text()) if q["kind"] == "colour"][:3]
    shutil.copytree(world / "heldout/videos", folder / "media")
    lines = [{key: q[key] for key in ("id", "video", "question", "answer")} for q in questions]
    lines.append({**lines[0], "id": "wrong", "answer": "It is black."})
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    names = [Path(q["video"]).stem for q in questions]
    generic = [{"Q": q["question"], "A": q["answer"], "video_name": n} for q, n in zip(questions, names, strict=True)]
    pairs = [
        {"Q1": q["question"], "Q2": "Which colour has it?", "A": q["answer"], "video_name": n}
        for q, n in zip(questions, names, strict=True)
    ]
    (folder / "generic_qa.json").write_text(json.dumps(generic))
    (folder / "consistency_qa.json").write_text(json.dumps(pairs))
    return folder


def reply(text: str) -> str:
    """A judge that compares as written, and knows nothing of blue shapes."""
    lines = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    if "Second question" in lines:
        return f"{{'score': {5 if lines['Answer to the first'] == lines['Reference answer to both'] else 1}}}"
    if "It is black." in text:
        return "{'pred': 'no', 'score': 0}"
    right = lines["Reference answer"] == lines["Answer to grade"]
    return json.dumps({"pred": "yes" if right else "no", "score": 5 if right else 1})


@pytest.fixture(scope="module")
def random_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setattr(judges, "PAUSE_S", 0.0)
    with serving(JudgeServer(reply)) as running:
        yield running


@pytest.fixture
def evaluate(command, loaded, monkeypatch, sets) -> Callable[..., Result]:
    monkeypatch.setattr(Engine, "from_job", lambda *args: loaded)

    def run(output: Path, *words: str, annotations: str = "test.jsonl", benchmark: str = "manifest") -> Result:
        return command(
            "evaluate", "--cfg-path", TOY, "--benchmark", benchmark, "prompt=<question>", "--annotations",
            sets / annotations, "--media-dir", sets / "media", "--output", output, "--max-new-tokens", "8", *words,
        )  # fmt: skip

    return run


def results(output: Path, name: str = "manifest") -> dict[str, Any]:
    return json.loads((output / "results.json").read_text(encoding="utf-8"))["benchmarks"][name]


def test_scores_of_a_judge_have_its_prompts_and_version(evaluate, server, tmp_path):
    code, out, err = evaluate(tmp_path / "out", "--judge", server.spec)
    assert code == 0, err
    found = results(tmp_path / "out")
    assert found["scores"]["judge_accuracy"]["value"] == 0.75
    assert found["scores"]["judge_score"]["value"] == 3.75
    assert found["scores"]["judge_score"]["n"] == 4
    assert found["scores"]["accuracy"]["value"] == 0.75
    judge = found["judge"]
    assert (judge["judge"], judge["answered_by"], judge["prompt_version"]) == (server.spec, ["a-judge-2026"], "1")
    assert (judge["judged"], judge["missing"], judge["missing_items"]) == (4, 0, {})
    assert "<reference>" in judge["prompts"]["answer"][1]["content"]
    wrong = next(item for item in found["items"] if item["id"] == "wrong")
    assert wrong["judge"] == {"answer": {"score": 0, "yes": False}}
    assert wrong["scores"]["judge_score"] == 0
    assert json.loads(out.splitlines()[0])["scores"]["judge_score"] == 3.75
    assert f"manifest: 4 judged by {server.spec}, 0 missing" in out
    asked = server.requests[0]["messages"][1]["content"]
    assert asked.startswith("Question: What colour is the shape?\nReference answer: It is ")


def test_without_the_flag_nobody_is_asked(evaluate, server, tmp_path):
    assert evaluate(tmp_path / "out").code == 0
    assert server.requests == []
    assert "judge" not in results(tmp_path / "out")


def test_nonsense_is_missing_named_and_asked_again(evaluate, server, tmp_path, command):
    server.reply = lambda text: "I would say so." if "It is black." in text else reply(text)
    code, out, err = evaluate(tmp_path / "out", "--judge", server.spec)
    assert code == 0, err
    found = results(tmp_path / "out")
    assert (found["judge"]["judged"], found["judge"]["missing"]) == (3, 1)
    assert found["judge"]["missing_items"].keys() == {"wrong"}
    assert found["scores"]["judge_accuracy"] | {"interval": None} == {
        "value": 1.0, "n": 3, "n_clips": 3, "interval": None, "by": {},
    }  # fmt: skip
    missing = next(item for item in found["items"] if item["id"] == "wrong")
    assert "judge_score" not in missing["scores"]
    assert "no object in the reply 'I would say so.'" in missing["judge"]["answer"]["error"]
    assert "1 missing; the first, wrong: no object in the reply" in out
    server.reply, server.requests[:] = reply, []
    code, out, err = command("judge", tmp_path / "out/results.json", "--judge", server.spec)
    assert code == 0, err
    assert len(server.requests) == 1
    assert results(tmp_path / "out")["scores"]["judge_accuracy"]["value"] == 0.75


def test_a_judge_that_is_down_leaves_no_score_and_the_answers_as_they_are(evaluate, server, tmp_path, command):
    server.statuses = [500] * 1000
    code, _, err = evaluate(tmp_path / "out", "--judge", server.spec)
    assert code == 0, err
    found = results(tmp_path / "out")
    assert found["scores"]["judge_accuracy"] == {"value": None, "n": 0}
    assert found["scores"]["accuracy"]["value"] == 0.75
    assert (found["judge"]["judged"], found["judge"]["missing"]) == (0, 4)
    assert "status 500" in found["judge"]["missing_items"]["wrong"]
    assert command("judge", tmp_path / "out/results.json", "--judge", server.spec).code == 1


def test_nonsense_of_a_local_judge_is_missing_too(evaluate, tmp_path, random_judge, monkeypatch):
    monkeypatch.setattr(judges, "MAX_NEW_TOKENS", 8)
    code, _, err = evaluate(tmp_path / "out", "--judge", f"local:{random_judge}", "--device", "cpu")
    assert code == 0, err
    found = results(tmp_path / "out")
    assert (found["judge"]["judged"], found["judge"]["missing"]) == (0, 4)
    assert "no object in the reply" in found["judge"]["missing_items"]["wrong"]
    assert {"config.json", "model.safetensors"} <= {file["file"] for file in found["judge"]["weights"]}


def test_a_killed_judging_goes_on_and_a_repeated_one_asks_nobody(evaluate, server, tmp_path, monkeypatch, command):
    assert evaluate(tmp_path / "whole", "--judge", server.spec).code == 0
    assert evaluate(tmp_path / "out").code == 0
    server.requests.clear()
    written: list[object] = []
    original = Journal.append

    def append(journal, records) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(records)
        original(journal, records)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append)
        assert command("judge", tmp_path / "out/results.json", "--judge", server.spec).code == 130
    server.requests.clear()
    assert command("judge", tmp_path / "out/results.json", "--judge", server.spec).code == 0
    assert len(server.requests) == 2
    assert (tmp_path / "out/results.json").read_bytes() == (tmp_path / "whole/results.json").read_bytes()
    assert evaluate(tmp_path / "whole", "--judge", server.spec).code == 0
    assert len(server.requests) == 2
    assert (tmp_path / "out/results.json").read_bytes() == (tmp_path / "whole/results.json").read_bytes()


def test_another_judge_is_asked_anew_and_replaces_the_scores(evaluate, server, tmp_path, command):
    assert evaluate(tmp_path / "out", "--judge", server.spec).code == 0
    server.requests.clear()
    server.reply = lambda text: "{'pred': 'yes', 'score': 3}"
    assert command("judge", tmp_path / "out/results.json", "--judge", f"{server.spec}-2").code == 0
    assert len(server.requests) == 4
    assert results(tmp_path / "out")["scores"]["judge_score"]["value"] == 3
    assert evaluate(tmp_path / "before", "--judge", server.spec).code == 0
    code, out, err = command("compare", tmp_path / "before/results.json", tmp_path / "out/results.json")
    assert code == 0, err
    assert f'benchmarks.manifest.judge.judge: "{server.spec}" | "{server.spec}-2"' in out
    assert "manifest judge_score: " in out


def test_video_chatgpt_s_qualities_are_judged_and_the_answers_of_a_pair_together(evaluate, server, tmp_path):
    out = tmp_path / "generic"
    code, _, err = evaluate(out, "--judge", server.spec, annotations="generic_qa.json", benchmark="vcgbench_generic")
    assert code == 0, err
    found = results(out, "vcgbench_generic")
    assert {name: found["scores"][name]["value"] for name in ("correctness", "detail", "context")} == {
        "correctness": 5, "detail": 5, "context": 5,
    }  # fmt: skip
    assert len(server.requests) == 9
    assert found["items"][0]["judge"] == {k: {"score": 5} for k in ("correctness", "detail", "context")}
    server.requests.clear()
    out = tmp_path / "pairs"
    assert (
        evaluate(out, "--judge", server.spec, annotations="consistency_qa.json", benchmark="vcgbench_consistency").code
        == 0
    )
    found = results(out, "vcgbench_consistency")
    assert (found["scores"]["consistency"]["value"], found["scores"]["consistency"]["n"]) == (5, 6)
    assert len(server.requests) == 3
    asked = server.requests[0]["messages"][1]["content"]
    assert asked.startswith(
        "First question: What colour is the shape?\nSecond question: Which colour has it?\nReference"
    )


def test_a_question_without_an_answer_gets_nothing_and_needs_no_judge(evaluate, server, tmp_path, sets, monkeypatch):
    assert evaluate(tmp_path / "out").code == 0
    content = json.loads((tmp_path / "out/results.json").read_text())
    item = content["benchmarks"]["manifest"]["items"][0]
    item["error"] = "broken"
    del item["answer"]
    (tmp_path / "out/results.json").write_text(json.dumps(content))
    from video_llama.cli.main import main

    assert main(["judge", str(tmp_path / "out/results.json"), "--judge", server.spec]) == 0
    assert len(server.requests) == 3
    found = results(tmp_path / "out")
    assert found["items"][0]["scores"]["judge_score"] == 0
    assert found["scores"]["judge_score"]["n"] == 4


@pytest.mark.parametrize(
    ("line", "words", "message"),
    [
        (
            '{"video": "heldout_0000.mp4", "question": "What?", "options": ["a", "b"], "answer": "a"}',
            [],
            "none of manifest has free",
        ),
        ('{"video": "heldout_0000.mp4", "captions": ["a ring"]}', [], "none of manifest has free"),
        (None, ["--judge", "nobody"], "expected local:FOLDER, or openai:URL#MODEL"),
    ],
)
def test_what_cannot_be_judged_is_said(evaluate, server, tmp_path, sets, line, words, message):
    (tmp_path / "test.jsonl").write_text(line or (sets / "test.jsonl").read_text())
    words = words or ["--judge", server.spec]
    code, _, err = evaluate(tmp_path / "out", *words, "--annotations", str(tmp_path / "test.jsonl"))
    assert (code, message in err) == (1, True), err
    assert server.requests == []
