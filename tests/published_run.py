"""A working directory for the original's YAMLs: tiny weights in the original's files, and the toy world in its layout.

The paths are those of ``tests/fixtures/published``, whose values are the published ones. A YAML has no keys for the widths of
the frozen parts, nor for the two files that the original downloads by itself: ``SIZES`` and ``DOWNLOADS`` add them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests import tiny
from tests.conftest import FIXTURES
from tests.published import released
from video_llama.checkpoints.published import BLIP2_QFORMER, EVA_CLIP_G, IMAGEBIND_HUGE, VISION_BRANCH, Format
from video_llama.config.shipped import CONFIGS
from video_llama.models.config import QFormerConfig
from video_llama.models.encoders.config import ImageBindConfig

YAMLS = FIXTURES / "published"
TRAINING = [f"{b}branch_{s}.yaml" for b in ("vision", "audio") for s in ("stage1_pretrain", "stage2_finetune")]
EVALUATION = ["video_llama_eval_only_vl.yaml", "video_llama_eval_withaudio.yaml"]
DOWNLOADS = ("model.vit_ckpt=ckpt/eva_vit_g.pth", "model.q_former_model=ckpt/blip2_pretrained_flant5xxl.pth")
VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 14, "mlp_ratio": 2.0}
QFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TRUNK = {"embed_dim": 16, "depth": 2, "num_heads": 2}
SIZES = (f"model.vit_args={VIT}", f"model.qformer={QFORMER}")
SIZES_OF_IMAGEBIND = (
    f"model.audio_encoder={{name: imagebind_huge, audio: {TRUNK}, vision: {TRUNK}, out_embed_dim: 12}}",
)
STRAY = {"llama_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
"""A buffer that the original saves by accident."""


def write_folder(folder: Path, world: Path) -> Path:
    """Write every file that a published YAML names.

    Args:
        folder: a new working directory.
        world: a toy world.
    """
    decoder = tiny.write_decoder(folder / "ckpt" / "vicuna-7b", max_position_embeddings=1024)
    trunk = tiny.TrunkConfig(**TRUNK)
    sizes: dict[str, Any] = {
        "image_size": 224,
        "vit_args": VIT,
        "num_query_token": 32,
        "num_video_query_token": 32,
        "max_frame_pos": 32,
        "max_audio_pos": 8,
        "num_audio_query_token": 8,
        "audio_encoder": ImageBindConfig(audio=trunk, vision=trunk, out_embed_dim=12),
        "audio_source": "both",
    }
    model = tiny.model(decoder, **{**tiny.AUDIO, **sizes, "qformer": QFormerConfig(**QFORMER)})
    tensors = model.state_dict()
    frames = [n for n in tensors if n.startswith("vision.vit.")]
    queries = [n for n in tensors if n.startswith(("qformer.", "vision.ln_vision."))]
    sound = [n for n in tensors if n.startswith("audio_encoder.")]
    (folder / "ckpt" / "imagebind_path").mkdir()
    torch.save(renamed(tensors, frames, EVA_CLIP_G), folder / "ckpt/eva_vit_g.pth")
    torch.save({"model": renamed(tensors, queries, BLIP2_QFORMER)}, folder / "ckpt/blip2_pretrained_flant5xxl.pth")
    torch.save(renamed(tensors, sound, IMAGEBIND_HUGE), folder / "ckpt/imagebind_path/imagebind_huge.pth")
    data = folder / "path"
    data.mkdir()
    for branch, names in (("video", ("pretrained_visual", "visual")), ("audio", ("pretrained_audio", "audio"))):
        content = renamed(tensors, [n for n in tensors if n.startswith(f"{branch}_branch.")], VISION_BRANCH)
        for name in names:
            torch.save(released({**content, **STRAY}), data / f"{name}_branch_ckpt")
    link(data / "webvid/webvid_tain_data/annotations", world / "webvid/filter_annotation")
    link(data / "webvid/webvid_tain_data/videos", world / "webvid/videos")
    link(data / "cc_sbu_align", world / "cc3m")
    link(data / "llava_instruct_150k.json", world / "llava/llava_instruct.json")
    link(data / "train2014/train2014", world / "llava/train2014")
    link(data / "webvid_align/videochat_instruct_11k.json", world / "videochat/videochat_instruct.json")
    link(data / "webvid_align/videos", world / "webvid/videos")
    link(folder / "prompts", CONFIGS / "prompts")
    for file in YAMLS.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def link(place: Path, target: Path) -> None:
    """Link a path of a YAML to a file or folder of the toy world."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def renamed(tensors: dict[str, Tensor], names: Iterable[str], kind: Format) -> dict[str, Tensor]:
    """Return tensors under the names of the original's file."""
    assert kind.key_map is not None
    theirs = kind.key_map.to_theirs(names)
    assert not theirs.unknown
    return {their: tensors[ours] for ours, their in theirs.names.items()}
