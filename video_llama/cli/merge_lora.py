"""``video-llama merge-lora``: merge adapters into their decoder, as a plain Hugging Face folder."""

from __future__ import annotations

import argparse
import logging
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--cfg-path",
        required=True,
        metavar="YAML",
        help="with model.lora, and a checkpoint of the adapters in model.ckpt",
    )
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder to create, for the decoder and branch.pth"
    )


def run(args: argparse.Namespace) -> int:
    """Merge, and print how to use the result."""
    from video_llama.checkpoints.sources.references import fetched
    from video_llama.common.errors import ConfigError
    from video_llama.common.registry import MODELS
    from video_llama.config.loader import load_config
    from video_llama.config.serialize import registered_class
    from video_llama.models.decoder.new_folder import BRANCH  # slow to import
    from video_llama.models.model_class import AdapterTools

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config: Any = load_config(args.cfg_path, args.options, also=("datasets",)).model
    model_class = registered_class(MODELS, config)
    if not isinstance(model_class, AdapterTools):
        raise ConfigError(
            [f"{args.cfg_path}: model.arch: this model has no merge_lora, so its adapters cannot be merged"]
        )
    model_class.merge_lora(fetched(config), args.output)
    print(
        f"{args.output}: the decoder with its adapters, and {BRANCH}. Use them with\n"
        f"  model.llama_model={args.output} model.ckpt={args.output}/{BRANCH} model.ckpt_2=null model.lora=null"
    )
    return 0
