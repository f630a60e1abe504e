"""Write a data set into shards, each of which follows from its records alone: in parallel, and in any number of attempts.

A shard gets its name when it is whole, so what has a name stays. Headers hold no times and no owners: the bytes of a shard are
the same each time it is written.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from video_llama.common.errors import OutputError
from video_llama.common.files import replacing, sha256_of
from video_llama.datasets.base import Dataset
from video_llama.datasets.record_keys import MEDIA_SUFFIXES
from video_llama.datasets.shards.member_index import INDEX, index_beside, scan
from video_llama.datasets.shards.sharded import OTHER
from video_llama.datasets.shards.storage import SUFFIX

PLAN = "shards.json"
"""What the shards of a folder are made of, so that another attempt continues with the same."""


@dataclass(frozen=True)
class Packing:
    """A data set that is written into a folder of shards.

    Args:
        dataset: its records, in order.
        folder: made if it is not there; shards that it has of the same records are kept.
        per_shard: records of each shard but the last.
    """

    dataset: Dataset
    folder: Path
    per_shard: int

    @property
    def shards(self) -> list[Path]:
        """The shards, in order."""
        n = -(-len(self.dataset) // self.per_shard)
        return [self.folder / f"{i:06d}{SUFFIX}" for i in range(n)]

    @property
    def storage(self) -> str:
        """The text that names all shards in a YAML."""
        first, *_, last = self.shards[0], self.shards[-1]
        return str(first) if first == last else f"{self.folder}/{{{first.stem}..{last.stem}}}{SUFFIX}"

    def write(self, threads: int) -> list[str]:
        """Write the shards that are not there yet, and check all of them.

        Args:
            threads: shards written at once.
        Returns:
            A line on each record whose file could not be packed.
        Raises:
            OutputError: the folder cannot be written, has shards of other records, or one that is damaged.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._agree()
                for left in self.folder.glob(".*.tmp"):
                    left.unlink()
                self._each(self._write, threads, "writing")
                return [line for lines in self._each(self._check, threads, "checking") for line in lines]
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot be written: {error}. Shards that are whole stay; the same command goes on."
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        at = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(at, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise OutputError(f"{self.folder}: another process is writing shards there") from error
        finally:
            os.close(at)

    def _agree(self) -> None:
        """Note what the shards are made of, or refuse a folder whose shards are made of something else."""
        plan = {
            "data set": self.dataset.packed_as,
            "records": len(self.dataset),
            "records per shard": self.per_shard,
            "annotations": self.dataset.digest(),
        }
        path = self.folder / PLAN
        if not path.exists():
            if there := next(self.folder.glob(f"*{SUFFIX}"), None):
                raise OutputError(f"{there}: is there already, and nothing is overwritten; name another folder")
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise OutputError(f"{path}: not valid JSON ({error}); name another folder") from error
        if before != plan:
            changed = [key for key in plan if not isinstance(before, dict) or before.get(key) != plan[key]]
            raise OutputError(f"{path}: the shards there differ in {', '.join(changed)}; name another folder")

    def _each(self, do: Any, threads: int, doing: str) -> list[Any]:
        """Do something for each shard, a few at once; the first error ends it."""
        pool = ThreadPoolExecutor(threads)
        try:
            work = [pool.submit(do, number, shard) for number, shard in enumerate(self.shards)]
            with tqdm(desc=f"{doing} shards", total=len(work), unit="shard", mininterval=1) as bar:
                for each in work:
                    each.add_done_callback(lambda _: bar.update())
                wait(work, return_when=FIRST_EXCEPTION)
                return [each.result() for each in work if each.done()]
        finally:
            pool.shutdown(cancel_futures=True)

    def _write(self, number: int, shard: Path) -> None:
        """Write a shard and its index, unless they are there."""
        index, _ = index_beside(shard) if shard.exists() else (None, "")
        if index is not None and not index.problem:
            return
        if not shard.exists():
            with replacing(shard) as temporary:
                self._write_tar(number, temporary)
        index = replace(scan(shard), sha256=sha256_of(shard))
        with replacing(Path(f"{shard}{INDEX}")) as temporary:
            temporary.write_text(index.dumps(), encoding="utf-8")

    def _write_tar(self, number: int, path: Path) -> None:
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            for index in self._records(number):
                packed = self.dataset.packed(index)
                record = packed.record | {"record_id": self.dataset.record_id(index)}
                content = json.dumps(record).encode()
                tar.addfile(_header(index, "json", len(content)), io.BytesIO(content))
                if packed.media is not None and os.path.isfile(packed.media):  # False, too, for a name that is too long
                    extension = packed.media.suffix.lower()
                    name = extension[1:] if extension in MEDIA_SUFFIXES else OTHER
                    with _opened(packed.media) as media:
                        tar.addfile(_header(index, name, os.fstat(media.fileno()).st_size), media)

    def _records(self, number: int) -> range:
        return range(number * self.per_shard, min((number + 1) * self.per_shard, len(self.dataset)))

    def _check(self, number: int, shard: Path) -> list[str]:
        """Compare a shard with its index, and the index with the records; return a line on each file that is missing."""
        index, note = index_beside(shard)
        again = f"{shard}: damaged; remove it and its index, and run the same command again"
        if index is None or index.problem:
            raise OutputError(f"{again} ({note or (index and index.problem) or 'no index'})")
        if sha256_of(shard) != index.sha256:
            raise OutputError(f"{again} (its SHA-256 is not that in its index)")
        if [entry.key for entry in index.entries] != [_key(i) for i in self._records(number)]:
            raise OutputError(f"{again} (it does not hold the records that it should)")
        missing = []
        for i, entry in zip(self._records(number), index.entries, strict=True):
            media = self.dataset.packed(i).media
            if media is not None and len(entry.parts) == 1:
                missing.append(f"{self.dataset.record_id(i)}: no file {media}")
        return missing


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error


def _key(index: int) -> str:
    return f"{index:09d}"


def _header(index: int, extension: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(f"{_key(index)}.{extension}")
    header.size, header.mode = size, 0o444
    return header
