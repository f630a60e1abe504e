"""The conversation template and the caption prompts of a model section."""

from __future__ import annotations

import logging
from pathlib import Path

from video_llama.common.errors import ConfigError
from video_llama.models.config import VideoLLaMAConfig
from video_llama.prompts.chat_template import chat_template, contradiction
from video_llama.prompts.labels import PLACEHOLDER
from video_llama.prompts.templates import Template, foreign_text
from video_llama.prompts.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def choose_template(config: VideoLLaMAConfig, tokenizer: Tokenizer) -> Template:
    """Return the template of a model section.

    Raises:
        ConfigError: the template does not fit the decoder's tokenizer, or ``prompt_template`` does not fit the template.
    """
    if config.template is None:
        template = chat_template(config.llama_model, tokenizer)
        if (problem := foreign_text(config.prompt_template or "", template)) is not None:
            raise ConfigError([f"model.prompt_template: {problem}"])
        return template
    end_sym, end_token = config.template.end_sym, tokenizer.decode([tokenizer.eos_id])
    if end_sym == "</s>" and [token.id for token in tokenizer.encode(end_sym)] != [tokenizer.eos_id]:
        raise ConfigError(
            [
                f"model.model_type: answers under {config.model_type} end with {end_sym!r}, but the end token of "
                f"{config.llama_model} is {end_token!r}. Choose auto, if it has a chat template, or vicuna."
            ]
        )
    if (problem := contradiction(config.llama_model, tokenizer, config.template)) is not None:
        message = f"model.model_type: {config.model_type} {problem}."
        if config.strict_template:
            raise ConfigError([message])
        log.warning("%s", message)
    return config.template


def caption_prompts(config: VideoLLaMAConfig, template: Template) -> tuple[str, ...]:
    """Return the prompts for captions, wrapped in ``prompt_template`` or in the template's own text.

    Raises:
        ConfigError: the file that ``prompt_path`` names is not one of prompts.
    """
    wrapper = config.prompt_template or template.caption
    return tuple(wrapper.replace("{}", prompt) for prompt in _read_prompts(config.prompt_path))


def _read_prompts(path: str | None) -> list[str]:
    """Read caption prompts; without a file there is one, of the media alone.

    Raises:
        ConfigError: the file is unreadable, empty, or has a line without exactly one placeholder.
    """
    if path is None:
        return [PLACEHOLDER]
    try:
        prompts = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"model.prompt_path: {path}: not readable as UTF-8 text: {error}"]) from error
    prompts = [line for line in prompts if line]
    lacking = [line for line in prompts if line.count(PLACEHOLDER) != 1]
    if lacking or not prompts:
        raise ConfigError(
            [
                f"model.prompt_path: {path}: each line needs {PLACEHOLDER} once; found {lacking[0]!r}"
                if lacking
                else f"model.prompt_path: {path} holds no prompt"
            ]
        )
    return prompts
