"""Questions under several conditions, each with the file whose frames or sound replace its own."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from video_llama.common.errors import DataError
from video_llama.conversation.file import File
from video_llama.evaluation.conditioned_file import ConditionedFile
from video_llama.evaluation.conditions import SWAPS
from video_llama.inference.items import Item

LOOK_AHEAD = 100
"""Files of which one is chosen."""

References = Mapping[str | int, Sequence[str]]
"""The right answers to questions, by id."""
Partners = Mapping[str | int, File | None]
"""The other file of each question, by id. None: there is no other one of its kind."""


def partners(items: Sequence[Item], references: References) -> dict[str | int, File | None]:
    """Return the partner of each question.

    The files of a kind are a ring in the order of their paths. The partner is the next file after a question's own of which the
    same question, if it is asked, has other right answers; if that is true of none of the next ``LOOK_AHEAD`` files, the next one.
    It depends on nothing but the questions, and not on their order.

    Args:
        items: the questions.
        references: their right answers, as far as they are known.
    """
    files: dict[str, dict[str, File]] = defaultdict(dict)
    right: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    real = {file: os.path.realpath(file.path) for file in dict.fromkeys(item.asked.file for item in items)}
    for item in sorted(items, key=lambda item: (str(item.asked.file.path), repr(item.asked.file))):
        file = item.asked.file
        files[file.kind].setdefault(real[file], file)
        right[file.kind, real[file], item.asked.question] |= set(references.get(item.id, ()))
    rings = {kind: list(of_kind) for kind, of_kind in files.items()}
    places = {kind: {path: place for place, path in enumerate(ring)} for kind, ring in rings.items()}

    def partner(item: Item) -> File | None:
        kind, path = item.asked.file.kind, real[item.asked.file]
        ring, place = rings[kind], places[kind][path]
        following = [*ring[place + 1 : place + 1 + LOOK_AHEAD], *ring[: max(0, place + 1 + LOOK_AHEAD - len(ring))]]
        candidates = [other for other in following if other != path]
        own = right[kind, path, item.asked.question]
        unlike = (other for other in candidates if own.isdisjoint(right.get((kind, other, item.asked.question), ())))
        chosen = next(unlike, candidates[0] if candidates else None)
        return None if chosen is None else files[kind][chosen]

    return {item.id: partner(item) for item in items}


def under_conditions(items: Sequence[Item], conditions: Sequence[str], partner_of: Partners) -> list[Item]:
    """Return each question, and then the same under each condition.

    Args:
        items: the questions, under ``full``.
        conditions: names of ``CONDITIONS``, without ``full``.
        partner_of: the partner of each question.
    Raises:
        DataError: a condition needs another file, and no question has one.
    """
    if items and not any(partner_of.values()) and (swaps := [name for name in conditions if name in SWAPS]):
        raise DataError(
            f"--conditions: {', '.join(swaps)}: the questions are about one file, and another of its kind is needed. "
            "Leave these conditions out."
        )
    return [one for item in items for one in (item, *(_under(item, name, partner_of[item.id]) for name in conditions))]


def _under(item: Item, condition: str, partner: File | None) -> Item:
    base = item.asked.file
    file = ConditionedFile(
        base.kind, base.path, base.use_audio,
        condition=condition, base=base, partner=partner if condition in SWAPS else None,
    )  # fmt: skip
    return Item(item.id, replace(item.asked, file=file), condition)
