"""Published weights known by name: where they are published, and where they lie once downloaded. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from video_llama.checkpoints.sources.hub import HubReference, find
from video_llama.common.cache import home
from video_llama.common.registry import did_you_mean


@dataclass(frozen=True, kw_only=True)
class KnownWeights:
    """A published weights file."""

    name: str
    """What ``video-llama download`` and a YAML call it."""
    key: str
    """The key of the model section that takes it."""
    address: str
    """``https://...``, or ``hf://org/name/file`` on the hub."""
    what: str
    """What it is, in a few words."""
    licence: str
    """The terms in short; NOTICE has more."""
    size: int | None = None
    """In bytes, if we have checked it. None: whatever the server declares."""
    sha256: str | None = None
    """In hexadecimal, if we have checked it. None: the digest that the server declares, if any."""

    @property
    def hub(self) -> HubReference | None:
        """The file on the hub; None if it is elsewhere."""
        return HubReference.parse(self.address)

    @property
    def target(self) -> Path:
        """Where a file that is not on the hub is downloaded to."""
        return home() / "weights" / self.address.rpartition("/")[2]

    @property
    def path(self) -> Path | None:
        """The downloaded file; None if there is none yet."""
        if (reference := self.hub) is not None:
            return find(reference)
        return self.target if self.target.is_file() else None

    @property
    def missing(self) -> str:
        """What to tell a user who needs the file and lacks it."""
        return f"{self.name} is not downloaded yet. To download it: video-llama download {self.name}"


def find_known(text: str) -> KnownWeights | None:
    """Return the known weights with this name, or, as in published YAMLs, with this address."""
    return next((weights for weights in KNOWN if text in (weights.name, weights.address)), None)


def near_name(text: str) -> str:
    """Return a hint at the name that a text probably misspells; empty if there is none."""
    return did_you_mean(text, [weights.name for weights in KNOWN])


_BLIP2 = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2"
_RESEARCH = "code BSD-3-Clause; weights for non-commercial research"


def _branches(files: Iterable[tuple[str, str, str]]) -> Iterable[KnownWeights]:
    """Return the released branches: for each its repository, its file without the suffix, and what it is."""
    for repository, file, what in files:
        name, key = f"video_llama/{file}", "ckpt_2" if "audiobranch" in file or file.startswith("AL_") else "ckpt"
        address = f"hf://DAMO-NLP-SG/{repository}/{file}.pth"
        yield KnownWeights(name=name, key=key, address=address, what=what, licence=_RESEARCH)


_SERIES = "Video-LLaMA-Series"

KNOWN = (
    KnownWeights(
        name="eva_clip_g",
        key="vit_ckpt",
        address=f"{_BLIP2}/eva_vit_g.pth",
        what="frame encoder, EVA-CLIP ViT-G/14",
        licence="MIT",
    ),
    KnownWeights(
        name="blip2_qformer",
        key="q_former_model",
        address=f"{_BLIP2}/blip2_pretrained_flant5xxl.pth",
        what="image Q-Former of BLIP-2",
        licence="BSD-3-Clause",
    ),
    KnownWeights(
        name="imagebind_huge",
        key="imagebind_ckpt_path",
        address="https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",
        what="audio encoder, ImageBind-Huge",
        licence="CC BY-NC-SA 4.0: non-commercial",
    ),
    KnownWeights(
        name="minigpt4_7b",
        key="llama_proj_model",
        address="hf://Vision-CAIR/MiniGPT-4/prerained_minigpt4_7b.pth",  # spelt so
        what="linear layer of MiniGPT-4, Vicuna 7B",
        licence="code BSD-3-Clause; for the weights see the publisher",
    ),
    KnownWeights(
        name="minigpt4_13b",
        key="llama_proj_model",
        address="hf://Vision-CAIR/MiniGPT-4/pretrained_minigpt4.pth",
        what="linear layer of MiniGPT-4, Vicuna 13B",
        licence="code BSD-3-Clause; for the weights see the publisher",
    ),
    *_branches(
        [
            (_SERIES, "pretrain-vicuna7b", "vision branch, Vicuna 7B, stage 1"),
            (_SERIES, "finetune-vicuna7b-v2", "vision branch, Vicuna 7B, stage 2"),
            (_SERIES, "pretrain-vicuna13b", "vision branch, Vicuna 13B, stage 1"),
            (_SERIES, "finetune-vicuna13b-v2", "vision branch, Vicuna 13B, stage 2"),
            (_SERIES, "pretrain-ziya13b-zh", "vision branch, Ziya 13B, stage 1"),
            (_SERIES, "finetune-ziya13b-zh", "vision branch, Ziya 13B, stage 2"),
            (_SERIES, "pretrain-billa7b-zh", "vision branch, BiLLa 7B, stage 1"),
            (_SERIES, "finetune-billa7b-zh", "vision branch, BiLLa 7B, stage 2"),
            (_SERIES, "pretrain_vicuna7b_audiobranch", "audio branch, Vicuna 7B, stage 1"),
            (_SERIES, "finetune_vicuna7b_audiobranch", "audio branch, Vicuna 7B, stage 2"),
            ("Video-LLaMA-2-7B-Pretrained", "VL_LLaMA_2_7B_Pretrained", "vision branch, LLaMA-2-chat 7B, stage 1"),
            ("Video-LLaMA-2-7B-Finetuned", "VL_LLaMA_2_7B_Finetuned", "vision branch, LLaMA-2-chat 7B, stage 2"),
            ("Video-LLaMA-2-13B-Pretrained", "VL_LLaMA_2_13B_Pretrained", "vision branch, LLaMA-2-chat 13B, stage 1"),
            ("Video-LLaMA-2-13B-Finetuned", "VL_LLaMA_2_13B_Finetuned", "vision branch, LLaMA-2-chat 13B, stage 2"),
            ("Video-LLaMA-2-7B-Pretrained", "AL_LLaMA_2_7B_Pretrained", "audio branch, LLaMA-2-chat 7B, stage 1"),
            ("Video-LLaMA-2-7B-Finetuned", "AL_LLaMA_2_7B_Finetuned", "audio branch, LLaMA-2-chat 7B, stage 2"),
            ("Video-LLaMA-2-13B-Pretrained", "AL_LLaMA_2_13B_Pretrained", "audio branch, LLaMA-2-chat 13B, stage 1"),
            ("Video-LLaMA-2-13B-Finetuned", "AL_LLaMA_2_13B_Finetuned", "audio branch, LLaMA-2-chat 13B, stage 2"),
        ]
    ),
)
"""The addresses are those of the publishers' pages. None has been tried by us, so no entry has a size or a digest yet."""
