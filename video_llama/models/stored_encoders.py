"""The frozen encoders whose output a store of features holds: what they are, and whether they are those of a model section."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from video_llama.checkpoints.published import file_or_within
from video_llama.checkpoints.sources.references import find_local
from video_llama.common.errors import WeightsError
from video_llama.common.files import sha256_of
from video_llama.common.modalities import MediaKind
from video_llama.common.registry import AUDIO_ENCODERS
from video_llama.config.serialize import named_paths, plain, registered_name
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.encoder_keys import encoder_keys
from video_llama.models.precision import NAMES
from video_llama.models.weights.loading import WEIGHTS_KEYS, WeightsKey, read_weights_file

if TYPE_CHECKING:
    from video_llama.models.video_llama import VideoLLaMA
    from video_llama.processors.feature_shards import FeatureShards

PARTS: dict[MediaKind, tuple[str, ...]] = {
    "video": ("vision", "qformer"),
    "audio": ("audio_encoder",),
    "audio_frames": ("audio_encoder",),
}
"""The parts of the model that encode each kind of media."""


def stored_kinds(config: VideoLLaMAConfig) -> list[MediaKind]:
    """Return the kinds of media for which a model has frozen encoders."""
    kinds: list[MediaKind] = ["video"] if config.modalities.video else []
    if config.equip_audio_branch:
        kinds.append("audio_frames" if config.modalities.audio_source == "frames" else "audio")
    return kinds


def described(model: VideoLLaMA, frozen: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what the manifest of a store says of a model's frozen encoders, by kind of media.

    Args:
        model: with its encoders.
        frozen: its ``frozen_fingerprint``.
    Raises:
        WeightsError: an encoder is trained, so that its output changes.
    """
    config, digests = model.config, encoder_keys(model)
    found: dict[str, dict[str, Any]] = {}
    for kind in stored_kinds(config):
        if kind not in digests:
            raise WeightsError("model.freeze_vit, model.freeze_qformer: an encoder is trained, and its output changes")
        found[kind] = {
            "digest": digests[kind],
            "settings": _settings(kind, config),
            "precision": _precision(model.vision if kind == "video" else model.audio_encoder),
            "weights": {key: _identity(path) for key, path in _weights(kind, config)},
            "frozen": {part: frozen[part] for part in PARTS[kind]},
            "width": config.qformer.hidden_size if kind == "video" else model.audio_encoder.width,
        }
    return found


def check_stored_encoders(folder: Path, encoders: Mapping[str, dict[str, Any]], config: VideoLLaMAConfig) -> None:
    """Refuse a store of other encoders than those of a model section. Their files need not be there.

    Args:
        folder: the store.
        encoders: what its manifest says of them.
        config: the model section.
    Raises:
        WeightsError: the encoders differ in settings, number format or weights.
    """
    problems: list[str] = []
    for kind in stored_kinds(config):
        if (stored := encoders.get(kind)) is None:
            has = ", ".join(encoders) or "nothing"
            problems.append(f"it has features of {has}, and none of {kind}")
        else:
            problems += _differences(kind, stored, config)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
        raise WeightsError(
            f"model.features: {folder} is not of this model:\n{listed}\n"
            "Name the store of this model, or write one: video-llama cache-features"
        )


def check_same_encoders(
    folder: Path, stored: Mapping[str, dict[str, Any]], found: Mapping[str, dict[str, Any]], config: VideoLLaMAConfig
) -> None:
    """Refuse to add to a store what other encoders make.

    Raises:
        WeightsError: the store has features of another encoder for one of the kinds.
    """
    for kind in stored.keys() & found.keys():
        if stored[kind]["digest"] == found[kind]["digest"]:
            continue
        check_stored_encoders(folder, {**found, kind: stored[kind]}, config)
        raise WeightsError(f"{folder} holds features of {kind} of encoders with other weights. Choose another folder")


def audio_width(store: FeatureShards, config: VideoLLaMAConfig) -> int:
    """Return E, the width of the audio encoder's vectors in a store."""
    (kind,) = (kind for kind in stored_kinds(config) if kind != "video")
    return int(store.manifest.encoders[kind]["width"])


