"""The published command line of the demo starts the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from video_llama.cli.main import main
from video_llama.config.loader import load_config
from video_llama.demo import command
from video_llama.demo.server import ServerConfig

TOY = Path(__file__).parents[3] / "eval_configs/toy.yaml"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerConfig]:
    """What would have been served."""
    configs: list[ServerConfig] = []
    monkeypatch.setattr(command, "serve", configs.append)
    return configs


def model_type(config: ServerConfig) -> str:
    return str(load_config(config.cfg_path, config.options).model.model_type)


@pytest.mark.parametrize("flag", ["--model_type", "--model-type"])
@pytest.mark.parametrize("name", ["llama_v2", "vicuna", "auto"])
@pytest.mark.parametrize("gpu", ["--gpu-id", "--gpu_id"])
def test_the_published_command_line_is_accepted(served: list[ServerConfig], flag: str, name: str, gpu: str) -> None:
    words = ["--cfg-path", str(TOY), flag, name, gpu, "0", "--options", "model.llama_precision=fp32"]
    assert main(["demo", *words]) == 0
    (config,) = served
    assert model_type(config) == name
    assert config.device == "cuda:0"
    assert "model.llama_precision=fp32" in config.options


def test_the_flag_may_be_written_with_an_equals_sign(served: list[ServerConfig]) -> None:
    assert main(["demo", "--model_type=llama_v2"]) == 0
    assert model_type(served[0]) == "llama_v2"


def test_without_the_flag_the_yaml_decides(served: list[ServerConfig]) -> None:
    assert main(["demo", "--cfg-path", str(TOY)]) == 0
    assert model_type(served[0]) == "pretrain_vicuna"
    assert served[0].options == []


def test_the_system_message_may_be_given(served: list[ServerConfig]) -> None:
    text = 'Say "${x}" #1\n'
    assert main(["demo", "--cfg-path", str(TOY), "--system", text]) == 0
    inference = load_config(served[0].cfg_path, served[0].options, also=("inference",)).inference
    assert inference is not None
    assert inference.system == text


def test_the_texts_of_the_replaced_template_are_dropped(served: list[ServerConfig], tmp_path: Path) -> None:
    """The published YAMLs set ``end_sym`` to that of Vicuna."""
    mine = tmp_path / "mine.yaml"
    texts = "model:\n  end_sym: '###'\n  prompt_template: '###Human: {} ###Assistant: '\n"
    mine.write_text(TOY.read_text().replace("model:\n", texts, 1))
    assert main(["demo", "--cfg-path", str(mine), "--model_type", "llama_v2"]) == 0
    assert model_type(served[0]) == "llama_v2"


def test_an_unknown_template_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["demo", "--cfg-path", str(TOY), "--model_type", "llama_v3"]) == 1
    assert "Did you mean llama_v2?" in capsys.readouterr().err


def test_two_templates_are_refused(served: list[ServerConfig], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model_type", "llama_v2", "--options", "model.model_type=vicuna"]
    assert main(["demo", *words]) == 1
    assert "both given" in capsys.readouterr().err
    assert served == []
