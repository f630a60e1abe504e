"""Download one file over HTTP: resumed where it was cut, checked, and renamed to its name when it is whole."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2
from tqdm import tqdm

from video_llama import __version__
from video_llama.checkpoints.sources.hub import log_no_requests
from video_llama.checkpoints.sources.known import KnownWeights
from video_llama.common.errors import DownloadError, first_line
from video_llama.common.files import failed_download, read_blocks, sync, wait_for_lock

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""Failures in a row, none of which got any further, that end a download."""
TIMEOUT_S = 30.0
"""Longest wait for the next byte."""
PAUSE_S = 1.0
"""Pause after the first failure; it doubles with each that follows."""
_BUSY = (408, 429, 500, 502, 503, 504)
"""Statuses that another attempt may not have."""


@dataclass(frozen=True)
class _Declared:
    """What a server says of a file."""

    size: int
    validator: str | None
    """Strong ETag or date of the version, for ``If-Range`` (RFC 9110, section 13.1.5); None: it cannot be resumed."""
    md5: str | None
    """In hexadecimal."""


class _Partial:
    """The unfinished file, hidden beside its target, and what the server declared when it was begun."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self._notes = target.with_name(f".{target.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def declared(self) -> _Declared | None:
        """None: nothing was begun that could be resumed; a process killed here leaves notes that are no JSON."""
        try:
            return _Declared(**json.loads(self._notes.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def begin(self, declared: _Declared) -> None:
        self.discard()
        self._notes.write_text(json.dumps(asdict(declared)), encoding="utf-8")

    def discard(self) -> None:
        for path in (self._notes, self.path):
            path.unlink(missing_ok=True)

    def publish(self, target: Path) -> None:
        sync(self.path)
        os.replace(self.path, target)
        sync(target.parent)
        self._notes.unlink(missing_ok=True)


def download(weights: KnownWeights) -> Path:
    """Download published weights that are not on the hub, unless they are there.

    A download that is cut or killed goes on where it stopped, in this call or the next. Proxies are those of the environment
    (``HTTPS_PROXY``).

    Returns:
        The file.
    Raises:
        DownloadError: the file cannot be had, has another size or digest than it should, or cannot be written.
    """
    log_no_requests()
    target = weights.target
    try:
        with _only_process(target):
            if not target.is_file():
                _download(weights, target)
    except OSError as error:
        advice = "Make room, and run the same command again." if error.errno == errno.ENOSPC else ""
        raise DownloadError(
            f"{weights.name}: {target} cannot be written: {error.strerror or error}. What was downloaded is kept. {advice}".strip()
        ) from error
    return target


@contextmanager
def _only_process(target: Path) -> Iterator[None]:
    """Wait until no other process downloads the file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(f".{target.name}.lock"), "w") as lock:
        wait_for_lock(lock.fileno(), f"{target.name}: waiting for another process that downloads it")
        yield


def _download(weights: KnownWeights, target: Path) -> None:
    partial = _Partial(target)
    failures, furthest = 0, partial.size
    headers = {"User-Agent": f"video_llama/{__version__}", "Accept-Encoding": "identity"}
    try:
        client = httpx2.Client(follow_redirects=True, timeout=TIMEOUT_S, headers=headers)
    except (ValueError, ImportError) as error:  # reads the proxies of the environment
        raise DownloadError(
            f"{weights.name}: a proxy of the environment cannot be used: {first_line(error)}"
        ) from error
    with client:
        while True:
            try:
                declared = _receive(client, weights, partial)
                break
            except httpx2.RequestError as error:
                failures = 1 if partial.size > furthest else failures + 1
                furthest = max(furthest, partial.size)
                if failures == ATTEMPTS:
                    raise DownloadError(
                        f"{weights.name}: {weights.address}: {first_line(error)}. {partial.size:,} bytes are kept; run the same "
                        "command again to go on."
                    ) from error
                log.info("%s: %s; trying again", weights.name, first_line(error))
                time.sleep(PAUSE_S * 2 ** (failures - 1))
    _check(partial, weights, declared)
    partial.publish(target)


