"""Multiple-choice benchmarks: NExT-QA, MVBench, Video-MME, EgoSchema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from video_llama.common.errors import DataError
from video_llama.common.registry import BENCHMARKS
from video_llama.evaluation.annotation_files import (
    Row,
    json_rows,
    parquet_rows,
    read_json,
    table_rows,
    text,
    whole_number,
)
from video_llama.evaluation.choice_benchmark import ChoiceBenchmark
from video_llama.evaluation.config import VideoMMEConfig
from video_llama.evaluation.option_letters import letters_of, listed, mvbench_letter, video_mme_letter
from video_llama.evaluation.published_benchmark import LETTER, in_folders
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.scorers import Answers, Metric, Scorer

NEXT_QA_GROUPS = {"C": "causal", "T": "temporal", "D": "descriptive"}


@BENCHMARKS.register("nextqa_mc")
class NextQAChoice(ChoiceBenchmark):
    """NExT-QA, multiple choice (Xiao et al., 2021). Type TP is counted as TN, as in its report."""

    prompt = LETTER
    counts_published: ClassVar = {8_564: "test", 4_996: "val", 34_132: "train"}

    def read(self) -> list[QuestionRecord]:
        """Read ``test.csv``."""
        path = self.files.get("test.csv", "val.csv")
        columns = ("video", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4")
        names = next_qa_names(self.files.beside("map_vid_vidorID.json"))
        records = []
        for row in table_rows(path, columns):
            options = tuple(text(path, row, f"a{k}") for k in range(5))
            records.append(
                QuestionRecord(
                    id=f"{row['video']}_{row['qid']}",
                    clip=text(path, row, "video"),
                    names=(
                        *in_folders(row["video"], "videos"),
                        *in_folders(names.get(row["video"], row["video"]), "videos"),
                    ),
                    prompt=self.ask(f"{text(path, row, 'question').rstrip('?')}?", listed(options)),
                    references=(letters_of(options)[whole_number(path, row, "answer", 5)],),
                    options=options,
                    types=next_qa_types(path, row),
                )
            )
        return records


def next_qa_types(path: Path, row: Row) -> dict[str, str]:
    """Return type and group of a question of NExT-QA."""
    kind = text(path, row, "type")
    if kind[:1] not in NEXT_QA_GROUPS:
        raise DataError(f"{path}: 'type' is {kind!r}; expected one that starts with {', '.join(NEXT_QA_GROUPS)}")
    return {"group": NEXT_QA_GROUPS[kind[0]], "type": "TN" if kind == "TP" else kind}


def next_qa_names(mapping: Path | None) -> Mapping[str, str]:
    """Return the paths of NExT-QA's clips in VidOR, by the names in its annotations."""
    names = {} if mapping is None else read_json(mapping)
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{mapping}: expected an object with the path of each video")
    return names


_MVBENCH_FOLDERS = {
    "star/Charades_v1_480": "action_sequence action_prediction object_interaction",
    "sta/sta_video": "action_localization",
    "tvqa/frames_fps3_hq": "episodic_reasoning",
    "ssv2_video": "action_antonym",
    "Moments_in_Time_Raw/videos": "fine_grained_action",
    "FunQA_test/test": "unexpected_action",
    "clevrer/video_validation": "object_existence moving_direction moving_count moving_attribute counterfactual_inference",
    "perception/videos": "object_shuffle action_count state_change character_order",
    "scene_qa/video": "scene_transition",
    "nturgbd": "fine_grained_pose",
    "vlnqa": "egocentric_navigation",
}
MVBENCH_TASKS = {task: folder for folder, tasks in _MVBENCH_FOLDERS.items() for task in tasks.split()}
_BOUNDED = ("action_sequence", "action_prediction", "object_interaction", "action_localization", "episodic_reasoning")
"""Tasks about a part of each clip."""
_FRAMES_PER_SECOND = {"episodic_reasoning": 3.0}
"""Of the tasks whose clips are folders of frames."""


