"""A file to ask about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from video_llama.common.modalities import FileKind
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
