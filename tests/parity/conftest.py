"""The original's tiny model and the values measured on it, from ``VIDEO_LLAMA_REFERENCE`` or the small set kept here.

``tests/fixtures/README.md`` says what the directory holds. Every dimension is read from ``info.json``, or from the
shapes of the weights.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from tests.conftest import FIXTURES
from video_llama.models.config import QFormerConfig, VideoLLaMAConfig
from video_llama.models.encoders.config import ImageBindConfig, TrunkConfig
from video_llama.models.video_llama import VideoLLaMA


@dataclass(frozen=True)
class Reference:
    """Recorded values, and the weights and inputs that gave them."""

    folder: Path
    info: dict[str, Any]
    weights: dict[str, Tensor]
    goldens: dict[str, Tensor]

    @property
    def tokenizer(self) -> Path:
        return self.folder / "text/tokenizer"

    def of(self, scenario: str) -> dict[str, Tensor]:
        """The values of one scenario."""
        return {n.removeprefix(f"{scenario}/"): t for n, t in self.goldens.items() if n.startswith(f"{scenario}/")}

    def scenarios(self, *prefixes: str) -> list[str]:
        """The scenarios of a kind; at least one must exist."""
        found = sorted({name.split("/")[0] for name in self.goldens if name.startswith(prefixes)})
        assert found, f"{self.folder}: no scenario named {' or '.join(prefixes)}*"
        return found

    def read(self, path: str) -> Any:
        """The content of a JSON file."""
        return json.loads((self.folder / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def reference() -> Reference:
    given = os.environ.get("VIDEO_LLAMA_REFERENCE")
    folder = Path(given) if given else FIXTURES / "reference"
    return Reference(
        folder,
        json.loads((folder / "goldens/info.json").read_text()),
        load_file(folder / "goldens/weights.safetensors"),
        load_file(folder / "goldens/goldens.safetensors"),
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


@pytest.fixture(scope="session")
def section(reference: Reference, folder: Path) -> VideoLLaMAConfig:
    """The model section without audio; its weights have the names of the published files."""
    sizes, defaults, weights = reference.info["config"], reference.info["defaults"], reference.weights
    write_decoder(folder / "decoder", sizes["LLAMA"], weights, reference.tokenizer)
    save_file(starting_with(weights, "visual_encoder.", strip=True), folder / "eva.safetensors")
    save_file(starting_with(weights, "Qformer.", "query_tokens", "ln_vision."), folder / "blip2.safetensors")
    save_file(starting_with(weights, "video_", "llama_proj."), folder / "release.safetensors")
    bert = sizes["BERT"]
    return VideoLLaMAConfig(
        vit_args={**sizes["VIT"], "patch_size": defaults["vit_patch"], "mlp_ratio": defaults["vit_mlp_ratio"]},
        vit_ckpt=str(folder / "eva.safetensors"),
        vit_precision="fp32",
        image_size=sizes["img"],
        q_former_model=str(folder / "blip2.safetensors"),
        qformer=QFormerConfig(
            hidden_size=bert["hidden_size"],
            num_hidden_layers=bert["num_hidden_layers"],
            num_attention_heads=bert["num_attention_heads"],
            intermediate_size=bert["intermediate_size"],
        ),
        num_query_token=sizes["nq"],
        num_video_query_token=sizes["nvq"],
        max_frame_pos=len(weights["video_frame_position_embedding.weight"]),
        fusion_head_layers=len({n.split(".")[4] for n in weights if n.startswith("video_Qformer.bert.encoder.layer.")}),
        llama_model=str(folder / "decoder"),
        llama_precision="fp32",
        ckpt=str(folder / "release.safetensors"),
    )


@pytest.fixture(scope="session")
def section_with_audio(section: VideoLLaMAConfig, reference: Reference, folder: Path) -> VideoLLaMAConfig:
    """The model section with audio; the branches are in two files, the audio branch's second."""
    sizes, weights = reference.info["config"], reference.weights
    torch.save(starting_with(weights, "audio_encoder.", strip=True), folder / "imagebind_huge.pth")
    branch = {n: t for n, t in starting_with(weights, "audio_").items() if not n.startswith("audio_encoder.")}
    torch.save({"model": branch, "epoch": 0}, folder / "audio_release.pth")
    n_segments = len(weights["audio_position_embedding.weight"])
    return replace(
        section,
        equip_audio_branch=True,
        audio_encoder=imagebind_config(sizes["IB"], weights),
        imagebind_ckpt_path=str(folder),
        audio_segments=n_segments,
        max_audio_pos=n_segments,
        num_audio_query_token=sizes["naq"],
        ckpt_2=str(folder / "audio_release.pth"),
    )


def imagebind_config(sizes: dict[str, Any], weights: dict[str, Tensor]) -> ImageBindConfig:
    before = "audio_encoder.modality_preprocessors.vision."
    patch_size = weights[f"{before}rgbt_stem.proj.1.weight"].shape[-1]
    n_patches = weights[f"{before}pos_embedding_helper.pos_embed"].shape[1] - 1
    trunks = {
        modality: TrunkConfig(
            embed_dim=sizes[f"{modality}_embed_dim"],
            depth=sizes[f"{modality}_num_blocks"],
            num_heads=sizes[f"{modality}_num_heads"],
        )
        for modality in ("audio", "vision")
    }
    return ImageBindConfig(
        **trunks,
        image_size=patch_size * math.isqrt(n_patches),
        patch_size=patch_size,
        out_embed_dim=sizes["out_embed_dim"],
    )


@pytest.fixture(scope="session")
def model(section: VideoLLaMAConfig) -> VideoLLaMA:
    """The reference model without audio, read through the key maps."""
    return VideoLLaMA.from_config(section).eval()


@pytest.fixture(scope="session")
def model_with_audio(section_with_audio: VideoLLaMAConfig) -> VideoLLaMA:
    """The reference model with audio, for inference."""
    return VideoLLaMA.from_config(section_with_audio).eval()


@pytest.fixture(scope="session")
def model_on_frames(section_with_audio: VideoLLaMAConfig) -> VideoLLaMA:
    """The reference model as the original trains its audio branch: alone, on frames instead of sound."""
    recipe = replace(
        section_with_audio,
        ckpt=section_with_audio.ckpt_2,
        ckpt_2=None,
        frozen_audio_Qformer=False,
        frozen_video_Qformer=True,
        frozen_llama_proj=True,
        audio_source="frames",
    )
    return VideoLLaMA.from_config(recipe).eval()


def write_decoder(folder: Path, sizes: dict[str, Any], weights: dict[str, Tensor], tokenizer: Path) -> None:
    llama = LlamaForCausalLM(LlamaConfig(**sizes))
    own = {n.removeprefix("llama_model."): t for n, t in weights.items() if n.startswith("llama_model.")}
    # not strict: newer libraries compute inv_freq, which older files contain; the rest is asserted below
    report = llama.load_state_dict({n: t for n, t in own.items() if not n.endswith("inv_freq")}, strict=False)
    assert not report.missing_keys
    assert not report.unexpected_keys
    llama.save_pretrained(folder)
    for file in tokenizer.iterdir():
        shutil.copyfile(file, folder / file.name)


def starting_with(weights: dict[str, Tensor], *prefixes: str, strip: bool = False) -> dict[str, Tensor]:
    return {
        (n.removeprefix(prefixes[0]) if strip else n): t.contiguous()
        for n, t in weights.items()
        if n.startswith(prefixes)
    }
