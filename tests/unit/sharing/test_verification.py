"""What a model is loaded from is compared with what it was exported with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.sharing.conftest import FILES, Toy, job
from video_llama.common.errors import ConfigError, VideoLlamaError, WeightsError
from video_llama.conversation.chat import Chat

PARENTS = [key for key in FILES if key != "ckpt"]


def change_a_value(path: Path) -> str:
    """Change the last bit of one value of one tensor, and return the tensor's name."""
    file = path / "model.safetensors" if path.is_dir() else path
    tensors = load_file(file)
    name = sorted(name for name in tensors if ".vision." not in name)[
        len(tensors) // 3
    ]  # the trunk for frames is not used
    changed = tensors[name].clone().contiguous()
    changed.view(-1).view(torch.uint8)[0] ^= 1
    save_file({**tensors, name: changed}, file, metadata={"format": "pt"})
    return name


def test_the_same_files_are_accepted_wherever_they_lie_and_whatever_holds_them(toy: Toy, exported, tmp_path):
    bundle = exported()
    vision = load_file(toy.path("vit_ckpt"))
    torch.save({"model": vision}, tmp_path / "vision.pth")
    options = [*toy.options(*PARENTS), f"model.vit_ckpt={tmp_path / 'vision.pth'}"]
    assert job(bundle, *options).model.ckpt == str(bundle / "model.safetensors")


@pytest.mark.parametrize("key", PARENTS)
def test_one_changed_bit_of_a_parent_is_refused_with_the_key_and_the_tensor(toy: Toy, exported, key):
    bundle = exported()
    name = change_a_value(toy.path(key))
    with pytest.raises(WeightsError) as error:
        job(bundle, *toy.options(*PARENTS))
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"model.{key}: {toy.path(key)} is not what {bundle} was exported with: ")
    assert f"{name} differs. Use {FILES[key]}." in line


def test_the_refusal_names_the_repository_and_the_revision_of_the_right_parent(toy: Toy, exported):
    bundle = exported(parents={"llama_model": "org/decoder@v1", "vit_ckpt": "hf://org/encoders@v2/vision.pth"})
    for key in ("llama_model", "vit_ckpt"):
        change_a_value(toy.path(key))
    with pytest.raises(WeightsError) as error:
        job(bundle, *toy.options(*PARENTS))
    vision, decoder = str(error.value).splitlines()
    assert "Use org/encoders, vision.pth, revision v2." in vision
    assert "Use org/decoder, revision v1." in decoder


@pytest.mark.parametrize("layout", ["bundle", "full"])
def test_a_changed_file_of_the_export_itself_is_refused(toy: Toy, exported, layout):
    folder = exported(layout)
    name = change_a_value(next(folder.glob("model*branch*")) if layout == "full" else folder / "model.safetensors")
    with pytest.raises(WeightsError, match=f"{name} differs. The folder has been changed: download or export it again"):
        job(folder, *(toy.options(*PARENTS) if layout == "bundle" else ()))


def test_another_tokenizer_is_refused_and_other_bookkeeping_is_not(toy: Toy, exported):
    bundle = exported()
    config = toy.path("llama_model") / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "transformers_version": "4.28.1", "torch_dtype": "float16"}))
    job(bundle, *toy.options(*PARENTS))
    config.write_text(json.dumps({**content, "rms_norm_eps": 1e-5}))
    with pytest.raises(WeightsError, match=r"model.llama_model: .* was exported with: config.json differs"):
        job(bundle, *toy.options(*PARENTS))
    config.write_text(json.dumps(content))
    tokenizer = toy.path("llama_model") / "tokenizer_config.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "add_bos_token": False}))
    with pytest.raises(WeightsError, match=r"tokenizer_config.json differs"):
        job(bundle, *toy.options(*PARENTS))


def test_a_parent_of_this_machine_alone_is_to_be_named_and_the_error_says_how(exported):
    bundle = exported()
    with pytest.raises(ConfigError) as error:
        Chat.from_pretrained(bundle)
    assert error.value.problems[-1] == (
        f"model.llama_model: {bundle} was exported with decoder, and does not say where others get it. Name your copy, which "
        "is verified: --options model.llama_model=PATH"
    )
    assert len(error.value.problems) == len(PARENTS)
    assert str(bundle.parent) not in (bundle / "weights.json").read_text()
    assert str(bundle.parent) not in (bundle / "config.yaml").read_text()


def test_a_branch_of_the_model_may_be_left_out(toy: Toy, exported):
    without_sound = job(exported("full"), "model.equip_audio_branch=false", "model.imagebind_ckpt_path=null")
    assert not without_sound.model.equip_audio_branch


def test_more_trained_weights_than_were_exported_are_refused(toy: Toy, exported):
    folder = exported("full")
    with pytest.raises(WeightsError, match=r"model.ckpt_2: .* was exported without it"):
        job(folder, f"model.ckpt_2={toy.path('ckpt')}")


def test_a_template_that_is_not_the_packages_is_refused(toy: Toy, exported):
    folder = exported("full")
    template = folder / "conversation_template.json"
    template.write_text(template.read_text().replace("###Human: ", "###User: "))
    with pytest.raises(WeightsError, match="is not the conversation template vicuna of this version"):
        job(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("imports: [os]", "imports: an export imports nothing"),
        ('"im\\u0070orts": [os]', "imports: an export imports nothing"),
        ('paths: {x: "${oc.env:HOME}"}', "refers to nothing but"),
        ('paths: {x: "\\u0024{oc.env:HOME}"}', "refers to nothing but"),
        ("paths: {x: '\\\\${oc.env:HOME}'}", "refers to nothing but"),
        ("paths: {x: '${here}/${paths.y}', y: z}", "refers to nothing but"),
    ],
)
def test_the_config_of_an_export_runs_nothing_and_reads_no_environment(exported, line, message):
    folder = exported("full")
    with open(folder / "config.yaml", "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ConfigError, match=message):
        job(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": "video_llama export/2"}', "this version reads video_llama export/1. Update video_llama"),
        ("{}", "is not of a folder that video-llama export wrote"),
        ('{"format": "video_llama export/1", "layout": "full"}', "damaged: KeyError"),
        ("{", "not valid JSON"),
        ("", "an empty file"),
    ],
)
def test_an_inventory_that_is_not_one_is_refused(exported, content, message):
    folder = exported("full")
    (folder / "weights.json").write_text(content)
    with pytest.raises(VideoLlamaError, match=message):
        job(folder)


def test_a_folder_that_is_no_export_is_told_from_one(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere: no such folder"):
        Chat.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"has no weights.json, so video-llama export did not write it"):
        Chat.from_pretrained(tmp_path)
