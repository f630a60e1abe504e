"""The weights files that a model section names: read, renamed and checked against the model before the decoder loads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from video_llama.checkpoints.compare import Comparison, check_finite, compare, component_of
from video_llama.checkpoints.inspection import decoder_width, sizes
from video_llama.checkpoints.io import EXPORT, read_average, read_weights
from video_llama.checkpoints.published import (
    AUDIO_BRANCH,
    BLIP2_QFORMER,
    EVA_CLIP_G,
    IMAGEBIND_HUGE,
    MINIGPT4_PROJECTION,
    VISION_BRANCH,
    Format,
    file_or_within,
    in_our_names,
    recognise,
)
from video_llama.checkpoints.sources.references import local_path
from video_llama.common.errors import WeightsError
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.config import LORA_WEIGHTS
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.decoder.lora import ALPHA, alpha_of
from video_llama.models.encoders.config import ImageBindConfig
from video_llama.models.encoders.factory import encoder_class, own_weights

log = logging.getLogger(__name__)

Reader = Callable[[str | Path], dict[str, Tensor]]

VIDEO_PARTS = ("vision.", "qformer.", "video_branch.")
AUDIO_PARTS = ("audio_branch.", "audio_encoder.")
"""Name prefixes of tensors used by a single branch."""
ENCODER_PARTS = ("vision.", "qformer.", "audio_encoder.")
"""Name prefixes of tensors of the frozen encoders."""
TRUNKS = {"sound": "audio_encoder.audio.", "frames": "audio_encoder.vision."}
"""Name prefixes of ImageBind's trunks, by their input."""
IMAGEBIND = "imagebind_ckpt_path"
ENCODER_FILES = {"vision": "model.vit_ckpt", "qformer": "model.q_former_model"}
"""Keys of the files of the frame encoder and the image Q-Former."""
DECODER = "decoder."
"""Name prefix of the decoder's tensors; a file trained with LoRA holds some."""


@dataclass(frozen=True)
class WeightsKey:
    """A key of the model section that names a weights file."""

    name: str
    formats: tuple[Format, ...]
    """Published formats it accepts, besides our own."""
    prefixes: tuple[str, ...] = ("",)
    """Name prefixes of the tensors it accepts."""

    def reader(self, config: VideoLLaMAConfig) -> Reader:
        """Return what reads the file of this key: its weights, or their moving average."""
        averaged = {"ckpt": config.ckpt_ema, "ckpt_2": config.ckpt_2_ema}
        return read_average if averaged.get(self.name) else read_weights


WEIGHTS_KEYS = (
    WeightsKey("vit_ckpt", (EVA_CLIP_G,), ("vision.",)),
    WeightsKey("q_former_model", (BLIP2_QFORMER,), ("qformer.", "vision.ln_vision.")),
    WeightsKey(IMAGEBIND, (IMAGEBIND_HUGE,), ("audio_encoder.",)),
    WeightsKey("llama_proj_model", (MINIGPT4_PROJECTION,), ("video_branch.to_decoder.",)),
    WeightsKey("ckpt", (VISION_BRANCH, AUDIO_BRANCH)),
    WeightsKey("ckpt_2", (VISION_BRANCH, AUDIO_BRANCH)),
)
"""In the order in which the files are loaded: later ones overwrite earlier ones."""


@dataclass(frozen=True)
class WeightsFile:
    """One file, with its tensors under their names in the whole model."""

    source: str
    """Key and path, for messages."""
    title: str
    """What the file is."""
    tensors: dict[str, Tensor]
    ignored: list[str]
    """Names in the file of tensors that the model does not use."""

    @property
    def key(self) -> str:
        """The key of the model section that names it, such as ``ckpt``."""
        return self.source.partition(":")[0].removeprefix("model.")


def read_weights_files(config: VideoLLaMAConfig) -> list[WeightsFile]:
    """Read every file that a model section names and the model has a part for.

    Raises:
        WeightsError: a file is unreadable, of a kind that its key does not accept, made for another decoder, or holds NaN
            or infinity.
    """
    files = []
    for key in reversed(WEIGHTS_KEYS):  # the largest last, so that problems of the others surface at once
        if (path := getattr(config, key.name)) is None:
            continue
        if not is_read(key, config):
            continue
        file = read_weights_file(key, path, key.reader(config))
        if key.name == "ckpt" and not config.modalities.video and all(n.startswith(VIDEO_PARTS) for n in file.tensors):
            # published YAMLs name the vision branch here, and the audio branch in ckpt_2
            log.info("note: %s is %s; it has no effect: the audio branch alone is trained", file.source, file.title)
            continue
        file = without_unused(file, key, config)
        check_finite(file.tensors, file.source)
        check_width(file, config.decoder_folder)
        check_adapter(file, config)
        files.append(file)
    if own := own_weights(config):
        check_finite(own, "model.audio_encoder")
        files.append(WeightsFile("model.audio_encoder", "an encoder with weights of its own", own, []))
    return files[::-1]


