"""Folders that ``video-llama export`` wrote: found here or on the hub, and checked before their model is built."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from video_llama.checkpoints.sources.hub import BESIDE_WEIGHTS, HubReference, fetch, find
from video_llama.checkpoints.sources.references import weights_sources
from video_llama.common.cache import home
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.common.files import read_json
from video_llama.config.fields import UNSET
from video_llama.config.problems import Problems
from video_llama.config.source import read_yaml
from video_llama.prompts.templates import Template
from video_llama.sharing.inventory import INVENTORY, Inventory
from video_llama.sharing.parts import parts_of

CONFIG = "config.yaml"
TEMPLATE = "conversation_template.json"
_DOWNLOADED = (".safetensors", ".yaml", ".md", *BESIDE_WEIGHTS)
"""Suffixes of the files of an export; no code."""
_REFERENCE = re.compile(r"(?<!\\)(?:\\\\)*\$\{(?!(?:here|package)\})")
"""A reference of a YAML to anything but a folder."""


@dataclass(frozen=True)
class Exported:
    """A folder that ``video-llama export`` wrote."""

    folder: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Exported | None:
        """Return the export that a path leads to, the folder or its ``config.yaml``; None: something else is there."""
        found = Path(path)
        folder = found.parent if found.name == CONFIG else found
        return cls(folder) if (folder / INVENTORY).is_file() else None

    @classmethod
    def find(cls, name: str | os.PathLike[str]) -> Exported:
        """Return an export by its path, or by its id on the hub, from which it is downloaded.

        Args:
            name: a folder, ``org/name`` or ``org/name@revision``. ``hf://org/name`` always means the hub.
        Raises:
            DownloadError: it cannot be had from the hub.
            WeightsError: it is not an export.
        """
        text = os.fspath(name)
        reference = None if os.path.exists(text) else HubReference.parse(text)
        if reference is None:
            folder = Path(text)
        else:
            # The inventory first: what is no export is not downloaded.
            first = fetch(replace(reference, file=INVENTORY), home() / "hub")
            folder = find(fetch(replace(first, file=None), home() / "hub", export_files)) or Path(text)
        found = cls.at(folder)
        if found is None:
            reason = (
                "no such folder"
                if not folder.exists()
                else f"has no {INVENTORY}, so video-llama export did not write it"
            )
            raise WeightsError(f"{text}: {reason}. A model that a YAML describes is loaded with from_config.")
        return found

    @property
    def config(self) -> Path:
        """Its YAML."""
        return self.folder / CONFIG

    def check_config(self, options: Iterable[str] = ()) -> None:
        """Check its YAML before it is read. It may be from anyone, so it imports nothing and reads no environment.

        Args:
            options: ``key=value`` overrides.
        Raises:
            ConfigError: it does, or a parent is to be named that neither it nor the options name.
            WeightsError: the export is not whole.
        """
        data = read_yaml(Problems(str(self.config)))
        if "imports" in data:
            raise ConfigError([f"{self.config}: imports: an export imports nothing. Remove this key."])
        if found := [text for text in _texts(data) if _REFERENCE.search(text)]:
            raise ConfigError(
                [f"{self.config}: {found[0]}: an export refers to nothing but ${{here}} and ${{package}}"]
            )
        given = {option.partition("=")[0] for option in options}
        unknown = [
            part.origin
            for part in Inventory.read(self.folder).parts.values()
            if not part.held and part.origin.source == UNSET and f"model.{part.origin.key}" not in given
        ]
        if problems := [
            f"model.{origin.key}: {self.folder} was exported with {origin.name}, and does not say where others get it. Name "
            f"your copy, which is verified: --options model.{origin.key}=PATH"
            for origin in unknown
        ]:
            raise ConfigError(problems)

    def verify(self, config: Any) -> None:
        """Compare all weights, and the text around questions, with those that it was exported with.

        Args:
            config: of its model, in use, with everything that it names downloaded.
        Raises:
            WeightsError: something differs.
        """
        self._check_template(config)
        named = {key.removeprefix("model."): text for key, text in weights_sources(config)}
        Inventory.read(self.folder).verify(parts_of(config), named, self.folder)

    def _check_template(self, config: Any) -> None:
        """A template that the decoder's tokenizer brings is verified with its files; others are part of this package."""
        now: Template | None = config.template
        recorded = read_json(self.folder / TEMPLATE)
        if now is not None and template_data(now) != recorded:
            name = recorded.get("name") if isinstance(recorded, dict) else None
            raise WeightsError(
                f"{self.folder / TEMPLATE}: is not the conversation template {now.name} of this version of video_llama. "
                + (f"Use the version that is named in {INVENTORY}." if name == now.name else "Export the folder again.")
            )


def _texts(data: Any) -> Iterator[str]:
    """Yield every text among nested values."""
    if isinstance(data, dict | list):
        for item in data.values() if isinstance(data, dict) else data:
            yield from _texts(item)
    elif isinstance(data, str):
        yield data


def template_data(template: Template) -> Any:
    """Return a conversation template as the data of a JSON file."""
    return json.loads(json.dumps(asdict(template)))


def export_files(names: Iterable[str]) -> list[str]:
    """Return the files of a repository that belong to an export."""
    return [name for name in names if name.endswith(_DOWNLOADED)]