@BENCHMARKS.register("mvbench")
class MVBench(ChoiceBenchmark):
    """MVBench (Li et al., 2024): twenty tasks; the score is the mean of their accuracies.

    The authors put the first sentence into the system message, and begin the answer with ``Best option:(``.
    """

    prompt = (
        "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of objects, "
        "and the action and pose of persons. Based on your observations, select the best option that accurately addresses the "
        "question.\nQuestion: <question>\nOptions:\n<options>\nOnly give the best option."
    )
    counts_published: ClassVar = {4_000: "all tasks"}

    def letter(self, answer: str, options: Sequence[str]) -> str:
        """Return the letter by MVBench's rule."""
        return mvbench_letter(answer, options)

    @property
    def scorer(self) -> Scorer:
        """Averaged over tasks."""
        return _MeanOverTasks(super().scorer)

    def read(self) -> list[QuestionRecord]:
        """Read the files ``<task>.json`` that are there."""
        if self.files.path.is_file():
            tasks = [self.files.path.stem]
        else:
            tasks = [task for task in MVBENCH_TASKS if (self.files.path / f"{task}.json").is_file()]
        if not tasks or (unknown := [task for task in tasks if task not in MVBENCH_TASKS]):
            found = f"{unknown[0]}.json is no task of MVBench" if tasks else "no file of a task here"
            raise DataError(
                f"{self.files.path}: {found}. Expected {', '.join(f'{task}.json' for task in MVBENCH_TASKS)}"
            )
        return [record for task in tasks for record in self._task(task)]

    def _task(self, task: str) -> list[QuestionRecord]:
        path = self.files.get(f"{task}.json")
        folder, records = MVBENCH_TASKS[task], []
        for number, row in enumerate(json_rows(path, ("video", "question", "candidates", "answer"))):
            options, answer = tuple(map(str, row["candidates"])), str(row["answer"])
            if options.count(answer) != 1:
                raise DataError(
                    f"{path}: question {number + 1}: the answer {answer!r} is not one of {', '.join(options)}"
                )
            name = text(path, row, "video")
            records.append(
                QuestionRecord(
                    id=f"{task}_{number}",
                    clip=f"{folder}/{name}",
                    names=(f"{folder}/{name}", f"video/{folder}/{name}"),
                    prompt=self.ask(text(path, row, "question"), listed(options, "({letter}) {option}")),
                    references=(letters_of(options)[options.index(answer)],),
                    options=options,
                    types={"task": task},
                    span=_span(path, row) if task in _BOUNDED else None,
                    fps=_FRAMES_PER_SECOND.get(task),
                )
            )
        return records


def _span(path: Path, row: Row) -> tuple[float, float]:
    start, end = row.get("start"), row.get("end")
    if not isinstance(start, int | float) or not isinstance(end, int | float) or not 0 <= start < end:
        raise DataError(f"{path}: start {start!r} and end {end!r}; expected seconds, in {dict(row)!r:.160}")
    return float(start), float(end)


class _MeanOverTasks:
    """The mean of the scores of tasks, whatever their numbers of questions."""

    def __init__(self, scorer: Scorer) -> None:
        self.inner = scorer

    def __call__(self, questions: Sequence[QuestionRecord], answers: Answers) -> dict[str, Metric]:
        metrics = self.inner(questions, answers)
        tasks: dict[str, list[float]] = {}
        for question in questions:
            tasks.setdefault(question.types["task"], []).append(metrics["accuracy"].each[question.id])
        mean = sum(sum(values) / len(values) for values in tasks.values()) / len(tasks)
        return {**metrics, "mean_over_tasks": Metric(mean, is_mean=False)}


