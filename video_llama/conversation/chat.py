"""A dialogue with a model: show it files, ask questions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from video_llama.common.config import JobConfig, load_config
from video_llama.common.config_names import registered_class
from video_llama.common.contracts import BuildContext, Media, MediaGroup, slot_id
from video_llama.common.errors import VideoLlamaError
from video_llama.common.registries import MODELS, PROCESSORS
from video_llama.conversation.generation import generate
from video_llama.conversation.session import Session
from video_llama.prompts.labels import encode


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
        """
        chosen = device_for_use(device)
        job = load_config(cfg_path, options, also=("datasets",))
        video, image = processors_for_use(job)
        if getattr(job.model, "ckpt", "") is None:
            raise VideoLlamaError(f"{cfg_path}: model.ckpt is not set: the branch would answer at random")
        model_class: Any = registered_class(MODELS, job.model)
        frozen = {name: True for name in ("frozen_video_Qformer", "frozen_llama_proj") if hasattr(job.model, name)}
        config = replace(job.model, **frozen)  # in use nothing is trained, so nothing may start at random
        context = model_class.build_context(config)
        model = model_class.from_config(config).to(chosen).eval()
        return cls(model, context, video, image)

    def reset(self) -> None:
        """Start a new dialogue."""
        self.session = Session(self.context.template)
        self._encoded: list[MediaGroup] = []

    def upload(self, *, video: str | Path | None = None, image: str | Path | None = None) -> Media:
        """Show a clip or an image; the next question is about it.

        Returns:
            What the model sees: its frames and their times.
        Raises:
            DecodeError: the file cannot be read.
        """
        if (video is None) == (image is None):
            raise VideoLlamaError("upload takes one of video and image")
        processor, path = (self.video_processor, video) if video is not None else (self.image_processor, image)
        media: Media = processor(path, np.random.default_rng(0))
        self._encoded.append(self.encode(media, slot_id(len(self._encoded))))
        self.session.show(media)
        return media

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