def _receive(client: httpx2.Client, weights: KnownWeights, partial: _Partial) -> _Declared:
    """Make one request for what is missing, and append what comes; return what the server declares.

    Raises:
        httpx2.RequestError: the connection was cut, or the server is busy.
        DownloadError: the server has no such file, or one of another size; or it does not fit on the disk.
    """
    begun, start = partial.declared, partial.size
    if begun is None or begun.validator is None or start > begun.size:
        begun, start = None, 0
    if begun is not None and start == begun.size:
        return begun
    asked = {"Range": f"bytes={start}-", "If-Range": begun.validator} if begun and start else {}
    with client.stream("GET", weights.address, headers={k: v for k, v in asked.items() if v}) as response:
        _check_status(response, weights, partial)
        declared = _declared(response, weights)
        if response.status_code == 200:
            start = 0
            partial.begin(declared)
        elif begun is not None and _continues(response, declared, begun, start):
            declared = begun  # a part may come with fewer headers
        else:
            partial.discard()
            raise httpx2.RemoteProtocolError("the server sent another part of the file, or of another version")
        _check_room(weights, partial, declared.size - start)
        with (
            open(partial.path, "ab") as file,
            tqdm(
                desc=weights.name,
                total=declared.size,
                initial=start,
                unit="B",
                unit_scale=True,
                mininterval=0.2 if sys.stderr.isatty() else 10,
            ) as bar,
        ):
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.update(len(chunk))
    if partial.size != declared.size:
        raise httpx2.RemoteProtocolError(f"{partial.size:,} of {declared.size:,} bytes came")
    return declared


def _check_status(response: httpx2.Response, weights: KnownWeights, partial: _Partial) -> None:
    status = f"HTTP {response.status_code} {response.reason_phrase}".rstrip()
    if response.status_code == 416:  # the file has become shorter
        partial.discard()
    if response.status_code in (*_BUSY, 416):
        raise httpx2.RemoteProtocolError(f"the server answers {status}")
    if response.status_code not in (200, 206):
        raise DownloadError(
            f"{weights.name}: {weights.address}: the server answers {status}. If the file has moved, download it from its "
            f"publisher's page and name it as model.{weights.key}."
        )


def _declared(response: httpx2.Response, weights: KnownWeights) -> _Declared:
    """Return what a response says of the whole file."""
    length, sent = response.headers.get("Content-Length", ""), response.headers.get("Content-Range", "")
    whole = sent.rpartition("/")[2] if response.status_code == 206 else length
    if not whole.isdecimal():
        raise DownloadError(f"{weights.name}: {weights.address}: the server does not say how large the file is")
    if weights.size not in (None, int(whole)):
        raise DownloadError(
            f"{weights.name}: {weights.address}: the server's file has {int(whole):,} bytes; expected {weights.size:,}. "
            "Another file is published there now; nothing was downloaded."
        )
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    hashes = response.headers.get_list("x-goog-hash", split_commas=True)  # of Google Cloud Storage
    md5 = next((h.strip().removeprefix("md5=") for h in hashes if h.strip().startswith("md5=")), None)
    return _Declared(int(whole), validator, base64.b64decode(md5).hex() if md5 else None)


def _continues(response: httpx2.Response, declared: _Declared, begun: _Declared, start: int) -> bool:
    """Return whether a part of a file goes on where the one that was begun stops."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    same = declared.size == begun.size and declared.validator in (None, begun.validator)
    return same and found is not None and int(found[1]) == start


def _check_room(weights: KnownWeights, partial: _Partial, n_bytes: int) -> None:
    free = shutil.disk_usage(partial.path.parent).free
    if n_bytes > free:
        raise DownloadError(
            f"{weights.name}: {n_bytes / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free on the disk of "
            f"{partial.path.parent}. Make room, or set VIDEO_LLAMA_HOME to a folder on another disk."
        )


def _check(partial: _Partial, weights: KnownWeights, declared: _Declared) -> None:
    """Compare the digests of a downloaded file, and remove it if one differs.

    Raises:
        DownloadError: one differs, or the file is a web page.
    """
    found = digests(partial.path)
    log.info("%s: SHA-256 %s", weights.name, found["sha256"])
    expected: Mapping[str, str | None] = {"sha256": weights.sha256, "md5": declared.md5}
    wrong = [name for name, digest in expected.items() if digest not in (None, found[name])]
    problem = failed_download(partial.path)
    if wrong:
        name = wrong[0]
        whose = "the published file has" if name == "sha256" else "the server declares"
        problem = f"its {name} is {found[name]}; {whose} {expected[name]}. Try again, or download it by other means."
    if problem:
        partial.discard()
        raise DownloadError(f"{weights.name}: {weights.address}: what came is removed: {problem}")


def digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 and MD5 of a file, in hexadecimal."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for block in read_blocks(path):
        sha256.update(block)
        md5.update(block)
    return {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}
