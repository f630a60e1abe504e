"""Ask the toy models every held-out question, with all inputs and with some removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from video_llama.common.errors import DataError
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.ablation import FRAMES_ONLY, InputAblation
from video_llama.evaluation.exact_match import Question, accuracy, question_items, read_questions
from video_llama.inference.job import InferenceJob
from video_llama.inference.model import ConfiguredModel
from video_llama.toy.language import CHANCE, SOUND_CHANCE

EVAL_CONFIG = "toy"
VISION_ONLY = ("model.equip_audio_branch=false", "model.audio_encoder=null", "model.imagebind_ckpt_path=null")
"""Options that remove its audio branch."""

BATCH = 72
"""Questions per batch."""

Figures = dict[str, Any]
"""Accuracies by ablation, with the accuracy of guessing and the number of questions."""


class Examiner:
    """The held-out questions of a world.

    Args:
        world: folder that ``write_world`` wrote.
        answers_dir: folder that gets a JSONL file of answers for each model and ablation.
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

    def answers(
        self, name: str, model: ConfiguredModel, questions: Sequence[Question], ablation: InputAblation
    ) -> dict[str | int, str]:
        """Return the answers by question id.

        Args:
            name: of the file that gets them.
            model: is asked.
            questions: are asked.
            ablation: of their clips.
        Raises:
            DataError: a question has no answer.
        """
        outcomes = InferenceJob(
            items=question_items(questions, self.folder, ablation),
            output=self.answers_dir / f"{name}.jsonl",
            model=model,
            settings=GenerationSettings(max_new_tokens=24),
            batch_size=BATCH,
        ).run()
        if outcomes.errors:
            raise DataError(f"{len(outcomes.errors)} questions failed, the first: {outcomes.errors[0][1]}")
        return dict(outcomes.answers)

    def score(
        self,
        name: str,
        model: ConfiguredModel,
        questions: Sequence[Question],
        ablations: Mapping[str, InputAblation],
    ) -> dict[str, dict[str, float]]:
        """Return, for each ablation, the share of right answers by kind."""
        return {
            column: accuracy(questions, self.answers(f"{name}-{column}", model, questions, ablation))
            for column, ablation in ablations.items()
        }

    def vision(self, stage1: str, stage2: str, both: Mapping[str, float]) -> dict[str, Figures]:
        """Score both stages of the video branch on vision questions; return figures by kind.

        Args:
            stage1, stage2: checkpoints.
            both: accuracies of the model with both branches, for comparison.
        """
        questions = self.vision_questions
        columns = self.score(
            "stage2",
            self.model(f"model.ckpt={stage2}", *VISION_ONLY),
            questions,
            {"full": FRAMES_ONLY, "blank_video": InputAblation(frames="black")},
        )
        first = self.model(f"model.ckpt={stage1}", *VISION_ONLY)
        columns |= self.score("stage1", first, questions, {"after_stage1": FRAMES_ONLY})
        columns["with_sound"] = {q.kind: both[q.kind] for q in questions}
        return _by_kind(columns, questions)

    def sound(self, video_branch: str, on_sound: str, on_frames: str) -> dict[str, Figures]:
        """Score audio branches on sound alone; return figures by how the branch was trained."""
        clips = {q.video for q in self.vision_questions}
        questions = [q for q in self.sound_questions if q.kind == "sound" and q.video in clips]
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
            columns = self.score(file, model, questions, self._sounds(frames="none"))
            (figures[name],) = _by_kind(columns, questions).values()
        return figures

    def both(self, checkpoint: str) -> tuple[dict[str, Figures], dict[str, float], list[dict[str, Any]]]:
        """Score both branches together.

        Returns:
            Figures of the sound questions, by kind; the share of right answers to vision questions, by kind; and all
            questions and answers on a few clips.
        """
        model = self.model(f"model.ckpt={checkpoint}")
        questions, ablations = [*self.vision_questions, *self.sound_questions], self._sounds("own")
        answers = self.answers("both_branches-full", model, questions, ablations.pop("full"))
        ablations["blank_video"] = InputAblation(frames="black", sound="own")
        columns = {"full": accuracy(self.sound_questions, answers)}
        columns |= self.score("both_branches", model, self.sound_questions, ablations)
        return (
            _by_kind(columns, self.sound_questions),
            accuracy(self.vision_questions, answers),
            examples(questions, answers),
        )

    def _sounds(self, frames: Any) -> dict[str, InputAblation]:
        """Return the ablations of sound, by column."""
        others = other_sounds(self.sound_questions)
        return {
            "full": InputAblation(frames=frames, sound="own"),
            "silence": InputAblation(frames=frames, sound="silence"),
            "other_sound": InputAblation(frames=frames, sound="own", sound_from=others),
        }


def other_sounds(questions: Sequence[Question]) -> dict[str, str]:
    """Return, for each clip, another one with a different sound."""
    sounds = {q.video: q.answer for q in questions if q.kind == "sound"}
    clips = sorted(sounds)
    others = {}
    for i, clip in enumerate(clips):
        rest = clips[i + 1 :] + clips[:i]
        others[clip] = next(other for other in rest if sounds[other] != sounds[clip])
    return others


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
