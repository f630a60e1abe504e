"""Write a model in use as a folder for the Hugging Face hub: what was trained alone (``bundle``), or everything (``full``)."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from tqdm import tqdm

from video_llama import __version__
from video_llama.checkpoints.delta.shards import Planned, write_named_shards
from video_llama.checkpoints.hf_folder import SINGLE
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.common.files import LOCK, new_folder, sha256_of
from video_llama.common.registry import MODELS
from video_llama.config.fields import UNSET
from video_llama.config.hints import default_of
from video_llama.config.loader import JobConfig, as_yaml
from video_llama.config.overrides import escaped
from video_llama.config.serialize import changed, registered_class, registered_name
from video_llama.config.source import map_strings
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.decoder.lora_merge import merged_decoder
from video_llama.models.decoder.new_folder import save_decoder
from video_llama.models.idle_settings import OF_TRAINING
from video_llama.models.weights.loading import DECODER as ADAPTERS
from video_llama.models.weights.loading import check_weights_files, read_weights_files
from video_llama.sharing.card import Training, card
from video_llama.sharing.exported import CONFIG, TEMPLATE, Exported, template_data
from video_llama.sharing.folder_copy import copy_model_folder
from video_llama.sharing.inventory import INVENTORY, Inventory, Origin, Recorded, part_digests
from video_llama.sharing.parts import (
    AUDIO_ENCODER,
    DECODER,
    TRAINED,
    Part,
    audio_sources,
    decoder_part,
    own_files,
    parts_of,
)
from video_llama.sharing.scores import Score

log = logging.getLogger(__name__)

Layout = Literal["bundle", "full"]
_FILES = {"ckpt": "branch", "vit_ckpt": "vision", "q_former_model": "qformer", "imagebind_ckpt_path": "audio_encoder"}
"""Key of the model section -> the last word of its file's name, if an export has several."""
_FOLDERS = {DECODER: "decoder", AUDIO_ENCODER: "audio_encoder"}
"""Key of the model section -> its folder in an export that holds everything."""
_NOT_EXPORTED = (*OF_TRAINING, "llama_proj_model", "ckpt_2", "ckpt_ema", "ckpt_2_ema")
"""Keys of the model section that an export leaves at their defaults."""
CARD = "README.md"


@dataclass(frozen=True)
class _Plan:
    """What goes into an export."""

    held: dict[str, list[str]]
    """Key of the model section -> names of the tensors in its file."""
    copied: tuple[str, ...]
    """Keys of the folders that are copied."""
    parents: tuple[str, ...]
    """Keys of the parts that others get elsewhere."""
    origins: dict[str, Origin]
    """Origin of each of these files, folders and parts."""


def export(
    job: JobConfig,
    output: str | Path,
    layout: Layout,
    parents: Mapping[str, str] | None = None,
    training: Training | None = None,
    scores: Sequence[Score] = (),
    name: str | None = None,
) -> None:
    """Write a model as a folder.

    Args:
        job: for inference, with everything that it names downloaded, and its processors chosen.
        output: the folder to create.
        layout: bundle: what was trained, and digests of its parents; full: everything, with adapters merged into the decoder.
        parents: key of the model section -> where others get what a path on this machine stands for.
        training: what is known of the training, for the model card.
        scores: on benchmarks, for the model card.
        name: what the model card calls it: its id on the hub. None: the folder.
    Raises:
        ConfigError: the model is of another kind, or ``parents`` names something that is no parent.
        WeightsError: a file does not fit, or the folder cannot be written.
    """
    config = job.model
    if not isinstance(config, VideoLLaMAConfig):
        raise ConfigError(
            [f"model.arch: {registered_name(MODELS, config)} has its own settings, so export cannot tell its parts"]
        )
    if job.imports:
        raise ConfigError(
            [f"imports: {', '.join(job.imports)}: an export imports nothing. Install it as a plugin instead."]
        )
    model_class: Any = registered_class(MODELS, config)
    template = model_class.sample_spec(config).template
    files = read_weights_files(config)
    check_weights_files(files, model_class.skeleton(config), config)
    parts = parts_of(config, files)
    plan = _plan(config, parts, layout, parents or {}, _earlier_origins(job))
    tensors = {name: tensor for file in files for name, tensor in file.tensors.items()}
    held = {name for names in plan.held.values() for name in names}
    n_bytes = sum(tensors[name].nbytes for name in held) + sum(parts[key].n_bytes for key in plan.copied)
    with _new_or_replaced(Path(output), n_bytes) as folder:
        names = _write_tensors(folder, plan.held, tensors)
        for key in plan.copied:
            if key == DECODER and config.lora is not None:
                adapters = {name: t for name, t in tensors.items() if name.startswith(ADAPTERS)}
                (folder / _FOLDERS[key]).mkdir()
                lm = merged_decoder(model_class, config, adapters)
                log.info("writing the decoder with its adapters merged")
                save_decoder(lm, config.decoder_folder.path, folder / _FOLDERS[key])
                parts[DECODER] = decoder_part(DecoderFolder(folder / _FOLDERS[key]))
            else:
                copy_model_folder(parts[key].folder or Path(), folder / _FOLDERS[key])
        inventory = _inventory(layout, plan, parts, tensors)
        new_job = replace(job, model=_model(config, plan), datasets={}, run=None)
        (folder / CONFIG).write_text(_yaml(new_job, plan, names), encoding="utf-8")
        _write_json(folder / TEMPLATE, template_data(template))
        _write_json(folder / "config.json", _hub_config(config, inventory))
        _write_json(folder / "processor_config.json", _processors(new_job))
        text = card(name or Path(output).resolve().name, new_job, inventory, training, scores)
        (folder / CARD).write_text(text, encoding="utf-8")
        replace(inventory, written=_written(folder)).write(folder)


