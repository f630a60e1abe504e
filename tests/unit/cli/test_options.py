"""The flags that the commands for questions share."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import pytest

from video_llama.cli.main import main
from video_llama.common.errors import ConfigError
from video_llama.config.flags import model_options
from video_llama.config.loader import load_config

NEEDED = {
    "chat": [],
    "infer": ["--input", "q.jsonl", "--output", "a.jsonl"],
    "evaluate": ["--benchmark", "exact_match", "--output", "a.jsonl"],
}


@pytest.mark.parametrize("command", NEEDED)
@pytest.mark.parametrize("text", ["Be brief.", "", "Cost: ${x} #1 \"é猫\" 'a'\n[b]", "null", "3"])
def test_the_system_flag_sets_the_system_message(command: str, text: str) -> None:
    parser = argparse.ArgumentParser()
    import_module(f"video_llama.cli.{command}").add_arguments(parser)
    words = ["--cfg-path", "toy", *NEEDED[command], "--options", "model.max_txt_len=31"]
    given = parser.parse_args([*words, "--system", text])
    job = load_config("toy", model_options(given), also=("inference",))
    assert job.inference is not None
    assert (job.inference.system, job.model.max_txt_len) == (text, 31)
    assert model_options(parser.parse_args(words)) == ["model.max_txt_len=31"]


def test_a_system_message_that_the_template_has_no_place_for_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["model.model_type=ziya", "inference.system=Be brief."]
    problem = "inference.system: model_type ziya has no system message. Leave it out."
    with pytest.raises(ConfigError, match=problem):
        load_config("toy", options, also=("inference",))
    assert main(["chat", "--cfg-path", "toy", "--options", options[0], "--system", "Be brief."]) == 1
    assert problem in capsys.readouterr().err
    assert load_config("toy", [options[0], "inference.system="], also=("inference",)).inference is not None
