"""What the page takes: files of known kinds up to a size, a length and a number of pixels; questions that are no books;
answers and searches that come to an end.

A file is measured before any of it is decoded, since a small one can claim any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.settings import GenerationSettings

if TYPE_CHECKING:
    from video_llama.conversation.files import FileKind


@dataclass(frozen=True)
class Limits:
    """What one visitor may send."""

    megabytes: int = 200
    """Largest file."""
    minutes: float = 10
    """Longest video or sound."""
    megapixels: float = 34
    """Largest frame or picture: 8K."""
    question_characters: int = 4000
    """Longest question."""
    beams: int = 10
    """Most beams."""
    new_tokens: int = 1000
    """Longest answer, in tokens."""

    def check_file(self, path: Path, kind: FileKind | None = None) -> FileKind:
        """Measure a file without decoding it, and return what it is to be taken as.

        Args:
            kind: what the visitor says; None: what it is. A video may be taken as its sound alone.
        Raises:
            DecodeError: it cannot be read, or is of no format that is taken.
            VideoLlamaError: it is beyond a limit, or of another kind.
        """
        from video_llama.processors.decode import probe  # slow to import

        if path.stat().st_size > self.megabytes * 1_000_000:
            raise VideoLlamaError(
                f"{path.name}: {path.stat().st_size / 1e6:.0f} MB; at most {self.megabytes} are taken"
            )
        probed = probe(path)
        if probed.width * probed.height > self.megapixels * 1_000_000:
            raise VideoLlamaError(
                f"{path.name}: {probed.width} x {probed.height} pixels; at most {self.megapixels:g} million are taken"
            )
        if probed.seconds > self.minutes * 60:
            raise VideoLlamaError(
                f"{path.name}: {probed.seconds / 60:.1f} minutes long; at most {self.minutes:g} are taken. Cut it first."
            )
        if kind not in (None, probed.kind) and (probed.kind, kind) != ("video", "audio"):
            raise VideoLlamaError(f"{path.name}: its kind is {probed.kind}, not {kind}")
        return kind or probed.kind

    def check_question(self, question: object) -> str:
        """Return the question.

        Raises:
            VideoLlamaError: it is empty, too long, or no text.
        """
        if not isinstance(question, str) or not question.strip():
            raise VideoLlamaError("The question is empty: type one first.")
        if len(question) > self.question_characters:
            raise VideoLlamaError(
                f"The question has {len(question)} characters; at most {self.question_characters} are taken."
            )
        return question

    def check_settings(self, beams: object, temperature: object, new_tokens: object) -> GenerationSettings:
        """Return the settings of an answer.

        Raises:
            VideoLlamaError: one is not a number in its range.
        """
        for value, most in ((beams, self.beams), (new_tokens, self.new_tokens)):
            if isinstance(value, int) and value > most:
                raise VideoLlamaError(f"At most {self.beams} beams and {self.new_tokens} new tokens are taken.")
        return GenerationSettings(num_beams=beams, temperature=temperature, max_new_tokens=new_tokens)  # type: ignore[arg-type]
