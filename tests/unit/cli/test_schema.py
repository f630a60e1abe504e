"""``video-llama schema``: what an editor knows about a YAML."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.unit.config.conftest import FakeModel
from video_llama.cli.main import main
from video_llama.common.registry import MODELS
from video_llama.config.schema import field_docs, json_schema
from video_llama.models.config import VideoLLaMAConfig

ROOT = Path(__file__).parents[3]
SHIPPED = sorted(p for folder in ("train_configs", "eval_configs") for p in (ROOT / folder).rglob("*.yaml"))
TOY = yaml.safe_load((ROOT / "train_configs/toy/stage1_pretrain.yaml").read_text())


@pytest.fixture(scope="module")
def schema() -> Any:
    return json_schema()


def errors(schema: Any, data: Any) -> dict[str, str]:
    """Return the first message of each location that the schema refuses."""
    jsonschema.Draft202012Validator.check_schema(schema)
    found = jsonschema.Draft202012Validator(schema).iter_errors(data)
    return {".".join(map(str, error.absolute_path)): error.message for error in found}


def changed(**values: Any) -> Any:
    """Return the toy configuration with some of its values replaced, by dotted key; ``__`` for the dots."""
    config = json.loads(json.dumps(TOY))
    for key, value in values.items():
        *path, last = key.split("__")
        holder = config
        for part in path:
            holder = holder[part]
        holder[last] = value
    return config


def test_the_schema_in_the_repository_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == (ROOT / "schema.json").read_text(), "run video-llama schema > schema.json"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda p: p.name)
def test_a_shipped_yaml_names_the_schema_and_is_valid(schema: Any, file: Path) -> None:
    text = file.read_text()
    modeline = "# yaml-language-server: $schema="
    assert text.startswith(modeline)
    assert (file.parent / text.splitlines()[0].removeprefix(modeline)).resolve() == ROOT / "schema.json"
    assert errors(schema, yaml.safe_load(text)) == {}


def test_three_mistakes_are_found_where_they_are(schema: Any) -> None:
    config = changed(run__max_epcoh=1, run__batch_size_train="many")
    config["datasets"]["webvid"]["vis_processor"]["train"]["name"] = "alpro_vido_eval"
    found = errors(schema, config)
    assert found.keys() == {"run", "run.batch_size_train", "datasets.webvid.vis_processor.train.name"}
    assert "'max_epcoh' was unexpected" in found["run"]


@pytest.mark.parametrize(
    ("key", "value", "location"),
    [
        ("model__arch", "video_lama", "model.arch"),
        ("model__vit_precision", "fp8", "model.vit_precision"),
        ("model__image_size", 0, "model.image_size"),
        ("model__qformer", {"hiden_size": 3}, "model.qformer"),
        ("model__lora", {"target_modules": ["q_proj", 3]}, "model.lora.target_modules.1"),
        ("model__audio_encoder", "wisper", "model.audio_encoder"),
        ("model__audio_encoder", {"name": "whisper"}, "model.audio_encoder"),
        ("model__audio_encoder", {"audio": {}}, "model.audio_encoder"),
        ("run__lr_sched", "constant", "run.lr_sched"),
        ("run__init_lr", "small", "run.init_lr"),
        ("datasets", {}, "datasets"),
        ("datasets__mine", {"vis_processor": {}}, "datasets.mine"),
        ("datasts", {}, ""),
        ("imports", "my_package", "imports"),
    ],
)
def test_a_value_that_a_config_refuses_is_refused_by_the_schema(
    schema: Any, key: str, value: Any, location: str
) -> None:
    assert errors(schema, changed(**{key: value})).keys() == {location}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run__init_lr", "1e-4"),
        ("run__init_lr", "???"),
        ("run__max_epoch", "${paths.epochs}"),
        ("run", "${paths.run}"),
        ("model__lora", None),
        ("model__lora", {}),
        ("model__vit_precision", "${oc.env:PRECISION}"),
        ("model__audio_encoder", "imagebind_huge"),
        ("model__audio_encoder", {"name": "imagebind_huge", "audio": {"depth": 3}}),
        ("datasets__mine", {"name": "webvid", "vis_processor": {"train": {"name": "alpro_video_eval"}}}),
        ("paths", {"any": ["thing", 3]}),
        ("imports", ["my_package.data"]),
    ],
)
def test_a_value_that_a_config_accepts_is_valid(schema: Any, key: str, value: Any) -> None:
    assert errors(schema, changed(**{key: value})) == {}


def test_every_field_has_its_docstring_and_its_default(schema: Any) -> None:
    described = schema["$defs"]["video_llama.models.config.VideoLLaMAConfig:arch"]["properties"]
    assert described["image_size"]["description"] == "Side of a frame, in pixels."
    assert described["image_size"]["default"] == 224
    assert field_docs(VideoLLaMAConfig).keys() >= {f.name for f in dataclasses.fields(VideoLLaMAConfig)}
    for name, config in schema["$defs"].items():
        for key, field in config.get("properties", {}).items():
            assert "description" in field or key == name.partition(":")[2], f"{name} {key}"


def test_names_registered_by_a_plugin_are_included() -> None:
    with MODELS.scoped():
        MODELS.register("mine")(FakeModel)
        assert errors(json_schema(), {"model": {"arch": "mine", "llama_model": "x", "num_video_query_token": 0}}) == {
            "model.num_video_query_token": "0 is less than the minimum of 1"
        }


def test_a_module_that_cannot_be_imported_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--imports", "no_such_package"]) == 1
    assert "cannot import no_such_package" in capsys.readouterr().err
