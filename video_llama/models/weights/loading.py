"""The weights files that a model section names: read, given our names and held against the model before anything large
is built. Every way in which they can be wrong is found here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from video_llama.checkpoints.compare import Comparison, check_finite, compare, component_of
from video_llama.checkpoints.inspection import decoder_width, sizes
from video_llama.checkpoints.io import read_weights
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
from video_llama.common.errors import WeightsError
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.folder import decoder_width as width_of_decoder
from video_llama.models.decoder.folder import read_config
from video_llama.models.decoder.lora import alpha_of
from video_llama.models.encoders.audio_encoder import own_weights

log = logging.getLogger(__name__)

SIGHT = ("vision.", "qformer.", "video_branch.")
AUDIO = ("audio_branch.", "audio_encoder.")
"""How the names begin of what is there for one branch alone."""
TRUNKS = {"sound": "audio_encoder.audio.", "frames": "audio_encoder.vision."}
"""How the names of ImageBind's trunks begin, by what each is for."""
IMAGEBIND = "imagebind_ckpt_path"
DECODER = "decoder."
"""How the names of the decoder's tensors begin; a file holds such if it was trained with LoRA."""


@dataclass(frozen=True)
class Place:
    """A key of the model section that names a file."""

    key: str
    accepted: tuple[Format, ...]
    """The published formats that go there, beside our own files."""
    parts: tuple[str, ...] = ("",)
    """How the names of the tensors begin that go there."""


PLACES = (
    Place("vit_ckpt", (EVA_CLIP_G,), ("vision.",)),
    Place("q_former_model", (BLIP2_QFORMER,), ("qformer.", "vision.ln_vision.")),
    Place(IMAGEBIND, (IMAGEBIND_HUGE,), ("audio_encoder.",)),
    Place("llama_proj_model", (MINIGPT4_PROJECTION,), ("video_branch.to_decoder.",)),
    Place("ckpt", (VISION_BRANCH, AUDIO_BRANCH)),
    Place("ckpt_2", (VISION_BRANCH, AUDIO_BRANCH)),
)
"""In the order in which the files are filled in."""


@dataclass(frozen=True)
class WeightsFile:
    """One file, with its tensors under their names in the whole model."""

    place: str
    """Key and path, for messages."""
    title: str
    """What the file is."""
    tensors: dict[str, Tensor]
    ignored: list[str]
    """What else it holds, by its own names: of no use here, and left out on purpose."""


def read_weights_files(config: VideoLLaMAConfig) -> list[WeightsFile]:
    """Read every file that a model section names and the model has a part for.

    Raises:
        WeightsError: a file is unreadable, of a kind that does not go there, made for another decoder, or holds NaN or
            infinity.
    """
    files = []
    for place in reversed(PLACES):  # the largest last, so that what is wrong with the others is told at once
        if (path := getattr(config, place.key)) is None:
            continue
        if not is_read(place, config):
            log.info("model.%s is not read: the audio branch alone is trained", place.key)
            continue
        file = without_parts(read_weights_file(place, path), place, config)
        check_finite(file.tensors, file.place)
        check_width(file, config.llama_model)
        check_adapter(file, config)
        files.append(file)
    if own := own_weights(config):
        check_finite(own, "model.audio_encoder")
        files.append(WeightsFile("model.audio_encoder", "an encoder with weights of its own", own, []))
    return files[::-1]


def is_read(place: Place, config: VideoLLaMAConfig) -> bool:
    """Return whether a file at a place is read: not one for frames alone, where the audio branch alone is trained."""
    return config.modalities.video or not all(part.startswith(SIGHT) for part in place.parts)


def read_weights_file(place: Place, path: str) -> WeightsFile:
    """Read the file at one key.

    Raises:
        WeightsError: as ``read_weights_files``, but for the decoder.
    """
    where = f"model.{place.key}: {path}"
    try:
        tensors = read_weights(file_or_within(path) if place.key == IMAGEBIND else path)
    except WeightsError as error:
        raise WeightsError(f"model.{place.key}: {error}") from error
    found = recognise(tensors)
    accepted = " or ".join(one.title for one in place.accepted)
    if found is not None and found not in place.accepted:
        raise WeightsError(f"{where} is {found.title}; here goes {accepted}, or our own. {found.advice}")
    named = in_our_names(tensors, where)
    if not named.tensors:
        raise WeightsError(f"{where} holds no tensor that the model has a place for")
    if place.key in ("ckpt", "ckpt_2") and not any("_branch." in n or n.startswith(DECODER) for n in named.tensors):
        raise WeightsError(
            f"{where} holds nothing of a trained branch, only tensors such as {next(iter(named.tensors))}"
        )
    if strays := [name for name in named.tensors if not name.startswith(place.parts)]:
        raise WeightsError(
            f"{where} holds {len(strays)} tensors that do not go here, such as {strays[0]}; here goes "
            f"{accepted}, or our own of {', '.join(part.rstrip('.') for part in place.parts)} alone."
        )
    if whole := [name for name, tensor in named.tensors.items() if not tensor.is_floating_point()]:
        raise WeightsError(f"{where}: {whole[0]} holds whole numbers, which no weight does. Is the file damaged?")
    return WeightsFile(where, found.title if found else "a file of video_llama", named.tensors, named.ignored)


