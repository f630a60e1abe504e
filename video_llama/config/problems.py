"""Where each key of a configuration is written, and every problem found with it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from video_llama.common.errors import ConfigError

_TAKEN_FOR = {"#": "a comment", "&": "an anchor"}

KeyPath = tuple[str | int, ...]
"""Where a value sits in the configuration: keys, and indices of lists."""


def dotted(path: KeyPath) -> str:
    """Return a path as people write it: ``run.betas[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


@dataclass
class Problems:
    """Collects the problems of one YAML, to report all of them at once."""

    file: str
    """The YAML file, as the user gave it."""
    locations: dict[KeyPath, int | str] = field(default_factory=dict)
    """The line of each key, or the text of the option that set it."""
    origins: dict[KeyPath, str] = field(default_factory=dict)
    """The keys that an interpolated value comes from."""
    swallowed: dict[KeyPath, str] = field(default_factory=dict)
    """The keys whose value is null because it starts with ``#``, a comment, or ``&``, an anchor."""
    found: list[tuple[float, str]] = field(default_factory=list)
    """Sort key (the line; options come last) and text."""
    noted: list[tuple[float, str]] = field(default_factory=list)
    """The same for settings that are accepted and have no effect."""
    warned: list[tuple[float, str]] = field(default_factory=list)
    """The same for settings whose effect is probably not what is meant."""

    def add(self, path: KeyPath, message: str) -> None:
        """Add a problem with a value, at the location of its key or of the nearest block around it."""
        text = f"{dotted(path)}: {message}"
        if path in self.origins:
            text += f" (from {self.origins[path]})"
        if path in self.swallowed:
            text += f". {self._quote_it(path)}"
        self.found.append(self._placed(path, text))

    def note(self, path: KeyPath, message: str) -> None:
        """Add a setting that is accepted and has no effect."""
        self.noted.append(self._placed(path, f"{dotted(path)}: {message}"))

    def warn(self, path: KeyPath, message: str) -> None:
        """Add a setting whose effect is probably not what is meant."""
        self.warned.append(self._placed(path, f"{dotted(path)}: {message}"))

    def warn_of_swallowed(self, sections: Container[str]) -> None:
        """Warn of the keys in these sections that are null by accident."""
        for path in self.swallowed:
            if path and path[0] in sections:
                self.warn(path, f"reads as null. {self._quote_it(path)}")

    def warning(self, key: str, message: str) -> str:
        """Return the line of a warning about a dotted key."""
        return self._placed(tuple(key.split(".")), f"{key}: {message}")[1]

    def _quote_it(self, path: KeyPath) -> str:
        sign = self.swallowed[path]
        return f"YAML takes '{sign}' for the start of {_TAKEN_FOR[sign]}: quote the value, or write null."

    def add_unknown(self, path: KeyPath, near: str | None) -> None:
        """Add an unknown key, and the known one that it probably misspells."""
        suggestion = f" Did you mean {dotted((*path[:-1], near))}?" if near else ""
        self.found.append(self._placed(path, f"{dotted(path)}: unknown key.{suggestion}"))

    def _placed(self, path: KeyPath, text: str) -> tuple[float, str]:
        """Return the sort key of a key's place, and the text with that place in front."""
        while path and path not in self.locations:
            path = path[:-1]
        location = self.locations.get(path)
        if isinstance(location, str):
            return float("inf"), f"option --options {location}  {text}"
        return location or 0, f"{self.file if location is None else f'{self.file}:{location}'}  {text}"

    def add_line(self, line: int | None, message: str) -> None:
        """Add a problem with a line of the file, or with the whole file."""
        where = self.file if line is None else f"{self.file}:{line}"
        self.found.append((line or 0, f"{where}  {message}"))

    def add_option(self, option: str, message: str) -> None:
        """Add a problem with an option."""
        self.found.append((float("inf"), f"option --options {option}  {message}"))

    def move(self, path: KeyPath, option: str) -> None:
        """Note that an option replaces the value at ``path``."""
        self.locations = {p: location for p, location in self.locations.items() if p[: len(path)] != path}
        self.swallowed = {p: sign for p, sign in self.swallowed.items() if p[: len(path)] != path}
        self.locations[path] = option

    def raise_if_any(self) -> None:
        """Raise all problems, sorted by line.

        Raises:
            ConfigError: there are problems.
        """
        if self.found:
            ordered = sorted(self.found, key=lambda problem: problem[0])
            raise ConfigError(list(dict.fromkeys(text for _, text in ordered)))
