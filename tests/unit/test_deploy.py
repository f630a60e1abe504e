"""The files for containers and systemd name commands that exist, files that are there, and nothing that they should not."""

from __future__ import annotations

import argparse
import configparser
import fnmatch
import importlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.test_wheel import SOURCES
from video_llama.cli.main import COMMANDS
from video_llama.conversation.vllm_bridge import vllm_address

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy/compose.yaml"
UNIT = ROOT / "deploy/video-llama.service"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments."""
    lines = (
        re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
        .replace("\\\n", " ")
        .splitlines()
    )
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def copied() -> list[str]:
    """What the Dockerfile copies out of the clone."""
    return [
        word for name, rest in instructions() if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    ]


def parsed(words: list[str]) -> argparse.Namespace:
    """The arguments of a ``video-llama`` command, as it parses them."""
    command, *rest = words
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[command].module).add_arguments(parser)
    return parser.parse_args(rest)


@pytest.fixture(scope="module")
def services() -> Any:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_the_commands_in_the_guide_parse():
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^ {4,}(?:video-llama|docker run .* video-llama) +([a-z-]+ .*)$", text, re.MULTILINE)
    assert {words.split()[0] for words in commands} >= {"serve", "merge-lora", "export-decoder"}
    for words in commands:
        args = parsed(shlex.split(words))
        if hasattr(args, "engine"):
            vllm_address(args.engine)


def test_the_image_runs_the_server_as_a_user_without_rights():
    named = dict(instructions())
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", named["USER"])
    last = [name for name, _ in instructions()]
    assert last.index("USER") < last.index("ENTRYPOINT")
    assert yaml.safe_load(named["ENTRYPOINT"]) == ["video-llama"]
    args = parsed(yaml.safe_load(named["CMD"]))
    assert (args.cfg_path, args.host, args.port) == ("toy", "0.0.0.0", int(named["EXPOSE"]))
    assert f"127.0.0.1:{args.port}/health" in named["HEALTHCHECK"]
    assert named["STOPSIGNAL"] == "SIGTERM"


def test_the_image_is_built_in_two_stages_from_plain_base_images():
    stages = [rest for name, rest in instructions() if name == "FROM"]
    assert stages == ["python:${PYTHON}-slim AS build", "python:${PYTHON}-slim"]
    assert [name for name, _ in instructions() if name == "ADD"] == []
    secrets = [
        rest for name, rest in instructions() if name in ("ENV", "ARG") and re.search("KEY|TOKEN|SECRET|PASS", rest)
    ]
    assert secrets == []


def test_what_the_image_is_built_from_is_there_and_reaches_the_daemon():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(kept) == sorted(copied())
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    assert not any(
        fnmatch.fnmatch(name, pattern) for name in (".git", ".venv", "runs", "deploy/.env") for pattern in kept
    )


def test_the_extras_that_the_image_installs_exist():
    (extras,) = re.findall(r'ARG EXTRAS="(.*)"', (ROOT / "Dockerfile").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert [name for name in extras.split(",") if not re.search(rf"^{name} = \[", project, re.MULTILINE)] == []


def test_what_the_image_copies_is_enough_to_build_the_package():
    assert {*SOURCES} <= {*copied()}


def test_the_servers_of_the_compose_file_fit_together(services):
    ours, vllm = services["video-llama"], services["vllm"]
    args = parsed(ours["command"])
    address = vllm_address(args.engine)
    assert address is not None
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in vllm["command"][1:])
    assert address.url == f"http://vllm:{flags['port']}"
    assert flags.keys() == {"host", "port", "enable-prompt-embeds", "gpu-memory-utilization"}
    folder = vllm["command"][0]
    assert any(volume.endswith(f":{folder}:ro") for volume in vllm["volumes"])
    mounted = [volume.split(":")[-2] for volume in ours["volumes"]]
    assert str(args.cfg_path) in mounted
    assert Path(folder).parent.as_posix() in mounted, "both name the decoder by the same path"
    assert str(args.api_key_file) == f"/run/secrets/{ours['secrets'][0]}"
    assert ours["ports"] == [f"127.0.0.1:8000:{args.port}"]
    assert ours["depends_on"]["vllm"]["condition"] == "service_healthy"
    assert f"127.0.0.1:{flags['port']}/health" in vllm["healthcheck"]["test"][-1]
    assert _seconds(ours["stop_grace_period"]) > args.deadline_seconds


def test_only_our_server_is_reached_from_outside(services):
    compose = yaml.safe_load(COMPOSE.read_text())
    assert "ports" not in services["vllm"]
    assert [compose["networks"][name].get("internal") for name in services["vllm"]["networks"]] == [True]
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert services["video-llama"]["read_only"] is True
    assert services["video-llama"]["tmpfs"][0].startswith("/tmp")


def _seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([sm])", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def test_the_unit_starts_the_server_with_keys_that_it_is_given():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(UNIT)
    service = unit["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "video-llama"
    args = parsed(words)
    assert args.host == "127.0.0.1"
    assert service["LoadCredential"].partition(":")[0] == args.api_key_file.name
    assert int(service["TimeoutStopSec"]) > args.deadline_seconds


def test_systemd_accepts_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt install systemd")
    program = tmp_path / "video-llama"
    program.touch(mode=0o755)
    text = UNIT.read_text().replace("/opt/video-llama/bin/video-llama", str(program))
    (tmp_path / UNIT.name).write_text(text)
    words = ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
