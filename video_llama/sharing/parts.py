"""What a model in use is made of: for each weights file or folder that it names, the tensors that it takes from there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from video_llama.checkpoints.sources.references import local_path, weights_sources
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.folder import NO_WEIGHTS, DecoderFolder
from video_llama.models.encoders.config import ImageBindConfig
from video_llama.models.weights.loading import IMAGEBIND, WeightsFile, read_weights_files

DECODER = "llama_model"
"""Key of the decoder."""
AUDIO_ENCODER = "audio_encoder"
"""Key of an audio encoder that brings its own weights."""
TRAINED = ("llama_proj_model", "ckpt", "ckpt_2")
"""Keys of files with what was trained; other files and folders are its parents."""
COMPONENTS = {"vision.": "vit_ckpt", "qformer.": "q_former_model", "audio_encoder.": IMAGEBIND}
"""Name prefixes of the encoders, and the keys of files that hold one alone."""


@dataclass(frozen=True)
class Part:
    """The tensors that a model takes from one file or folder."""

    key: str
    """The key of the model section that names it."""
    sizes: Mapping[str, int]
    """Bytes of each tensor: of the decoder by its name in the folder, of others by its name in the whole model."""
    read: Callable[[str], Tensor]
    """Returns a tensor."""
    folder: Path | None = None
    """Where it lies, if in a folder with a config and possibly a tokenizer."""

    @property
    def n_bytes(self) -> int:
        """Size of all tensors."""
        return sum(self.sizes.values())


def parts_of(config: VideoLLaMAConfig, files: list[WeightsFile] | None = None) -> dict[str, Part]:
    """Return the parts of a model in use by key. Of a tensor that several files hold, the last one counts.

    Args:
        config: for inference, with everything that it names downloaded.
        files: what ``read_weights_files`` returned for it, if that was called already.
    Raises:
        WeightsError: a file or the decoder's folder cannot be read.
    """
    files = read_weights_files(config) if files is None else files
    owner = {name: file.key for file in files for name in file.tensors}
    parts = {}
    for file in files:
        own = {name: tensor for name, tensor in file.tensors.items() if owner[name] == file.key}
        if own:
            sizes = {name: tensor.nbytes for name, tensor in own.items()}
            folder = audio_folder(config) if file.key == AUDIO_ENCODER else None
            parts[file.key] = Part(file.key, sizes, own.__getitem__, folder)
    return {**parts, DECODER: decoder_part(config.decoder_folder)}


def decoder_part(folder: DecoderFolder) -> Part:
    """Return the tensors of a decoder, as its folder stores them.

    Raises:
        WeightsError: they cannot be read.
    """
    stored = {name: t for name, t in folder.weights.tensors.items() if not name.endswith(NO_WEIGHTS)}
    sizes = {name: t.dtype.itemsize * math.prod(t.shape) for name, t in stored.items()}
    return Part(DECODER, sizes, folder.weights.read, folder.path)


def audio_folder(config: VideoLLaMAConfig) -> Path | None:
    """Return the folder of an audio encoder that names one in its own settings."""
    return next((local_path(text, key) for key, text in audio_sources(config).items()), None)


def audio_sources(config: VideoLLaMAConfig) -> dict[str, str]:
    """Return what the settings of the audio encoder name as its weights, by dotted key below the model section."""
    found = {key.removeprefix("model."): text for key, text in weights_sources(config)}
    return {key: text for key, text in found.items() if key.startswith(f"{AUDIO_ENCODER}.")}


def own_files(names: list[str], parents: list[str], config: VideoLLaMAConfig) -> dict[str, list[str]]:
    """Divide tensors of an export into files: an encoder that is there as a whole has one of its own, under its own key.

    Args:
        names: of the tensors that the export holds, in the whole model.
        parents: of the others, which it does not hold.
        config: of the model.
    Returns:
        Key of the model section -> names of the tensors in its file.
    """
    found = {}
    for prefix, key in COMPONENTS.items():
        own = [name for name in names if name.startswith(prefix)]
        whole = own and not any(name.startswith(prefix) for name in parents)
        if whole and (key != IMAGEBIND or isinstance(config.audio_encoder_config, ImageBindConfig)):
            found[key] = own
    apart = {name for own in found.values() for name in own}
    return {"ckpt": [name for name in names if name not in apart], **found}
