"""The original's tiny model and the values measured on it, from ``VIDEO_LLAMA_REFERENCE`` or the small set kept here.

``tests/fixtures/README.md`` says what the directory holds. Every dimension is read from ``info.json``, or from the
shapes of the weights.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from tests.conftest import FIXTURES
from video_llama.models.qformer import QFormerConfig
from video_llama.models.video_llama import VideoLLaMA
from video_llama.models.video_llama_config import VideoLLaMAConfig


@dataclass(frozen=True)
class Reference:
    """What was measured, and on what."""

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
        """The scenarios of a kind, of which there has to be one."""
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
def model(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> VideoLLaMA:
    """The reference model, its weights written as the published files name them and read back through the key maps."""
    folder = tmp_path_factory.mktemp("reference")
    sizes, defaults, weights = reference.info["config"], reference.info["defaults"], reference.weights
    write_decoder(folder / "decoder", sizes["LLAMA"], weights, reference.tokenizer)
    save_file(starting_with(weights, "visual_encoder.", strip=True), folder / "eva.safetensors")
    save_file(starting_with(weights, "Qformer.", "query_tokens", "ln_vision."), folder / "blip2.safetensors")
    save_file(starting_with(weights, "video_", "llama_proj."), folder / "release.safetensors")
    bert = sizes["BERT"]
    config = VideoLLaMAConfig(
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
    return VideoLLaMA.from_config(config).eval()


def write_decoder(folder: Path, sizes: dict[str, Any], weights: dict[str, Tensor], tokenizer: Path) -> None:
    llama = LlamaForCausalLM(LlamaConfig(**sizes))
    own = {n.removeprefix("llama_model."): t for n, t in weights.items() if n.startswith("llama_model.")}
    # not strict: newer libraries compute inv_freq, which older files hold; all else is asserted below
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
