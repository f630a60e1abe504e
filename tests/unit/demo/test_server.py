"""What stands in the way of the page is said in one line, before a model is read."""

from __future__ import annotations

import socket

import pytest

from video_llama.cli.main import main


@pytest.fixture
def start(capsys):
    def run(*flags):
        code = main(["demo", *map(str, flags)])
        out, err = capsys.readouterr()
        assert out == ""
        return code, err

    return run


def test_a_port_that_is_taken_is_named(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, err = start("--port", port)
    assert code == 1
    assert err == (
        f"error: cannot listen on 127.0.0.1, port {port}: Address already in use. Choose others with --host and --port.\n"
    )


@pytest.mark.parametrize("flags", [("--port", 99999), ("--host", "nowhere.invalid")])
def test_an_address_that_does_not_exist_is_named(start, flags):
    code, err = start(*flags)
    assert code == 1
    assert err.startswith("error: cannot listen on ")
    assert err.count("\n") == 1


def test_a_missing_yaml_is_named(start, tmp_path):
    code, err = start("--cfg-path", tmp_path / "mine.yaml")
    assert code == 1
    assert err.startswith("error: ")
    assert "mine.yaml" in err


def test_a_gpu_that_is_not_there_is_named(start):
    code, err = start("--gpu-id", 1000)
    assert code == 1
    assert err.startswith("error: device cuda:1000")


@pytest.mark.parametrize("package", ["gradio", "matplotlib"])
def test_a_missing_package_is_reported_with_the_command_that_installs_it(package, start, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else name)
    code, err = start()
    assert code == 1
    assert err == f"error: the page needs {package}: pip install -e '.[demo]' -c constraints.txt\n"


@pytest.mark.parametrize("flags", [("--max-megabytes", 0), ("--max-waiting", -1), ("--max-minutes", "long")])
def test_a_limit_is_a_number_above_0(start, capsys, flags):
    with pytest.raises(SystemExit):
        start(*flags)
    assert flags[0] in capsys.readouterr().err
