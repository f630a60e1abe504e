"""Settings of the benchmarks. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

from video_llama.config.fields import ExistingPath


@dataclass(frozen=True, kw_only=True)
class ExactMatchConfig:
    """Questions on clips whose answer must be given word for word."""

    questions: Annotated[str, ExistingPath(kind="file")]
    """JSON list of objects with id, video, kind, question and answer."""

    videos_dir: Annotated[str, ExistingPath(kind="dir")]
    """Folder of the clips."""


@dataclass(frozen=True, kw_only=True)
class PublishedConfig:
    """A published benchmark: its files, and how its questions are put."""

    annotations: Annotated[str, ExistingPath()]
    """Annotation file, or a folder with the files under their published names."""

    media_dir: Annotated[str, ExistingPath(kind="dir")]
    """Folder of the clips. What is not there is counted and left out of the scores."""

    prompt: str | None = None
    """The question put to the model, with <question>, and <options> for multiple choice. null: the benchmark's own."""

    limit: Annotated[int, Ge(1)] | None = None
    """Ask only the first questions whose clips are there. null: all."""

    use_audio: bool | None = None
    """Sound of clips: true requires it, false ignores it, null uses it if the model and the clip have it."""


@dataclass(frozen=True, kw_only=True)
class ChoiceConfig(PublishedConfig):
    """A published benchmark with options to choose from."""

    choose: Literal["letter", "likelihood", "likelihood_per_token"] = "letter"
    """What counts as the model's choice: the letter in its answer, the option that it most likely gives as its answer, or the one
    with the highest mean log-likelihood of a token. By likelihood, the prompt is the question alone, unless set."""


@dataclass(frozen=True, kw_only=True)
class VideoMMEConfig(ChoiceConfig):
    """Video-MME."""

    subtitles_dir: Annotated[str, ExistingPath(kind="dir")] | None = None
    """Folder of its subtitles, which precede the question. null: without subtitles."""


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Questions on toy clips, which are written when they are first needed."""

    media_dir: str | None = None
    """Folder that gets the clips. null: one in the cache."""

    clips: Annotated[int, Ge(1)] = 36
    """Clips of each tier, and as many of the first with the sound of another shape."""

    prompt: str = "<question>"
    """The question put to the model, with <question>."""

    limit: Annotated[int, Ge(1)] | None = None
    """Ask only the first questions. null: all."""

    use_audio: bool | None = None
    """Sound of clips: true requires it, false ignores it, null uses it if the model takes sound."""

    @property
    def choose(self) -> Literal["letter"]:
        """As of other questions; these have no options."""
        return "letter"

    @property
    def annotations(self) -> str:
        """The file of questions."""
        return str(Path(self.media_dir or "") / "test.jsonl")
