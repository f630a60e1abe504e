"""Problems with the command line are reported in one line, before the model is loaded."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from video_llama.cli.main import main
from video_llama.common.errors import VideoLlamaError
from video_llama.serving.serve import NEEDED, checked_host


@pytest.fixture
def start(capsys):
    def run(*flags):
        code = main(["serve", "--cfg-path", "toy", "--port", "0", *map(str, flags)])
        out, err = capsys.readouterr()
        assert out == ""
        assert code == 1
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    return run


def test_a_port_in_use_is_reported(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in start("--port", port)


@pytest.mark.parametrize("package", NEEDED)
def test_a_missing_package_is_reported_with_the_command_that_installs_it(package, start, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else name)
    assert start() == f"error: the server needs {package}: pip install -e '.[serve]' -c constraints.txt\n"


def test_missing_files_and_folders_are_reported(start, tmp_path):
    assert "--api-key-file" in start("--api-key-file", tmp_path / "missing")
    assert "--media-root" in start("--media-root", tmp_path / "missing")
    assert "mine.yaml" in start("--cfg-path", tmp_path / "mine.yaml")


def test_a_config_whose_branch_would_be_random_is_refused(capsys):
    options = ["model.ckpt=null"]
    assert main(["serve", "--cfg-path", "toy", "--port", "0", "--device", "cpu", "--options", *options]) == 1
    assert "ckpt" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["http://x.org", "x.org/path", "x.org:80", "u@x.org", "", "a b", "[::1"])
def test_what_is_no_host_is_not_allowed_to_be_fetched_from(text):
    with pytest.raises(VideoLlamaError, match="--allow-fetch"):
        checked_host(text)


def test_hosts_are_spelled_as_in_urls():
    assert [checked_host(text) for text in ("Media.Example.ORG", "8.8.8.8", "[2606:4700::1]")] == [
        "media.example.org", "8.8.8.8", "2606:4700::1",
    ]  # fmt: skip


def test_the_command_is_listed_beside_its_siblings():
    from video_llama.cli.main import COMMANDS

    assert Path(COMMANDS["serve"].module.replace(".", "/") + ".py") == Path("video_llama/serving/serve.py")
