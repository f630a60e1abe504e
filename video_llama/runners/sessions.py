"""How a run went: ``run.json`` in its output folder, with an entry for each process group that trained it.

Reading it imports no torch, so that lists of many runs are quick.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import video_llama
from video_llama.common.errors import Preempted, first_line
from video_llama.common.files import replacing
from video_llama.common.versions import versions_of

if TYPE_CHECKING:
    from video_llama.runners.runner_base import RunnerBase

log = logging.getLogger(__name__)

FILE = "run.json"
PACKAGES = ("torch", "transformers", "timm", "av")


class Session:
    """The entry of the process group that trains now; only the first process writes it.

    Args:
        folder: the output folder.
        about: what the entry says from the start.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self._before = read_sessions(folder)
        self.entry: dict[str, Any] = dict(about)
        self.write()

    def add(self, **facts: Any) -> None:
        """Add facts to the entry."""
        self.entry |= facts
        self.write()

    def write(self) -> None:
        """Write the file; without room for it the run goes on."""
        try:
            with replacing(self.folder / FILE) as temporary:
                content = json.dumps({"sessions": [*self._before, self.entry]}, indent=1, ensure_ascii=False)
                temporary.write_text(content + "\n", encoding="utf-8")
        except OSError as error:
            log.warning("%s: cannot be written (%s); the run goes on", self.folder / FILE, error.strerror)


@contextmanager
def recorded(folder: Path, **about: Any) -> Iterator[Session]:
    """Record that a run starts, and how it ends.

    Args:
        folder: the output folder.
        about: facts of these processes, such as their number.
    """
    session = Session(
        folder,
        {
            "state": "running",
            "started": _now(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            **about,
            "versions": {"video_llama": video_llama.__version__, **versions_of(PACKAGES)},
            "commits": commits(),
        },
    )
    try:
        yield session
    except BaseException as error:
        state = "preempted" if isinstance(error, Preempted) else "failed"
        session.add(state=state, ended=_now(), reason=first_line(error))
        raise
    session.add(state="done", ended=_now())


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a run, oldest first; none if it has no file or an unreadable one."""
    try:
        sessions = json.loads((folder / FILE).read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [entry for entry in sessions if isinstance(entry, dict)] if isinstance(sessions, list) else []


def commits() -> dict[str, str]:
    """Return the git commit of this package and of the working directory, by folder; + marks uncommitted changes."""
    found = {}
    for folder in (Path(video_llama.__file__).parent, Path.cwd()):
        root = _git(folder, "rev-parse", "--show-toplevel")
        commit = _git(folder, "rev-parse", "HEAD") if root else None
        if root and commit:
            changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
            found[root] = commit + ("+" if changed else "")
    return found


def _git(folder: Path, *words: str) -> str | None:
    """Return what git prints of a folder that it tracks; None: no git, or no such folder."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _now() -> str:
    return datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")


def facts(runner: RunnerBase) -> dict[str, Any]:
    """Return what ``run.json`` says of a run: where it starts and ends, its parameters, its data and its device."""
    import torch

    cuda = runner.world.device.type == "cuda"
    total = sum(p.numel() for p in runner.model.parameters())
    trained = sum(p.numel() for p in runner.trainables)
    best = runner.config.best
    return {
        "first_step": runner.state.step,
        "total_steps": runner.total_steps,
        "trained": trained,
        "frozen": total - trained,
        "data": runner.data,
        "device": torch.cuda.get_device_name(runner.world.device) if cuda else "cpu",
        **({} if best is None else {"best": {"metric": best.metric, "mode": best.mode}}),
    }
