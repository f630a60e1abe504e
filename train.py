"""The published name of ``video-llama train``: ``torchrun --nproc_per_node=8 train.py --cfg-path YAML``."""

import sys

from video_llama.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
