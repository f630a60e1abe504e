"""``video-llama export``: write a model as a folder for the Hugging Face hub, and upload it if asked to."""

from __future__ import annotations

import argparse
import logging

from video_llama.common.errors import VideoLlamaError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--cfg-path", required=True, metavar="YAML", help="the model: a file, a shipped name such as toy, or an export"
    )
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder to create; an unchanged earlier export is replaced"
    )
    parser.add_argument(
        "--layout",
        choices=("bundle", "full"),
        default="bundle",
        help="bundle (default): what was trained, and digests of the frozen weights; full: everything",
    )
    parser.add_argument(
        "--parent",
        action="append",
        default=[],
        metavar="KEY=SOURCE",
        help="where others get frozen weights that are a path here: llama_model=org/name@revision; repeat for several",
    )
    parser.add_argument(
        "--results", metavar="JSON", help="results.json of an evaluation of these weights, for the model card"
    )
    parser.add_argument(
        "--push-to-hub", metavar="ORG/NAME", help="then upload the folder to this repository of the hub"
    )
    parser.add_argument("--private", action="store_true", help="create that repository as a private one")


def run(args: argparse.Namespace) -> int:
    """Export, and print how to use the result."""
    from dataclasses import replace

    from video_llama.conversation.config_in_use import load_for_inference  # slow to import
    from video_llama.conversation.processors import inference_config
    from video_llama.runners.training_record import training_record
    from video_llama.sharing.export import export
    from video_llama.sharing.scores import read_scores
    from video_llama.sharing.upload import check_upload, upload

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.private and not args.push_to_hub:
        raise VideoLlamaError("--private says how a repository is created: it needs --push-to-hub")
    parents = dict(_parent(text) for text in args.parent)
    if args.push_to_hub:
        check_upload(args.push_to_hub)
    job = load_for_inference(args.cfg_path, args.options)
    job = replace(job, inference=inference_config(job))
    scores = read_scores(args.results, job.model) if args.results else []
    export(job, args.output, args.layout, parents, training_record(job.model), scores, args.push_to_hub)
    print(f"{args.output}: use it with\n  video-llama chat --cfg-path {args.output}")
    if args.push_to_hub:
        print(f"uploaded to {upload(args.output, args.push_to_hub, private=args.private)}")
    return 0


def _parent(text: str) -> tuple[str, str]:
    """Return key and source of a ``--parent``."""
    key, equals, source = text.partition("=")
    if not equals or not key or not source:
        raise VideoLlamaError(f"--parent {text}: expected KEY=SOURCE, such as llama_model=org/name@revision")
    return key.removeprefix("model."), source
