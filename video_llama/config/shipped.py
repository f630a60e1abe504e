"""The configurations that ship with the package, found by name from any folder: ``toy``, ``toy/stage1_pretrain``.

In a clone, the folders below ``configs`` link to ``train_configs``, ``eval_configs`` and ``prompts`` in its root, where
the published commands expect them. A wheel holds the files themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

from video_llama.common.errors import ConfigError
from video_llama.common.registry import did_you_mean

PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = PACKAGE / "configs"


def shipped_configs() -> dict[str, Path]:
    """Return the path of each shipped YAML by name: its path below ``train`` or ``eval``, without the suffix."""
    folders = (CONFIGS / "train", CONFIGS / "eval")
    found = [(folder, path) for folder in folders for path in folder.rglob("*.yaml")]
    paths = {path.relative_to(folder).with_suffix("").as_posix(): path for folder, path in found}
    return dict(sorted(paths.items()))


def shipped_config(name: str) -> Path:
    """Return the path of a shipped YAML.

    Raises:
        ConfigError: none has this name.
    """
    known = shipped_configs()
    if name not in known:
        near = did_you_mean(name, known)
        raise ConfigError([f"{name}: no such file or shipped configuration.{near} Shipped: {', '.join(known)}"])
    return known[name]


def find_config(path_or_name: str | os.PathLike[str]) -> str:
    """Return the path of a YAML. A file of the user comes before a shipped configuration of the same name.

    Raises:
        ConfigError: no file, and no shipped configuration; a name that ends in ``.yaml`` is a path in any case.
    """
    text = os.fspath(path_or_name)
    if os.path.isdir(text):
        return str(shipped_configs().get(text, text))
    if os.path.exists(text) or text.endswith((".yaml", ".yml")):
        return text
    return str(shipped_config(text))
