"""``lmms-eval --model video_llama``: our models under lmms-eval 0.7. Needs the extra ``lmms-eval``."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from lmms_eval.api.model import lmms
from tqdm import tqdm

from video_llama.common.errors import ConfigError, DataError, VideoLlamaError
from video_llama.common.modalities import FileKind
from video_llama.conversation.batching import File, FileQuestion
from video_llama.conversation.choosing import ChoiceQuestion, ChosenOption, answers_and_choices
from video_llama.conversation.engine import Engine
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.option_letters import letters_of

log = logging.getLogger(__name__)

KINDS: tuple[FileKind, ...] = ("video", "image", "audio")
OPTIONS_FROM = "options_from"
"""In a task's ``generation_kwargs``: fields of its documents, separated by spaces, that hold the options. The answer is then the
letter of the likeliest one."""
_ALIASES = {"max_new_tokens": "max_new_tokens", "max_gen_toks": "max_new_tokens"}
_PLAIN = ("num_beams", "repetition_penalty")


@dataclass(frozen=True)
class _Asked:
    question: FileQuestion
    settings: GenerationSettings
    until: tuple[str, ...]


class VideoLLaMAModel(lmms):
    """A chat model of lmms-eval.

    Args:
        pretrained: as ``--cfg-path`` of our commands: a YAML, a shipped name such as ``toy``, or an exported folder.
        options: overrides of settings, ``key=value``, separated by spaces.
        batch_size: questions answered at once.
        device: cpu, cuda, or auto.
        seed: of sampling.
        max_batch_size: not used; lmms-eval passes it.
        unknown: settings that do not exist.
    Raises:
        ConfigError: a setting does not exist, or several processes were started.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        options: str = "",
        batch_size: int | str = 1,
        device: str | None = None,
        seed: int = 0,
        max_batch_size: int | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            raise ConfigError([f"--model_args: {', '.join(unknown)}: expected pretrained, options or seed"])
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ConfigError([f"--batch_size: {batch_size!r}; expected a whole number, at least 1"])
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                [
                    "--model video_llama runs in one process. To use several GPUs, run video-llama evaluate under torchrun"
                ]
            )
        self.batch_size, self.seed = int(batch_size), int(seed)
        self.engine = Engine.from_config(str(pretrained), shlex.split(options.strip("\"'")), device or "auto")
        self._ignored: set[str] = set()

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.engine.device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests, questions on one file together. A question that fails has an empty answer, and a warning."""
        with TemporaryDirectory() as pictures:
            asked = [self._asked(number, request, pictures) for number, request in enumerate(requests)]
            answers = [""] * len(requests)
            with tqdm(total=len(requests), desc="video_llama", unit="question") as bar:
                for settings in dict.fromkeys(one.settings for one in asked):
                    numbers = [n for n, one in enumerate(asked) if one.settings == settings]
                    numbers.sort(key=lambda n: str(asked[n].question.file.path))
                    for n, answer in self._answers(asked, numbers, settings):
                        answers[n] = answer
                        bar.update()
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, answer)
        return answers

    def _answers(
        self, asked: Sequence[_Asked], numbers: Sequence[int], settings: GenerationSettings
    ) -> Iterable[tuple[int, str]]:
        size = self.batch_size
        batches = [[asked[n].question for n in numbers[start : start + size]] for start in range(0, len(numbers), size)]
        for k, outcome in answers_and_choices(self.engine, batches, settings):
            question, until = asked[numbers[k]].question, asked[numbers[k]].until
            if isinstance(outcome, VideoLlamaError):
                log.warning("%s: no answer, which counts as wrong: %s", question.file.path, outcome)
                yield numbers[k], ""
            elif isinstance(outcome, ChosenOption) and isinstance(question, ChoiceQuestion):
                yield numbers[k], letters_of(question.options)[question.options.index(outcome.text)]
            else:
                yield numbers[k], up_to(outcome.text, until)

    def _asked(self, number: int, request: Any, pictures: str) -> _Asked:
        _, doc_to_messages, given, doc_id, task, split = request.args
        doc = self.task_dict[task][split][doc_id]
        try:
            kind, place, text = file_and_text(doc_to_messages(doc))
            if hasattr(place, "save"):  # a picture in memory
                path = os.path.join(pictures, f"{number}.png")
                place.convert("RGB").save(path)
                place = path
            if not isinstance(place, str | os.PathLike):
                raise DataError(f"its {kind} is a {type(place).__name__}; expected the path of a file")
            settings, until, fields = self._settings(given)
            file = File(kind, os.fspath(place))
            if fields is None:
                return _Asked(FileQuestion(file, text), settings, until)
            return _Asked(ChoiceQuestion(file, text, options_of(doc, fields)), settings, until)
        except VideoLlamaError as error:
            raise DataError(f"task {task}, document {doc_id}: {error}") from error

    def _settings(self, given: Mapping[str, Any]) -> tuple[GenerationSettings, tuple[str, ...], str | None]:
        """Return generation settings, strings that end an answer, and fields of options, from ``generation_kwargs``."""
        left = {key: value for key, value in given.items() if value is not None}
        until, fields = left.pop("until", []), left.pop(OPTIONS_FROM, None)
        temperature = float(left.pop("temperature", 1.0 if left.get("do_sample") else 0.0))
        found: dict[str, Any] = {"temperature": temperature if left.pop("do_sample", temperature > 0) else 0.0}
        top_p = left.pop("top_p", None)
        if found["temperature"] > 0:
            found["seed"] = self.seed
            if top_p is not None:
                found["top_p"] = top_p
        found |= {name: left.pop(key) for key, name in _ALIASES.items() if key in left}
        found |= {name: left.pop(name) for name in _PLAIN if name in left}
        if new := left.keys() - self._ignored:
            log.warning("generation_kwargs: no effect on this model: %s", ", ".join(sorted(new)))
            self._ignored |= new
        return GenerationSettings(**found), (until,) if isinstance(until, str) else tuple(until), fields

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: lmms-eval asks no chat model for likelihoods."""
        raise ConfigError(
            [
                f"--model video_llama: lmms-eval gives chat models no likelihood tasks. Set generation_kwargs.{OPTIONS_FROM}"
            ]
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse."""
        raise ConfigError(["--model video_llama: tasks of several rounds are not supported"])


def file_and_text(messages: Any) -> tuple[FileKind, Any, str]:
    """Return the kind of the one file of a message, the file, and the text.

    Raises:
        DataError: there are several messages or files, or none.
    """
    if not isinstance(messages, Sequence) or len(messages) != 1 or messages[0].get("role") != "user":
        raise DataError("expected one message, of the user: examples and system messages are not supported")
    parts = messages[0]["content"]
    files = [part for part in parts if part["type"] in KINDS]
    if len(files) != 1:
        raise DataError(f"{len(files)} files; expected a question on one video, picture or sound")
    kind, place = files[0]["type"], files[0].get("url")
    if kind == "audio" and str(place).lower().endswith(".webm"):
        kind = "video"  # lmms-eval takes all of them for sound
    return kind, place, "".join(part["text"] for part in parts if part["type"] == "text").strip()


def options_of(doc: Mapping[str, Any], fields: str) -> tuple[str, ...]:
    """Return the options of a document, without letters before them.

    Args:
        doc: the document.
        fields: names of fields, separated by spaces: one with a list, or one for each option.
    Raises:
        DataError: a field is missing, or there are no options.
    """
    names = fields.split()
    if missing := [name for name in names if name not in doc]:
        raise DataError(f"{OPTIONS_FROM}: the document has no {missing[0]!r}; it has {', '.join(doc)}")
    values = [value for name in names for value in (doc[name] if isinstance(doc[name], list | tuple) else [doc[name]])]
    options = [str(value) for value in values]
    if not options or len(options) > 26 or not all(option.strip() for option in options):
        raise DataError(f"{OPTIONS_FROM}: {fields}: {options!r:.80}; expected up to 26 texts that are not empty")
    found = [re.match(r"\(?([A-Z])[.):]\s*(?=\S)", option) for option in options]
    if "".join(one[1] if one else " " for one in found) == letters_of(options):
        options = [option[one.end() :] for option, one in zip(options, found, strict=True) if one]
    return tuple(options)


def up_to(text: str, stops: Iterable[str]) -> str:
    """Return a text up to the first of some strings."""
    for stop in stops:
        if stop:
            text = text.split(stop, 1)[0]
    return text
