"""A small world of registered classes to configure, in registries of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Interval

from video_llama.common.registry import Registry
from video_llama.config import loader as config
from video_llama.config.loader import (
    ExistingPath,
    JobConfig,
    Registered,
    RegisteredKeys,
    RegisteredName,
    load_config,
)

MODELS: Registry[Any] = Registry("model")
DATASETS: Registry[Any] = Registry("dataset")
RUNNERS: Registry[Any] = Registry("runner")
PROCESSORS: Registry[Any] = Registry("processor")
SCHEDULES: Registry[Any] = Registry("lr scheduler")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    rank: int = 8
    targets: tuple[str, ...] = ("q_proj", "v_proj")


@MODELS.register("video_llama")
class FakeModel:
    @dataclass(frozen=True, kw_only=True)
    class Config:
        llama_model: Annotated[str, ExistingPath()]
        freeze_vit: bool = True
        num_video_query_token: Annotated[int, Ge(1)] = 32
        drop_path_rate: Annotated[float, Interval(ge=0, le=1)] = 0.0
        prompt_path: Annotated[str, ExistingPath("file")] | None = None
        max_frame_pos: int | None = None
        end_sym: str = "</s>"
        precision: Literal["bf16", "fp16"] = "bf16"
        device_map: dict[str, int] | str = "auto"
        lora: LoraConfig | None = None
        wide_lora: LoraConfig = field(default_factory=lambda: LoraConfig(rank=64))
        extra: Any = None
        frozen_video_Qformer: bool = False
        train_audio: bool = False

        def check(self) -> Iterable[tuple[str, str]]:
            if self.frozen_video_Qformer and self.train_audio:
                yield "train_audio", "cannot be true while frozen_video_Qformer is"


@PROCESSORS.register("alpro_video_train")
class FakeProcessor:
    @dataclass(frozen=True, kw_only=True)
    class Config:
        n_frms: Annotated[int, Ge(1)] = 8


@PROCESSORS.register("alpro_video_eval")
class FakeEvalProcessor(FakeProcessor):
    """Shares its parent's Config, so that only the name tells the two apart."""


@dataclass(frozen=True, kw_only=True)
class ProcessorsConfig:
    train: Annotated[Any, Registered(PROCESSORS, key="name", default="alpro_video_train")]


@DATASETS.register("webvid")
class FakeDataset:
    @dataclass(frozen=True, kw_only=True)
    class Config:
        videos_dir: str
        sample_ratio: float | None = None
        sizes: list[int] = field(default_factory=list)
        vis_processor: ProcessorsConfig = field(default_factory=lambda: ProcessorsConfig(train=FakeProcessor.Config()))
        eval_processor: Annotated[Any, Registered(PROCESSORS, key="name")] | None = None


@SCHEDULES.register("constant_lr")
class FakeSchedule:
    pass


@RUNNERS.register("runner_base")
class FakeRunner:
    @dataclass(frozen=True, kw_only=True)
    class Config:
        max_epoch: Annotated[int, Ge(1)] = 5
        init_lr: float = 1e-4
        betas: tuple[float, float] = (0.9, 0.999)
        lr_sched: Annotated[str, RegisteredName(SCHEDULES)] = "constant_lr"
        output_dir: str = "output"


@pytest.fixture(autouse=True)
def fake_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.SECTIONS, "model", Annotated[Any, Registered(MODELS, key="arch")])
    monkeypatch.setitem(config.SECTIONS, "datasets", Annotated[dict[str, Any], RegisteredKeys(DATASETS)])
    monkeypatch.setitem(
        config.SECTIONS, "run", Annotated[Any, Registered(RUNNERS, key="runner", default="runner_base")]
    )


class Folder:
    """The working directory of a user: a decoder in ``llm``, and one YAML at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "llm").mkdir()

    def load(self, text: str, *options: str, **kwargs: Any) -> JobConfig:
        """Load a YAML, from a file called mine.yaml, all of whose sections count."""
        (self.path / "mine.yaml").write_text(text, encoding="utf-8")
        return load_config("mine.yaml", options, **{"need": None, **kwargs})

    def problems(self, text: str, *options: str, **kwargs: Any) -> list[str]:
        """Return the problem lines of a YAML, empty when it loads."""
        try:
            self.load(text, *options, **kwargs)
        except config.ConfigError as error:
            return error.problems
        return []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)
