"""Train every frozen toy weight from scratch: ``python -m tools.toy_pretrain [--only towers|imagebind|decoder]``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from tools.toy_pretrain.decoder import train_decoder
from tools.toy_pretrain.imagebind import train_imagebind
from tools.toy_pretrain.towers import train_towers
from video_llama import toy

WEIGHTS = Path(toy.__file__).with_name("weights")
PARTS: dict[str, Callable[[Path], dict[str, float]]] = {
    "towers": train_towers,
    "imagebind": train_imagebind,
    "decoder": train_decoder,
}
"""In this order: ImageBind starts from the towers."""


def main() -> None:
    """Train the parts asked for and print what each reaches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder to write to")
    parser.add_argument("--only", choices=PARTS, help="train one part; the others are left unchanged")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name, train in PARTS.items():
        if args.only in (None, name):
            print(name, train(args.weights))


if __name__ == "__main__":
    main()
