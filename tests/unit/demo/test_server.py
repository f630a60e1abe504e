"""Problems with the command line are reported in one line, before the model is loaded."""

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


def test_a_port_in_use_is_reported(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, err = start("--port", port)
    assert code == 1
    assert err == (
        f"error: cannot listen on 127.0.0.1, port {port}: Address already in use. Choose others with --host and --port.\n"
    )


@pytest.mark.parametrize("flags", [("--port", 99999), ("--host", "nowhere.invalid")])
def test_an_address_that_does_not_exist_is_reported(start, flags):
    code, err = start(*flags)
    assert code == 1
    assert err.startswith("error: cannot listen on ")
    assert err.count("\n") == 1


def test_a_missing_yaml_is_reported(start, tmp_path):
    code, err = start("--cfg-path", tmp_path / "mine.yaml")
    assert code == 1
    assert err.startswith("error: ")
    assert "mine.yaml" in err


def test_a_missing_gpu_is_reported(start):
    code, err = start("--gpu-id", 1000)
    assert code == 1
    assert err.startswith("error: device cuda:1000")


@pytest.mark.parametrize("package", ["gradio"])
def test_a_missing_package_is_reported_with_the_command_that_installs_it(package, start, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else name)
    code, err = start()
    assert code == 1
    assert err == f"error: the page needs {package}: pip install -e '.[demo]' -c constraints.txt\n"


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--max-megabytes", 0, "should be greater than or equal to 1"),
        ("--max-waiting", -1, "should be greater than or equal to 1"),
        ("--max-minutes", 0, "should be greater than 0"),
        ("--max-minutes", "long", "should be a valid number"),
        ("--allow-origin", "video.example", "give the scheme and the host"),
        ("--allow-origin", "https://video.example/video", "and the path with --root-path"),
        ("--root-path", "https://video.example/video", "the host belongs in --allow-origin"),
        ("--root-path", "/gradio_api", "the page itself uses /gradio_api"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_its_flag(start, capsys, flag, value, message):
    with pytest.raises(SystemExit) as exit_:
        start(flag, value)
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert f"argument {flag}: {value}: " in err
    assert message in err
