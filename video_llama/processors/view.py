"""A view of a media file: the frames and crops that are drawn for it under one number, always the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np


class View(np.random.Generator):
    """The random numbers with which a file is read. They follow from its name and the number of the view alone.

    Args:
        path: the file. Only its name counts, so that a data set may be moved.
        number: of the view, from 0.
    """

    def __init__(self, path: str | Path, number: int) -> None:
        self.name = f"{number} {Path(path).name}"
        seed = hashlib.sha256(self.name.encode(errors="surrogateescape")).digest()[:16]
        super().__init__(np.random.PCG64(int.from_bytes(seed, "little")))
