"""``video-llama export-decoder``: write a decoder that was trained in full as a plain Hugging Face folder."""

from __future__ import annotations

import argparse
import logging
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--cfg-path", required=True, metavar="YAML", help="of the run, with model.frozen_llama: false")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    parser.add_argument(
        "--checkpoint", required=True, metavar="PTH", help="checkpoint of the run, such as checkpoint_step000500.pth"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder to create, for the decoder and branch.pth"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="number format of the folder (fp32)"
    )


def run(args: argparse.Namespace) -> int:
    """Export, and print how to use the result."""
    from video_llama.checkpoints.sources.references import fetched
    from video_llama.common.errors import ConfigError
    from video_llama.common.registry import MODELS
    from video_llama.config.loader import load_config
    from video_llama.config.serialize import registered_class
    from video_llama.models.decoder.new_folder import BRANCH  # slow to import
    from video_llama.models.model_class import DecoderTools

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config: Any = load_config(args.cfg_path, args.options, also=("datasets", "run")).model
    model_class = registered_class(MODELS, config)
    if not isinstance(model_class, DecoderTools):
        raise ConfigError([f"{args.cfg_path}: model.arch: this model has no export_decoder"])
    model_class.export_decoder(fetched(config), args.checkpoint, args.output, args.precision)
    print(
        f"{args.output}: the decoder in {args.precision}, and {BRANCH} with all else that was trained. Use them with\n"
        f"  model.llama_model={args.output} model.ckpt={args.output}/{BRANCH} model.frozen_llama=true"
    )
    return 0
