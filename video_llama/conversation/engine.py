"""A model ready for use: under chat, batches, evaluation and the web page."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from video_llama.checkpoints.sources.references import fetched
from video_llama.common.distributed import choose_device, process_numbers
from video_llama.common.errors import ConfigError
from video_llama.common.file_key import file_key
from video_llama.common.modalities import FileKind
from video_llama.common.protocols import ChatModel
from video_llama.common.registry import MODELS
from video_llama.common.types import Media, MediaGroup, slot_id
from video_llama.config.loader import InferenceConfig, JobConfig, load_config
from video_llama.config.purposes import model_in_use
from video_llama.config.serialize import named_as, registered_class
from video_llama.conversation.feature_cache import MAX_FILES, EncodedFile, FeatureCache
from video_llama.conversation.generation import generate, generate_tokens
from video_llama.conversation.likelihood import AnsweredPrompt, AnswerScorer, Likelihood
from video_llama.conversation.oom import within_memory
from video_llama.conversation.prefill import Prompt, in_rows
from video_llama.conversation.processors import build_processors, inference_config, with_defaults
from video_llama.conversation.scheduler import Event, Request, Scheduler
from video_llama.conversation.session import Session
from video_llama.conversation.settings import GenerationSettings
from video_llama.models.decoder.transformers_internals import takes_rows
from video_llama.processors.feature_store import FeatureStore
from video_llama.processors.media import MediaReader
from video_llama.prompts.labels import Encoded, encode
from video_llama.prompts.sample_spec import SampleSpec
from video_llama.sharing.exported import Exported

log = logging.getLogger(__name__)


class Engine:
    """A model, how it reads files, and what it has encoded already.

    All methods may be called from several threads; they take turns at the model. A model that is being trained is in eval
    mode for the time of a call.

    >>> engine = Engine.from_config("eval_configs/toy.yaml")
    >>> chat = Chat(engine)  # any number of dialogues share the engine

    Args:
        model: with its weights, on its device.
        spec: its tokenizer, template and slot sizes.
        video_processor: reads clips.
        image_processor: reads images.
        cached_files: encoded files to keep.
        features: features of files on disk; None: files are read and encoded.
    """

    def __init__(
        self,
        model: ChatModel,
        spec: SampleSpec,
        video_processor: Any,
        image_processor: Any,
        cached_files: int = MAX_FILES,
        features: FeatureStore | None = None,
    ) -> None:
        self.model, self.spec = model, spec
        self.video_processor, self.image_processor = video_processor, image_processor
        self._lock = threading.RLock()
        self._files = FeatureCache(cached_files)
        self._features = features

    @classmethod
    def from_config(cls, cfg_path: str | Path, options: Iterable[str] = (), device: str = "auto") -> Engine:
        """Build the model of a YAML for use.

        Args:
            cfg_path: a file such as ``eval_configs/toy.yaml``, the name of a shipped one, or an exported folder.
            options: ``key=value`` overrides.
            device: cpu, cuda, or auto: a GPU if there is one.
        Raises:
            ConfigError: the YAML is wrong, or lacks something that inference needs.
            DownloadError: it names something on the hub that cannot be had.
            WeightsError: a file does not fit, or is not the one that a folder was exported with.
        """
        chosen = choose_device(device)
        return cls.from_job(load_for_inference(cfg_path, options), chosen)

    @classmethod
    def from_pretrained(cls, name: str | Path, options: Iterable[str] = (), device: str = "auto") -> Engine:
        """Build the model of a folder that ``video-llama export`` wrote, here or on the Hugging Face hub.

        All its weights, and those of its parents, are verified.

        Args:
            name: the folder, or its id on the hub: ``org/name`` or ``org/name@revision``.
            options: ``key=value`` overrides, such as ``model.llama_model=PATH`` for your own copy of a parent.
            device: cpu, cuda, or auto: a GPU if there is one.
        Raises:
            ConfigError: an option is wrong, or a parent is to be named.
            DownloadError: something cannot be had from the hub.
            WeightsError: the folder is no export, or something is not what it was exported with.
        """
        return cls.from_config(Exported.find(name).folder, options, device)

    @classmethod
    def from_job(cls, job: JobConfig, device: torch.device, feature_store: str | Path | None = None) -> Engine:
        """Build the model of a config that ``load_for_inference`` returned.

        Args:
            job: the config.
            device: where the model goes.
            feature_store: folder of a ``FeatureStore``; None: files are read and encoded.
        """
        if device.type == "cuda":
            torch.cuda.set_device(device)  # where quantised decoders are loaded
        model_class: Any = registered_class(MODELS, job.model)
        inference = inference_config(job)
        spec = with_system(model_class.sample_spec(job.model), inference.system)
        model = model_class.from_config(job.model, device).eval()
        features = FeatureStore.of(feature_store, model) if feature_store else None
        return cls(model, spec, *build_processors(inference), features=features)

    @classmethod
    def from_model(cls, model: Any, inference: InferenceConfig | None = None) -> Engine:
        """Use a model that is in memory already, such as one in training. Features are not cached: its encoders may change.

        Args:
            model: of a registered class; its ``config`` has an ``image_size``. It takes sound if it is trained on sound.
            inference: how files are read, and the system message; None: by the default processors, at the model's image
                size, and the conversation template's.
        Raises:
            ConfigError: the conversation template has no place for the system message.
        """
        inference = with_defaults(inference or InferenceConfig(), model.config.image_size)
        processors = build_processors(inference)
        spec = with_system(type(model).sample_spec(model.config), inference.system)
        if spec.modalities.audio_source == "frames":  # the encoder was built without its trunk for sound
            spec = replace(spec, audio_processor=None)
        return cls(model, spec, *processors, cached_files=0)

    @property
    def has_audio(self) -> bool:
        """Whether the model has an audio branch."""
        return self.spec.audio_processor is not None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def reader(self) -> MediaReader:
        """Reads files for the model."""
        return MediaReader(self.video_processor, self.image_processor, self.spec.audio_processor, self._features)

    def encode_file(self, kind: FileKind, path: str | Path, use_audio: bool | None = None) -> EncodedFile:
        """Read a file and run the frozen encoders over it, unless it is in the cache.

        Args, Raises: see ``MediaReader.read``; also OutOfMemory.
        """
        reader = self.reader
        key = file_key(path, kind, use_audio, reader.identity(kind))
        if (file := self._files.get(key)) is None:
            content = reader.read(kind, path, use_audio)
            with self._lock:  # while this waited, another thread may have encoded the same file
                if (file := self._files.get(key)) is None:
                    file = EncodedFile(content, self.encode(content.media))
                    if content.audio_status.state != "failed":  # it may succeed next time
                        self._files.put(key, file)
        return file

    @within_memory
    @torch.no_grad()
    def encode(self, media: Sequence[Media]) -> tuple[MediaGroup, ...]:
        """Run the frozen encoders, over media of one kind and shape together.

        Returns:
            A group for each item, of row 0 and slots -1, -2, ...
        """
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for k, item in enumerate(media):
            alike[item.kind, item.encoded, item.data.shape].append(k)
        groups = [
            MediaGroup(
                media[members[0]].kind,
                torch.stack([media[k].data for k in members]),
                torch.zeros(len(members), dtype=torch.int64),
                torch.tensor([slot_id(k) for k in members]),
                encoded=media[members[0]].encoded,
                store_as=tuple(media[k].store_as for k in members),
            )
            for members in alike.values()
        ]
        with self._in_use():
            device = self.device
            groups = [group.mapped(lambda t: t.to(device)) for group in groups]
            encode = self.model.encode_frozen
            encoded = encode(groups) if self._features is None else self._features.encode(groups, encode)
        found = {}
        for group in encoded:
            for i, slot in enumerate(group.slots.tolist()):
                found[slot] = group.mapped(itemgetter(slice(i, i + 1)))
        return tuple(found[slot_id(k)] for k in range(len(media)))

    def session(self) -> Session:
        """Start a dialogue."""
        return Session(self.spec.template, self.has_audio)

    def prompt(self, question: str, file: EncodedFile) -> Prompt:
        """Return the prompt of one question about one file.

        Raises:
            VideoLlamaError: the question is empty.
        """
        encoded, media = self._encoded(question, file, answer=None)
        return Prompt(encoded.input_ids, media)

    def answered(self, question: str, file: EncodedFile, answer: str) -> AnsweredPrompt:
        """Return the prompt of one question about one file with an answer.

        Raises:
            VideoLlamaError: the question is empty.
        """
        encoded, media = self._encoded(question, file, answer)
        return AnsweredPrompt(encoded.input_ids, encoded.labels, media)

    def _encoded(self, question: str, file: EncodedFile, answer: str | None) -> tuple[Encoded, list[MediaGroup]]:
        session = self.session()
        session.show(*file.content.media)
        session.ask(question)
        if answer is not None:
            session.answer(answer)
        media = [replace(group, slots=torch.tensor([slot_id(k)])) for k, group in enumerate(file.groups)]
        return encode(session.prompt(), self.spec.tokenizer, self.spec.tokens_per_slot), media

    def answer_scorer(self) -> AnswerScorer:
        """Start scoring given answers; ``likelihoods`` runs it."""
        return AnswerScorer(self.model)

    def likelihoods(self, scorer: AnswerScorer, answers: Sequence[AnsweredPrompt]) -> list[Likelihood]:
        """Return the likelihood of each answer to one prompt. Raises: see ``AnswerScorer``."""
        with self._in_use():
            return scorer(answers)

    def schedules(self, settings: GenerationSettings) -> bool:
        """Whether a ``Scheduler`` can answer with these settings: without beams, with a decoder that ``takes_rows``."""
        return settings.num_beams == 1 and takes_rows(self.model.decoder.lm)

    def scheduler(self, max_rows: int) -> Scheduler:
        """Start a scheduler for up to ``max_rows`` requests at once; ``finished`` runs it."""
        return Scheduler(self.model, self.spec.tokenizer, max_rows)

    def request(self, prompt: Prompt, settings: GenerationSettings) -> Request:
        """Return a request for a scheduler: answers end as the template says."""
        return Request(prompt, settings, [self.spec.template.end_sym])

    def finished(self, scheduler: Scheduler) -> list[Event]:
        """Run a scheduler until an answer ends; return the last events of those that did. Empty: none is left."""
        ended: list[Event] = []
        with self._in_use():
            while scheduler.busy and not ended:
                ended = [event for event in scheduler.step() if event.done]
        return ended

    def generate(self, prompts: Sequence[Prompt], settings: GenerationSettings | None = None) -> list[str]:
        """Answer prompts in one batch with transformers' own loop; the answers are those of each prompt alone.

        Raises:
            PromptTooLong: a prompt and its answer do not fit into the decoder's context.
            OutOfMemory: fewer prompts at once may fit.
        """
        with self._in_use():
            return generate(
                self.model,
                self.spec.tokenizer,
                [prompt.input_ids for prompt in prompts],
                in_rows([prompt.media for prompt in prompts]),
                stop=self.spec.template.end_sym,
                settings=settings,
            )

    def generate_tokens(
        self,
        input_ids: Sequence[int],
        media: Sequence[MediaGroup],
        settings: GenerationSettings,
        on_tokens: Callable[[Sequence[int]], None],
    ) -> None:
        """Answer one prompt, and pass on its tokens as they are generated; of beams, all at the end.

        Args:
            input_ids: token ids with slot ids among them.
            media: what fills the slots, of row 0.
            settings: how tokens are chosen.
            on_tokens: called with the new tokens. Called with none now and then while another thread has the model or
                beams are searched. An exception from it ends the generation.
        """
        while not self._lock.acquire(timeout=0.1):
            on_tokens([])  # lets a consumer that has gone end the wait
        try:
            with self._in_use():
                generate = self._scheduled if self.schedules(settings) else self._unscheduled
                generate(self.request(Prompt(input_ids, media), settings), on_tokens)
        finally:
            self._lock.release()

    def _scheduled(self, request: Request, on_tokens: Callable[[Sequence[int]], None]) -> None:
        scheduler = self.scheduler(max_rows=1)
        scheduler.add(request)
        while scheduler.busy:
            for event in scheduler.step():
                if event.error is not None:
                    raise event.error
                on_tokens(event.tokens)

    def _unscheduled(self, request: Request, on_tokens: Callable[[Sequence[int]], None]) -> None:
        prompt, settings = request.prompt, request.settings
        tokenizer = self.spec.tokenizer
        (answer,) = generate_tokens(
            self.model, tokenizer, [prompt.input_ids], prompt.media, request.stops, settings, on_tokens
        )
        if settings.num_beams > 1:
            on_tokens(answer)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Hold the model, in eval mode."""
        with self._lock:
            training = self.model.training
            if training:
                self.model.eval()
            try:
                yield
            finally:
                if training:
                    self.model.train()


