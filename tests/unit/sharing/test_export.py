"""What ``video-llama export`` writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.unit.sharing.conftest import WEIGHTS, Toy, job
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.sharing.card import Training
from video_llama.sharing.export import export
from video_llama.sharing.inventory import Origin


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("model*.safetensors") for name, tensor in load_file(file).items()}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name].dtype != expected[name].dtype] == []
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_a_bundle_is_little_more_than_its_tensors_bit_for_bit(exported):
    bundle = exported()
    expected = load_file(WEIGHTS / "branch.safetensors")
    assert_equal(tensors_of(bundle), expected)
    size = sum(file.stat().st_size for file in bundle.rglob("*"))
    assert size <= 1.1 * sum(tensor.nbytes for tensor in expected.values())


def test_a_full_export_holds_every_tensor_in_use_bit_for_bit_and_the_decoder_is_one_of_transformers(exported):
    full = exported("full")
    names = ("branch", "vision", "qformer", "imagebind")
    expected = {k: v for name in names for k, v in load_file(WEIGHTS / f"{name}.safetensors").items()}
    of_encoders = {"vit": "vision.", "ln_vision": "vision.", "bert": "qformer.", "query_tokens": "qformer."}
    expected = {of_encoders.get(k.split(".")[0], "") + k: v for k, v in expected.items()}
    assert_equal(tensors_of(full), {k: v for k, v in expected.items() if not k.startswith("audio_encoder.vision.")})
    assert_equal(tensors_of(full / "decoder"), load_file(WEIGHTS / "decoder/model.safetensors"))
    index = json.loads((full / "model.safetensors.index.json").read_text())
    assert {name: index["weight_map"][name] for name in load_file(full / "model-vision.safetensors")}
    assert AutoModelForCausalLM.from_pretrained(full, subfolder="decoder").config.model_type == "llama"


def test_each_layout_can_be_made_from_the_other_and_keeps_where_its_parts_are_from(toy: Toy, exported, tmp_path):
    parents = {"llama_model": "org/decoder@" + "0" * 40, "vit_ckpt": "hf://org/vision/vision.pth"}
    full = exported("full")
    export(toy.job(), tmp_path / "first", "bundle", parents)
    first = tmp_path / "first"
    export(
        job(first, *toy.options("vit_ckpt", "q_former_model", "imagebind_ckpt_path", "llama_model")),
        tmp_path / "f",
        "full",
    )
    for again in (tmp_path / "f", full):
        export(job(again), tmp_path / "again", "bundle", parents if again == full else {})
        assert_equal(tensors_of(tmp_path / "again"), tensors_of(first))
        found = yaml.safe_load((tmp_path / "again" / "config.yaml").read_text())["model"]
        assert (found["llama_model"], found["vit_ckpt"]) == tuple(parents.values())
    table = json.loads((tmp_path / "again" / "config.json").read_text())["parents"]["llama_model"]
    assert (table["repo_id"], table["revision"]) == ("org/decoder", "0" * 40)


def test_a_trained_encoder_has_its_own_file_and_is_no_parent(toy: Toy, tmp_path):
    branch, vision = load_file(toy.path("ckpt")), load_file(toy.path("vit_ckpt"))
    trained = {f"vision.{name}": tensor + 1 for name, tensor in vision.items()}
    save_file({**branch, **trained}, tmp_path / "trained.safetensors")
    export(toy.job(f"model.ckpt={tmp_path / 'trained.safetensors'}"), tmp_path / "out", "bundle")
    assert_equal(load_file(tmp_path / "out/model-vision.safetensors"), trained)
    assert "vit_ckpt" not in json.loads((tmp_path / "out/config.json").read_text())["parents"]
    options = toy.options("q_former_model", "imagebind_ckpt_path", "llama_model")
    assert job(tmp_path / "out", *options).model.vit_ckpt == str(tmp_path / "out/model-vision.safetensors")


def test_an_encoder_that_was_trained_in_part_stays_a_parent(toy: Toy, tmp_path):
    extra = {"vision.ln_vision.weight": torch.full((96,), 2.0)}
    save_file({**load_file(toy.path("ckpt")), **extra}, tmp_path / "trained.safetensors")
    export(toy.job(f"model.ckpt={tmp_path / 'trained.safetensors'}"), tmp_path / "out", "bundle")
    assert torch.equal(tensors_of(tmp_path / "out")["vision.ln_vision.weight"], extra["vision.ln_vision.weight"])
    recorded = json.loads((tmp_path / "out/weights.json").read_text())["parts"]["vit_ckpt"]["tensors"]
    assert "vision.ln_vision.bias" in recorded
    assert "vision.ln_vision.weight" not in recorded


def test_pickled_decoders_are_written_as_safetensors_in_files_of_limited_size(toy: Toy, exported, monkeypatch):
    decoder = toy.path("llama_model")
    tensors = {name: t.to(torch.bfloat16) for name, t in load_file(decoder / "model.safetensors").items()}
    torch.save(tensors, decoder / "pytorch_model.bin")
    (decoder / "model.safetensors").unlink()
    monkeypatch.setattr("video_llama.sharing.folder_copy.MAX_SHARD", 500_000)
    full = exported("full")
    assert len(list((full / "decoder").glob("model-*-of-*.safetensors"))) > 2
    assert_equal(tensors_of(full / "decoder"), tensors)
    assert not list(full.rglob("*.bin"))
    job(full)


def test_the_card_tells_parts_data_metrics_and_terms(toy: Toy, tmp_path):
    training = Training({"clips": {"type": "webvid", "records": 60}}, 200, {"val/loss": 0.5})
    parents = {"vit_ckpt": "eva_clip_g", "llama_model": "org/decoder"}
    export(toy.job(), tmp_path / "my-model", "bundle", parents, training)
    _, front, text = (tmp_path / "my-model/README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["base_model"] == ["org/decoder"]
    assert text.startswith("\n# my-model\n")
    for line in (
        "| clips | webvid | 60 |",
        "| val/loss | 0.5 |",
        "After 200 steps, on data held out from training:",
        "- frame encoder: MIT",
        "- decoder: see the model card of `org/decoder`",
        "- audio encoder: see its publisher",
    ):
        assert line in text.splitlines()
    assert 'Chat.from_pretrained("my-model", options=["model.q_former_model=PATH"' in text


def test_nothing_of_the_users_is_overwritten_and_an_unchanged_export_is_replaced(toy: Toy, exported, tmp_path):
    out = exported("full")
    export(toy.job(), out, "bundle")
    assert not (out / "decoder").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "weights"]
    card = out / "README.md"
    written = card.read_text()
    card.write_text("mine")
    with pytest.raises(
        WeightsError, match=r"README.md: is not as an export wrote it, and nothing of yours is overwritten"
    ):
        export(toy.job(), out, "full")
    card.write_text(written)
    weights = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(weights[:-1] + b"x")
    with pytest.raises(WeightsError, match=r"model.safetensors: is not as an export wrote it"):
        export(toy.job(), out, "full")
    (out / "model.safetensors").write_bytes(weights)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(WeightsError, match=r"notes.txt: is not as an export wrote it"):
        export(toy.job(), out, "full")
    with pytest.raises(WeightsError, match="is not empty, and nothing is overwritten"):
        export(toy.job(), toy.folder, "full")
    assert (toy.folder / "vision.safetensors").exists()


def test_a_failure_while_writing_leaves_nothing(toy: Toy, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("video_llama.sharing.export.copy_model_folder", fail)
    with pytest.raises(WeightsError, match="cannot be written, and nothing of it is left"):
        export(toy.job(), tmp_path / "out", "full")
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_what_a_killed_export_left_is_removed_by_the_next(toy: Toy, exported, tmp_path):
    (tmp_path / ".full.partial/decoder").mkdir(parents=True)
    (tmp_path / ".full.partial/decoder/model.safetensors").write_text("half")
    exported("full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "weights"]


def test_a_source_for_something_that_is_no_parent_is_refused(toy: Toy, tmp_path):
    with pytest.raises(
        ConfigError, match="--parent ckpt: is not a parent of this export; its parents: vit_ckpt, q_former"
    ):
        export(toy.job(), tmp_path / "out", "bundle", {"ckpt": "org/name"})
    with pytest.raises(ConfigError, match="its parents: none"):
        export(toy.job(), tmp_path / "out", "full", {"llama_model": "org/name"})


@pytest.mark.parametrize(
    "parent", ["llama_model=hf://org/name/file.pth", "vit_ckpt=org/name", "vit_ckpt=/data/vision.pth"]
)
def test_a_source_that_leads_nowhere_is_refused(toy: Toy, tmp_path, parent):
    with pytest.raises(ConfigError, match=f"--parent {parent}: leads nowhere from another machine; expected "):
        export(toy.job(), tmp_path / "out", "bundle", dict([parent.split("=")]))


def test_a_path_in_the_cache_of_the_hub_tells_the_repository_and_the_commit(tmp_path):
    cache = tmp_path / "models--org--my--model/snapshots" / ("a" * 40)
    folder = Origin.of("llama_model", str(cache))
    assert (folder.repo_id, folder.revision, folder.file) == ("org/my--model", "a" * 40, None)
    file = Origin.of("vit_ckpt", str(cache / "weights/vision.pth"))
    assert file.source == f"hf://org/my--model@{'a' * 40}/weights/vision.pth"


def test_half_a_model_is_not_exported(toy: Toy, tmp_path):
    branch = load_file(toy.path("ckpt"))
    save_file({n: t for n, t in branch.items() if not n.startswith("audio_branch.")}, toy.path("ckpt"))
    with pytest.raises(WeightsError, match=r"audio_branch.* is frozen, and in no file"):
        export(toy.job(), tmp_path / "out", "bundle")
    assert not (tmp_path / "out").exists()
