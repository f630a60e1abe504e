"""Train every frozen toy weight from scratch: ``python -m video_llama.toy.pretrain [--only towers|decoder]``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from video_llama.toy.pretrain.decoder import train_decoder
from video_llama.toy.pretrain.towers import train_towers

WEIGHTS = Path(__file__).parents[1] / "weights"
PARTS = {"towers": train_towers, "decoder": train_decoder}


def main() -> None:
    """Train the parts asked for and print what each reaches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder to write to")
    parser.add_argument("--only", choices=PARTS, help="train one part; the other is left as it is")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name, train in PARTS.items():
        if args.only in (None, name):
            print(name, train(args.weights))


if __name__ == "__main__":
    main()
