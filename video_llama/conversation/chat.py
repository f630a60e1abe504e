"""A dialogue with a model: show it files, ask questions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from video_llama.common.config import JobConfig, load_config
from video_llama.common.config_names import registered_class
from video_llama.common.contracts import BuildContext, Media, MediaGroup, slot_id
from video_llama.common.errors import ConfigError, DecodeError, NoSoundTrack, VideoLlamaError
from video_llama.common.registries import MODELS, PROCESSORS
from video_llama.conversation.generation import generate
from video_llama.conversation.session import Session
from video_llama.processors.decode import open_sound
from video_llama.processors.video import look
from video_llama.prompts.labels import encode

USED, NO_TRACK, OFF = "used", "no track", "off"
"""What became of a file's sound, beside the reason why it could not be decoded."""


@dataclass(frozen=True)
class Upload:
    """What the model sees and hears of a file."""

    seen: Media | None = None
    heard: Media | None = None
    sound: str = OFF
    """``used``, ``no track``, ``off``, or the reason why the track could not be decoded."""

    @property
    def media(self) -> tuple[Media, ...]:
        """In the order of the prompt: what is heard, then what is seen."""
        return tuple(media for media in (self.heard, self.seen) if media is not None)


class Chat:
    """One dialogue with one model.

    Args:
        model: built, filled, in eval mode.
        context: its tokenizer, template and slot sizes.
        video_processor: reads clips.
        image_processor: reads images.
    """

    def __init__(self, model: Any, context: BuildContext, video_processor: Any, image_processor: Any) -> None:
        self.model, self.context = model, context
        self.video_processor, self.image_processor = video_processor, image_processor
        self.reset()

    @classmethod
    def from_config(cls, cfg_path: str | Path, options: Iterable[str] = (), device: str = "auto") -> Chat:
        """Build the model of a YAML for use.

        Args:
            cfg_path: such as ``eval_configs/toy.yaml``.
            options: ``key=value`` overrides.
            device: cpu, cuda, or auto: a GPU where there is one.
        Raises:
            ConfigError: the YAML is wrong, or lacks what its model needs in use.
        """
        chosen = device_for_use(device)
        job = load_config(cfg_path, options, also=("datasets",))
        video, image = processors_for_use(job)
        if getattr(job.model, "ckpt", "") is None:
            raise VideoLlamaError(f"{cfg_path}: model.ckpt is not set: the branch would answer at random")
        model_class: Any = registered_class(MODELS, job.model)
        keys = ("frozen_video_Qformer", "frozen_llama_proj", "frozen_audio_Qformer")
        frozen: dict[str, Any] = {key: True for key in keys if hasattr(job.model, key)}
        heard = {"audio_source": "sound"} if hasattr(job.model, "audio_source") else {}
        config = replace(job.model, **frozen, **heard)  # in use nothing is trained, so nothing may start at random
        if hasattr(config, "check") and (problems := list(config.check())):  # training may do without what use needs
            raise ConfigError([f"{cfg_path}: for use, model.{key}: {message}" for key, message in problems])
        context = model_class.build_context(config)
        model = model_class.from_config(config).to(chosen).eval()
        return cls(model, context, video, image)

    def reset(self) -> None:
        """Start a new dialogue."""
        self.session = Session(self.context.template)
        self._encoded: list[MediaGroup] = []

    def upload(
        self,
        *,
        video: str | Path | None = None,
        image: str | Path | None = None,
        audio: str | Path | None = None,
        hear: bool | None = None,
    ) -> Upload:
        """Show a clip, an image or a sound; the next question is about it.

        Args:
            video: clip, of which the sound is heard where the model has an audio branch.
            image: picture.
            audio: file of sound alone, or a clip of which nothing is seen.
            hear: of a clip, True: its sound must be heard; False: it is not. None: it is where that is possible.
        Returns:
            What the model sees and hears.
        Raises:
            DecodeError: the file cannot be read.
            VideoLlamaError: sound is asked for, and there is no track or no audio branch.
        """
        if sum(path is not None for path in (video, image, audio)) != 1:
            raise VideoLlamaError("upload takes one of video, image and audio")
        if video is None and hear is not None:
            raise VideoLlamaError("--audio and --no-audio say what to do with the sound of a clip, and none is shown")
        if video is not None:
            shown = self._watch(video, hear)
        elif image is not None:
            shown = Upload(seen=self.image_processor(image, np.random.default_rng(0)))
        else:
            self._check_hears()
            shown = Upload(heard=self.context.senses.audio_processor.hear(open_sound(str(audio))), sound=USED)
        start = len(self._encoded)
        self._encoded += [self.encode(media, slot_id(k)) for k, media in enumerate(shown.media, start)]
        self.session.show(*shown.media)
        return shown

    def _watch(self, path: str | Path, hear: bool | None) -> Upload:
        """Read a clip and, as asked for, its sound."""
        if hear:
            self._check_hears()
        rng = np.random.default_rng(0)
        if hear is False or not self.hears:
            return Upload(seen=self.video_processor(path, rng))
        seen, open_track = look(path, self.video_processor, rng)
        try:
            return Upload(seen=seen, heard=self.context.senses.audio_processor.hear(open_track()), sound=USED)
        except NoSoundTrack as error:
            if hear:
                raise VideoLlamaError(f"{error}, and --audio asks for it. Leave --audio out.") from error
            return Upload(seen=seen, sound=NO_TRACK)
        except DecodeError as error:
            if hear:
                raise
            return Upload(seen=seen, sound=error.reason)

    @property
    def hears(self) -> bool:
        """Whether the model has an audio branch."""
        return self.context.senses.audio_processor is not None

    def _check_hears(self) -> None:
        if not self.hears:
            raise VideoLlamaError(
                "the model has no audio branch. Choose a YAML with model.equip_audio_branch: true, such as "
                "eval_configs/video_llama_eval_withaudio.yaml."
            )

    def ask(self, question: str, max_new_tokens: int = 300) -> str:
        """Answer a question, taking the dialogue so far into account.

        Raises:
            PromptTooLong: the dialogue no longer fits the decoder.
            VideoLlamaError: the question is empty.
        """
        before = (list(self.session.turns), self.session.shown)
        self.session.ask(question)
        try:
            answer = self._answer(max_new_tokens)
        except BaseException:
            self.session.turns, self.session.shown = before  # the dialogue stays usable
            raise
        self.session.answer(answer)
        return answer

    def _answer(self, max_new_tokens: int) -> str:
        encoded = encode(self.session.prompt(), self.context.tokenizer, self.context.tokens_per_slot)
        (answer,) = generate(
            self.model,
            self.context.tokenizer,
            [encoded.input_ids],
            self._encoded,
            stop=self.context.template.end_sym,
            max_new_tokens=max_new_tokens,
        )
        return answer

    @torch.no_grad()
    def encode(self, media: Media, slot: int) -> MediaGroup:
        """Run the frozen encoders, once however many questions follow; the group is of row 0."""
        device = next(self.model.parameters()).device
        group = MediaGroup(media.kind, media.frames[None].to(device), torch.tensor([0]), torch.tensor([slot]))
        (encoded,) = self.model.encode_frozen([group])
        return encoded


