"""Where each key of a configuration is written, and every problem found with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from video_llama.common.errors import ConfigError

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
    found: list[tuple[float, str]] = field(default_factory=list)
    """Sort key (the line; options come last) and text."""

    def add(self, path: KeyPath, message: str) -> None:
        """Add a problem with a value, at the location of its key or of the nearest block around it."""
        text = f"{dotted(path)}: {message}"
        if path in self.origins:
            text += f" (from {self.origins[path]})"
        self._add_key(path, text)

    def add_unknown(self, path: KeyPath, near: str | None) -> None:
        """Add an unknown key, and the known one that it probably misspells."""
        suggestion = f" Did you mean {dotted((*path[:-1], near))}?" if near else ""
        self._add_key(path, f"{dotted(path)}: unknown key.{suggestion}")

    def _add_key(self, path: KeyPath, text: str) -> None:
        while path and path not in self.locations:
            path = path[:-1]
        location = self.locations.get(path)
        if isinstance(location, str):
            self.add_option(location, text)
        else:
            self.add_line(location, text)

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
        self.locations[path] = option

    def raise_if_any(self) -> None:
        """Raise all problems, sorted by line.

        Raises:
            ConfigError: there are problems.
        """
        if self.found:
            ordered = sorted(self.found, key=lambda problem: problem[0])
            raise ConfigError(list(dict.fromkeys(text for _, text in ordered)))
