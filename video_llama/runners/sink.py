"""The ``Sink`` base class: a place that metrics and answers go to besides the run's own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Sink:
    """Base of all sinks. Only the first process has them.

    An error in one, such as a missing package or network, is reported once; then the run goes on without it.

    Args:
        config: the sink's entry in ``run.sinks``, as its class's ``Config``.
        folder: the output folder of the run.
        settings: the whole YAML of the run, defaults filled in.
        step: the step that the run starts from; later ones that an earlier process sent are taken again.
    """

    Config: type[Any]

    def __init__(self, config: Any, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        raise NotImplementedError

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Send numbers by name; a slash in a name separates a group."""
        raise NotImplementedError

    def show(self, step: int, name: str, text: str, picture: Path | None) -> None:
        """Send a text, such as what the model says at a step, with a picture."""
        raise NotImplementedError

    def close(self) -> None:
        """Send what is left."""
        raise NotImplementedError