def device_for_use(name: str) -> torch.device:
    """Return the device called cpu, cuda (or cuda:1), or auto: a GPU where there is one.

    Raises:
        VideoLlamaError: there is no such device.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not index.isdecimal()):
        raise VideoLlamaError(f"device {name!r}: expected cpu, cuda, cuda:1 and so on, or auto")
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        return torch.device("cuda" if n_gpus else "cpu")
    if kind == "cuda" and int(index or 0) >= n_gpus:
        raise VideoLlamaError(f"device {name}: torch sees {n_gpus or 'no'} GPU here; cpu works everywhere")
    return torch.device(name)


def processors_for_use(job: JobConfig) -> tuple[Any, Any]:
    """Return the processors of clips and images that belong to a model in use.

    They are those that the YAML's data sets name for ``eval``; else those for training, without their randomness.
    """
    chosen = {"video": PROCESSORS.get("alpro_video_eval"), "images": PROCESSORS.get("blip2_image_eval")}
    built = {}
    for kind, cls in chosen.items():
        settings: dict[str, Any] = {"image_size": job.model.image_size}
        for config in job.datasets.values():
            if getattr(config, "data_type", None) != kind:  # a data set from outside need not say
                continue
            if config.vis_processor.eval is not None:
                built[kind] = registered_class(PROCESSORS, config.vis_processor.eval)(config.vis_processor.eval)
            else:
                names = ("n_frms", "image_size", "video_backend", "deadline_s")
                train = config.vis_processor.train
                settings |= {name: getattr(train, name) for name in names if hasattr(train, name)}
        built.setdefault(kind, cls(cls.Config(**settings)))
    return built["video"], built["images"]
