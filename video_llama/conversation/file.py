"""A file to ask about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from video_llama.common.errors import VideoLlamaError
from video_llama.common.modalities import FileKind
from video_llama.conversation.feature_cache import EncodedFile
from video_llama.processors.media import FileMedia, MediaReader


@dataclass(frozen=True)
class File:
    """A file to ask about. A subclass may change what the model gets of it; all of its fields identify an answer."""

    kind: FileKind
    path: str | Path
    use_audio: bool | None = None
    """For clips, see ``MediaReader.read``."""

    def read(self, reader: MediaReader) -> FileMedia:
        """Read the file. See ``MediaReader.read``."""
        return reader.read(self.kind, self.path, self.use_audio)

    @property
    def sources(self) -> tuple[File, ...]:
        """The files that are read and encoded for it. Files that share one share its features."""
        return (self,)

    def assembled(self, sources: Sequence[EncodedFile | VideoLlamaError]) -> EncodedFile:
        """Return what the model gets of the file.

        Args:
            sources: each of ``sources``, encoded, or why it is not.
        Raises:
            VideoLlamaError: a source that is needed is not encoded.
        """
        (source,) = sources
        return found(source)


def found(file: EncodedFile | VideoLlamaError) -> EncodedFile:
    """Return a file, or raise its error."""
    if isinstance(file, VideoLlamaError):
        raise file
    return file