def without_parts(file: WeightsFile, place: Place, config: VideoLLaMAConfig) -> WeightsFile:
    """Leave out what the model section does not ask for: what is for one branch alone, or trunks of ImageBind.

    Raises:
        WeightsError: there is nothing else in the file, or what is asked for is not.
    """
    if config.equip_audio_branch:
        for what in config.audio_inputs if place.key == IMAGEBIND else ():
            if not any(name.startswith(TRUNKS[what]) for name in file.tensors):
                raise WeightsError(f"{file.place} lacks ImageBind's trunk for {what}: no tensor {TRUNKS[what]}*")
        unused = tuple(trunk for what, trunk in TRUNKS.items() if what not in config.audio_inputs)
        unused += () if config.modalities.video else SIGHT
        lacks = "video branch: the audio branch alone is trained. Set frozen_video_Qformer: false to train both"
    else:
        unused = AUDIO
        lacks = "audio branch. Set equip_audio_branch: true"
    kept = {n: t for n, t in file.tensors.items() if not n.startswith(unused)}
    if not kept:
        raise WeightsError(f"{file.place} is {file.title}, and the model has no {lacks}, or leave the file out.")
    ignored = [n for n in file.tensors if n not in kept]
    return replace(file, tensors=kept, ignored=[*file.ignored, *ignored])


def check_weights_files(files: Sequence[WeightsFile], skeleton: nn.Module, config: VideoLLaMAConfig) -> None:
    """Hold the files against the model, report what matched, and refuse what does not fit.

    Args:
        files: as read.
        skeleton: the model with no more of the decoder than its adapters; on the meta device, since only names and
            shapes are looked at.
        config: that the skeleton was built from.
    Raises:
        WeightsError: a file does not fit, or leaves a part of the model half filled.
    """
    for file in files:
        comparison = compare_file(file, skeleton)
        if misfits := comparison.misfits():
            raise WeightsError(
                "\n".join([f"{file.place} does not fit the model:", *misfits, *other_sizes(file, config)])
            )
        ignored = [f"  {len(file.ignored)} ignored, such as {file.ignored[0]}"] if file.ignored else []
        log.info("\n".join([f"{file.place} is {file.title}", *comparison.lines(), *ignored]))
    _check_whole(files, skeleton, config)


def compare_file(file: WeightsFile, skeleton: nn.Module) -> Comparison:
    """Hold one file against the model; what is of the decoder, where the skeleton has its adapters."""
    known = hasattr(skeleton, "decoder")
    return compare(skeleton, {n: t for n, t in file.tensors.items() if known or not n.startswith(DECODER)})


def check_width(file: WeightsFile, llama_model: str) -> None:
    """Raise WeightsError for a file that was made for a decoder of another width."""
    made_for = decoder_width(file.tensors)
    if made_for is not None:
        width = width_of_decoder(read_config(llama_model))
        if made_for != width:
            raise WeightsError(
                f"{file.place} was made for a decoder of width {made_for}; {llama_model} has width {width}. "
                "Use the file that belongs to this decoder, or the decoder that belongs to this file."
            )


def check_adapter(file: WeightsFile, config: VideoLLaMAConfig) -> None:
    """Raise WeightsError for a file with a LoRA adapter where the model section has none, or one of another alpha."""
    adapter = [name for name in file.tensors if name.startswith(DECODER)]
    if not adapter:
        return
    if config.lora is None:
        raise WeightsError(
            f"{file.place} was trained with LoRA: {len(adapter)} of its tensors belong into the decoder, such as "
            f"{adapter[0]}. Add to the model section the lora: block that it was trained with."
        )
    if (alpha := alpha_of(file.tensors)) not in (None, config.lora.alpha):
        raise WeightsError(
            f"{file.place} was trained with lora.alpha: {alpha:g}; the model section has {config.lora.alpha}. Its adapters "
            "would count for more or less than they should."
        )


def other_sizes(file: WeightsFile, config: VideoLLaMAConfig) -> list[str]:
    """Return a line for each setting that the file was made with another value of."""
    lines = []
    for key, size in sizes(file.tensors).items():
        here: Any = config
        for part in key.split("."):
            here = here.get(part) if isinstance(here, dict) else getattr(here, part, None)
        if here not in (None, size):
            lines.append(f"  made with {key}: {size}; the model section has {here}")
    return lines


def _check_whole(files: Sequence[WeightsFile], skeleton: nn.Module, config: VideoLLaMAConfig) -> None:
    """Raise WeightsError when a part got some of its tensors only: the rest would be random."""
    parts: dict[str, set[str]] = {}
    for name in skeleton.state_dict():
        parts.setdefault(_part(name), set()).add(name)
    for part, own in parts.items():
        sources = [file for file in files if own & file.tensors.keys()]
        missing = sorted(own.difference(*(file.tensors for file in sources)))
        if sources and missing:
            lines = [
                f"{', '.join(file.place for file in sources)}: {part} is filled only in part: {len(missing)} of "
                f"{len(own)} tensors are in no file, such as {missing[0]}. Is a file missing, or was it made with "
                "other model settings?",
                *(line for file in sources for line in other_sizes(file, config)),
            ]
            raise WeightsError("\n".join(lines))
        if files and not sources and "_branch." in part and part.startswith(config.frozen_parts):
            advice = "name its file: model.ckpt"
            if part.startswith(AUDIO):
                advice = (
                    "name its file, model.ckpt_2; or do without sound: equip_audio_branch: false, and no "
                    "imagebind_ckpt_path or audio_encoder"
                )
            raise WeightsError(f"{part} is frozen, and in no file: it would answer at random. To mend this, {advice}")
        if files and not sources and part == "decoder":
            log.info("the adapters of the decoder are in no file: they start from no effect")
        elif files and not sources:
            level = logging.WARNING if config.ckpt else logging.INFO
            log.log(level, "%s is in no file: it starts at random", part)


def _part(name: str) -> str:
    """Return what is filled as one: an encoder as a whole, a branch by its components."""
    return component_of(name) if "_branch." in name else name.split(".")[0]
