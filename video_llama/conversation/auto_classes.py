"""``AutoModel`` and ``AutoProcessor`` of transformers for exported models, without remote code: importing this registers them.

Shapes: L tokens of a prompt, N tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoProcessor, PreTrainedConfig

from video_llama.common.errors import VideoLlamaError
from video_llama.common.modalities import FileKind
from video_llama.common.registry import MODELS
from video_llama.common.types import MediaGroup, slot_id
from video_llama.config.serialize import registered_class
from video_llama.conversation.config_in_use import read_for_inference, with_system
from video_llama.conversation.engine import Engine
from video_llama.conversation.processors import build_processors, inference_config
from video_llama.conversation.session import Session
from video_llama.conversation.settings import GenerationSettings
from video_llama.conversation.streaming import AnswerText
from video_llama.processors.media import MediaReader
from video_llama.prompts.labels import encode
from video_llama.prompts.sample_spec import SampleSpec
from video_llama.sharing.exported import Exported

_OF_AUTO = ("_from_auto", "trust_remote_code", "adapter_kwargs", "_commit_hash", "code_revision")
"""Arguments that the Auto classes add, and that mean nothing here."""


class VideoLlamaConfig(PreTrainedConfig):
    """``config.json`` of an export. The settings of the model are in its ``config.yaml``."""

    model_type = "video_llama"


class VideoLlamaProcessor:
    """Files and questions to the inputs of a ``VideoLlamaModel``.

    Args:
        spec: tokenizer, template and slot sizes.
        reader: reads files.
    """

    def __init__(self, spec: SampleSpec, reader: MediaReader) -> None:
        self.spec, self.reader = spec, reader

    @classmethod
    def from_pretrained(cls, name: str, *, options: Iterable[str] = (), **how: Any) -> VideoLlamaProcessor:
        """Build the processor of an exported model; ``options`` are those of ``Engine.from_pretrained``.

        Raises:
            VideoLlamaError: see ``Engine.from_pretrained``; also an argument that has no meaning here.
        """
        job = read_for_inference(Exported.find(_with_revision(name, how)).folder, options)
        inference = inference_config(job)
        model_class: Any = registered_class(MODELS, job.model)
        spec = with_system(model_class.sample_spec(job.model), inference.system)
        return cls(spec, MediaReader(*build_processors(inference), spec.audio_processor))

    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], **how: Any) -> dict[str, Any]:
        """Return the inputs for the next answer of a dialogue.

        Args:
            conversation: messages, ``{"role": "user", "content": [{"type": "video", "path": ...}, {"type": "text", "text":
                ...}]}``. Types of files: video, image, audio. The content of an assistant's message may be a text.
            how: ``add_generation_prompt``, ``tokenize``, ``return_dict`` and ``return_tensors`` as in transformers; the
                result is always as if they were true, and ``"pt"``.
        Returns:
            ``input_ids``, int64[1, L], with slot ids among them; ``media``, what fills the slots.
        Raises:
            DecodeError: a file cannot be read.
            VideoLlamaError: a message has another form.
        """
        if unknown := how.keys() - {"add_generation_prompt", "tokenize", "return_dict", "return_tensors"}:
            raise VideoLlamaError(f"apply_chat_template: {', '.join(sorted(unknown))}: has no meaning for this model")
        session = Session(self.spec.template, self.spec.audio_processor is not None)
        for message in conversation:
            role, content = message.get("role"), message.get("content")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
            text = " ".join(part["text"] for part in parts if part.get("type") == "text")
            if role == "assistant":
                session.answer(text)
                continue
            if role != "user":
                raise VideoLlamaError(
                    f"a message of the role {role!r}; expected user or assistant. Set inference.system."
                )
            for part in parts:
                if part.get("type") != "text":
                    session.show(*self.reader.read(_kind(part), str(part["path"])).media)
            session.ask(text)
        media = [
            MediaGroup(item.kind, item.data[None], torch.tensor([0]), torch.tensor([slot_id(k)]), encoded=item.encoded)
            for k, item in enumerate(session.media)
        ]
        ids = encode(session.prompt(), self.spec.tokenizer, self.spec.tokens_per_slot).input_ids
        return {"input_ids": torch.tensor([ids]), "media": media}

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Return the text of an answer, up to its end symbol."""
        text = AnswerText(self.spec.tokenizer, [self.spec.template.end_sym])
        for token in torch.as_tensor(ids).flatten().tolist():
            text.feed(token)
        text.end()
        return text.text

    def batch_decode(self, rows: Iterable[Tensor | Sequence[int]]) -> list[str]:
        """Return the text of each answer."""
        return [self.decode(ids) for ids in rows]


class VideoLlamaModel(nn.Module):
    """An exported model for ``generate``.

    Args:
        engine: the model in use.
    """

    config_class = VideoLlamaConfig

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.model: Any = engine.model

    @classmethod
    def from_pretrained(
        cls, name: str, *, config: Any = None, options: Iterable[str] = (), device: str = "auto", **how: Any
    ) -> VideoLlamaModel:
        """Build an exported model, and verify its weights. Args, Raises: see ``Engine.from_pretrained``.

        ``config``, which ``AutoModel`` passes, is that of the folder.
        """
        return cls(Engine.from_pretrained(_with_revision(name, how), options, device))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.engine.device

    def generate(self, input_ids: Tensor, media: Sequence[MediaGroup], **settings: Any) -> Tensor:
        """Answer what a ``VideoLlamaProcessor`` prepared.

        Args:
            input_ids: int64[1, L].
            media: what fills the slots.
            settings: see ``GenerationSettings``.
        Returns:
            int64[1, N], the answer's tokens without the prompt's.
        Raises:
            PromptTooLong: the prompt and its answer do not fit into the decoder's context.
            VideoLlamaError: a setting is unknown or outside its range.
        """
        if unknown := settings.keys() - GenerationSettings.__dataclass_fields__.keys():
            raise VideoLlamaError(
                f"generate: {', '.join(sorted(unknown))}: no such setting. Known: "
                f"{', '.join(GenerationSettings.__dataclass_fields__)}; temperature 0 is greedy"
            )
        tokens: list[int] = []
        self.engine.generate_tokens(input_ids[0].tolist(), media, GenerationSettings(**settings), tokens.extend)
        return torch.tensor([tokens])


def _with_revision(name: str, how: dict[str, Any]) -> str:
    """Return a name with the revision among some arguments.

    Raises:
        VideoLlamaError: there are others, which have no meaning here.
    """
    given = {key: value for key, value in how.items() if value is not None and key not in _OF_AUTO}
    revision = given.pop("revision", None)
    if given:
        raise VideoLlamaError(
            f"{name}: {', '.join(sorted(given))}: has no meaning for this model. Use options=['key=value', ...], such as "
            "model.llama_precision=bf16, and device."
        )
    return f"{name}@{revision}" if revision else name


def _kind(part: Mapping[str, Any]) -> FileKind:
    kind = part.get("type")
    if kind not in ("video", "image", "audio") or "path" not in part:
        raise VideoLlamaError(f"content {dict(part)!r}; expected type: video, image or audio, with a path, or text")
    return kind


AutoConfig.register("video_llama", VideoLlamaConfig)
AutoProcessor.register(VideoLlamaConfig, VideoLlamaProcessor)
for _auto in (AutoModel, AutoModelForMultimodalLM):
    _auto.register(VideoLlamaConfig, VideoLlamaModel)
