"""A model ready for use: under chat, batches, evaluation and the web page."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from video_llama.common.distributed import choose_device
from video_llama.common.file_key import file_key
from video_llama.common.modalities import FileKind
from video_llama.common.protocols import ChatModel
from video_llama.common.registry import MODELS
from video_llama.common.types import Media, MediaGroup, slot_id
from video_llama.config.loader import InferenceConfig, JobConfig
from video_llama.config.serialize import registered_class
from video_llama.conversation.alike import grouped, single
from video_llama.conversation.config_in_use import load_for_inference, with_system
from video_llama.conversation.decoding import PATIENCE_S, Decoding, tokens_from
from video_llama.conversation.feature_cache import MAX_FILES, EncodedFile, FeatureCache
from video_llama.conversation.file import File
from video_llama.conversation.generation import generate, generate_tokens
from video_llama.conversation.likelihood import AnsweredPrompt, AnswerScorer, Likelihood
from video_llama.conversation.oom import within_memory
from video_llama.conversation.prefill import Prompt, in_rows
from video_llama.conversation.processors import build_processors, inference_config, with_defaults
from video_llama.conversation.scheduler import Event, Request, Scheduler
from video_llama.conversation.serial_scheduler import SerialScheduler
from video_llama.conversation.session import Session, ShownTurn
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

    All methods may be called from several threads. One of them encodes at a time, and one generates, unless they share a
    ``DecodingThread``. A model that is being trained is in eval mode for the time of a call.

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
        self.decoding: Decoding | None = None
        """Answers the questions of all dialogues together; None: they take turns."""
        self._encoding, self._generating = threading.Lock(), threading.Lock()
        self._files = FeatureCache(cached_files)
        self._features = features
        self._users_lock = threading.Lock()
        self._n_users, self._was_training = 0, False

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
        return self.encoded(File(kind, path, use_audio))

    def encoded(self, file: File) -> EncodedFile:
        """Do what ``encode_file`` does, for a file of any class."""

        def make() -> EncodedFile:
            content = file.read(self.reader)
            return EncodedFile(content, self.encode(content.media))

        if file.sources == (file,):
            return self._files.get_or_make(self._key(file), make)
        return file.assembled([self.encoded(source) for source in file.sources])

    def keep_files(self, n_files: int) -> None:
        """Keep up to so many encoded files from now on."""
        self._files = FeatureCache(n_files)

    def known(self, file: File) -> EncodedFile | None:
        """Return a file that is in the cache; None: it is not."""
        return self._files.get(self._key(file))

    def _key(self, file: File) -> Hashable | None:
        return file_key(file.path, replace(file, path=""), self.reader.identity(file.kind))

    @within_memory
    @torch.no_grad()
    def encode(self, media: Sequence[Media]) -> tuple[MediaGroup, ...]:
        """Run the frozen encoders, over media of one kind and shape together.

        Returns:
            A group for each item, of row 0 and slots -1, -2, ...
        """
        with self._encoding, self._in_use():
            device, features = self.device, self._features
            groups = [group.mapped(lambda t: t.to(device)) for group in grouped(media)]
            run = self.model.encode_frozen
            encoded = run(groups) if features is None else features.encode(groups, run)
        return single(encoded)

    def session(self) -> Session:
        """Start a dialogue."""
        return Session(self.spec.template, self.has_audio)

    def prompt(self, question: str, file: EncodedFile) -> Prompt:
        """Return the prompt of one question about one file.

        Raises:
            VideoLlamaError: the question is empty.
        """
        return self.dialogue([ShownTurn(question, [file])])

    def dialogue(self, turns: Sequence[ShownTurn[EncodedFile]], system: str | None = None) -> Prompt:
        """Return the prompt of a dialogue.

        Args:
            turns: the last one is to be answered.
            system: the system message; None: the model's own.
        Raises:
            ConfigError: the conversation template has no place for a system message.
            VideoLlamaError: a question is empty.
        """
        encoded, media = self._encoded(turns, system)
        return Prompt(encoded.input_ids, media)

    def answered(self, question: str, file: EncodedFile, answer: str) -> AnsweredPrompt:
        """Return the prompt of one question about one file with an answer.

        Raises:
            VideoLlamaError: the question is empty.
        """
        encoded, media = self._encoded([ShownTurn(question, [file], answer)])
        return AnsweredPrompt(encoded.input_ids, encoded.labels, media)

    def _encoded(
        self, turns: Sequence[ShownTurn[EncodedFile]], system: str | None = None
    ) -> tuple[Encoded, list[MediaGroup]]:
        session = Session(with_system(self.spec, system).template, self.has_audio)
        groups: list[MediaGroup] = []
        for turn in turns:
            for file in turn.files:
                session.show(*file.content.media)
                groups += file.groups
            session.ask(turn.question)
            if turn.answer is not None:
                session.answer(turn.answer)
        media = [replace(group, slots=torch.tensor([slot_id(k)])) for k, group in enumerate(groups)]
        return encode(session.prompt(), self.spec.tokenizer, self.spec.tokens_per_slot), media

    def answer_scorer(self) -> AnswerScorer:
        """Start scoring given answers; ``likelihoods`` runs it."""
        return AnswerScorer(self.model)

    def likelihoods(self, scorer: AnswerScorer, answers: Sequence[AnsweredPrompt]) -> list[Likelihood]:
        """Return the likelihood of each answer to one prompt. Raises: see ``AnswerScorer``."""
        with self._generating, self._in_use():
            return scorer(answers)

    def schedules(self, settings: GenerationSettings) -> bool:
        """Whether a ``Scheduler`` can answer with these settings: without beams, with a decoder that ``takes_rows``."""
        return settings.num_beams == 1 and takes_rows(self.model.decoder.lm)

    def scheduler(self, max_rows: int) -> Scheduler:
        """Start a scheduler for up to ``max_rows`` requests at once; ``finished`` runs it."""
        return Scheduler(self.model, self.spec.tokenizer, max_rows)

    def scheduler_for_all(self, max_rows: int) -> Scheduler | SerialScheduler:
        """Start a scheduler that any decoder has: one that does not take rows answers one request after the other."""
        if takes_rows(self.model.decoder.lm):
            return self.scheduler(max_rows)
        return SerialScheduler(self.unscheduled, self.spec.tokenizer)

    def request(self, prompt: Prompt, settings: GenerationSettings) -> Request:
        """Return a request for a scheduler: answers end as the template says."""
        return Request(prompt, settings, [self.spec.template.end_sym])

    def step(self, scheduler: Scheduler | SerialScheduler) -> list[Event]:
        """Let a scheduler take a step. See ``Scheduler.step``."""
        with self._in_use():
            return scheduler.step()

    def finished(self, scheduler: Scheduler) -> list[Event]:
        """Run a scheduler until an answer ends; return the last events of those that did. Empty: none is left."""
        ended: list[Event] = []
        with self._generating, self._in_use():
            while scheduler.busy and not ended:
                ended = [event for event in scheduler.step() if event.done]
        return ended

    def generate(self, prompts: Sequence[Prompt], settings: GenerationSettings | None = None) -> list[str]:
        """Answer prompts in one batch with transformers' own loop; the answers are those of each prompt alone.

        Raises:
            PromptTooLong: a prompt and its answer do not fit into the decoder's context.
            OutOfMemory: fewer prompts at once may fit.
        """
        with self._generating, self._in_use():
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
        client: str = "",
    ) -> None:
        """Answer one prompt, and pass on its tokens as they are generated; of beams, all at the end.

        Args:
            input_ids: token ids with slot ids among them.
            media: what fills the slots, of row 0.
            settings: how tokens are chosen.
            on_tokens: called with the new tokens. Called with none now and then while another thread has the model or
                beams are searched. An exception from it ends the generation.
            client: clients of a ``DecodingThread`` take turns.
        Raises:
            QueueFull: of a ``DecodingThread``: too many others wait.
        """
        request = self.request(Prompt(input_ids, media), settings)
        if self.decoding is not None and settings.num_beams == 1:
            tokens_from(self.decoding, request, on_tokens, client)
            return
        while not self._generating.acquire(timeout=PATIENCE_S):
            on_tokens([])  # lets a consumer that has gone end the wait
        try:
            with self._in_use():
                answer = self._scheduled if self.schedules(settings) else self.unscheduled
                answer(request, on_tokens)
        finally:
            self._generating.release()

    def _scheduled(self, request: Request, on_tokens: Callable[[Sequence[int]], None]) -> None:
        scheduler = self.scheduler(max_rows=1)
        scheduler.add(request)
        while scheduler.busy:
            for event in scheduler.step():
                if event.error is not None:
                    raise event.error
                on_tokens(event.tokens)

    def unscheduled(self, request: Request, on_tokens: Callable[[Sequence[int]], None]) -> None:
        """Answer a request with transformers' own loop; pass on its tokens, those of beams at the end."""
        prompt, settings = request.prompt, request.settings
        tokenizer = self.spec.tokenizer
        (answer,) = generate_tokens(
            self.model, tokenizer, [prompt.input_ids], prompt.media, request.stops, settings, on_tokens
        )
        if settings.num_beams > 1:
            on_tokens(answer)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keep the model in eval mode."""
        with self._users_lock:
            self._n_users += 1
            if self._n_users == 1 and (training := self.model.training):
                self._was_training = training
                self.model.eval()
        try:
            yield
        finally:
            with self._users_lock:
                self._n_users -= 1
                if self._n_users == 0 and self._was_training:
                    self._was_training = False
                    self.model.train()