@contextmanager
def _new_or_replaced(output: Path, n_bytes: int) -> Iterator[Path]:
    """A folder to fill, which becomes ``output`` at the end, and replaces an earlier export in which nothing was changed.

    Raises:
        WeightsError: something else is there, or the folder cannot be written.
    """
    earlier = Exported.at(output) if output.is_dir() else None
    if earlier is None:
        with new_folder(output, n_bytes) as folder:
            yield folder
        return
    written = Inventory.read(output).written
    if changed_files := [name for name, digest in _written(output).items() if written.get(name) != digest]:
        raise WeightsError(
            f"{output / changed_files[0]}: is not as an export wrote it, and nothing of yours is overwritten; name another "
            "folder, or move the file away"
        )
    log.info("%s: replacing an earlier export", output)
    output = output.resolve()
    new, old = (output.with_name(f".{output.name}.{word}") for word in ("new", "old"))
    try:
        for left in (new, old):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with new_folder(new, n_bytes) as folder:
            yield folder
        output.rename(old)
        new.rename(output)
        shutil.rmtree(old)
    except OSError as error:
        raise WeightsError(f"{output}: cannot be replaced ({error})") from error


def _written(folder: Path) -> dict[str, str]:
    """Return the digest of each file of a folder but the inventory."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return {name: sha256_of(folder / name) for name in names if name not in (INVENTORY, LOCK)}


def _earlier_origins(job: JobConfig) -> dict[str, Origin]:
    """Return the origins by dotted key that an export records, if the model is loaded from one: all of it was verified."""
    earlier = Exported.at(job.places.file) if job.places else None
    parts = Inventory.read(earlier.folder).parts.values() if earlier else ()
    return {part.origin.key: part.origin for part in parts}


def _plan(
    config: VideoLLaMAConfig,
    parts: Mapping[str, Part],
    layout: Layout,
    elsewhere: Mapping[str, str],
    earlier: Mapping[str, Origin],
) -> _Plan:
    folders = [key for key, part in parts.items() if part.folder is not None]
    own = [key for key in parts if key in TRAINED or (layout == "full" and key not in _FOLDERS)]
    copied = tuple(folders) if layout == "full" else ()
    apart = tuple(key for key in parts if key not in own and key not in copied)
    names = [name for key in own for name in parts[key].sizes]
    if DECODER in copied:
        names = [name for name in names if not name.startswith(ADAPTERS)]  # they are merged
    others = [name for key in apart if key != DECODER for name in parts[key].sizes]
    held = own_files(names, others, config)
    origins = {key: _origin(config, key, elsewhere, earlier) for key in (*copied, *apart)}
    known = [origins[key].key for key in apart]
    if unknown := [key for key in elsewhere if key not in known]:
        raise ConfigError(
            [f"--parent {unknown[0]}: is not a parent of this export; its parents: {', '.join(known) or 'none'}"]
        )
    for key, own_names in held.items():
        source = key if key in own else next(k for k in own if own_names[0] in parts[k].sizes)  # a trained encoder
        origins[key] = replace(_origin(config, source, {}, earlier), key=key)
    return _Plan(held, copied, apart, origins)


def _origin(config: VideoLLaMAConfig, key: str, elsewhere: Mapping[str, str], earlier: Mapping[str, Origin]) -> Origin:
    sources = audio_sources(config) if key == AUDIO_ENCODER else {key: getattr(config, key)}
    for dotted, text in sources.items():
        found = earlier.get(dotted)
        if found is None or found.source == UNSET:
            found = Origin.of(dotted, text)
        if dotted not in elsewhere:
            return found
        chosen = Origin.of(dotted, elsewhere[dotted])
        if chosen.source == UNSET or (chosen.repo_id and (chosen.file is None) != (key in _FOLDERS)):
            what = (
                "org/name@revision" if key in _FOLDERS else "hf://org/name@revision/file, or the name of known weights"
            )
            raise ConfigError(
                [f"--parent {dotted}={elsewhere[dotted]}: leads nowhere from another machine; expected {what}"]
            )
        return replace(chosen, name=found.name)
    return Origin(key=key, name="the encoder's own weights", source="")


def _write_tensors(folder: Path, held: Mapping[str, list[str]], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Write the files of tensors; return key -> file name."""
    names = {key: f"model-{_FILES[key]}.safetensors" for key in held} if len(held) > 1 else dict.fromkeys(held, SINGLE)

    def values(name: str, rows: slice) -> Tensor:
        tensor = tensors[name].detach()
        return tensor[rows] if tensor.ndim else tensor

    planned = {
        names[key]: [Planned(name, tuple(tensors[name].shape), tensors[name].dtype) for name in own]
        for key, own in held.items()
    }
    write_named_shards(folder, planned, values, "writing")
    return names