@BENCHMARKS.register("videomme")
class VideoMME(ChoiceBenchmark):
    """Video-MME (Fu et al., 2024), with or without subtitles."""

    Config = VideoMMEConfig
    config: VideoMMEConfig
    prompt = (
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter (A, B, "
        "C, or D) of the correct option.\n<question>\n<options>\nThe best answer is:"
    )
    counts_published: ClassVar = {2_700: "test"}

    def letter(self, answer: str, options: Sequence[str]) -> str:
        """Return the letter by Video-MME's rule."""
        return video_mme_letter(answer, options)

    def read(self) -> list[QuestionRecord]:
        """Read ``test-00000-of-00001.parquet``, or its rows as JSON."""
        path = self.files.get("test-00000-of-00001.parquet", "videomme/test-00000-of-00001.parquet", "videomme.json")
        keys = (
            "videoID",
            "question_id",
            "duration",
            "domain",
            "sub_category",
            "task_type",
            "question",
            "options",
            "answer",
        )
        rows = parquet_rows(path, keys) if path.suffix == ".parquet" else json_rows(path, keys)
        return [self._record(path, row) for row in rows]

    def _record(self, path: Path, row: Row) -> QuestionRecord:
        options = _without_letters(path, row, row["options"])
        clip, answer = text(path, row, "videoID"), text(path, row, "answer")
        if answer not in letters_of(options):
            raise DataError(
                f"{path}: the answer to {row['question_id']} is {answer!r}; expected a letter of {len(options)}"
            )
        return QuestionRecord(
            id=str(row["question_id"]),
            clip=clip,
            names=in_folders(clip, "data", "videos"),
            prompt=self._subtitles(clip) + self.ask(text(path, row, "question"), listed(options)),
            references=(answer,),
            options=options,
            types={kind: str(row[kind]) for kind in ("duration", "domain", "sub_category", "task_type")},
        )

    def _subtitles(self, clip: str) -> str:
        if self.config.subtitles_dir is None:
            return ""
        file = Path(self.config.subtitles_dir) / f"{clip}.srt"
        if not file.is_file():  # not every video has some
            return ""
        return f"This video's subtitles are listed below:\n{spoken(file.read_text(encoding='utf-8-sig'))}\n"


def spoken(subtitles: str) -> str:
    """Return the text of an ``.srt`` file, one cue a line, without numbers, times and tags."""
    lines = []
    for cue in re.split(r"\n\s*\n", subtitles.replace("\r\n", "\n").strip()):
        said = [line for line in cue.split("\n") if "-->" not in line and not line.strip().isdecimal()]
        lines.append(" ".join(re.sub(r"<[^>]*>", "", line).strip() for line in said))
    return "\n".join(line for line in lines if line)


def _without_letters(path: Path, row: Row, options: Any) -> tuple[str, ...]:
    """Return options such as ``A. One.`` without their letters."""
    if not isinstance(options, list) or not options or len(options) > 26:
        raise DataError(f"{path}: 'options' is {options!r:.80}; expected a list of texts")
    letters, found = letters_of(options), []
    for letter, option in zip(letters, options, strict=True):
        if not str(option).startswith(f"{letter}. "):
            raise DataError(f"{path}: option {option!r:.80} does not start with '{letter}. ', in {dict(row)!r:.160}")
        found.append(str(option)[3:])
    return tuple(found)


@BENCHMARKS.register("egoschema")
class EgoSchema(ChoiceBenchmark):
    """EgoSchema (Mangalam et al., 2023). Only the answers to 500 questions are published; scores stand on those."""

    prompt = (
        "Select the best answer to the following multiple-choice question based on the video.\n<question>\n<options>\n"
        "Answer with the option's letter from the given choices directly and only give the best option."
    )
    counts_published: ClassVar = {5_031: "all", 500: "subset"}

    def read(self) -> list[QuestionRecord]:
        """Read ``questions.json``, and ``subset_answers.json`` if it is there."""
        path, answers = self.files.get("questions.json"), self.files.beside("subset_answers.json")
        right = {} if answers is None else read_json(answers)
        if not isinstance(right, dict) or not all(value in range(5) for value in right.values()):
            raise DataError(
                f"{answers}: expected an object with the number, 0 to 4, of the right option of each question"
            )
        keys = ("q_uid", "question", *(f"option {k}" for k in range(5)))
        records = []
        for row in json_rows(path, keys):
            options, clip = tuple(text(path, row, f"option {k}") for k in range(5)), text(path, row, "q_uid")
            records.append(
                QuestionRecord(
                    id=clip,
                    clip=clip,
                    names=in_folders(clip, "videos", "good_clips_git"),
                    prompt=self.ask(text(path, row, "question"), listed(options, "({letter}) {option}")),
                    references=(letters_of(options)[right[clip]],) if clip in right else (),
                    options=options,
                )
            )
        if unknown := right.keys() - {record.id for record in records}:
            raise DataError(
                f"{answers}: answers to {len(unknown)} questions that {path.name} lacks, such as {min(unknown)}"
            )
        return records
