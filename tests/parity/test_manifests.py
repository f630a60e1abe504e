"""Every name and shape of the original's modules maps to one of ours, and back (``manifests/``).

The sizes are read from the shapes. The modules are on the meta device.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from tests.parity.conftest import Reference
from video_llama.checkpoints.keymap import KeyMap
from video_llama.checkpoints.published import AUDIO_BRANCH, BLIP2_QFORMER, EVA_CLIP_G, IMAGEBIND_HUGE, VISION_BRANCH
from video_llama.common.modalities import AudioInput
from video_llama.models.audio_branch import NUM_LAYERS, AudioBranch
from video_llama.models.config import QFormerConfig
from video_llama.models.encoders.config import ImageBindConfig, TrunkConfig
from video_llama.models.encoders.imagebind import ImageBind
from video_llama.models.encoders.vision import VisionEncoder
from video_llama.models.qformer import QFormer
from video_llama.models.video_branch import VideoBranch

Shapes = dict[str, tuple[int, ...]]


def manifests(reference: Reference, pattern: str) -> dict[Path, Shapes]:
    """The files of a kind; at least one must exist."""
    found = {}
    for path in sorted((reference.folder / "manifests").glob(pattern)):
        content = json.loads(path.read_text(encoding="utf-8"))
        found[path] = {name: tuple(shape) for name, (shape, _) in content.get("keys", content).items()}
    assert found, f"{reference.folder}: no manifests/{pattern}"
    return found


def shapes_of(name: str, module: nn.Module) -> Shapes:
    return {f"{name}.{n}": tuple(t.shape) for n, t in module.state_dict().items()}


def numbers(names: Mapping[str, tuple[int, ...]], pattern: str) -> set[int]:
    """The layer numbers in a manifest."""
    return {int(found[1]) for name in names if (found := re.match(pattern, name))}


def vision_encoder(theirs: Shapes) -> VisionEncoder:
    _, n_tokens, width = theirs["visual_encoder.pos_embed"]
    patch = theirs["visual_encoder.patch_embed.proj.weight"][-1]
    args = {
        "depth": len(numbers(theirs, r"visual_encoder\.blocks\.(\d+)\.")),
        "embed_dim": width,
        "patch_size": patch,
        "num_heads": math.gcd(width, 16),
        "mlp_ratio": theirs["visual_encoder.blocks.0.mlp.fc1.bias"][0] / width,
    }
    with torch.device("meta"):
        return VisionEncoder(image_size=patch * math.isqrt(n_tokens - 1), vit_args=args)


def qformer_config(theirs: Shapes, name: str) -> QFormerConfig:
    (width,) = theirs[f"{name}.bert.embeddings.LayerNorm.weight"]
    layer = rf"{name}\.bert\.encoder\.layer\.(\d+)\."
    reading = sorted(numbers(theirs, layer + "crossattention"))
    return QFormerConfig(
        hidden_size=width,
        num_hidden_layers=len(numbers(theirs, layer)),
        num_attention_heads=math.gcd(width, 12),
        intermediate_size=theirs[f"{name}.bert.encoder.layer.0.intermediate_query.dense.bias"][0],
        cross_attention_frequency=reading[1] if len(reading) > 1 else 2,
    )


def assert_filled(theirs: Shapes, ours: Shapes, key_map: KeyMap) -> None:
    """Their tensors, except those dropped on purpose, are ours with the same shapes, and vice versa."""
    there = key_map.to_ours(theirs)
    assert not there.unknown
    assert {ours_name: theirs[name] for name, ours_name in there.names.items()} == ours
    back = key_map.to_theirs(ours)
    assert not back.unknown
    assert {name: ours[own] for own, name in back.names.items()} == {name: theirs[name] for name in there.names}


def test_the_frame_encoder_is_mapped_from_the_names_of_either_file(reference: Reference) -> None:
    for theirs in manifests(reference, "a_*.json").values():
        ours = shapes_of("vision", vision_encoder(theirs))
        assert_filled(theirs, ours, VISION_BRANCH.key_map)
        in_evas_file = {n.removeprefix("visual_encoder."): s for n, s in theirs.items() if not n.startswith("ln_")}
        assert_filled(in_evas_file, {n: s for n, s in ours.items() if ".ln_vision." not in n}, EVA_CLIP_G.key_map)


def test_the_image_qformer_is_mapped_whatever_else_its_file_contains(reference: Reference) -> None:
    for theirs in manifests(reference, "b*.json").values():
        config = qformer_config(theirs, "Qformer")
        _, source_width = theirs["Qformer.bert.encoder.layer.0.crossattention.self.key.weight"]
        _, n_queries, _ = theirs.get("query_tokens", (1, 1, config.hidden_size))
        with torch.device("meta"):
            ours = shapes_of("qformer", QFormer(n_queries, source_width, config))
        if "query_tokens" not in theirs:
            del ours["qformer.query_tokens"]
        if "ln_vision.weight" in theirs:
            ours |= {f"vision.ln_vision.{p}": (source_width,) for p in ("weight", "bias")}
        assert_filled(theirs, ours, BLIP2_QFORMER.key_map)


def video_branch(theirs: Shapes) -> Shapes:
    config = qformer_config(theirs, "video_Qformer")
    _, n_queries, _ = theirs["video_query_tokens"]
    n_frames, _ = theirs["video_frame_position_embedding.weight"]
    (decoder_width,) = theirs["llama_proj.bias"]
    with torch.device("meta"):
        branch = VideoBranch(n_queries, n_frames, config.num_hidden_layers, decoder_width, config)
    return shapes_of("video_branch", branch)


def test_a_released_vision_branch_fills_the_whole_branch_and_nothing_else(reference: Reference) -> None:
    for pattern in ("c_vision_branch_checkpoint_*.json", "c_vision_branch_trainable_only_*.json"):
        for theirs in manifests(reference, pattern).values():
            assert_filled(theirs, video_branch(theirs), VISION_BRANCH.key_map)


def test_the_release_contains_every_trained_tensor_and_as_many_as_were_counted(reference: Reference) -> None:
    whole = manifests(reference, "c_vision_branch_checkpoint_*.json")
    trained = manifests(reference, "c_vision_branch_trainable_only_*.json")
    for path, theirs in trained.items():
        release = whole[path.with_name(path.name.replace("trainable_only", "checkpoint"))]
        assert theirs.items() <= release.items()
    counted = reference.read("manifests/c_info_vision.json")["num_trainable_params"]
    assert counted in [sum(map(math.prod, video_branch(theirs).values())) for theirs in trained.values()]


def audio_branch(theirs: Shapes) -> Shapes:
    config = qformer_config(theirs, "audio_Qformer")
    assert (config.num_hidden_layers, config.cross_attention_frequency) == (NUM_LAYERS, 1)
    _, n_queries, _ = theirs["audio_query_tokens"]
    n_segments, source_width = theirs["audio_position_embedding.weight"]
    (decoder_width,) = theirs["audio_llama_proj.bias"]
    with torch.device("meta"):
        branch = AudioBranch(n_queries, n_segments, False, source_width, decoder_width, config)
    return shapes_of("audio_branch", branch)


def test_a_released_audio_branch_fills_the_whole_branch_and_nothing_else(reference: Reference) -> None:
    whole = manifests(reference, "d_audio_branch_checkpoint_*.json")
    trained = manifests(reference, "d_audio_branch_trainable_only_*.json")
    for theirs in (*whole.values(), *trained.values()):
        assert_filled(theirs, audio_branch(theirs), AUDIO_BRANCH.key_map)
    for path, theirs in trained.items():
        assert not AUDIO_BRANCH.key_map.to_ours(theirs).dropped
        assert theirs.items() <= whole[path.with_name(path.name.replace("trainable_only", "checkpoint"))].items()


def trunk_config(theirs: Shapes, modality: str) -> TrunkConfig:
    *_, width = theirs[f"modality_preprocessors.{modality}.cls_token"]
    depth = len(numbers(theirs, rf"modality_trunks\.{modality}\.blocks\.(\d+)\."))
    return TrunkConfig(embed_dim=width, depth=depth, num_heads=math.gcd(width, 16))


INPUTS: dict[str, AudioInput] = {"audio": "sound", "vision": "frames"}
"""The input of each trunk."""


def imagebind(theirs: Shapes, *inputs: AudioInput) -> Shapes:
    before = "modality_preprocessors.vision."
    patch_size = theirs[f"{before}rgbt_stem.proj.1.weight"][-1]
    n_patches = theirs[f"{before}pos_embedding_helper.pos_embed"][1] - 1
    config = ImageBindConfig(
        audio=trunk_config(theirs, "audio"),
        vision=trunk_config(theirs, "vision"),
        image_size=patch_size * math.isqrt(n_patches),
        patch_size=patch_size,
        out_embed_dim=theirs["modality_heads.audio.2.weight"][0],
    )
    with torch.device("meta"):
        return shapes_of("audio_encoder", ImageBind(config, inputs))


def test_imagebind_fills_both_trunks_and_the_rest_is_dropped_by_name(reference: Reference) -> None:
    for theirs in manifests(reference, "e_*.json").values():
        assert_filled(theirs, imagebind(theirs, "sound", "frames"), IMAGEBIND_HUGE.key_map)
        dropped = IMAGEBIND_HUGE.key_map.to_ours(theirs).dropped
        assert {name.split(".")[1] for name in dropped} == {"text", "depth", "thermal", "imu"}
        for modality, used in INPUTS.items():
            alone = {name: shape for name, shape in theirs.items() if name.split(".")[1] == modality}
            assert_filled(alone, imagebind(theirs, used), IMAGEBIND_HUGE.key_map)
