"""``video-llama inspect-weights FILE``: what a weights file is, and whether it fits a config."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from video_llama.common.errors import VideoLlamaError
from video_llama.common.registry import MODELS

if TYPE_CHECKING:
    from video_llama.checkpoints.inspection import Inspection
    from video_llama.models.model_class import WeightsTools
    from video_llama.models.weights.fit import Fit

LLAMA = {4096: "7B", 5120: "13B"}
"""Width -> the LLaMA of that width."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "file", metavar="FILE", help="weights file, decoder folder, or the folder of imagebind_huge.pth"
    )
    parser.add_argument("--cfg-path", metavar="YAML", help="say whether it fits this config; paths in it may be ???")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Describe the file; return 1 if it does not fit, or contains NaN or infinity."""
    if args.options and not args.cfg_path:
        raise VideoLlamaError("--options: override settings of a YAML; name it with --cfg-path")
    from video_llama.checkpoints.inspection import inspect  # slow to import
    from video_llama.config.loader import load_config

    config = load_config(args.cfg_path, args.options, allow_unset=True).model if args.cfg_path else None
    if (Path(args.file) / "config.json").is_file():
        return _show_decoder(args.file, config, args)
    inspection, named = inspect(args.file)
    found = _tools(config, args.cfg_path).fit_file(inspection, named, config) if config is not None else None
    if args.json:
        print(json.dumps({**asdict(inspection), "fit": found and asdict(found)}, ensure_ascii=False))
    else:
        print("\n".join(_lines(inspection) + (_fit_lines(found, args.cfg_path) if found else [])))
    return 1 if inspection.not_finite or (found and found.problems) else 0


def _tools(config: Any, cfg_path: str) -> WeightsTools:
    """Return the class of a model section, or raise VideoLlamaError if it cannot be compared with weights files."""
    from video_llama.config.serialize import registered_class
    from video_llama.models.model_class import WeightsTools  # slow to import

    model_class: Any = registered_class(MODELS, config)
    if not isinstance(model_class, WeightsTools):
        raise VideoLlamaError(
            f"{cfg_path}: model.arch: only video_llama, and models derived from it, can be compared with such files"
        )
    return model_class


def _lines(inspection: Inspection) -> list[str]:
    width = inspection.decoder_width
    sizes = {"decoder width": f"{width}{_llama(width)}"} if width else {}
    sizes |= {key: str(size) for key, size in inspection.sizes.items()}
    lines = [
        f"{inspection.path}: {inspection.title}. {inspection.advice}".rstrip(),
        *(f"  {key}: {value}" for key, value in sizes.items()),
        f"  tensors: {inspection.tensors}, with {inspection.parameters:,} parameters in {inspection.bytes / 1e6:,.1f} MB, "
        + ", ".join(f"{n} {dtype}" for dtype, n in inspection.dtypes.items()),
    ]
    if inspection.ignored:
        lines.append(f"  ignored: {len(inspection.ignored)} not used by the model, such as {inspection.ignored[0]}")
    if inspection.beside:
        lines.append(f"  beside them: {', '.join(inspection.beside)}")
    lines += [f"  {key}: {value}" for key, value in inspection.run.items()]
    lines += [f"  not finite: {name} holds NaN or infinity" for name in inspection.not_finite]
    return lines


def _fit_lines(found: Fit, cfg_path: str) -> list[str]:
    lines = [f"as model.{found.key} of {cfg_path}:" if found.key else f"in {cfg_path}:"]
    if found.taken_width:
        lines.append(f"  model.llama_model is not set; taken as one of width {found.taken_width}, as the file's")
    lines += found.comparison.counts()
    if not found.problems:
        return [*lines, "  it fits"]
    return [
        *lines,
        "  it does not fit",
        *(f"  {line.strip()}" for problem in found.problems for line in problem.split("\n")),
    ]


def _show_decoder(path: str, config: Any, args: argparse.Namespace) -> int:
    from video_llama.models.decoder.folder import DecoderFolder  # slow to import

    folder = DecoderFolder(path)
    folder.check()
    tokens = folder.tokenizer().vocab_size
    model_type, text = folder.config.model_type, folder.config.get_text_config()
    width = folder.width
    found = _tools(config, args.cfg_path).fit_decoder(folder, config) if config is not None else None
    about: dict[str, Any] = {
        "path": path,
        "kind": "decoder",
        "model_type": model_type,
        "decoder_width": width,
        "layers": text.num_hidden_layers,
        "vocabulary": text.vocab_size,
        "tokens": tokens,
    }
    lines = [
        f"{path}: a decoder ({model_type}). Its place is model.llama_model.",
        f"  decoder width: {width}{_llama(width)}",
        f"  layers: {text.num_hidden_layers}, vocabulary: {text.vocab_size}, of which the tokenizer uses {tokens}",
    ]
    if found is not None:
        lines += _fit_lines(found, args.cfg_path)
    elif config is not None:
        lines.append(f"{args.cfg_path} names no trained weights to compare with")
    print(json.dumps({**about, "fit": found and asdict(found)}) if args.json else "\n".join(lines))
    return 1 if found and found.problems else 0


def _llama(width: int) -> str:
    return f" (LLaMA {LLAMA[width]} and its derivatives)" if width in LLAMA else ""
