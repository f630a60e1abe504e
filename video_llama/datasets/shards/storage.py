"""Where the shards of a data set are: one text names them all. Imports no torch."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from braceexpand import braceexpand

from video_llama.common.errors import DataError
from video_llama.config.fields import ExistingPath

SUFFIX = ".tar"


def is_remote(shard: str) -> bool:
    """Return whether a shard is on another machine: its name starts with ``http://``, ``s3://`` or the like."""
    return re.match(r"[a-z][a-z0-9+.-]*://", shard, re.IGNORECASE) is not None


def shard_names(storage: str) -> list[str]:
    """Return the shards that a text names, in order.

    Args:
        storage: a path or an address, with braces as in ``clips/{000..099}.tar``; or a folder, for all ``.tar`` files in it.
    Raises:
        DataError: the braces are not balanced, or it names no shard, or one twice.
    """
    try:
        names = list(braceexpand(storage))
    except ValueError as error:
        raise DataError(f"{storage}: braces that do not match; write clips/{{000..099}}.tar") from error
    if not is_remote(storage) and os.path.isdir(storage):
        names = sorted(str(path) for path in Path(storage).glob(f"*{SUFFIX}"))
    if not names:
        raise DataError(f"{storage}: no {SUFFIX} file in this folder")
    for name in names:
        if not name.endswith(SUFFIX):
            advice = "decompress it: records of a compressed shard cannot be read by number"
            raise DataError(f"{name}: shards are {SUFFIX} files; {advice if SUFFIX in name else 'name them'}")
    twice = [name for name, n in Counter(map(place_of, names)).items() if n > 1]
    if twice:
        raise DataError(f"{storage}: names {twice[0]} twice, and its records would be drawn twice as often")
    return names


def place_of(shard: str) -> str:
    """Return what tells a shard from others, by whatever path it is named."""
    return shard if is_remote(shard) else os.path.realpath(shard)


@dataclass(frozen=True)
class ExistingShards(ExistingPath):
    """The shards of a data set; those on this machine must exist."""

    def problem(self, value: str) -> str | None:
        """Return what is wrong with the text, or which shards are missing. Nothing is fetched."""
        try:
            names = shard_names(value)
        except DataError as error:
            return str(error)
        missing = [name for name in names if not is_remote(name) and not os.path.isfile(name)]
        if not missing:
            return None
        return f"no such file: {missing[0]}" + (f", and {len(missing) - 1} more" if missing[1:] else "")
