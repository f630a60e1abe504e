"""Errors a user can cause. Each message says what was wrong, where, and what to do."""

from __future__ import annotations

from typing import Any


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class VideoLlamaError(Exception):
    """Base of every error that a user can cause; the command line prints its message without a traceback."""

    exit_code = 1
    """Exit code of a command that ends with this error."""


class UnknownName(VideoLlamaError):
    """A name that no registry entry has."""


class DuplicateName(VideoLlamaError):
    """A name that is registered twice."""


class ConfigError(VideoLlamaError):
    """All problems found in one configuration, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class DecodeError(VideoLlamaError):
    """A media file that cannot be read. Carries the path and the reason."""

    entry: Any = None
    """How a ``Quarantine`` knows it."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = str(path), reason
        super().__init__(f"{path}: {reason}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.reason)


class SoundDecodeError(DecodeError):
    """A media file whose sound cannot be read."""


class NoSoundTrack(VideoLlamaError):
    """A media file without sound: nothing is wrong with it."""

    def __init__(self, path: str) -> None:
        self.path = str(path)
        super().__init__(f"{path}: no sound track")

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.path,)


class DataError(VideoLlamaError):
    """An annotation file or a folder that cannot be used as a whole."""


class BadRecord(VideoLlamaError):
    """One record of a data set that cannot become a sample. Counted, logged and replaced in training."""

    entry: Any = None
    """How a ``Quarantine`` knows it; None: no file is at fault."""


class WeightsError(VideoLlamaError):
    """Weights that do not fit the model, or a file that is not a weights file."""


class DownloadError(VideoLlamaError):
    """A file that could not be downloaded."""


class TooManyFrames(VideoLlamaError):
    """A clip with more frames than the branch has frame positions."""


class TooManySegments(VideoLlamaError):
    """A sound of more segments than the branch has segment positions."""


class PromptTooLong(VideoLlamaError):
    """A prompt that does not fit the decoder's context."""


class OutOfMemory(VideoLlamaError):
    """More memory was needed than there is."""


class QueueFull(VideoLlamaError):
    """Too many wait for the model already."""

    def __init__(self, n_waiting: int, retry_after_s: float) -> None:
        self.n_waiting, self.retry_after_s = n_waiting, retry_after_s
        super().__init__(f"{n_waiting} questions are waiting already: try again in {max(1, round(retry_after_s))} s")

    def __reduce__(self) -> tuple[type, tuple[int, float]]:
        return type(self), (self.n_waiting, self.retry_after_s)


class Draining(VideoLlamaError):
    """The model is about to stop, and accepts no more questions."""


class DeadlineExceeded(VideoLlamaError):
    """An answer took longer than its client allows."""


class DecoderUnavailable(VideoLlamaError):
    """The server with the decoder cannot be reached, does not fit the model, or failed."""


class InternalFault(VideoLlamaError):
    """A fault of the program, which no change of the request avoids."""


class OutputError(VideoLlamaError):
    """An output file that cannot be written, or that belongs to something else."""


class TrainingError(VideoLlamaError):
    """A run that must stop: a non-finite loss, too many bad samples, nothing to train."""


class LostProcess(TrainingError):
    """Another process of the run died, or kept this one waiting too long."""


class Preempted(VideoLlamaError):
    """A run that was asked to stop, has saved what it could, and is to be continued."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: try again later."""
