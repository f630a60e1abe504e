"""The shape of the repository: sizes of modules, one name for one thing, and documents that point at things that exist."""

from __future__ import annotations

import ast
import re
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

from video_llama.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
MODULES = [path for path in sorted((ROOT / "video_llama").rglob("*.py")) if path.name != "__init__.py"]
SAME_MEANING = {"config"}
"""Module names that several packages share because they mean the same in each: the Configs of the package."""
COMMAND_MODULES = {
    command.module.replace(".", "/") + ".py" for command in COMMANDS.values() if ".cli." in command.module
}
"""A command of ``cli`` is named after what it runs, so its module may share a name with that."""
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
CONSTRAINTS = ARCHITECTURE.split("## Constraints")[1]


def n_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_module_is_longer_than_400_lines_and_the_median_is_readable():
    sizes = {path.relative_to(ROOT).as_posix(): n_lines(path) for path in MODULES}
    assert [name for name, size in sizes.items() if size > 400] == []
    assert 80 <= statistics.median(sizes.values()) <= 160


def test_no_two_packages_have_a_module_of_one_name():
    packages = defaultdict(list)
    for path in MODULES:
        if path.relative_to(ROOT).as_posix() not in COMMAND_MODULES:
            packages[path.stem].append(path.parent.relative_to(ROOT).as_posix())
    shared = {name: where for name, where in packages.items() if len(where) > 1 and name not in SAME_MEANING}
    assert shared == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_says_what_it_is_for_in_one_line(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    summary, _, rest = docstring.partition("\n")
    assert summary.endswith((".", ":"))
    assert rest == "" or rest.startswith("\n"), "the first paragraph is one line"


def test_every_constraint_names_a_test_that_exists():
    constraints = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", CONSTRAINTS, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in constraints] == list(range(1, len(constraints) + 1))
    for number, text in constraints:
        references = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
        assert references, f"constraint {number} names no test"
        for file, test in references:
            assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{number}: {file}::{test}"


@pytest.mark.parametrize("document", ["AGENTS.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_documents_name_files_that_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:video_llama|tests|docs|benchmarks|tools)/[\w./{},-]+)`", text):
        head, _, tail = name.partition("{")
        alternatives, _, end = tail.partition("}")
        for part in alternatives.split(",") if tail else [""]:
            assert (ROOT / f"{head}{part}{end}").exists(), f"{document}: {name}"
