"""Benchmarks whose answers are sentences: AVSD, NExT-QA's open questions, Video-ChatGPT's three.

Published scores of AVSD's and Video-ChatGPT's come from judges, those of NExT-QA from WUPS, which needs WordNet. Scored here are
the metrics of the COCO caption tools, and exact match, which are comparable between runs of this package alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from video_llama.common.errors import DataError
from video_llama.common.registry import BENCHMARKS
from video_llama.evaluation.annotation_files import Row, json_rows, read_json, table_rows, text
from video_llama.evaluation.answer_matching import equal, equal_normalized
from video_llama.evaluation.multiple_choice import next_qa_names, next_qa_types
from video_llama.evaluation.published_benchmark import QUESTION, PublishedBenchmark, in_folders
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.scorers import CaptionScorer, MatchScorer, Scorer
from video_llama.evaluation.short_answers import conversations

UNDISCLOSED = "__UNDISCLOSED__"
"""What stands in AVSD's files for an answer that is kept back."""


@BENCHMARKS.register("avsd")
class AVSD(PublishedBenchmark):
    """Audio-visual dialogs on Charades (Alamri et al., 2019): the last question of each, after the turns before it."""

    prompt = "<question>\nAnswer in one sentence."
    counts_published: ClassVar = {1_710: "test", 1_787: "val", 7_659: "train"}

    @property
    def scorer(self) -> Scorer:
        """The metrics of the COCO caption tools."""
        return CaptionScorer()

    def read(self) -> list[QuestionRecord]:
        """Read the files of DSTC7 or DSTC10, or VideoLLaMA 2's ``instruction_val.json``."""
        path = self.files.get(
            *(f"{split}_set4DSTC{year}-AVSD.json" for split in ("test", "valid") for year in (10, 7)),
            "instruction_val.json",
        )
        content = read_json(path)
        if isinstance(content, list):
            return [
                self._record(str(number), Path(video).stem, question, answer, (video,))
                for number, (video, question, answer) in enumerate(conversations(path, content))
            ]
        if not isinstance(content, dict) or "dialogs" not in content:
            raise DataError(f"{path}: expected an object with 'dialogs'")
        return [self._last_turn(path, row) for row in json_rows(path, ("image_id", "dialog"), content["dialogs"])]

    def _last_turn(self, path: Path, row: Row) -> QuestionRecord:
        turns = json_rows(path, ("question", "answer"), row["dialog"])
        *before, last = [(text(path, turn, "question"), text(path, turn, "answer")) for turn in turns]
        said = [f"Question: {question}\nAnswer: {answer}" for question, answer in before]
        asked = "\n".join([*said, f"Question: {last[0]}"]) if before else last[0]
        clip = text(path, row, "image_id")
        return self._record(clip, clip, asked, last[1])

    def _record(self, id: str, clip: str, question: str, answer: str, names: tuple[str, ...] = ()) -> QuestionRecord:
        return QuestionRecord(
            id=id,
            clip=clip,
            names=(*names, *in_folders(clip, "Charades_v1_480", "videos")),
            prompt=self.ask(question),
            references=() if answer == UNDISCLOSED else (answer,),
        )


@BENCHMARKS.register("nextqa_oe")
class NextQAOpen(PublishedBenchmark):
    """NExT-QA, open questions (Xiao et al., 2021), with the second answers of ``add_reference_answer_test.json``."""

    prompt = "<question>\nAnswer the question using a short phrase or sentence."

    @property
    def scorer(self) -> Scorer:
        """Exact match with any of the references."""
        return MatchScorer({"accuracy": equal_normalized, "exact_match": equal})

    def read(self) -> list[QuestionRecord]:
        """Read ``test.csv``."""
        path = self.files.get("test.csv", "val.csv")
        names = next_qa_names(self.files.beside("map_vid_vidorID.json"))
        file = self.files.beside("add_reference_answer_test.json")
        more = {} if file is None else read_json(file)
        records = []
        for row in table_rows(path, ("video", "question", "answer", "qid", "type")):
            if "a0" in row:
                raise DataError(f"{path}: has the column a0, as the files for multiple choice: use nextqa_mc")
            clip, second = text(path, row, "video"), more.get(row["video"], {}).get(row["qid"])
            records.append(
                QuestionRecord(
                    id=f"{clip}_{row['qid']}",
                    clip=clip,
                    names=(*in_folders(clip, "videos"), *in_folders(names.get(clip, clip), "videos")),
                    prompt=self.ask(f"{text(path, row, 'question').rstrip('?')}?"),
                    references=(text(path, row, "answer"), *([second] if second else [])),
                    types=next_qa_types(path, row),
                )
            )
        return records


class _VideoChatGPT(PublishedBenchmark):
    """Video-ChatGPT's benchmark (Maaz et al., 2024) on 500 clips of ActivityNet."""

    prompt = QUESTION
    file: ClassVar[str]
    questions: ClassVar[tuple[str, ...]] = ("Q",)

    @property
    def scorer(self) -> Scorer:
        """The metrics of the COCO caption tools."""
        return CaptionScorer()

    def read(self) -> list[QuestionRecord]:
        """Read the file of questions."""
        path = self.files.get(self.file)
        return [
            QuestionRecord(
                id=f"{number}_{key}" if len(self.questions) > 1 else str(number),
                clip=text(path, row, "video_name"),
                names=in_folders(str(row["video_name"]), "Test_Videos", "videos"),
                prompt=self.ask(text(path, row, key)),
                references=(text(path, row, "A"),),
            )
            for number, row in enumerate(json_rows(path, ("A", "video_name", *self.questions)))
            for key in self.questions
        ]


@BENCHMARKS.register("vcgbench_generic")
class VideoChatGPTGeneric(_VideoChatGPT):
    """General questions, which judges score for correctness, detail and context."""

    file = "generic_qa.json"
    counts_published: ClassVar = {1_996: "all"}


@BENCHMARKS.register("vcgbench_temporal")
class VideoChatGPTTemporal(_VideoChatGPT):
    """Questions about what happens when."""

    file = "temporal_qa.json"
    counts_published: ClassVar = {499: "all"}


@BENCHMARKS.register("vcgbench_consistency")
class VideoChatGPTConsistency(_VideoChatGPT):
    """Pairs of questions with one answer."""

    file = "consistency_qa.json"
    questions = ("Q1", "Q2")
    counts_published: ClassVar = {998: "all, two questions each"}
