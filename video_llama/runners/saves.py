"""Checkpoints written in the background: a thread copies the state of a run to host memory, and writes the copy.

The run goes on meanwhile. It waits for the copy, not for the file, and only before it changes the state: a forward and a
backward pass lie in between.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from video_llama.checkpoints.io import write_checkpoint
from video_llama.checkpoints.shards_folder import write_shards
from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError, WeightsError

log = logging.getLogger(__name__)

PENDING, SAVED, FAILED = 0, 1, 2
"""Outcome of the oldest save that is not settled, as a number that all processes can sum."""


_GOES_ON = "The run goes on, and tries again at its next checkpoint."


class HostCopy:
    """Copies nested tables of tensors to host memory, into buffers that are allocated once: pinned for a GPU's tensors."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, ...], Tensor] = {}
        self._stream: torch.cuda.Stream | None = None

    def prepare(self) -> None:
        """Let ``of`` follow what the calling thread has queued on its GPU."""
        if torch.cuda.is_initialized():
            self._stream = self._stream or torch.cuda.Stream()
            self._stream.wait_stream(torch.cuda.current_stream())

    def of(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of a table. It is valid until the next call."""
        with torch.cuda.stream(self._stream):  # None: nothing changes
            copied: dict[str, Any] = self._copied(content, ())
        if self._stream is not None:
            self._stream.synchronize()
        return copied

    def _copied(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, Mapping):
            return {key: self._copied(inner, (*path, str(key))) for key, inner in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._copied(inner, (*path, str(i))) for i, inner in enumerate(value))
        if not isinstance(value, Tensor):
            return value
        buffer = self._buffers.get(path)
        if buffer is None or (buffer.shape, buffer.dtype) != (value.shape, value.dtype):
            buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
            self._buffers[path] = buffer
        if value.device.type != "cpu":
            return buffer.copy_(value.detach(), non_blocking=True)
        # by this thread alone: those that torch shares a copy with are busy with the step, and it would wait for each of them
        np.copyto(_as_bytes(buffer), _as_bytes(value))
        return buffer


def _as_bytes(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()


class Saves:
    """The checkpoints that a run is writing, oldest first.

    Every process calls ``start`` and ``settle`` for every save, in the same order. Only the first one writes, so it alone
    knows the ``outcome``, which the runner passes on to the others.

    Args:
        writes: whether this is the first process.
    """

    def __init__(self, writes: bool) -> None:
        self._writes = writes
        self._unsettled: deque[Path] = deque()
        self._errors: deque[Exception | None] = deque()
        self._thread: threading.Thread | None = None
        self._host_copy, self._copied = HostCopy(), threading.Event()
        self._copied.set()
        self.failed = False
        """Whether the last save that is settled failed."""

    def start(self, path: Path, content: Callable[[], Mapping[str, Any]]) -> None:
        """Start writing a checkpoint, once the one before is written.

        Args:
            path: the file.
            content: returns what is written. Its tensors must not change before ``wait_for_copy`` has returned.
        """
        self._unsettled.append(path)
        if self._writes:
            self._join()
            self._copied.clear()
            self._host_copy.prepare()
            # Not a daemon: a run that ends with an error still finishes the file.
            self._thread = threading.Thread(target=self._write, args=(path, content()), name="checkpoint")
            self._thread.start()

    def start_sharded(self, path: Path, content: Mapping[str, Any], world: World) -> None:
        """Write what is sharded, together with the other processes, and start writing the rest."""
        try:
            rest = write_shards(path, content, world)
        except WeightsError as error:  # in all processes alike
            self._unsettled.append(path)
            if self._writes:
                self._join()
                log.warning("%s. %s", error, _GOES_ON)
                self._errors.append(error)
        else:
            self.start(path, lambda: rest)

    def wait_for_copy(self) -> None:
        """Wait until the tensors of the checkpoint that was started last are copied, and may change."""
        self._copied.wait()

    def outcome(self, *, wait: bool = False) -> int:
        """Return whether the oldest save that is not settled is complete, failed, or pending; pending also without one."""
        if wait:
            self._join()
        if not self._errors:
            return PENDING
        return SAVED if self._errors[0] is None else FAILED

    def settle(self, outcome: int) -> Path | None:
        """Take note of the outcome of the oldest save; returns its path if it is complete."""
        if outcome == PENDING:
            return None
        path, self.failed = self._unsettled.popleft(), outcome == FAILED
        error = self._errors.popleft() if self._errors else None
        if error is not None and not isinstance(error, WeightsError):
            raise TrainingError(f"{path}: cannot be written: {type(error).__name__}: {error}") from error
        return None if self.failed else path

    @property
    def unsettled(self) -> int:
        """Saves whose outcome is not known to all processes."""
        return len(self._unsettled)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        try:
            try:
                copied = self._host_copy.of(content)
            finally:
                self._copied.set()
            write_checkpoint(path, copied)
        except WeightsError as error:  # the disk is full, or fails; later there may be room
            log.warning("%s. %s", error, _GOES_ON)
            self._errors.append(error)
        except Exception as error:  # raised in the main thread
            self._errors.append(error)
        else:
            self._errors.append(None)
