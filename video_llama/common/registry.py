"""Names to classes: one registry for each kind of thing a YAML can name."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any, Generic, NamedTuple, TypeVar, cast

from video_llama.common.errors import DuplicateName, UnknownName
from video_llama.common.garbage import without_collections

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` most likely misspells, or None."""
    # One typo in a name of two letters leaves a similarity of 0.5; longer names need more in common.
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5 if len(name) <= 2 else 0.6)
    return near[0] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``' Did you mean X?'`` for the nearest known name, or an empty string."""
    near = nearest(name, known)
    return f" Did you mean {near}?" if near else ""


class Builtin(NamedTuple):
    """The two modules of a built-in entry, so that its settings can be checked without importing its implementation."""

    module: str
    """Registers the class."""
    config: str | None = None
    """``module:name`` of its Config, in a module without torch; None: it has no settings."""


class Registry(Generic[T]):
    """A table from public names to classes of one kind.

    Args:
        kind: what the entries are, for messages ("model", "dataset", ...).
        builtin: the built-in entries, imported on first use.
    """

    def __init__(self, kind: str, builtin: Mapping[str, Builtin] | None = None) -> None:
        self.kind = kind
        self._builtin = dict(builtin or {})
        self._entries: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that enters a class under ``name``.

        Raises:
            DuplicateName: another class has the name.
        """

        def enter(cls: type[T]) -> type[T]:
            taken = self._entries.get(name)
            if taken is None and name in self._builtin and cls.__module__ != self._builtin[name].module:
                raise DuplicateName(
                    f"{self.kind} '{name}' is built in ({self._builtin[name].module}); choose another name"
                )
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise DuplicateName(
                    f"{self.kind} '{name}' is already {taken.__module__}.{taken.__qualname__}; "
                    f"{cls.__module__}.{cls.__qualname__} needs another name"
                )
            self._entries[name] = cls
            return cls

        return enter

    def get(self, name: str) -> type[T]:
        """Return the class registered under ``name``.

        Raises:
            UnknownName: nothing has that name; the message lists the known names and the nearest one.
        """
        if name not in self._entries and name in self._builtin:
            with without_collections():
                importlib.import_module(self._builtin[name].module)
        if name not in self._entries:
            raise self.unknown(name)
        return self._entries[name]

    def config(self, name: str) -> type[Any] | None:
        """Return the Config of the class registered under ``name``; None if it has none.

        Raises:
            UnknownName: nothing has that name.
        """
        builtin = self._builtin.get(name)
        if builtin and builtin.config and name not in self._entries:
            module, _, attribute = builtin.config.partition(":")
            return cast("type[Any]", getattr(importlib.import_module(module), attribute))
        return getattr(self.get(name), "Config", None)

    def unknown(self, name: str) -> UnknownName:
        """Return the error for an unknown name: the known names, and the nearest one."""
        known = self.names()
        return UnknownName(
            f"'{name}' is not a registered {self.kind}. Known: {', '.join(known)}.{did_you_mean(name, known)}"
        )

    def loaded(self) -> dict[str, type[T]]:
        """Return the classes registered so far; unused built-in modules are not imported."""
        return dict(self._entries)

    def names(self) -> list[str]:
        """Return every known name, sorted."""
        return sorted(self._entries.keys() | self._builtin.keys())

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name in self._builtin

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    @contextmanager
    def scoped(self) -> Iterator[None]:
        """Forget, on leaving, what was registered inside the block (for tests).

        Built-in names stay: their modules are not imported a second time.
        """
        before = set(self._entries)
        try:
            yield
        finally:
            self._entries = {n: cls for n, cls in self._entries.items() if n in before or n in self._builtin}


PLUGIN_GROUP = "video_llama.plugins"

MODELS: Registry[Any] = Registry(
    "model", {"video_llama": Builtin("video_llama.models.video_llama", "video_llama.models.config:VideoLLaMAConfig")}
)