def is_read(key: WeightsKey, config: VideoLLaMAConfig) -> bool:
    """Return whether a key's file is read: not if it is for parts alone that the model does not have."""
    absent: tuple[str, ...] = () if config.modalities.video else VIDEO_PARTS
    absent += () if config.equip_audio_branch else AUDIO_PARTS
    absent += () if config.features is None else ENCODER_PARTS
    return not all(prefix.startswith(absent) for prefix in key.prefixes)


def read_weights_file(key: WeightsKey, path: str, read: Reader = read_weights) -> WeightsFile:
    """Read the file that a key names.

    Args:
        key: the key.
        path: the file.
        read: reads its tensors.
    Raises:
        WeightsError: the file is unreadable, or of a kind that the key does not accept.
    """
    source = f"model.{key.name}: {path}"
    found_at = local_path(path, f"model.{key.name}")
    try:
        tensors = read(file_or_within(found_at) if key.name == IMAGEBIND else found_at)
    except WeightsError as error:
        raise WeightsError(f"model.{key.name}: {error}") from error
    found = recognise(tensors)
    accepted = " or ".join(one.title for one in key.formats)
    if found is not None and found not in key.formats:
        raise WeightsError(f"{source} is {found.title}; this key takes {accepted}, or our own. {found.advice}")
    named = in_our_names(tensors, source)
    if not named.tensors:
        raise WeightsError(f"{source} holds no tensor of the model")
    if key.name in ("ckpt", "ckpt_2") and not any("_branch." in n or n.startswith(DECODER) for n in named.tensors):
        raise WeightsError(
            f"{source} holds nothing of a trained branch, only tensors such as {next(iter(named.tensors))}"
        )
    if strays := [name for name in named.tensors if not name.startswith(key.prefixes)]:
        raise WeightsError(
            f"{source} holds {len(strays)} tensors that this key does not take, such as {strays[0]}; it takes {accepted}, "
            f"or our own of {', '.join(prefix.rstrip('.') for prefix in key.prefixes)} alone."
        )
    if integers := [name for name, tensor in named.tensors.items() if not tensor.is_floating_point()]:
        raise WeightsError(f"{source}: {integers[0]} holds integers, which no weight does. Is the file damaged?")
    return WeightsFile(source, found.title if found else "a file of video_llama", named.tensors, named.ignored)


def without_unused(file: WeightsFile, key: WeightsKey, config: VideoLLaMAConfig) -> WeightsFile:
    """Drop tensors of a branch, or of an ImageBind trunk, that the model does not have.

    Raises:
        WeightsError: nothing is left, or a trunk that the model has is not in the file.
    """
    if config.equip_audio_branch:
        for what in config.audio_inputs if key.name == IMAGEBIND else ():
            if not any(name.startswith(TRUNKS[what]) for name in file.tensors):
                raise WeightsError(f"{file.source} lacks ImageBind's trunk for {what}: no tensor {TRUNKS[what]}*")
        unused = tuple(trunk for what, trunk in TRUNKS.items() if what not in config.audio_inputs)
        unused += () if config.modalities.video else VIDEO_PARTS
        lacks = "video branch: the audio branch alone is trained. Set frozen_video_Qformer: false to train both"
    else:
        unused = AUDIO_PARTS
        lacks = "audio branch. Set equip_audio_branch: true"
    unused += () if config.features is None else ENCODER_PARTS
    kept = {n: t for n, t in file.tensors.items() if not n.startswith(unused)}
    if not kept:
        raise WeightsError(f"{file.source} is {file.title}, and the model has no {lacks}, or leave the file out.")
    ignored = [n for n in file.tensors if n not in kept]
    return replace(file, tensors=kept, ignored=[*file.ignored, *ignored])


def check_weights_files(files: Sequence[WeightsFile], skeleton: nn.Module, config: VideoLLaMAConfig) -> None:
    """Compare the files with the model, log what matched, and refuse what does not fit.

    Args:
        files: in loading order.
        skeleton: the model on the meta device, without the decoder except for its adapters.
        config: what the skeleton was built from.
    Raises:
        WeightsError: a file does not fit, or a part of the model would be filled only in part.
    """
    for file in files:
        comparison = compare_file(file, skeleton)
        if misfits := comparison.misfits():
            raise WeightsError(
                "\n".join([f"{file.source} does not fit the model:", *misfits, *size_differences(file, config)])
            )
        ignored = [f"  {len(file.ignored)} ignored, such as {file.ignored[0]}"] if file.ignored else []
        log.info("\n".join([f"{file.source} is {file.title}", *comparison.lines(), *ignored]))
    _check_whole(files, skeleton, config)


