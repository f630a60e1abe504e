"""The media of a ``results.json``: its files, read as they were for the model, without the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from video_llama.common.registry import MODELS
from video_llama.config.fields import Registered
from video_llama.config.loader import InferenceConfig
from video_llama.config.problems import Problems
from video_llama.config.validation import Context, validate
from video_llama.conversation.batching import File
from video_llama.conversation.processors import build_processors
from video_llama.evaluation.clip_part import ClipPart
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.encoders.factory import audio_processor
from video_llama.processors.audio import ImageBindAudio
from video_llama.processors.media import MediaReader


def recorded_reader(model: Mapping[str, Any]) -> MediaReader:
    """Return what read the files of an evaluation. Weights need not be there.

    Args:
        model: what ``results.json`` has under that name.
    Raises:
        ConfigError: its settings cannot be used here, such as those of a processor that is not registered.
    """
    problems = Problems("results.json")
    context = Context(has_files=False, may_lack=True, trains=False)
    inference = validate(InferenceConfig, model["inference"], ("model", "inference"), problems, context)
    hint = Annotated[Any, Registered(MODELS, key="arch")]
    config = validate(hint, model["config"], ("model", "config"), problems, context)
    problems.raise_if_any()
    # A class of one's own makes its audio processor when it is built.
    audio = audio_processor(config) if isinstance(config, VideoLLaMAConfig) else ImageBindAudio(ImageBindAudio.Config())
    return MediaReader(*build_processors(inference), audio)


def recorded_file(item: Mapping[str, Any], settings: Mapping[str, Any]) -> File:
    """Return the file that a question was asked about.

    Args:
        item: of a benchmark in ``results.json``.
        settings: of that benchmark.
    """
    path = str(Path(settings.get("media_dir") or "", item["file"]))
    kind = item["media"]
    use_audio = settings.get("use_audio") if kind == "video" else None
    if "span" not in item and "fps" not in item:
        return File(kind, path, use_audio)
    start, end = item.get("span", (0.0, None))
    return ClipPart(kind, path, use_audio, start, end, item.get("fps"))
