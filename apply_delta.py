"""The published name of ``video-llama apply-delta``."""

import sys

from video_llama.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["apply-delta", *sys.argv[1:]]))