def stored_fingerprint(store: FeatureShards, config: VideoLLaMAConfig) -> dict[str, str]:
    """Return the ``frozen_fingerprint`` of the encoders that a store stands for."""
    kinds = [store.manifest.encoders[kind] for kind in stored_kinds(config)]
    return {part: digest for stored in kinds for part, digest in stored["frozen"].items()}


def _differences(kind: MediaKind, stored: dict[str, Any], config: VideoLLaMAConfig) -> Iterator[str]:
    """Yield how the encoders of a kind differ from those of a store."""
    settings = _settings(kind, config)
    for key in sorted(settings.keys() | stored["settings"].keys()):
        there, here = stored["settings"].get(key), settings.get(key)
        if there != here:
            yield f"model.{key}: {here}; in the store: {there}"
    precision, *_ = stored["precision"]
    key = "vit_precision" if kind == "video" else "audio_precision"
    if (asked := getattr(config, key)) not in ("auto", precision):
        yield f"model.{key}: {asked}; in the store: {precision}"
    here, there = dict(_weights(kind, config)), stored["weights"]
    for key, path in here.items():
        if key not in there:
            yield f"model.{key}: {path} holds weights of an encoder, and the features were made without it"
        elif not _is_same(path, there[key]):
            yield f"model.{key}: {path} is not the file with which the features were made, {there[key]['path']}"
    for key in sorted({"ckpt", "ckpt_2"} & there.keys() - here.keys()):
        yield f"model.{key}: holds no weights of an encoder; the features were made with those of {there[key]['path']}"


def _settings(kind: MediaKind, config: VideoLLaMAConfig) -> dict[str, Any]:
    """Return the settings of a kind's encoders as JSON has them, without paths and without those of training alone."""
    if kind == "video":
        sizes = {name: value for name, value in plain(Any, config.qformer).items() if name != "dropout"}
        found = {key: getattr(config, key) for key in ("vit_model", "vit_args", "image_size", "num_query_token")}
        found["qformer"] = sizes
    else:
        encoder = config.audio_encoder_config
        paths = named_paths(encoder)
        own = {key: value for key, value in plain(Any, encoder).items() if value not in paths}
        found = {"audio_encoder": {"name": registered_name(AUDIO_ENCODERS, encoder), **own}}
        if kind == "audio":
            found["audio_scale"] = config.audio_scale
    return dict(json.loads(json.dumps(found)))


def _weights(kind: MediaKind, config: VideoLLaMAConfig) -> Iterator[tuple[str, Path]]:
    """Yield the keys of the files with weights of a kind's encoders, and the files, where they are on this machine."""
    prefixes = tuple(f"{part}." for part in PARTS[kind])
    for key in WEIGHTS_KEYS:
        text = getattr(config, key.name) or config.default_weights().get(key.name)
        path = None if text is None else find_local(text)
        if path is None or not (path := file_or_within(path)).is_file():
            continue
        of_encoders = all(prefix.startswith(prefixes) for prefix in key.prefixes)
        if of_encoders or (key.name in ("ckpt", "ckpt_2") and _holds(key, path, config, prefixes)):
            yield key.name, path


def _holds(key: WeightsKey, path: Path, config: VideoLLaMAConfig, prefixes: tuple[str, ...]) -> bool:
    """Return whether a checkpoint holds tensors with some prefixes."""
    return any(name.startswith(prefixes) for name in read_weights_file(key, str(path), key.reader(config)).tensors)


def _precision(encoder: Any) -> list[str]:
    """Return the number formats in which an encoder's weights are stored and computed; without a choice, fp32."""
    stored = next(encoder.parameters()).dtype
    return [NAMES[stored], NAMES[getattr(encoder, "dtype", stored)]]


def _identity(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {
        "path": os.path.realpath(path),
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "sha256": sha256_of(path),
    }


def _is_same(path: Path, recorded: dict[str, Any]) -> bool:
    """Return whether a file is the recorded one, or one of the same content: one elsewhere, or touched since, is read."""
    found = path.stat()
    now = {"path": os.path.realpath(path), "size": found.st_size, "mtime_ns": found.st_mtime_ns}
    if all(recorded[key] == value for key, value in now.items()):
        return True
    return recorded["size"] == found.st_size and recorded["sha256"] == sha256_of(path)
