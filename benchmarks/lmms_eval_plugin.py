"""Run our tasks under lmms-eval, in an environment of its own, and compare answers and scores with ``video-llama evaluate``.

    python -m benchmarks.lmms_eval_plugin --environment /somewhere/lmms_eval

The environment is made if it is not there: this package with the extra lmms-eval, and lmms-eval without its own dependencies. All
packages that are there already are shared with the environment that runs this script. Nothing is downloaded after that. The toy model
answers questions in MSVD-QA's layout, sounds in AudioCaps', and multiple choice by likelihood, on clips of the toy world.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import site
import subprocess
import sys
import time
import venv
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from video_llama.toy.language import MOVES
from video_llama.toy.scene import COLOURS, MOTIONS, SHAPES, SIZES
from video_llama.toy.world import write_world

ROOT = Path(__file__).resolve().parent.parent
TASKS = ROOT / "video_llama/evaluation/lmms_tasks"
LMMS_EVAL = "lmms-eval==0.7.3"
OPTIONS = {
    "colour": [f"It is {colour}." for colour in COLOURS],
    "shape": [f"It is a {shape}." for shape in SHAPES],
    "motion": [f"It {MOVES[motion]}." for motion in MOTIONS],
    "size": [f"It is {size}." for size in SIZES],
}
WRONG = 3
"""One reference in so many is another one, so that scores are not 1."""
CHOICE_TASK = """\
task: toy_choice
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_visual: !function toy_choice.doc_to_visual
doc_to_text: question
doc_to_target: letter
process_results: !function toy_choice.process_results
generation_kwargs: {max_new_tokens: 16, options_from: options, until: []}
metric_list:
  - {metric: accuracy, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
CHOICE_FUNCTIONS = """\
def doc_to_visual(doc):
    return [{"type": "video", "url": doc["video"]}]


def process_results(doc, results):
    return {"accuracy": float(results[0] == doc["letter"])}
"""


class Compared(NamedTuple):
    """The outcome of one task both ways."""

    task: str
    n: int
    n_equal: int
    ours: Mapping[str, float]
    theirs: Mapping[str, float]

    @property
    def is_equal(self) -> bool:
        """Whether all answers and scores are the same."""
        return self.n_equal == self.n and all(abs(self.ours[k] - v) < 1e-12 for k, v in self.theirs.items())


def main() -> int:
    """Build what is missing, run all tasks both ways; return 1 if an answer or a score differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, required=True, metavar="DIR", help="outside the repository")
    parser.add_argument("--clips", type=int, default=24, help="held-out clips of the toy world (default: %(default)s)")
    args = parser.parse_args()
    python = environment(args.environment.resolve())
    with TemporaryDirectory() as folder:
        work = Path(folder)
        write_sets(work, args.clips)
        found = [*both_ways(work, python)]
    for one in found:
        print(
            f"{one.task}: {one.n_equal} of {one.n} answers are equal; "
            + ", ".join(f"{k} {one.ours[k]:.6f} | {v:.6f}" for k, v in one.theirs.items())
        )
    return int(not all(one.is_equal for one in found))


def environment(folder: Path) -> Path:
    """Return the Python of an environment with lmms-eval and this package, made unless it is there."""
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        packages = next((folder / "lib").glob("python*/site-packages"))
        (packages / "shared.pth").write_text("\n".join(site.getsitepackages()) + "\n")  # behind its own packages
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "setuptools>=77,<82"], check=True)  # what builds this package; torch takes no newer one
        subprocess.run([*pip, "--no-build-isolation", "--editable", f"{ROOT}[lmms-eval]"], check=True)
        subprocess.run([*pip, "--no-deps", LMMS_EVAL], check=True)
    return python


def write_sets(work: Path, n_clips: int) -> None:
    """Write clips of the toy world, and questions in three layouts."""
    write_world(work / "world", n_clips=12, n_heldout=n_clips, n_images=1)
    heldout = work / "world/heldout"
    questions = json.loads((heldout / "questions.json").read_text())
    sounds = [q for q in json.loads((heldout / "sound_questions.json").read_text()) if q["kind"] == "sound"]
    clips = sorted({q["video"] for q in questions})
    media = work / "media"
    media.mkdir()
    for n, clip in enumerate(clips):
        shutil.copy(heldout / "videos" / clip, media / f"vid{n + 1}.mp4")
        shutil.copy(heldout / "videos" / clip, media / f"{Path(clip).stem}_0.mp4")
    rows = [
        {"id": k, "video_id": clips.index(q["video"]) + 1, "question": q["question"]}
        | {"answer": q["answer"] if k % WRONG else "Something else."}
        for k, q in enumerate(questions)
    ]
    for name in ("msvd_qa", "audiocaps", "manifest"):
        (work / "annotations" / name).mkdir(parents=True)
    (work / "annotations/msvd_qa/test_qa.json").write_text(json.dumps(rows))
    with (work / "annotations/audiocaps/test.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
        captions = (q["answer"] if k % WRONG else "A low sound goes on and on." for k, q in enumerate(sounds))
        table.writerows([k, Path(q["video"]).stem, 0, c] for k, (q, c) in enumerate(zip(sounds, captions, strict=True)))
    chosen = [
        {"id": str(k), "video": str(media / f"vid{clips.index(q['video']) + 1}.mp4"), "question": q["question"]}
        | {"options": OPTIONS[q["kind"]], "answer": q["answer"] if k % WRONG else OPTIONS[q["kind"]][0]}
        for k, q in enumerate(questions)
    ]
    (work / "annotations/manifest/test.jsonl").write_text("\n".join(map(json.dumps, chosen)))
    docs = [{**row, "letter": "ABCDEF"[row["options"].index(row["answer"])]} for row in chosen]
    (work / "tasks").mkdir()
    (work / "tasks/toy_choice.json").write_text(json.dumps(docs))
    (work / "tasks/toy_choice.yaml").write_text(CHOICE_TASK.replace("FILE", "toy_choice.json"))
    (work / "tasks/toy_choice.py").write_text(CHOICE_FUNCTIONS)


RUNS = {
    "msvd_qa": ("video_llama_msvd_qa", TASKS, "prompt=<question>", "<question>"),
    "audiocaps": ("video_llama_audiocaps", TASKS, "prompt=What sound does it make?", "What sound does it make?"),
    "manifest": ("toy_choice", Path("tasks"), "choose=likelihood", ""),
}
"""For each benchmark: lmms-eval's task and its folder, the setting of ours, and what ``VIDEO_LLAMA_PROMPT`` is."""


def both_ways(work: Path, python: Path) -> list[Compared]:
    """Answer all questions with each of the two commands."""
    found = []
    for name, (task, folder, setting, prompt) in RUNS.items():
        given = [
            "--cfg-path", "toy", "--device", "cpu", "--benchmark", name, setting, "--annotations", work / "annotations",
            "--media-dir", work / "media", "--output", work / "ours" / name,
        ]  # fmt: skip
        run([sys.executable, "-m", "video_llama.cli.main", "evaluate", *given], {})
        ours = json.loads((work / "ours" / name / "results.json").read_text())["benchmarks"][name]
        output = work / "theirs" / name
        asked = [
            "--model", "video_llama", "--model_args", "pretrained=toy", "--tasks", task, "--include_path", work / folder,
            "--batch_size", "8", "--device", "cpu", "--output_path", output, "--log_samples", "--verbosity", "WARNING",
        ]  # fmt: skip
        variables = {
            "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(work / "hub"), "VIDEO_LLAMA_ANNOTATIONS": str(work / "annotations"),
            "VIDEO_LLAMA_MEDIA": str(work / "media"), "VIDEO_LLAMA_PROMPT": prompt,
        }  # fmt: skip
        run([python, "-m", "lmms_eval", *asked], variables)
        found.append(compared(task, ours, output))
    return found


def run(words: list[Any], variables: Mapping[str, str]) -> None:
    """Run a command offline, and say how long it took."""
    start = time.perf_counter()
    env = {**os.environ, "HF_HUB_OFFLINE": "1", **variables}
    done = subprocess.run([*map(str, words)], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    print(f"{' '.join(map(str, words[1:4]))} ...: {time.perf_counter() - start:.0f} s", file=sys.stderr)


def compared(task: str, ours: Mapping[str, Any], output: Path) -> Compared:
    """Compare our results with what lmms-eval has written. Its exit code is 0 whatever happens, so both files must be there."""
    results = [*output.rglob("*_results.json")]
    samples = [*output.rglob(f"*_samples_{task}.jsonl")]
    if not results or not samples:
        sys.exit(f"{task}: lmms-eval wrote no results to {output}: {[str(p) for p in output.rglob('*')]}")
    scores = json.loads(results[0].read_text())["results"][task]
    lines = [json.loads(line) for line in samples[0].read_text().splitlines()]
    theirs = {
        name.removesuffix(",none"): value
        for name, value in scores.items()
        if name.endswith(",none") and "stderr" not in name and isinstance(value, float)
    }
    answers = {str(item["id"]): _answer(item) for item in ours["items"]}
    equal = 0
    for line in lines:
        logged = line[next(iter(theirs))]
        id = logged["id"] if isinstance(logged, dict) else str(line["doc_id"])  # of our tasks; of the other, by number
        equal += answers[id] == line["filtered_resps"]
    if len(lines) != len(answers):
        sys.exit(f"{task}: {len(lines)} answers of lmms-eval, and {len(answers)} of ours")
    return Compared(task, len(lines), equal, {k: v["value"] for k, v in ours["scores"].items()}, theirs)


def _answer(item: Mapping[str, Any]) -> str:
    """Return our answer, of options the letter, which lmms-eval's tasks expect."""
    if "log_likelihoods" in item:
        return "ABCDEF"[item["options"].index(item["answer"])]
    return str(item.get("answer", ""))


if __name__ == "__main__":
    sys.exit(main())
