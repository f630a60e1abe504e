"""The weights of the audio branch and of ImageBind: what is taken of each file, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.published import released
from video_llama.checkpoints.io import write_weights
from video_llama.checkpoints.published import AUDIO_BRANCH, IMAGEBIND_HUGE, VISION_BRANCH, Format
from video_llama.common.errors import WeightsError
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.video_llama import VideoLLaMA

Tensors = dict[str, Tensor]
TEXT = {
    "modality_trunks.text.blocks.0.attn.in_proj_weight": torch.ones(3, 3),
    "modality_heads.text.proj.1.weight": torch.ones(1),
}
"""Of ImageBind's other modalities, which nothing is taken of."""


@pytest.fixture(scope="module")
def model(decoder: Path) -> VideoLLaMA:
    return tiny.model(decoder, **tiny.AUDIO, audio_source="both").eval()


def state(model: VideoLLaMA, *parts: str) -> Tensors:
    return {n: t for n, t in model.state_dict().items() if n.startswith(parts)}


def in_their_names(tensors: Tensors, published: Format) -> Tensors:
    """The same tensors as their project names them."""
    assert published.key_map is not None
    renamed = published.key_map.to_theirs(tensors)
    assert not renamed.unknown
    return {theirs: tensors[ours] for ours, theirs in renamed.names.items()}


def imagebind(model: VideoLLaMA, *trunks: str) -> Tensors:
    return in_their_names(state(model, *(f"audio_encoder.{t}." for t in trunks)), IMAGEBIND_HUGE) | TEXT


def config(decoder: Path, **changes: Any) -> VideoLLaMAConfig:
    return tiny.config(
        decoder, **{**tiny.AUDIO, **{k: str(v) if isinstance(v, Path) else v for k, v in changes.items()}}
    )


def refusal(decoder: Path, **changes: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        VideoLLaMA.from_config(config(decoder, **changes))
    return str(caught.value)


def assert_filled(filled: VideoLLaMA, wanted: Tensors) -> None:
    own = filled.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in wanted.items())


# ImageBind


@pytest.mark.parametrize(
    ("settings", "trunks"),
    [
        ({"audio_source": "sound"}, ["audio"]),
        ({"audio_source": "frames"}, ["vision"]),
        ({"audio_source": "both"}, ["audio", "vision"]),
        ({"audio_source": "frames", "frozen_audio_Qformer": True}, ["audio"]),
    ],
)
def test_only_the_trunks_in_use_are_read_from_imagebinds_file(decoder, model, tmp_path, settings, trunks, caplog):
    files = {"imagebind_ckpt_path": tmp_path / "imagebind_huge.pth", "ckpt": tmp_path / "branch.pth"}
    torch.save(imagebind(model, "audio", "vision"), files["imagebind_ckpt_path"])
    torch.save(state(model, "audio_branch."), files["ckpt"])
    with caplog.at_level("INFO"):
        filled = VideoLLaMA.from_config(config(decoder, **files, **settings))
    wanted = state(model, *(f"audio_encoder.{t}." for t in trunks))
    assert state(filled, "audio_encoder.").keys() == wanted.keys()
    assert_filled(filled, wanted)
    (report,) = [m for m in caplog.messages if m.startswith("model.imagebind_ckpt_path")]
    assert report.splitlines()[1:-1] == [
        f"  audio_encoder.{t}: {len(state(model, f'audio_encoder.{t}.'))} matched" for t in trunks
    ]
    assert "ignored" in report.splitlines()[-1]
    assert not [m for m in caplog.messages if m.startswith("audio_encoder")]


def test_the_key_may_name_the_folder_of_the_file(decoder, model, tmp_path):
    torch.save(imagebind(model, "audio", "vision"), tmp_path / "imagebind_huge.pth")
    filled = VideoLLaMA.from_config(config(decoder, imagebind_ckpt_path=tmp_path))
    assert_filled(filled, state(model, "audio_encoder.audio."))


def test_our_own_file_is_accepted(decoder, model, tmp_path):
    write_weights(tmp_path / "i.safetensors", state(model, "audio_encoder."))
    filled = VideoLLaMA.from_config(config(decoder, imagebind_ckpt_path=tmp_path / "i.safetensors"))
    assert_filled(filled, state(model, "audio_encoder.audio."))


def test_a_folder_without_the_file_is_refused(decoder, tmp_path):
    assert refusal(decoder, imagebind_ckpt_path=tmp_path) == (
        f"model.imagebind_ckpt_path: {tmp_path}: a directory; expected a weights file"
    )


