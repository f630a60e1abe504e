"""The body of a request for an answer: what OpenAI's API documents, what vLLM adds to it, and fields of our own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from video_llama.serving.api_error import ApiError

MAX_MESSAGES = 512
MAX_ANSWERS = 16
MAX_STOPS = 16

Url = Annotated[str, Field(min_length=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """Types are not converted; fields that we do not know are ignored, as other servers do."""

    model_config = ConfigDict(strict=True, extra="ignore")


class TextPart(Strict):
    """Text."""

    type: Literal["text"]
    text: str


class Media(Strict):
    """Where a file is."""

    url: Url = Field(description="data:, or file:// and http(s):// where the server allows it")


class ImagePart(Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: Media | Url


class VideoPart(Strict):
    """A clip, or its frames: data:video/jpeg;base64,FRAME,FRAME,..."""

    type: Literal["video_url"]
    video_url: Media | Url


class AudioPart(Strict):
    """A sound."""

    type: Literal["audio_url"]
    audio_url: Media | Url


class AudioData(Strict):
    """A sound."""

    data: Url = Field(description="base64")
    format: str | None = Field(None, description="ignored: the content says it")


class InputAudioPart(Strict):
    """A sound within the request."""

    type: Literal["input_audio"]
    input_audio: AudioData


Part = Annotated[TextPart | ImagePart | VideoPart | AudioPart | InputAudioPart, Field(discriminator="type")]


class SystemMessage(Strict):
    """What replaces the model's own system message. Only at the start."""

    role: Literal["system", "developer"]
    content: str | list[TextPart]


class UserMessage(Strict):
    """A question, and files, which the model gets before the text of the message."""

    role: Literal["user"]
    content: str | list[Part]


class AssistantMessage(Strict):
    """An earlier answer."""

    role: Literal["assistant"]
    content: str | list[TextPart]


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(Strict):
    """What a stream holds besides the answer."""

    include_usage: bool | None = Field(None, description="end with a chunk that has `usage` and no choice")
    continuous_usage_stats: bool | None = Field(None, description="`usage` in each chunk")


class ClipReading(BaseModel):
    """vLLM's way to say how clips are read."""

    model_config = ConfigDict(strict=True, extra="forbid")

    num_frames: int | None = Field(None, ge=1)
    fps: Number | None = Field(None, gt=0)


class MediaReading(BaseModel):
    """vLLM's way to say how files are read."""

    model_config = ConfigDict(strict=True, extra="forbid")

    video: ClipReading | None = None


class SoundReading(BaseModel):
    """vLLM's way to ask for the sound of clips."""

    model_config = ConfigDict(strict=True, extra="forbid")

    use_audio_in_video: bool | None = None


class ChatRequest(BaseModel):
    """A dialogue to continue."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)

    max_completion_tokens: int | None = Field(None, ge=1, description="longest answer, in tokens (300)")
    max_tokens: int | None = Field(None, ge=1, description="older name of max_completion_tokens")
    temperature: Number | None = Field(None, ge=0, le=100, description="0, the default: greedy; above: sampling")
    top_p: Number | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1, le=MAX_ANSWERS, description="answers")
    frequency_penalty: Number | None = Field(None, ge=-2, le=2)
    presence_penalty: Number | None = Field(None, ge=-2, le=2)
    repetition_penalty: Number | None = Field(None, ge=0.1, le=10)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    num_frames: int | None = Field(None, ge=1, description="frames of each clip")
    sampling: Literal["uniform", "headtail", "fps"] | None = Field(None, description="how frames of clips are chosen")
    fps: Number | None = Field(None, gt=0, description="frames per second of clips; implies sampling: fps")
    use_audio: bool | None = Field(
        None, description="true: the sound of clips is required; false: it is ignored; null: it is used if possible"
    )
    media_io_kwargs: MediaReading | None = Field(None, description="num_frames and fps as vLLM takes them")
    mm_processor_kwargs: SoundReading | None = Field(None, description="use_audio as vLLM takes it")


UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "structured_outputs": ({},),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "logit_bias": ({},),
    "logits_processors": ([],),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "num_beams": (1,),
    "use_beam_search": (False,),
    "best_of": (1,),
    "length_penalty": (1, 0),
    "top_k": (-1, 0),
    "min_p": (0,),
    "typical_p": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "prompt_logprobs": (0,),
    "truncate_prompt_tokens": (),
    "echo": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
}
"""Fields of other servers that would change the answer, and the values with which they would not; None is always one."""


def check_unsupported(request: ChatRequest) -> None:
    """Raise ApiError if a field asks for something that is not done here."""
    for name, value in (request.model_extra or {}).items():
        if value is None or name not in UNSUPPORTED or _is_one_of(value, UNSUPPORTED[name]):
            continue
        raise ApiError(400, f"{name} is not supported by this server: leave it out", param=name, code="unsupported")


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Return whether a value is one of others, where True is not 1."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in neutral)
