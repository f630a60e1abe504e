"""What is counted of a step over all processes, by data set and by media too, in the messages that a step sends anyway."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, get_args

import numpy as np

from video_llama.common.modalities import MediaKind, SoundUse
from video_llama.common.types import IGNORE_LABEL, Batch

_KINDS = get_args(MediaKind)
_MEDIA = {
    frozenset(kinds): "+".join(sorted(kinds)) or "text"
    for n in range(1 + len(_KINDS))
    for kinds in combinations(_KINDS, n)
}
"""The name of each set of kinds of media that a sample may have."""

_SOUNDS: tuple[SoundUse, ...] = get_args(SoundUse)
_SOUND_COUNTS = (*(f"sound_{use}" for use in _SOUNDS), "sound_failed")
_COUNTS = ("target_tokens", "samples", "replaced", "truncated", *_SOUND_COUNTS, "flops")
_PART_COUNTS = ("samples", "target_tokens", "replaced", *_SOUND_COUNTS)
"""Of a data set, and of a kind of media."""


class Tally:
    """Counts and losses of a step as numbers that processes sum.

    Args:
        datasets: the names of all data sets of the run.
        flops: the model's ``training_flops``; None: it has none.
    """

    def __init__(self, datasets: Sequence[str], flops: Any = None) -> None:
        names = [("dataset", name) for name in datasets] + [("media", name) for name in _MEDIA.values()]
        self._column = {name: i for i, name in enumerate(names)}
        self._flops = flops

    def counts(self, batches: Sequence[Batch]) -> list[float]:
        """Return what one process counts; the target tokens come first."""
        by_part = np.zeros((len(_PART_COUNTS), len(self._column)))
        sounds = Counter[SoundUse]()
        for batch in batches:
            targets = (batch.labels[:, 1:] != IGNORE_LABEL).sum(dim=1).tolist()
            each = batch.sounds or [()] * len(batch.ids)
            for columns, n, uses in zip(self._columns(batch), targets, each, strict=True):
                by_part[:, columns] += [[1], [n], [0], *([uses.count(use)] for use in _SOUNDS), [0]]
                sounds.update(uses)
        replaced = [r for batch in batches for r in batch.replaced]
        for bad in replaced:
            if (column := self._column_of(bad.sample_id)) is not None:
                by_part[_PART_COUNTS.index("replaced"), column] += 1
                by_part[-1, column] += bad.sound_failed
        return [
            sum(b.n_target_tokens for b in batches),
            sum(len(b.ids) for b in batches),
            len(replaced),
            sum(b.n_truncated for b in batches),
            *(sounds[use] for use in _SOUNDS),
            sum(r.sound_failed for r in replaced),
            sum(self._flops_of(b) for b in batches),
            *by_part.ravel().tolist(),
        ]

    def losses(self, batches: Sequence[Batch], sample_losses: Sequence[Sequence[float] | None]) -> list[float]:
        """Return one process's sums of losses by data set and by media.

        Args:
            batches: its micro-batches.
            sample_losses: for each of them those of its samples; None: not known, so that no sum with them is.
        """
        sums = np.zeros(len(self._column))
        for batch, losses in zip(batches, sample_losses, strict=True):
            known = [math.nan] * len(batch.ids) if losses is None else losses
            for columns, loss in zip(self._columns(batch), known, strict=True):
                sums[columns] += loss
        return sums.tolist()

    def metrics(self, counts: Sequence[float], losses: Sequence[float]) -> dict[str, Any]:
        """Return the metrics of a step from the sums over all processes, by name."""
        totals, by_part = counts[: len(_COUNTS)], counts[len(_COUNTS) :]
        parts = np.reshape(by_part, (len(_PART_COUNTS), len(self._column)))
        found: dict[str, Any] = {name: int(total) for name, total in zip(_COUNTS[:-1], totals[:-1], strict=True)}
        found |= {"flops": None if math.isnan(totals[-1]) else totals[-1], "by_dataset": {}, "by_media": {}}
        for ((kind, name), i), loss in zip(self._column.items(), losses, strict=True):
            part = {count: int(value) for count, value in zip(_PART_COUNTS, parts[:, i], strict=True)}
            if part["samples"]:
                targets = part["target_tokens"]
                mean = loss / targets if targets and math.isfinite(loss) else None
                found[f"by_{kind}"][name] = {"loss": mean, **_shown(part, kind)}
        return found

    def _columns(self, batch: Batch) -> list[list[int]]:
        """Return the columns in which each sample of a batch counts."""
        kinds: list[set[MediaKind]] = [set() for _ in batch.ids]
        for group in batch.media:
            for row in group.rows.tolist():
                kinds[row].add(group.kind)
        datasets = batch.datasets or [""] * len(batch.ids)
        named = zip(datasets, kinds, strict=True)
        both = [(("dataset", name), ("media", _MEDIA[frozenset(found)])) for name, found in named]
        return [[self._column[name] for name in names if name in self._column] for names in both]

    def _column_of(self, sample_id: str) -> int | None:
        """Return the column of the data set of a record."""
        named = [name for kind, name in self._column if kind == "dataset" and sample_id.startswith(f"{name}/")]
        return self._column["dataset", max(named, key=len)] if named else None

    def _flops_of(self, batch: Batch) -> float:
        found = None if self._flops is None else self._flops(batch)
        return math.nan if found is None else float(found)


def _shown(part: dict[str, int], kind: str) -> dict[str, int]:
    """Return the counts of a data set, or of a kind of media, that say something: those of sound where there are clips."""
    counts = _PART_COUNTS[:2] if kind == "media" else _PART_COUNTS[:3]
    has_sound = kind == "dataset" and any(part[name] for name in _SOUND_COUNTS)
    return {name: part[name] for name in (*counts, *(_SOUND_COUNTS if has_sound else ()))}