def compare_file(file: WeightsFile, skeleton: nn.Module) -> Comparison:
    """Compare one file with the model; adapters only if the skeleton has some."""
    adapted = hasattr(skeleton, "decoder")
    return compare(skeleton, {n: t for n, t in file.tensors.items() if adapted or not n.startswith(DECODER)})


def check_width(file: WeightsFile, decoder: DecoderFolder) -> None:
    """Raise WeightsError for a file that was made for a decoder of another width."""
    made_for = decoder_width(file.tensors)
    if made_for not in (None, decoder.width):
        raise WeightsError(
            f"{file.source} was made for a decoder of width {made_for}; {decoder.path} has width {decoder.width}. "
            "Use the file that belongs to this decoder, or the decoder that belongs to this file."
        )


def check_adapter(file: WeightsFile, config: VideoLLaMAConfig) -> None:
    """Raise WeightsError for a file with a LoRA adapter where the model section has none, or one of another alpha."""
    adapter = [name for name in file.tensors if name.startswith(DECODER)]
    if not adapter:
        return
    if whole := [name for name in adapter if not name.endswith(ALPHA) and not set(LORA_WEIGHTS) & set(name.split("."))]:
        raise WeightsError(
            f"{file.source} holds the weights of a decoder that was trained, such as {whole[0]}. {EXPORT}"
        )
    if config.lora is None:
        raise WeightsError(
            f"{file.source} was trained with LoRA: {len(adapter)} of its tensors belong to the decoder, such as "
            f"{adapter[0]}. Add to the model section the lora: block that it was trained with."
        )
    if (alpha := alpha_of(file.tensors)) not in (None, config.lora.alpha):
        raise WeightsError(
            f"{file.source} was trained with lora.alpha: {alpha:g}; the model section has {config.lora.alpha}. Its adapters "
            "would count for more or less than they should."
        )


def size_differences(file: WeightsFile, config: VideoLLaMAConfig) -> list[str]:
    """Return a line for each model setting whose value differs from the one the file was made with."""
    lines = []
    for key, size in sizes(file.tensors).items():
        here: Any = config
        for part in key.split("."):
            here = here.get(part) if isinstance(here, dict) else getattr(here, part, None)
        if here not in (None, size):
            lines.append(f"  made with {key}: {size}; the model section has {here}")
    return lines


def _check_whole(files: Sequence[WeightsFile], skeleton: nn.Module, config: VideoLLaMAConfig) -> None:
    """Raise WeightsError if a part of the model would be random: one filled only in part, or frozen and in no file."""
    parts: dict[str, set[str]] = {}
    for name in skeleton.state_dict():
        parts.setdefault(_part(name), set()).add(name)
    for part, own in parts.items():
        sources = [file for file in files if own & file.tensors.keys()]
        missing = sorted(own.difference(*(file.tensors for file in sources)))
        if sources and missing:
            lines = [
                f"{', '.join(file.source for file in sources)}: {part} is filled only in part: {len(missing)} of "
                f"{len(own)} tensors are in no file, such as {missing[0]}. Is a file missing, or was it made with "
                "other model settings?",
                *(line for file in sources for line in size_differences(file, config)),
            ]
            raise WeightsError("\n".join(lines))
        if not sources and part == "audio_encoder" and not isinstance(config.audio_encoder_config, ImageBindConfig):
            raise WeightsError(
                f"the audio encoder is frozen and would be random: own_weights of {encoder_class(config).__name__} returns "
                f"none of its {len(own)} tensors"
            )
        if files and not sources and "_branch." in part and not config.is_trained(part):
            advice = "name its file: model.ckpt"
            if part.startswith(AUDIO_PARTS):
                advice = (
                    "name its file, model.ckpt_2; or do without sound: equip_audio_branch: false, and no "
                    "imagebind_ckpt_path or audio_encoder"
                )
            raise WeightsError(f"{part} is frozen, and in no file: it would answer at random. To fix this, {advice}")
        if files and not sources and part in ENCODER_FILES and config.trains_nothing:
            raise WeightsError(
                f"{part} is in no file: it would answer at random. To fix this, name its file, {ENCODER_FILES[part]}, or a "
                "checkpoint that holds it"
            )
        if files and not sources and part == "decoder":
            log.info("the adapters of the decoder are in no file: they are new, and have no effect yet")
        elif files and not sources:
            level = logging.WARNING if config.ckpt else logging.INFO
            log.log(level, "%s is in no file: it starts at random", part)


def _part(name: str) -> str:
    """Return the part that must be filled as a whole: an encoder, or a component of a branch."""
    return component_of(name) if "_branch." in name else name.split(".")[0]


def all_in(files: Sequence[WeightsFile], skeleton: nn.Module) -> bool:
    """Return whether every parameter has a value in a file; the decoder's are apart."""
    own = {name for name, _ in skeleton.named_parameters() if not name.startswith(DECODER)}
    return own <= {name for file in files for name in file.tensors}