_DATASETS = "video_llama.datasets.config:"
DATASETS: Registry[Any] = Registry(
    "dataset",
    {
        "webvid": Builtin("video_llama.datasets.captions", _DATASETS + "WebVidConfig"),
        "cc_sbu_align": Builtin("video_llama.datasets.captions", _DATASETS + "CCSBUAlignConfig"),
        "llava_instruct": Builtin("video_llama.datasets.instruct", _DATASETS + "LlavaInstructConfig"),
        "webvid_instruct": Builtin("video_llama.datasets.instruct", _DATASETS + "WebVidInstructConfig"),
        "webvid_instruct_zh": Builtin("video_llama.datasets.instruct", _DATASETS + "WebVidInstructConfig"),
        "cc_sbu": Builtin("video_llama.datasets.shards.sharded", _DATASETS + "ImageShardsConfig"),
        "laion": Builtin("video_llama.datasets.shards.sharded", _DATASETS + "ImageShardsConfig"),
        "webvid_wds": Builtin("video_llama.datasets.shards.sharded", _DATASETS + "VideoShardsConfig"),
        "instruct_wds": Builtin("video_llama.datasets.shards.sharded", _DATASETS + "InstructShardsConfig"),
        "manifest": Builtin("video_llama.datasets.manifest", "video_llama.datasets.manifest_config:ManifestConfig"),
    },
)

_PROCESSORS = "video_llama.processors.config:"
PROCESSORS: Registry[Any] = Registry(
    "processor",
    {
        "alpro_video_train": Builtin("video_llama.processors.video", _PROCESSORS + "VideoTrainConfig"),
        "alpro_video_eval": Builtin("video_llama.processors.video", _PROCESSORS + "VideoConfig"),
        "blip2_image_train": Builtin("video_llama.processors.image", _PROCESSORS + "ImageTrainConfig"),
        "blip2_image_eval": Builtin("video_llama.processors.image", _PROCESSORS + "ImageConfig"),
        "blip_caption": Builtin("video_llama.processors.text", _PROCESSORS + "CaptionConfig"),
        "imagebind_audio": Builtin("video_llama.processors.audio", _PROCESSORS + "AudioConfig"),
        "waveform_audio": Builtin("video_llama.processors.audio", _PROCESSORS + "AudioConfig"),
    },
)

VIDEO_BACKENDS: Registry[Any] = Registry(
    "video backend",
    {
        "pyav": Builtin("video_llama.processors.decode.pyav_backend"),
        "decord": Builtin("video_llama.processors.decode.decord_backend"),
        "torchcodec": Builtin("video_llama.processors.decode.torchcodec_backend"),
    },
)

_ENCODERS = "video_llama.models.encoders.config:"
AUDIO_ENCODERS: Registry[Any] = Registry(
    "audio encoder",
    {
        "imagebind_huge": Builtin("video_llama.models.encoders.imagebind", _ENCODERS + "ImageBindConfig"),
        "whisper": Builtin("video_llama.models.encoders.whisper", _ENCODERS + "WhisperConfig"),
    },
)

RUNNERS: Registry[Any] = Registry(
    "runner", {"runner_base": Builtin("video_llama.runners.runner_base", "video_llama.runners.config:RunConfig")}
)

