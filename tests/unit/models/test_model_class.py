"""Commands work with model classes by what they offer, not by their type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from tests import tiny
from video_llama.checkpoints.io import write_weights
from video_llama.cli.main import main
from video_llama.common.registry import MODELS
from video_llama.models.model_class import WeightsTools
from video_llama.models.video_llama import VideoLLaMA


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    width: int = 3
    """Of the only layer."""


class Linear(nn.Module):
    """A model that was not derived from ours."""

    Config = LinearConfig

    @classmethod
    def skeleton(cls, config: LinearConfig) -> nn.Module:
        return nn.Linear(config.width, config.width, device="meta")

    @staticmethod
    def sample_spec(config: LinearConfig) -> None:
        return None


@pytest.fixture
def section(tmp_path: Path) -> Iterator[Path]:
    """A YAML of that model."""
    (tmp_path / "a.yaml").write_text("model: {arch: linear}\n")
    with MODELS.scoped():
        MODELS.register("linear")(Linear)
        yield tmp_path / "a.yaml"


def test_ours_offers_all_that_the_commands_ask_for():
    assert isinstance(VideoLLaMA, WeightsTools)
    assert not isinstance(Linear, WeightsTools)


def test_a_foreign_model_is_checked_through_its_skeleton(section, monkeypatch):
    built = []
    monkeypatch.setattr(Linear, "skeleton", built.append)
    monkeypatch.setattr(LinearConfig, "for_inference", lambda config: config, raising=False)
    assert main(["check-config", str(section)]) == 0
    assert built == [LinearConfig()]


def test_a_foreign_model_without_weights_tools_is_refused_by_the_commands_that_need_them(section, capsys, decoder):
    write_weights(file := section.parent / "w.safetensors", {"video_branch.to_decoder.bias": torch.ones(3)})
    for command in (
        ["inspect-weights", str(file), "--cfg-path", str(section)],
        ["inspect-weights", str(decoder), "--cfg-path", str(section)],
        [
            "export-decoder",
            "--cfg-path",
            str(section),
            "--checkpoint",
            str(file),
            "--output",
            str(section.parent / "out"),
        ],
        ["merge-lora", "--cfg-path", str(section), "--output", str(section.parent / "out")],
    ):
        assert main(command) == 1
        assert "model.arch: " in capsys.readouterr().err


def test_a_derived_model_inherits_the_tools(decoder):
    class Derived(VideoLLaMA):
        pass

    assert isinstance(Derived, WeightsTools)
    assert any(p.requires_grad for p in Derived.skeleton(tiny.config(decoder)).parameters())
