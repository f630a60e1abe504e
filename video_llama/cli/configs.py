"""``video-llama configs``: the configurations that ship with the package, and copies of them to edit."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from video_llama.common.errors import ConfigError
from video_llama.config.shipped import CONFIGS, shipped_config, shipped_configs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(metavar="copy")
    copy = actions.add_parser("copy", help="copy one, to edit it", description="Copy a shipped configuration.")
    copy.add_argument("name", metavar="NAME", help="as listed by `video-llama configs`")
    copy.add_argument(
        "dest", metavar="DEST", nargs="?", type=Path, default=Path(), help="file or folder (default: here)"
    )


def run(args: argparse.Namespace) -> int:
    """List the configurations, or copy one."""
    if "name" in args:
        print(copy_config(args.name, args.dest))
    else:
        configs = shipped_configs()
        width = max(map(len, configs))
        for name, path in configs.items():
            print(f"{name:{width}}  {summary(path)}")
    return 0


def summary(path: Path) -> str:
    """Return the first sentence of a YAML's comment."""
    comments = (line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines())
    text = next(line for line in comments if line and not line.startswith("yaml-language-server:"))
    return text.split(". ")[0].rstrip(".:")


def copy_config(name: str, dest: Path) -> Path:
    """Copy a shipped configuration to a new file, or into a folder, and return the new file.

    Raises:
        ConfigError: no configuration has this name, the file exists, or it cannot be written.
    """
    source = shipped_config(name)
    target = dest / source.name if dest.is_dir() else dest
    text = source.read_text(encoding="utf-8")
    text = re.sub(r"(?<=\$schema=)\S+", str(CONFIGS / "schema.json"), text, count=1)  # relative to the source file
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError([f"{target}: exists already and is not overwritten; name another file"]) from None
    except OSError as error:
        raise ConfigError([f"{target}: cannot be written: {error.strerror}"]) from None
    return target
