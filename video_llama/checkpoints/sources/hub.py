"""Weights on the Hugging Face hub: references to them, and their download into the hub's own cache. Imports no torch."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from video_llama.common.errors import DownloadError, first_line
from video_llama.common.files import read_blocks, wait_for_lock

log = logging.getLogger(__name__)

_NAME = r"[A-Za-z0-9][\w.-]*"
_REVISION = r"refs/[^/@]+/[^/@]+|[^/@]+"
_FOLDER = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(@(?P<revision>{_REVISION}))?")
_HUB = re.compile(rf"hf://{_FOLDER.pattern}(/(?P<file>[^@]+?))?(@(?P<after>{_REVISION}))?")
BESIDE_WEIGHTS = (".json", ".jinja", ".model", ".tiktoken", ".txt")
"""Suffixes of the other files of a model: its config and its tokenizer."""
_WEIGHTS = (r"model(-\d+-of-\d+)?\.safetensors", r"pytorch_model(-\d+-of-\d+)?\.bin")
"""File names of weights; the first that a repository has are taken."""
_COMPLETE = "end"
"""Last line of a journal."""


@dataclass(frozen=True)
class HubReference:
    """A model on the hub, or one file of its repository."""

    repo: str
    """``org/name``."""
    file: str | None = None
    """Path in the repository; None: the model, a folder."""
    revision: str | None = None
    """Branch, tag or commit; None: the newest."""

    @classmethod
    def parse(cls, text: str) -> HubReference | None:
        """Read ``org/name``, ``org/name@revision``, or, with a file, ``hf://org/name@revision/file``; None for other texts.

        ``hf://`` may also precede a model, and the revision may follow the file. A text such as ``ckpt/llama`` is a path
        if there is a folder ``ckpt``.
        """
        if (found := _HUB.fullmatch(text)) and not (found["revision"] and found["after"]):
            return cls(found["repo"], found["file"], found["revision"] or found["after"])
        found = _FOLDER.fullmatch(text)
        if not found or (found["revision"] is None and os.path.isdir(text.partition("/")[0])):
            return None
        return cls(found["repo"], None, found["revision"])

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{at}" if self.file is None else f"hf://{self.repo}{at}/{self.file}"


def log_no_requests() -> None:
    """Keep each HTTP request out of the log of a command."""
    for library in ("httpx", "httpx2"):  # whichever huggingface_hub uses
        logging.getLogger(library).setLevel(logging.WARNING)


def is_offline() -> bool:
    """Return whether ``HF_HUB_OFFLINE`` forbids downloads."""
    from huggingface_hub import constants  # slow to import, as all of it

    return bool(constants.HF_HUB_OFFLINE)


def find(reference: HubReference) -> Path | None:
    """Return the folder or file of a reference in the hub's cache; None if it is not there. Nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(reference.repo, reference.file or "config.json", revision=reference.revision)
    if not isinstance(found, str):
        return None
    return Path(found) if reference.file else Path(found).parent


def commit_of(path: Path, file: str) -> str:
    """Return the commit that a file of the cache belongs to.

    Args:
        path: where it is.
        file: its path in the repository.
    """
    return path.parents[file.count("/")].name


def offline_problem(reference: HubReference) -> str:
    """Return what to tell a user who needs a reference that is not in the cache, while offline."""
    from huggingface_hub import constants

    return (
        f"{reference} is not in the hub's cache, {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set. Run this once without "
        "HF_HUB_OFFLINE, or give the path of a copy on this machine."
    )