@pytest.mark.parametrize(("source", "has", "lacks"), [("sound", "vision", "sound"), ("both", "vision", "sound")])
def test_a_file_without_the_trunk_asked_for_is_named(decoder, model, tmp_path, source, has, lacks):
    path = tmp_path / "i.pth"
    torch.save(imagebind(model, has), path)
    assert f"model.imagebind_ckpt_path: {path} lacks ImageBind's trunk for {lacks}" in refusal(
        decoder, imagebind_ckpt_path=path, audio_source=source
    )


def test_ours_without_the_trunk_for_frames_is_named(decoder, model, tmp_path):
    path = tmp_path / "i.safetensors"
    write_weights(path, state(model, "audio_encoder.audio."))
    message = refusal(decoder, imagebind_ckpt_path=path, audio_source="frames")
    assert message.startswith(f"model.imagebind_ckpt_path: {path} lacks ImageBind's trunk for frames")


def test_a_trunk_with_a_tensor_missing_is_refused(decoder, model, tmp_path):
    tensors = imagebind(model, "audio", "vision")
    del tensors["modality_preprocessors.audio.rgbt_stem.proj.weight"]
    torch.save(tensors, tmp_path / "i.pth")
    message = refusal(decoder, imagebind_ckpt_path=tmp_path / "i.pth")
    assert "are in no file, such as audio_encoder.audio.patch.weight" in message


def test_what_is_not_used_of_a_file_may_be_anything(decoder, model, tmp_path):
    tensors = imagebind(model, "audio", "vision")
    tensors["modality_heads.vision.2.weight"] = torch.full((12, 16), float("nan"))
    torch.save(tensors, tmp_path / "i.pth")
    path = tmp_path / "i.pth"
    assert_filled(
        VideoLLaMA.from_config(config(decoder, imagebind_ckpt_path=path)), state(model, "audio_encoder.audio.")
    )
    assert "holds NaN or infinity:\n  ! not finite: audio_encoder.vision.head.weight" in refusal(
        decoder, imagebind_ckpt_path=path, audio_source="frames"
    )


def test_another_kind_of_file_is_refused_by_name(decoder, model, tmp_path):
    torch.save(released(in_their_names(state(model, "audio_branch."), AUDIO_BRANCH)), tmp_path / "a.pth")
    assert "is a Video-LLaMA audio-branch file; this key takes an ImageBind-Huge file, or our own." in refusal(
        decoder, imagebind_ckpt_path=tmp_path / "a.pth"
    )


# The branches


def branch_files(model: VideoLLaMA, folder: Path) -> dict[str, Path]:
    """A vision branch and an audio branch as the original releases them."""
    for name, published in {"video": VISION_BRANCH, "audio": AUDIO_BRANCH}.items():
        tensors = in_their_names(state(model, f"{name}_branch."), published)
        torch.save(released(tensors), folder / f"{name}.pth")
    return {"ckpt": folder / "video.pth", "ckpt_2": folder / "audio.pth"}


def test_an_audio_branch_goes_on_top_of_a_vision_branch(decoder, model, tmp_path, caplog):
    filled = VideoLLaMA.from_config(config(decoder, **branch_files(model, tmp_path)))
    assert_filled(filled, model.trainable_state())
    assert not [m for m in caplog.messages if "_branch" in m and "at random" in m]


def test_one_checkpoint_of_ours_holds_both_branches(decoder, model, tmp_path):
    write_weights(tmp_path / "both.safetensors", model.trainable_state())
    assert_filled(VideoLLaMA.from_config(config(decoder, ckpt=tmp_path / "both.safetensors")), model.trainable_state())
    sight = VideoLLaMA.from_config(tiny.config(decoder, ckpt=str(tmp_path / "both.safetensors")))
    assert_filled(sight, state(model, "video_branch."))


def test_an_audio_branch_that_is_in_no_file_is_reported(decoder, model, tmp_path, caplog):
    VideoLLaMA.from_config(config(decoder, ckpt=branch_files(model, tmp_path)["ckpt"]))
    reports = {r.message: r.levelname for r in caplog.records}
    assert reports["audio_branch.qformer is in no file: it starts at random"] == "WARNING"