def _inventory(layout: Layout, plan: _Plan, parts: Mapping[str, Part], tensors: Mapping[str, Tensor]) -> Inventory:
    held = {
        key: Part(key, {name: tensors[name].nbytes for name in names}, tensors.__getitem__)
        for key, names in plan.held.items()
    }
    others = {key: parts[key] for key in (*plan.copied, *plan.parents)}
    n_bytes = sum(part.n_bytes for part in (*held.values(), *others.values()))
    with tqdm(total=n_bytes, desc="computing digests", unit="B", unit_scale=True) as bar:
        recorded = {
            key: Recorded(*part_digests(part, bar), plan.origins[key], key not in plan.parents)
            for key, part in {**held, **others}.items()
        }
    return Inventory(layout, recorded)


def _model(config: VideoLLaMAConfig, plan: _Plan) -> VideoLLaMAConfig:
    """Return the config of the exported model, without settings of training."""
    defaults = {f.name: default_of(f) for f in fields(config) if f.name in _NOT_EXPORTED}
    merged = {"lora": None} if DECODER in plan.copied else {}
    return changed(config, **{name: value for name, value in defaults.items() if value is not MISSING}, **merged)


def _yaml(job: JobConfig, plan: _Plan, names: Mapping[str, str]) -> str:
    """Return the resolved config; what lies in the export is named relative to it."""
    data: dict[str, Any] = map_strings(escaped, job.as_dict())
    model = data["model"]
    sources: dict[str, str | None] = dict.fromkeys(("vit_ckpt", "q_former_model", "imagebind_ckpt_path"))
    sources |= {key: f"${{here}}/{name}" for key, name in names.items()}
    parents = [plan.origins[key] for key in plan.parents]
    sources |= {origin.key: origin.source for origin in parents if origin.source}
    for key in plan.copied:
        (dotted,) = audio_sources(job.model) if key == AUDIO_ENCODER else (key,)
        sources[dotted] = f"${{here}}/{_FOLDERS[key]}"
    for dotted, text in sources.items():
        *path, last = dotted.split(".")
        block = model
        for part in path:
            block = block[part]
        block[last] = text
    head = (
        f"# Exported by video_llama {__version__}. ${{here}} is the folder of this file, ${{package}} that of video_llama.\n"
        "# The weights of a model that is loaded from here are compared with weights.json.\n\n"
    )
    return head + as_yaml(data)


def _hub_config(config: VideoLLaMAConfig, inventory: Inventory) -> dict[str, Any]:
    """Return ``config.json``, by which the hub and transformers recognise a model."""
    parents = {
        part.origin.key: {**asdict(part.origin), "sha256": part.sha256}
        for part in inventory.parts.values()
        if not part.held
    }
    name = registered_class(MODELS, config).__name__
    return {"architectures": [name], "model_type": "video_llama", "layout": inventory.layout, "parents": parents}


def _processors(job: JobConfig) -> dict[str, Any]:
    """Return ``processor_config.json``: how files are read, for people and tools; this package reads ``config.yaml``."""
    data = job.as_dict()["inference"]
    sound = ("audio_segments", "audio_channels", "audio_max_lost")
    audio = {key: getattr(job.model, key) for key in sound} if job.model.equip_audio_branch else None
    return {"video_processor": data["video"], "image_processor": data["image"], "feature_extractor": audio}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