def fetch(
    reference: HubReference, journals: Path, choose: Callable[[Iterable[str]], list[str]] | None = None
) -> HubReference:
    """Download what a reference names, unless it is in the hub's cache; return the reference with its commit.

    One process of the machine downloads from a repository at a time; the others wait. Downloaded files are compared with the
    digests that the hub declares. If the hub cannot be reached, or ``HF_HUB_OFFLINE`` is set, what is cached is used.

    Args:
        reference: a model or a file.
        journals: folder for locks, and for lists of files whose digests are not yet checked.
        choose: of the files of a repository, returns those to download; None: ``model_files``.
    Raises:
        DownloadError: it is neither on the hub nor in its cache, or the download failed.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    log_no_requests()
    if is_offline() and find(reference) is None:
        raise DownloadError(offline_problem(reference))
    try:
        with _checked(reference, journals):
            wanted = reference.file or "config.json"
            first = Path(hf_hub_download(reference.repo, wanted, revision=reference.revision))
            pinned = replace(reference, revision=commit_of(first, wanted))
            if reference.file is None and not is_offline():
                _fetch_model(pinned, choose or model_files)
    except (HTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise DownloadError(f"{reference}: {_reason(reference, error)}") from error
    return pinned


def _fetch_model(pinned: HubReference, choose: Callable[[Iterable[str]], list[str]]) -> None:
    """Download the files of a model that are not in the cache."""
    from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        listed = HfApi().model_info(pinned.repo, revision=pinned.revision, files_metadata=True).siblings or []
    except HTTPError as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise
        log.warning("the hub cannot be reached; %s is used as cached", pinned)
        return
    sizes = {file.rfilename: file.size or 0 for file in listed}
    names = choose(sizes)
    cached = {name: try_to_load_from_cache(pinned.repo, name, revision=pinned.revision) for name in names}
    missing = [name for name, path in cached.items() if not isinstance(path, str)]
    if not missing:
        return
    needed, free = sum(sizes[name] for name in missing), shutil.disk_usage(constants.HF_HUB_CACHE).free
    if needed > free:
        raise OSError(
            f"{needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free on the disk of {constants.HF_HUB_CACHE}"
        )
    snapshot_download(pinned.repo, revision=pinned.revision, allow_patterns=names)


def model_files(names: Iterable[str]) -> list[str]:
    """Return the files of a repository that make its model: config, tokenizer and one set of weights; no code."""
    top = [name for name in names if "/" not in name]
    sets = ([name for name in top if re.fullmatch(pattern, name)] for pattern in _WEIGHTS)
    weights = next((found for found in sets if found), [])
    return weights + [name for name in top if name.endswith(BESIDE_WEIGHTS)]


@contextmanager
def _checked(reference: HubReference, journals: Path) -> Iterator[None]:
    """Hold the lock of a repository, and check the digests of the files that come into its cache meanwhile.

    The lock's file lists what the cache held before, until all is checked: after a killed process, the next one checks what
    that one left.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=reference.repo, repo_type="model")
    blobs = Path(constants.HF_HUB_CACHE) / folder / "blobs"
    journal = journals / f"{folder}.journal"
    if is_offline() and not journal.exists():
        yield
        return
    journals.mkdir(parents=True, exist_ok=True)
    with open(journal, "a+", encoding="utf-8") as file:
        wait_for_lock(file.fileno(), f"waiting for another process that downloads from {reference.repo}")
        file.seek(0)
        *checked, end = file.read().split("\n")
        if end != _COMPLETE:  # empty, or its process was killed before it downloaded anything
            checked = _names(blobs)
            file.truncate(0)
            file.write("\n".join([*checked, _COMPLETE]))
            file.flush()
        yield
        for name in sorted(set(_names(blobs)).difference(checked)):
            _check_digest(blobs / name)
        file.truncate(0)


def _names(blobs: Path) -> list[str]:
    return [path.name for path in blobs.iterdir()] if blobs.is_dir() else []


def _check_digest(blob: Path) -> None:
    """Compare a file of the cache with its name: its SHA-256, or its SHA-1 as git computes it. Remove one that differs.

    Raises:
        OSError: it differs.
    """
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return  # an unfinished download, or a server that has other names
    size = blob.stat().st_size
    digest: Any = hashlib.sha256() if len(blob.name) == 64 else hashlib.sha1(b"blob %d\0" % size)
    for block in read_blocks(blob):
        digest.update(block)
    if digest.hexdigest() != blob.name:
        blob.unlink()
        raise OSError(
            f"a downloaded file of {size:,} bytes has the digest {digest.hexdigest()}; the hub declares {blob.name}. It is "
            "removed; try again"
        )


def _reason(reference: HubReference, error: Exception) -> str:
    """Return why a download failed, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = constants.ENDPOINT
    if isinstance(error, GatedRepoError):
        return f"accept its terms on {hub}/{reference.repo}, then log in: hf auth login, or HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return f"neither a path here nor a repository of {hub}. If it is private, log in: hf auth login, or HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"the repository has no revision {reference.revision}"
    if isinstance(error, LocalEntryNotFoundError):
        return f"not in the hub's cache, and {hub} cannot be reached ({first_line(error.__cause__ or error)})"
    if isinstance(error, EntryNotFoundError):
        return f"the repository has no file {reference.file}" if reference.file else "the repository has no config.json"
    return first_line(error)