def with_system(spec: SampleSpec, text: str | None) -> SampleSpec:
    """Return a spec with one system message for all dialogues. None: the template's own.

    Raises:
        ConfigError: the template has no place for one.
    """
    if text is None:
        return spec
    template = spec.template.with_system(text)
    if template is None:
        raise ConfigError(
            [f"inference.system: the conversation template {spec.template.name} has no system message. Leave it out."]
        )
    return replace(spec, template=template)


def load_for_inference(cfg_path: str | Path, options: Iterable[str] = ()) -> JobConfig:
    """Read a YAML, for the use of its model; what it names on the hub is downloaded, and named with its commit.

    The weights of an exported folder, and of its parents, are verified.

    Args, Raises: see ``Engine.from_config``.
    """
    job = read_for_inference(cfg_path, options)
    if (exported := Exported.at(cfg_path)) is not None:
        exported.verify(job.model)
    return job


def read_for_inference(cfg_path: str | Path, options: Iterable[str] = ()) -> JobConfig:
    """Do what ``load_for_inference`` does, without verifying weights: for those who read none."""
    options = list(options)
    if (exported := Exported.at(cfg_path)) is not None:
        exported.check_config(options)
        cfg_path = exported.config
    job = load_config(cfg_path, options, also=("datasets", "inference"))
    _, rank, _ = process_numbers()
    if rank == 0:
        for note in job.notes:
            log.warning("note: %s", note)
        for warning in job.warnings:
            log.warning("warning: %s", warning)
    try:
        config = model_in_use(job.model)
    except ConfigError as error:
        raise ConfigError([f"{cfg_path}: {problem}" for problem in error.problems]) from error
    return replace(job, model=fetched(named_as(job.model, config)))
