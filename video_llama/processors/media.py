"""The one reader of media files, for training, conversations and evaluation."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from video_llama.common.errors import BadRecord, DecodeError, NoSoundTrack, SoundDecodeError, VideoLlamaError
from video_llama.common.modalities import FileKind, MediaKind, Modalities, SoundUse
from video_llama.common.protocols import ClipProcessor
from video_llama.common.types import Media
from video_llama.processors.audio import SegmentProcessor
from video_llama.processors.config import AudioConfig
from video_llama.processors.decode import Sound, open_sound
from video_llama.processors.decode.damage import collected_damage, log_once, report_damage
from video_llama.processors.feature_source import FeatureSource, telling
from video_llama.processors.feature_store import FeatureStore
from video_llama.processors.span import Span, SpanOfSound, SpanOfVideo, sample_at

AUDIO_SUFFIXES = (".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus")


@dataclass(frozen=True)
class AudioStatus:
    """What happened to the sound of a file."""

    state: Literal["used", "silent", "no track", "off", "failed"]
    """silent: used, and digital silence from start to end."""
    reason: str = ""
    """Why decoding failed, or what is lost of a sound that is used."""

    def __str__(self) -> str:
        if self.state == "failed":
            return self.reason
        return f"{self.state}; {self.reason}" if self.reason else self.state


AUDIO_USED, AUDIO_OFF, NO_AUDIO_TRACK = AudioStatus("used"), AudioStatus("off"), AudioStatus("no track")


@dataclass(frozen=True)
class FileMedia:
    """The model's input from one file."""

    frames: Media | None = None
    audio: Media | None = None
    audio_status: AudioStatus = AUDIO_OFF
    damage: str = ""
    """What FFmpeg or Pillow reports of a file that is used nonetheless."""

    @property
    def media(self) -> tuple[Media, ...]:
        """In the order of the prompt: audio, then frames."""
        return tuple(media for media in (self.audio, self.frames) if media is not None)


@dataclass(frozen=True)
class MediaReader:
    """Reads files for a model in use, without randomness.

    Args:
        video: a ``VisualProcessor`` for clips.
        image: a ``VisualProcessor`` for images.
        audio: the ``AudioProcessor``; None: the model has no audio branch.
        features: what is in it is not read again. None: all files are read.
    """

    video: Any
    image: Any
    audio: Any
    features: FeatureStore | None = None

    def identity(self, kind: FileKind) -> str:
        """Return a string that differs between two ways of reading files of a kind."""
        processors = (self.video, self.audio) if kind == "video" else (getattr(self, kind),)
        return " ".join(f"{processor!r} {getattr(processor, 'config', None)!r}" for processor in processors)

    def read(self, kind: FileKind, path: str | Path, use_audio: bool | None = None) -> FileMedia:
        """Read a file.

        Args:
            kind: which processors read it.
            path: the file.
            use_audio: for clips. True: the sound is required; False: it is ignored; None: it is used if possible.
        Raises:
            DecodeError: the file cannot be read, or the path is an address on a network.
            VideoLlamaError: sound is required, but the file has no track or the model no audio branch.
        """
        if is_address(path):
            raise DecodeError(str(path), "an address, not a file: download it first; nothing is fetched here")
        parts = self._parts(kind, use_audio)
        if self.features is None or not parts:
            return self._read(kind, path, use_audio)
        stored, may_lack_sound = self.features.entry(path, parts, "in use"), kind == "video" and use_audio is None
        if (media := stored.media) is not None and (len(media) == len(parts) or may_lack_sound):
            audio = next((item for item in media if item.kind == "audio"), None)
            status = AUDIO_OFF if "audio" not in parts else NO_AUDIO_TRACK if audio is None else AUDIO_USED
            return FileMedia(next((item for item in media if item.kind != "audio"), None), audio, status)
        content = self._read(kind, path, use_audio)
        if content.damage or content.audio_status not in (AUDIO_USED, NO_AUDIO_TRACK, AUDIO_OFF):
            return content  # which must be said whenever the file is read
        kept = {item.kind == "audio": item for item in self.features.kept(stored, content.media)}
        return replace(content, frames=kept.get(False), audio=kept.get(True))

    def _parts(self, kind: FileKind, use_audio: bool | None) -> dict[MediaKind, Any]:
        """Return what reads each part of a file, in the order of the prompt; nothing if the request is to be refused."""
        if (use_audio is not None and kind != "video") or (self.audio is None and (use_audio or kind == "audio")):
            return {}
        sound: dict[MediaKind, Any] = {} if self.audio is None or use_audio is False else {"audio": self.audio}
        if kind == "audio":
            return sound
        return {"video": self.image} if kind == "image" else {**sound, "video": self.video}

    def _read(self, kind: FileKind, path: str | Path, use_audio: bool | None) -> FileMedia:
        with collected_damage() as damage:
            content = self._decoded(kind, path, use_audio, np.random.default_rng(0))
        return replace(content, damage="; ".join(damage[:3]))

    def _decoded(self, kind: FileKind, path: str | Path, use_audio: bool | None, rng: np.random.Generator) -> FileMedia:
        if kind == "video":
            return self._read_clip(path, use_audio, rng)
        if use_audio is not None:
            raise VideoLlamaError(
                "use_audio (--audio and --no-audio) is about the sound of a clip, and no clip is given"
            )
        if kind == "image":
            return FileMedia(frames=self.image(path, rng))
        self.require_audio()
        if not isinstance(self.audio, SegmentProcessor):
            return FileMedia(audio=self.audio(path, rng), audio_status=AUDIO_USED)
        sound = self.audio.open(path)
        return FileMedia(audio=self.audio.read_track(sound), audio_status=sound_status(sound, self.audio.config))

    def require_audio(self) -> None:
        """Raise VideoLlamaError if the model has no audio branch."""
        if self.audio is None:
            raise VideoLlamaError(
                "the model has no audio branch. Choose a YAML with model.equip_audio_branch: true, such as "
                "eval_configs/video_llama_eval_withaudio.yaml."
            )

    def _read_clip(self, path: str | Path, use_audio: bool | None, rng: np.random.Generator) -> FileMedia:
        if use_audio:
            self.require_audio()
        if use_audio is False or self.audio is None:
            return FileMedia(frames=self.video(path, rng))
        config = _audio_config(self.audio)
        frames, open_track = _read_frames(path, self.video, config.max_lost, rng)
        try:
            sound = open_track()
            return FileMedia(frames, self.audio.read_track(sound), sound_status(sound, config))
        except NoSoundTrack as error:
            if use_audio:
                raise VideoLlamaError(
                    f"{error}, and it is required (use_audio=True, or --audio). Leave that out."
                ) from error
            return FileMedia(frames, audio_status=NO_AUDIO_TRACK)
        except DecodeError as error:
            if use_audio:
                raise
            return FileMedia(frames, audio_status=AudioStatus("failed", error.reason))


