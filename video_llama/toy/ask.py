"""Ask the toy models every held-out question, with all inputs and under conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from video_llama.common.errors import DataError
from video_llama.conversation.file import File
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.conditions import FULL
from video_llama.evaluation.exact_match import Question, accuracy, question_items, read_questions
from video_llama.evaluation.partners import References, partners, under_conditions
from video_llama.inference.items import Item
from video_llama.inference.job import InferenceJob
from video_llama.inference.model import ConfiguredModel
from video_llama.toy.language import CHANCE, SOUND_CHANCE

EVAL_CONFIG = "toy"
VISION_ONLY = ("model.equip_audio_branch=false", "model.audio_encoder=null", "model.imagebind_ckpt_path=null")
"""Options that remove its audio branch."""

BATCH = 72
"""Questions per batch."""

COLUMNS = {FULL: "full", "silent": "silence", "other_sound": "other_sound", "black": "blank_video"}
"""The column of each condition."""

Answers = Mapping[str | int, str]
Figures = dict[str, Any]
"""Accuracies by column, with the accuracy of guessing and the number of questions."""


class Examiner:
    """The held-out questions of a world.

    Args:
        world: folder that ``write_world`` wrote.
        answers_dir: folder that gets a JSONL file of answers for each model.
        features: folder of the ``FeatureStore`` that all models share.
    """

    def __init__(self, world: Path, answers_dir: Path, features: Path) -> None:
        self.folder = world / "heldout" / "videos"
        self.answers_dir, self.features = answers_dir, features
        self.vision_questions = read_questions(world / "heldout" / "questions.json")
        self.sound_questions = read_questions(world / "heldout" / "sound_questions.json")

    def model(self, *options: str) -> ConfiguredModel:
        """Return the toy model with options."""
        return ConfiguredModel(EVAL_CONFIG, options, feature_store=self.features)

    def columns(
        self,
        name: str,
        model: ConfiguredModel,
        items: Sequence[Item],
        conditions: Sequence[str] = (),
        apart: Sequence[Item] = (),
    ) -> dict[str, Answers]:
        """Return the answers by question id, with all inputs and under conditions; by the name of their column.

        Args:
            name: of the file that gets them.
            model: is asked.
            items: the questions.
            conditions: under which they are asked too.
            apart: questions that are asked under none.
        Raises:
            DataError: a question has no answer.
        """
        outcomes = InferenceJob(
            items=[*apart, *under_conditions(items, conditions, self.other_sounds(items))],
            output=self.answers_dir / f"{name}.jsonl",
            model=model,
            settings=GenerationSettings(max_new_tokens=24),
            batch_size=BATCH,
        ).run()
        found = {FULL: outcomes, **outcomes.under}
        if errors := [error for one in found.values() for error in one.errors]:
            raise DataError(f"{len(errors)} questions failed, the first: {errors[0][1]}")
        return {COLUMNS[condition]: one.answers for condition, one in found.items()}

    def other_sounds(self, items: Sequence[Item]) -> dict[str | int, File | None]:
        """Return, for each question, a clip with another sound than its own, read in the same way."""
        files = {item.id: item.asked.file for item in items}
        return {id: replace(file, path=self._other_sound[str(file.path)]) for id, file in files.items()}

    @cached_property
    def _other_sound(self) -> dict[str, str]:
        """For each clip, one with another sound, by their paths."""
        asked_for = [q for q in self.sound_questions if q.kind == "sound"]
        right: References = {q.id: [q.answer] for q in asked_for}
        items = question_items(asked_for, self.folder)
        partner_of = partners(items, right)
        found = {str(item.asked.file.path): partner_of[item.id] for item in items}
        return {path: str(partner.path) for path, partner in found.items() if partner is not None}

    def vision(self, stage1: str, stage2: str, both: Mapping[str, float]) -> dict[str, Figures]:
        """Score both stages of the video branch on vision questions; return figures by kind.

        Args:
            stage1, stage2: checkpoints.
            both: accuracies of the model with both branches, for comparison.
        """
        questions = self.vision_questions
        items = question_items(questions, self.folder, use_audio=False)
        second, first = (self.model(f"model.ckpt={stage}", *VISION_ONLY) for stage in (stage2, stage1))
        answers = self.columns("stage2", second, items, ["black"])
        answers["after_stage1"] = self.columns("stage1", first, items)["full"]
        columns = {name: accuracy(questions, given) for name, given in answers.items()}
        columns["with_sound"] = {q.kind: both[q.kind] for q in questions}
        return _by_kind(columns, questions)

    def sound(self, video_branch: str, on_sound: str, on_frames: str) -> dict[str, Figures]:
        """Score audio branches on sound alone; return figures by how the branch was trained."""
        clips = {q.video for q in self.vision_questions}
        questions = [q for q in self.sound_questions if q.kind == "sound" and q.video in clips]
        items = question_items(questions, self.folder, kind="audio")
        segments = "model.audio_segments=4"  # as many as the frames it was trained on
        trained = {
            "on sound": [f"model.ckpt_2={on_sound}"],
            "on frames": [f"model.ckpt_2={on_frames}", segments],
            "on frames, audio_scale 1": [f"model.ckpt_2={on_frames}", segments, "model.audio_scale=1"],
        }
        figures: dict[str, Figures] = {}
        for name, branch in trained.items():
            model = self.model(f"model.ckpt={video_branch}", *branch)
            file = "audio_" + name.replace(", ", "_").replace(" ", "_")
            answers = self.columns(file, model, items, ["silent", "other_sound"])
            columns = {column: accuracy(questions, given) for column, given in answers.items()}
            (figures[name],) = _by_kind(columns, questions).values()
        return figures

    def both(self, checkpoint: str) -> tuple[dict[str, Figures], dict[str, float], list[dict[str, Any]]]:
        """Score both branches together.

        Returns:
            Figures of the sound questions, by kind; the share of right answers to vision questions, by kind; and all
            questions and answers on a few clips.
        """
        vision, sound = self.vision_questions, self.sound_questions
        answers = self.columns(
            "both_branches",
            self.model(f"model.ckpt={checkpoint}"),
            question_items(sound, self.folder, use_audio=True),
            ["silent", "other_sound", "black"],
            apart=question_items(vision, self.folder, use_audio=True),
        )
        columns = {column: accuracy(sound, given) for column, given in answers.items()}
        return (
            _by_kind(columns, sound),
            accuracy(vision, answers["full"]),
            examples([*vision, *sound], answers["full"]),
        )


def examples(questions: Sequence[Question], answers: Mapping[str | int, str], n_clips: int = 4) -> list[dict[str, Any]]:
    """Return all questions and answers on a few clips."""
    clips = sorted({q.video for q in questions})
    shown = set(clips[:: max(1, len(clips) // n_clips)][:n_clips])
    return [
        {"video": q.video, "question": q.question, "answer": answers[q.id], "expected": q.answer}
        for q in questions
        if q.video in shown
    ]


def _by_kind(columns: Mapping[str, Mapping[str, float]], questions: Sequence[Question]) -> dict[str, Figures]:
    """Turn accuracies of each column by kind into one row per kind."""
    kinds = dict.fromkeys(q.kind for q in questions)
    chance = CHANCE | SOUND_CHANCE
    return {
        kind: {name: column[kind] for name, column in columns.items()}
        | {"chance": chance[kind], "n": sum(q.kind == kind for q in questions)}
        for kind in kinds
    }
