"""Keep both branches that a quickstart trained: ``python -m tools.toy_pretrain.branch CHECKPOINT``.

Writes ``toy/weights/branch.safetensors``, which ``eval_configs/toy.yaml`` answers from without any training.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from video_llama import toy
from video_llama.checkpoints.io import read_weights, write_weights

TARGET = Path(toy.__file__).with_name("weights") / "branch.safetensors"


def keep_branches(checkpoint: str, target: Path = TARGET) -> None:
    """Write the trained tensors of a checkpoint in half precision, as all toy weights are kept."""
    write_weights(target, {name: tensor.to(torch.float16) for name, tensor in read_weights(checkpoint).items()})


if __name__ == "__main__":
    keep_branches(sys.argv[1])
