"""The published name of ``video-llama demo``."""

import sys

from video_llama.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