_RUNNERS = "video_llama.runners.config:"
LR_SCHEDULERS: Registry[Any] = Registry(
    "lr scheduler",
    {
        "linear_warmup_cosine_lr": Builtin("video_llama.runners.schedules", _RUNNERS + "CosineConfig"),
        "linear_warmup_step_lr": Builtin("video_llama.runners.schedules", _RUNNERS + "StepDecayConfig"),
        "constant_lr": Builtin("video_llama.runners.schedules", _RUNNERS + "ConstantConfig"),
    },
)
_CALLBACKS = "video_llama.runners.callback_configs:"
CALLBACKS: Registry[Any] = Registry(
    "callback",
    {
        "bad_samples": Builtin("video_llama.runners.callbacks.bad_samples", _CALLBACKS + "BadSamplesConfig"),
        "bad_steps": Builtin("video_llama.runners.callbacks.bad_steps", _CALLBACKS + "BadStepsConfig"),
        "spikes": Builtin("video_llama.runners.callbacks.spikes", _CALLBACKS + "NoSettings"),
        "ema": Builtin("video_llama.runners.callbacks.ema", _CALLBACKS + "EmaConfig"),
        "validate": Builtin("video_llama.runners.callbacks.validate", _CALLBACKS + "ValidateConfig"),
        "jsonl": Builtin("video_llama.runners.callbacks.jsonl", _CALLBACKS + "NoSettings"),
        "console": Builtin("video_llama.runners.callbacks.console", _CALLBACKS + "NoSettings"),
        "checkpoint": Builtin("video_llama.runners.callbacks.checkpoint", _CALLBACKS + "CheckpointConfig"),
        "samples": Builtin("video_llama.runners.callbacks.samples", _CALLBACKS + "NoSettings"),
        "profile": Builtin("video_llama.runners.callbacks.profile", _CALLBACKS + "ProfileConfig"),
        "sinks": Builtin("video_llama.runners.callbacks.sinks", _CALLBACKS + "SinksConfig"),
    },
)
SINKS: Registry[Any] = Registry(
    "sink",
    {
        "tensorboard": Builtin("video_llama.runners.sinks.tensorboard_sink", _CALLBACKS + "TensorBoardConfig"),
        "wandb": Builtin("video_llama.runners.sinks.wandb_sink", _CALLBACKS + "WandbConfig"),
        "trackio": Builtin("video_llama.runners.sinks.trackio_sink", _CALLBACKS + "TrackioConfig"),
    },
)
_EVALUATION = "video_llama.evaluation."
_PUBLISHED_BENCHMARKS = {
    "short_answers": ("msvd_qa", "msrvtt_qa", "tgif_frame_qa", "activitynet_qa", "music_avqa"),
    "multiple_choice": ("nextqa_mc", "mvbench", "egoschema"),
    "sentence_answers": ("avsd", "nextqa_oe", "vcgbench_generic", "vcgbench_temporal", "vcgbench_consistency"),
    "descriptions": ("msrvtt_caption", "msvd_caption", "vatex", "audiocaps", "clotho"),
    "own_questions": ("manifest", "questions"),
}
_BENCHMARK_CONFIGS = {"multiple_choice": "ChoiceConfig", "own_questions": "ChoiceConfig"}
BENCHMARKS: Registry[Any] = Registry(
    "benchmark",
    {
        "exact_match": Builtin(_EVALUATION + "exact_match", _EVALUATION + "config:ExactMatchConfig"),
        "toy": Builtin("video_llama.toy.toy_benchmark", _EVALUATION + "config:ToyConfig"),
        "videomme": Builtin(_EVALUATION + "multiple_choice", _EVALUATION + "config:VideoMMEConfig"),
        **{
            name: Builtin(
                _EVALUATION + module, _EVALUATION + f"config:{_BENCHMARK_CONFIGS.get(module, 'PublishedConfig')}"
            )
            for module, names in _PUBLISHED_BENCHMARKS.items()
            for name in names
        },
    },
)


def plugin_problems() -> list[str]:
    """Load the entry points of ``video_llama.plugins``; return a line for each that fails."""
    problems = []
    for point in entry_points(group=PLUGIN_GROUP):
        try:
            point.load()
        except Exception as error:  # code of others may fail in any way; the user needs its name
            problems.append(f"entry point {point.name} = {point.value}: {_reason(error)}")
    return problems


def import_problem(module: str) -> str | None:
    """Import a module of the user; return why it cannot be imported, or None."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        hint = " (is its folder on PYTHONPATH?)" if error.name == module.split(".")[0] else ""
        return f"cannot import {module}: {_reason(error)}{hint}"
    except Exception as error:  # as above
        return f"cannot import {module}: {_reason(error)}"
    return None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
