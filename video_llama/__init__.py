"""Train, evaluate and talk to audio-visual language models (Video-LLaMA, arXiv:2306.02858)."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("video_llama")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"
