"""Where each key of a configuration was written, and every problem found with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from video_llama.common.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""Where a value sits in the configuration: keys, and indices of lists."""


def dotted(path: KeyPath) -> str:
    """Return a path as people write it: ``run.betas[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


@dataclass
class Report:
    """Collects problems, so that a user sees all of them at once."""

    file: str
    """The YAML file, as the user gave it."""
    places: dict[KeyPath, int | str] = field(default_factory=dict)
    """The line on which each key was written, or the text of the option that set it."""
    problems: list[tuple[float, str]] = field(default_factory=list)
    """Sort key (the line; options come last) and text."""

    def add(self, path: KeyPath, message: str) -> None:
        """Report a problem with a key, at the place where it, or what is around it, was written."""
        text = f"{dotted(path)}: {message}"
        while path and path not in self.places:
            path = path[:-1]
        place = self.places.get(path)
        if isinstance(place, str):
            self.problems.append((float("inf"), f"option --options {place}  {text}"))
        else:
            self.add_line(place, text)

    def add_line(self, line: int | None, message: str) -> None:
        """Report a problem with a line of the file, or with the file."""
        where = self.file if line is None else f"{self.file}:{line}"
        self.problems.append((line or 0, f"{where}  {message}"))

    def add_option(self, option: str, message: str) -> None:
        """Report a problem with an option that sets nothing."""
        self.problems.append((float("inf"), f"option --options {option}  {message}"))

    def move(self, path: KeyPath, option: str) -> None:
        """Note that an option set what is at ``path``; the lines of what it replaced are forgotten."""
        self.places = {p: place for p, place in self.places.items() if p[: len(path)] != path}
        self.places[path] = option

    def raise_if_any(self) -> None:
        """Raise what was found, sorted by line.

        Raises:
            ConfigError: there are problems.
        """
        if self.problems:
            ordered = sorted(self.problems, key=lambda problem: problem[0])
            raise ConfigError(list(dict.fromkeys(text for _, text in ordered)))