def read_training_media(
    path: Path,
    vis_processor: Any,
    modalities: Modalities,
    audio_processor: Any,
    rng: np.random.Generator,
    span: Span | None = None,
    features: FeatureSource | None = None,
) -> list[Media]:
    """Read what a model is trained on: an image, a clip with or without its sound, or sound alone.

    Unlike ``MediaReader``, it draws frames, crops and the input of the audio branch, and a track damaged beyond ``max_lost``
    is an error.

    Args:
        path: the file; one with the suffix of a sound file is sound alone.
        vis_processor: reads images or clips.
        modalities: what the model is trained on.
        audio_processor: the ``AudioProcessor``; None where no sound is read.
        rng: source of all randomness.
        span: the part of a clip or a sound that is read; None: the whole file.
        features: what is in it is not read again. None: all files are read.
    Returns:
        In the order of the prompt: input of the audio branch, then of the video branch.
    Raises:
        BadRecord: the file has nothing that the model is trained on.
        DecodeError: it cannot be read.
    """
    if features is None:
        return _read_training(path, vis_processor, modalities, audio_processor, rng, span)
    if modalities.audio_source == "both":
        log_once("model.audio_source: both draws what is read of a clip, so no features are stored")
        return _read_training(path, vis_processor, modalities, audio_processor, rng, span)
    stored = features.entry(
        path, training_parts(vis_processor, modalities, audio_processor), "in training", span, rng=rng
    )
    if (media := stored.media) is not None:
        for report in stored.damage:
            report_damage(str(path), report)
        return telling(media, stored.sound)
    read = partial(_read_training, path, vis_processor, modalities, audio_processor, rng, span)
    return features.read(stored, read, rng)


def training_parts(vis_processor: Any, modalities: Modalities, audio_processor: Any) -> dict[MediaKind, Any]:
    """Return what reads each part of a file, in the order of the prompt."""
    parts: dict[MediaKind, Any] = {"video": vis_processor} if modalities.video else {}
    if modalities.audio_source == "frames":
        return {"audio_frames": vis_processor, **parts}
    return parts if modalities.audio_source is None else {"audio": audio_processor, **parts}


