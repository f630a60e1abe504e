"""Ask the toy models every held-out question, and again with a sense taken away: what they know, and where from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from video_llama.conversation.chat import Chat
from video_llama.evaluation.questions import AS_IT_IS, InputAblation, Question, accuracy, answer_all, read_questions
from video_llama.toy.language import CHANCE, SOUND_CHANCE

EVAL_CONFIG = "toy"
VISION_ONLY = ("model.equip_audio_branch=false", "model.audio_encoder=null", "model.imagebind_ckpt_path=null")
"""Options that take the audio branch out of it."""

BATCH = 72
"""Questions asked at once."""

Figures = dict[str, Any]
"""Accuracies by what the model was given, with the chance of a guess and the number of questions."""


class Examiner:
    """The held-out questions of a world.

    Args:
        world: folder that ``write_world`` wrote.
    """

    def __init__(self, world: Path) -> None:
        self.folder = world / "heldout" / "videos"
        self.seen = read_questions(world / "heldout" / "questions.json")
        self.heard = read_questions(world / "heldout" / "sound_questions.json")

    def answers(self, chat: Chat, questions: Sequence[Question], given: InputAblation) -> dict[str, str]:
        """Return the answers by question id."""
        return answer_all(chat, questions, self.folder, batch_size=BATCH, ablation=given)

    def score(self, chat: Chat, questions: Sequence[Question], given: InputAblation) -> dict[str, float]:
        """Return the share of right answers by kind."""
        return accuracy(questions, self.answers(chat, questions, given))

    def vision(self, stage1: str, stage2: str, both: Mapping[str, float]) -> dict[str, Figures]:
        """Ask both stages of the video branch what is seen; returns figures by kind.

        Args:
            stage1, stage2: checkpoints.
            both: what ``both`` found of these kinds, to stand beside them.
        """
        chat = Chat.from_config(EVAL_CONFIG, [f"model.ckpt={stage2}", *VISION_ONLY])
        columns = {
            "full": self.score(chat, self.seen, AS_IT_IS),
            "blank_video": self.score(chat, self.seen, InputAblation(frames="black")),
        }
        chat = Chat.from_config(EVAL_CONFIG, [f"model.ckpt={stage1}", *VISION_ONLY])
        columns["after_stage1"] = self.score(chat, self.seen, AS_IT_IS)
        columns["with_sound"] = {q.kind: both[q.kind] for q in self.seen}
        return _by_kind(columns, self.seen)

    def sound(self, video_branch: str, on_sound: str, on_frames: str) -> dict[str, Figures]:
        """Ask audio branches what is heard, with nothing to see; returns figures by how the branch came to be."""
        clips = {q.video for q in self.seen}
        questions = [q for q in self.heard if q.kind == "sound" and q.video in clips]
        segments = "model.audio_segments=4"  # as many as the frames that it was given in training
        trained = {
            "on sound": [f"model.ckpt_2={on_sound}"],
            "on frames": [f"model.ckpt_2={on_frames}", segments],
            "on frames, audio_scale 1": [f"model.ckpt_2={on_frames}", segments, "model.audio_scale=1"],
        }
        figures: dict[str, Figures] = {}
        for name, branch in trained.items():
            options = [f"model.ckpt={video_branch}", *branch]
            chat = Chat.from_config(EVAL_CONFIG, options)
            columns = {
                column: self.score(chat, questions, given) for column, given in self._sounds(frames="none").items()
            }
            (figures[name],) = _by_kind(columns, questions).values()
        return figures

    def both(self, checkpoint: str) -> tuple[dict[str, Figures], dict[str, float], list[dict[str, Any]]]:
        """Ask both branches together what is seen and heard.

        Returns:
            Figures of the questions that need sound, by kind; the share of right answers to all others, by kind; and
            all that was said on a few clips.
        """
        chat = Chat.from_config(EVAL_CONFIG, [f"model.ckpt={checkpoint}"])
        questions, given = [*self.seen, *self.heard], self._sounds("own")
        answers = self.answers(chat, questions, given.pop("full"))
        given["blank_video"] = InputAblation(frames="black", sound="own")
        columns = {"full": accuracy(self.heard, answers)}
        columns |= {column: self.score(chat, self.heard, what) for column, what in given.items()}
        return _by_kind(columns, self.heard), accuracy(self.seen, answers), examples(questions, answers)

    def _sounds(self, frames: Any) -> dict[str, InputAblation]:
        """Return what is given in each column, for a model that hears."""
        return {
            "full": InputAblation(frames=frames, sound="own"),
            "silence": InputAblation(frames=frames, sound="silence"),
            "other_sound": InputAblation(frames=frames, sound="own", sound_from=other_sounds(self.heard)),
        }


def other_sounds(questions: Sequence[Question]) -> dict[str, str]:
    """Return, for each clip, another one that sounds otherwise."""
    heard = {q.video: q.answer for q in questions if q.kind == "sound"}
    clips = sorted(heard)
    others = {}
    for i, clip in enumerate(clips):
        rest = clips[i + 1 :] + clips[:i]
        others[clip] = next(other for other in rest if heard[other] != heard[clip])
    return others


def examples(questions: Sequence[Question], answers: Mapping[str, str], n_clips: int = 4) -> list[dict[str, Any]]:
    """Return all that was asked about a few clips."""
    clips = sorted({q.video for q in questions})
    shown = set(clips[:: max(1, len(clips) // n_clips)][:n_clips])
    return [
        {"video": q.video, "question": q.question, "answer": answers[q.id], "expected": q.answer}
        for q in questions
        if q.video in shown
    ]


def _by_kind(columns: Mapping[str, Mapping[str, float]], questions: Sequence[Question]) -> dict[str, Figures]:
    """Turn accuracies of each column by kind into a row of each kind."""
    kinds = dict.fromkeys(q.kind for q in questions)
    chance = CHANCE | SOUND_CHANCE
    return {
        kind: {name: column[kind] for name, column in columns.items()}
        | {"chance": chance[kind], "n": sum(q.kind == kind for q in questions)}
        for kind in kinds
    }