@pytest.mark.parametrize(
    ("made_with", "line"),
    [
        ({"num_audio_query_token": 5}, "  made with num_audio_query_token: 5; the model section has 2"),
        ({"max_audio_pos": 8}, "  made with max_audio_pos: 8; the model section has 4"),
    ],
)
def test_an_audio_branch_of_another_size_is_refused_with_the_setting(decoder, tmp_path, made_with, line):
    other = tiny.model(decoder, **{**tiny.AUDIO, **made_with})
    message = refusal(decoder, ckpt=branch_files(other, tmp_path)["ckpt_2"])
    assert message.splitlines()[-1] == line


# The audio branch alone


@pytest.fixture
def unusable(tmp_path) -> dict[str, Any]:
    """Settings that train the audio branch alone, and name files for frames that cannot be read."""
    (tmp_path / "v.pth").write_bytes(b"<!DOCTYPE html>")
    (tmp_path / "l.pth").write_bytes(b"")
    files = {
        "vit_ckpt": tmp_path / "v.pth",
        "q_former_model": tmp_path / "none.pth",
        "llama_proj_model": tmp_path / "l.pth",
    }
    return {**tiny.AUDIO_ALONE, **files}


def test_files_for_frames_are_not_opened(decoder, model, tmp_path, unusable, caplog):
    torch.save(imagebind(model, "audio", "vision"), tmp_path / "i.pth")
    write_weights(tmp_path / "b.safetensors", state(model, "audio_branch."))
    files = {"imagebind_ckpt_path": tmp_path / "i.pth", "ckpt": tmp_path / "b.safetensors"}
    settings = config(decoder, **unusable, **files)
    filled = VideoLLaMA.from_config(settings)
    assert_filled(filled, state(model, "audio_encoder.audio.", "audio_branch."))
    notes = dict(settings.notes(trains=True))
    for key in ("vit_ckpt", "q_former_model", "llama_proj_model"):
        assert notes[key] == "has no effect in training: the audio branch alone is trained"
    assert not [m for m in caplog.messages if "at random" in m]


def test_only_the_audio_branch_is_read_from_a_checkpoint_with_both(decoder, model, tmp_path, caplog):
    both = model.trainable_state()
    both["video_branch.to_decoder.bias"] = torch.full((16,), float("nan"))
    write_weights(tmp_path / "both.safetensors", both)
    with caplog.at_level("INFO"):
        filled = VideoLLaMA.from_config(config(decoder, **tiny.AUDIO_ALONE, ckpt=tmp_path / "both.safetensors"))
    audio = state(model, "audio_branch.")
    assert filled.trainable_state().keys() == audio.keys()
    assert_filled(filled, audio)
    (report,) = [m for m in caplog.messages if m.startswith("model.ckpt")]
    n_ignored = len(both) - len(audio)
    assert report.splitlines()[-1].startswith(f"  {n_ignored} ignored, such as video_branch.")


def test_only_the_audio_branch_is_read_from_a_released_file_with_both(decoder, model, tmp_path):
    theirs = in_their_names(state(model, "video_branch.", "audio_branch."), AUDIO_BRANCH)
    torch.save(released(theirs), tmp_path / "r.pth")
    filled = VideoLLaMA.from_config(config(decoder, **tiny.AUDIO_ALONE, ckpt=tmp_path / "r.pth"))
    assert_filled(filled, state(model, "audio_branch."))
    assert not state(filled, "video_branch.")


@pytest.mark.parametrize("with_audio", [True, False])
def test_a_vision_branch_as_ckpt_is_noted_where_the_audio_branch_alone_is_trained(
    decoder, model, tmp_path, with_audio, caplog
):
    vision, audio = (branch_files(model, tmp_path)[key] for key in ("ckpt", "ckpt_2"))
    with caplog.at_level("INFO"):
        filled = VideoLLaMA.from_config(
            config(decoder, **tiny.AUDIO_ALONE, ckpt=vision, ckpt_2=audio if with_audio else None)
        )
    (note,) = [m for m in caplog.messages if m.startswith("note: ")]
    assert note == (
        f"note: model.ckpt: {vision} is a Video-LLaMA vision-branch file; it has no effect: the audio branch alone is trained"
    )
    if with_audio:
        assert_filled(filled, state(model, "audio_branch."))


def test_a_vision_branch_as_ckpt_2_is_refused_where_the_audio_branch_alone_is_trained(decoder, model, tmp_path):
    path = branch_files(model, tmp_path)["ckpt"]
    assert refusal(decoder, **{**tiny.AUDIO_ALONE, "ckpt_2": path}) == (
        f"model.ckpt_2: {path} is a Video-LLaMA vision-branch file, and the model has no video branch: the audio branch "
        "alone is trained. Set frozen_video_Qformer: false to train both, or leave the file out."
    )