def _read_training(
    path: Path,
    vis_processor: Any,
    modalities: Modalities,
    audio_processor: Any,
    rng: np.random.Generator,
    span: Span | None,
) -> list[Media]:
    if reads_sound_alone(path, modalities):
        with _sound_errors():
            return [_read_audio_alone(path, audio_processor, rng, span)]
    only_frames = draws_frames(modalities, rng)
    if modalities.audio_source is None and span is None:
        return telling([vis_processor(path, rng)], "ignored")
    max_lost = _audio_config(audio_processor).max_lost
    frames, open_track = _read_frames(path, vis_processor, max_lost, rng, span)
    if frames.kind == "image" or only_frames:
        return telling(from_frames(frames, modalities), "ignored")
    with _sound_errors():
        try:
            sound = open_track()
        except NoSoundTrack:
            return telling(from_frames(frames, modalities), "absent")
        audio = audio_processor.read_track(sound)
        _report_loss(sound)
    return telling([audio, frames] if modalities.video else [audio], _use(sound))


def is_address(path: str | Path) -> bool:
    """Return whether a path is an address on a network, not a file with an odd name."""
    return bool(re.match(r"[a-z][a-z0-9+.-]*:/", str(path), re.IGNORECASE)) and not os.path.exists(path)


def _audio_config(audio_processor: Any) -> AudioConfig:
    """Return the settings of a processor, or the defaults for one that has its own kind of Config."""
    config = getattr(audio_processor, "config", None)
    return config if isinstance(config, AudioConfig) else AudioConfig()


def sound_status(sound: Sound | SpanOfSound, config: AudioConfig) -> AudioStatus:
    return AudioStatus("silent" if sound.is_silent(config.channels) else "used", str(sound.losses))


def _read_frames(
    path: str | Path, vis_processor: Any, max_lost: float, rng: np.random.Generator, span: Span | None = None
) -> tuple[Media, Callable[[], Sound | SpanOfSound]]:
    """Read the frames, and return a callable that opens the audio track, reusing the open file if possible."""
    if not isinstance(vis_processor, ClipProcessor):
        _refuse_span(path, vis_processor, span)
        return vis_processor(path, rng), partial(open_sound, path, max_lost=max_lost)
    video: Any = vis_processor.open(path)
    if span is not None:
        video = SpanOfVideo(str(path), video, span)
    return vis_processor.read(video, rng), partial(video.sound, max_lost)


def _read_audio_alone(path: Path, audio_processor: Any, rng: np.random.Generator, span: Span | None) -> Media:
    try:
        if not isinstance(audio_processor, SegmentProcessor):
            _refuse_span(path, audio_processor, span)
            audio: Media = audio_processor(path, rng)
            return replace(audio, sound="used")
        sound: Any = audio_processor.open(path)
    except NoSoundTrack as error:
        raise BadRecord(f"{error}, and nothing else that the model is trained on") from error
    if span is not None:
        if sample_at(span.start) >= sound.n_samples:
            ends = f"its sound ends at {sound.duration:.2f} s"
            raise DecodeError(str(path), f"the span starts at {span.start} s, and {ends}")
        sound = SpanOfSound(str(path), sound, span)
    audio = audio_processor.read_track(sound)
    _report_loss(sound)
    return replace(audio, sound=_use(sound))


def _refuse_span(path: str | Path, processor: Any, span: Span | None) -> None:
    """Raise BadRecord if a span is asked of a processor that reads whole files."""
    if span is not None:
        raise BadRecord(f"{path}: a span of it is asked for, and {type(processor).__name__} reads whole files")


@contextmanager
def _sound_errors() -> Iterator[None]:
    """Raise what cannot be read of a sound as SoundDecodeError."""
    try:
        yield
    except DecodeError as error:
        raise SoundDecodeError(error.path, error.reason) from error


def _use(sound: Sound | SpanOfSound) -> SoundUse:
    return "cut" if str(sound.losses) else "used"


def _report_loss(sound: Sound | SpanOfSound) -> None:
    """Report what is lost of the sound of a file."""
    if losses := str(sound.losses):
        report_damage(sound.path, losses)


def reads_sound_alone(path: Path, modalities: Modalities) -> bool:
    """Return whether only the sound of a file is read: it is a sound file, or the model is trained on nothing else.

    Raises:
        BadRecord: it is a sound file, and the model is not trained on sound.
    """
    if path.suffix.lower() not in AUDIO_SUFFIXES:
        return modalities.audio_source == "sound" and not modalities.video
    if modalities.audio_source in (None, "frames"):
        raise BadRecord(f"{path}: sound alone, and the model is not trained on sound")
    return True


def draws_frames(modalities: Modalities, rng: np.random.Generator) -> bool:
    """Return whether only the frames of a clip are read, and not its sound; ``audio_source: both`` leaves it to chance."""
    return modalities.audio_source in (None, "frames") or (modalities.audio_source == "both" and rng.random() < 0.5)


def from_frames(frames: Media, modalities: Modalities) -> list[Media]:
    """Return the media of a file of which only the frames are used."""
    audio = [replace(frames, kind="audio_frames")] if modalities.audio_source in ("frames", "both") else []
    return audio + ([frames] if modalities.video else [])
