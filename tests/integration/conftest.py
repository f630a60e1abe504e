"""The toy world of these tests, and the package's commands, run in this process if one is enough."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.demo_server import Server, served
from video_llama.cli.main import main as video_llama
from video_llama.conversation.engine import Engine
from video_llama.toy.world import write_world

ROOT = Path(__file__).resolve().parents[2]


class Result(NamedTuple):
    """The exit code of a command, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy world of 60 clips, and 12 with held-out combinations."""
    return write_world(tmp_path_factory.mktemp("toy") / "world", n_clips=60, n_heldout=12, n_images=8)


@pytest.fixture(scope="module")
def loaded() -> Engine:
    """The toy model, loaded once for all tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return Engine.from_config("eval_configs/toy.yaml", device="cpu")


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository, as the working directory."""
    monkeypatch.chdir(ROOT)
    return ROOT


@pytest.fixture
def train(command: Callable[..., Result]) -> Callable[..., Result]:
    """``video-llama train --cfg-path YAML --options ...``, which is what ``train.py`` does."""

    def run(cfg_path: str | Path, *options: str) -> Result:
        return command("train", "--cfg-path", cfg_path, "--options", *options)

    return run


@pytest.fixture
def command(root: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """``video-llama ...``."""

    def run(*argv: object) -> Result:
        capfd.readouterr()
        return Result(video_llama([str(word) for word in argv]), *capfd.readouterr())

    return run


def torchrun(processes: int, cfg_path: str, *options: str) -> None:
    """``torchrun --nproc_per_node=N train.py ...`` in separate processes."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    words += ["train.py", "--cfg-path", cfg_path, "--options", *options]
    result = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]


def torchrun_agents(agents: int, processes: int, cfg_path: str, *options: str) -> None:
    """``torchrun --nnodes=AGENTS --nproc_per_node=PROCESSES train.py ...``, once for each machine, all of them this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={agents}", f"--nproc_per_node={processes}"]
    words += ["--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", "--local_addr=127.0.0.1", "train.py"]
    words += ["--cfg-path", cfg_path, "--options", *options]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(agents)
    ]
    said = [agent.communicate(timeout=400)[1] for agent in started]
    assert [agent.returncode for agent in started] == [0] * agents, "\n".join(text[-3000:] for text in said)


def losses(folder: Path) -> list[float]:
    """The loss of each step of a run."""
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The web page, with the toy model."""
    pytest.importorskip("gradio", reason="the web page needs gradio: pip install -e '.[demo]'")
    with served(tmp_path_factory.mktemp("demo")) as running:
        yield running
        assert "Traceback" not in running.log.read_text()
