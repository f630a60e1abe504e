"""Files that a request shows: found where their URLs say, checked, and kept until the request is answered."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from video_llama.common.errors import DecodeError, VideoLlamaError
from video_llama.common.modalities import FileKind
from video_llama.processors.vetting import vet_file
from video_llama.serving.api_error import ApiError
from video_llama.serving.held_files import HeldFiles
from video_llama.serving.media_root import OutsideRoot, opened_below, path_of
from video_llama.serving.safe_fetch import FETCH_S, fetch, new_client
from video_llama.serving.served_file import AS_CONFIGURED, Sampling, SentFrames, ServedFile
from video_llama.serving.served_model import RequestLimits
from video_llama.serving.turns import MediaReference

BLOCK = 1 << 20
DATA_URL = re.compile(r"data:(?P<kind>[^;,]{0,100})(?P<parameters>(;[^;,]{0,100}){0,10}),", re.IGNORECASE)
MAX_SHOWN = 80
"""Characters of a URL in a message."""


@dataclass(frozen=True)
class ReadAs:
    """How a request wants clips to be read."""

    use_audio: bool | None = None
    sampling: Sampling = AS_CONFIGURED


class Opened(list[ServedFile]):
    """Files of a request, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: dict[str, str] = {}
        """What is said in place of each path."""


@dataclass
class MediaSource:
    """Opens what URLs name.

    Args:
        files: keeps their content.
        limits: what is accepted.
        root: the folder of file:// URLs, a real path; None: there are none.
        hosts: those of http(s):// URLs, in lower case.
    """

    files: HeldFiles
    limits: RequestLimits
    root: Path | None = None
    hosts: Collection[str] = ()

    async def open(self, references: list[MediaReference], read_as: ReadAs, stack: AsyncExitStack) -> Opened:
        """Return the files of a request. They are released with the stack.

        Raises:
            ApiError: one cannot be had, or is refused.
        """
        opened, n_left = Opened(), self.limits.files
        for reference in references:
            try:
                files = await self._content(reference, n_left, stack)
                n_left -= len(files)
                opened.labels |= {str(path): reference.where for path in files}
                path = files[0]
                if is_frames(reference):
                    await self._vet(files, "image", opened.labels, reference)
                    path = await to_thread.run_sync(self.files.hold_frames, files)
                    stack.callback(self.files.release, path)
                    opened.labels[str(path)] = reference.where
                    opened.append(SentFrames("video", path, read_as.use_audio, read_as.sampling))
                    continue
                await self._vet(files, reference.kind, opened.labels, reference)
            except ApiError as error:
                error.param = error.param or reference.where
                raise
            is_clip = reference.kind == "video"
            use_audio, sampling = (read_as.use_audio, read_as.sampling) if is_clip else (None, AS_CONFIGURED)
            opened.append(ServedFile(reference.kind, path, use_audio, sampling))
        return opened

    async def _content(self, reference: MediaReference, n_left: int, stack: AsyncExitStack) -> list[Path]:
        """Keep the content of a URL: one file, or the frames of a clip."""
        url = reference.url
        scheme = url[:6].partition(":")[0].lower()
        if scheme == "data":
            hold = partial(self._hold_data, reference, n_left, stack)
            return await to_thread.run_sync(hold)
        if scheme in ("http", "https"):
            return [await self._fetched(url, stack)]
        if scheme == "file" or url.startswith("/"):
            return [await to_thread.run_sync(self._hold_file, url, stack)]
        raise ApiError(
            400, f"{shown(url)}: expected a URL that starts with data:, file:// or https://", code="invalid_url"
        )

    def _hold_data(self, reference: MediaReference, n_left: int, stack: AsyncExitStack) -> list[Path]:
        found = DATA_URL.match(reference.url)
        if found is None or "base64" not in found["parameters"].lower().split(";"):
            raise ApiError(400, "a data: URL without base64: expected data:TYPE;base64,CONTENT", code="invalid_url")
        content = reference.url[found.end() :]
        items = content.split(",", n_left) if is_frames(reference) else [content]
        if len(items) > n_left:
            raise ApiError(400, f"more than {self.limits.files} files and frames in a request")
        paths = []
        for item in items:
            if len(item) * 3 // 4 > self._max_bytes + 3:
                raise self._too_large()
            path = self.files.hold([decoded(item)])
            stack.callback(self.files.release, path)
            paths.append(path)
        return paths

    def _hold_file(self, url: str, stack: AsyncExitStack) -> Path:
        if self.root is None:
            raise ApiError(
                400, "files of the server's machine are not read: start it with --media-root", code="file_not_allowed"
            )
        try:
            with opened_below(self.root, path_of(url)) as file:
                path = self.files.hold(self._within_limit(iter(partial(file.read, BLOCK), b"")))
        except OutsideRoot as error:
            raise ApiError(
                400, f"{shown(url)}: no file below the server's --media-root", code="file_not_allowed"
            ) from error
        stack.callback(self.files.release, path)
        return path

    async def _fetched(self, url: str, stack: AsyncExitStack) -> Path:
        if not self.hosts:
            raise ApiError(
                400,
                "URLs are not fetched: send the file itself as a data: URL, or start the server with --allow-fetch",
                code="host_not_allowed",
            )
        try:
            with anyio.fail_after(FETCH_S), self.files.incoming() as file:
                async with new_client() as client:
                    async for chunk in fetch(url, self.hosts, self._max_bytes, client):
                        file.write(chunk)
                path = file.keep()
        except TimeoutError as error:
            raise ApiError(422, f"the URL was not fetched within {FETCH_S:g} s", code="unreachable") from error
        stack.callback(self.files.release, path)
        return path

    async def _vet(self, paths: list[Path], kind: FileKind, labels: dict[str, str], reference: MediaReference) -> None:
        for path in paths:
            try:
                await to_thread.run_sync(vet_file, path, self.limits.upload, kind)
            except DecodeError as error:
                raise ApiError(400, f"{reference.where}: {error.reason}", code="undecodable_media") from error
            except VideoLlamaError as error:
                raise ApiError(400, str(error).replace(path.name, reference.where), code="file_refused") from error

    @property
    def _max_bytes(self) -> int:
        return self.limits.upload.megabytes * 1_000_000

    def _within_limit(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        n_bytes = 0
        for block in blocks:
            n_bytes += len(block)
            if n_bytes > self._max_bytes:
                raise self._too_large()
            yield block

    def _too_large(self) -> ApiError:
        return ApiError(400, f"the file is larger than {self.limits.upload.megabytes} MB", code="file_too_large")


def is_frames(reference: MediaReference) -> bool:
    """Whether a URL is a list of the frames of a clip."""
    return reference.kind == "video" and reference.url[:16].lower().startswith(("data:video/jpeg;", "data:video/png;"))


def decoded(text: str) -> bytes:
    """Return what a base64 text holds; it may be broken into lines.

    Raises:
        ApiError: it is no base64, or empty.
    """
    if "\n" in text or "\r" in text:
        text = text.replace("\n", "").replace("\r", "")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, "the content is not valid base64", code="invalid_base64") from error
    if not content:
        raise ApiError(400, "the content is empty", code="invalid_base64")
    return content


def shown(url: str) -> str:
    """Return the start of a URL, for a message."""
    return url if len(url) <= MAX_SHOWN else f"{url[:MAX_SHOWN]}…"
