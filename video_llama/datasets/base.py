"""Base class of data sets: turns annotation records into training samples, or reports why it cannot."""

from __future__ import annotations

import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from video_llama.common.distributed import process_numbers
from video_llama.common.errors import BadRecord, ConfigError, DataError
from video_llama.common.modalities import Modalities
from video_llama.common.registry import PROCESSORS
from video_llama.common.types import IGNORE_LABEL, Media, Sample
from video_llama.config.serialize import registered_class
from video_llama.datasets.annotations import table_files
from video_llama.datasets.config import DatasetConfig
from video_llama.datasets.length_groups import Length
from video_llama.datasets.permutation import permuted
from video_llama.datasets.quarantine import Quarantine
from video_llama.datasets.record_table import content_digest, joint_digest
from video_llama.processors.expected_media import expected_training_media
from video_llama.processors.feature_source import FeatureSource
from video_llama.processors.media import read_training_media
from video_llama.processors.span import Span
from video_llama.processors.view import View
from video_llama.prompts.labels import Encoded, Slot, TextSegment, encode
from video_llama.prompts.sample_spec import SampleSpec

log = logging.getLogger(__name__)


class Packed(NamedTuple):
    """What a shard holds of a record."""

    record: dict[str, Any]
    """Its JSON, in the layout of the sharded data set of the same kind."""
    media: Path | None
    """Its file; None: it has none, or names one that cannot be."""


class Dataset(ABC):
    """Base of the data sets. A subclass reads annotations into ``self.records`` and turns them into samples.

    Args:
        config: its section of the YAML.
        spec: what the model needs of samples.
        name: its key in the YAML, for messages.

    Raises:
        ConfigError: the section contradicts the model.
        DataError: the annotations cannot be read, or have no records.
    """

    Config: type = DatasetConfig
    packed_as: str | None = None
    """Registered name of the data set that reads its records from shards; None: they cannot be packed."""

    def __init__(self, config: Any, spec: SampleSpec, name: str) -> None:
        problems = [f"datasets.{name}.{key}: {m}" for key, m in config.disagreements(spec.shared_settings)]
        if config.build_info is None:
            problems.append(f"datasets.{name}.build_info: needed for training, and not given")
        if problems:
            raise ConfigError(problems)
        self.config, self.spec, self.name = config, spec, name
        self.features: FeatureSource | None = None
        self.quarantine: Quarantine | None = None
        self.reader: Callable[..., list[Media]] = read_training_media
        self.vis_processor = make_processor(processor_of(config, config.vis_processor))
        self.records: Sequence[Any] = self.read_records()
        if not self.records:
            raise DataError(f"datasets.{name}: no record in {self.source}")

    @property
    def source(self) -> str:
        """The annotation file or folder."""
        return str(self.config.build_info.anno_dir)

    def digest(self) -> str:
        """Return a digest of the annotations: a run is only resumed on those that it started with.

        Records that were read into a table know it. Else it is that of the files that ``source`` names or, if it names
        none, of the ids.
        """
        known: str | None = getattr(self.records, "digest", None)
        if known is not None:
            return known
        source = Path(self.source)
        if source.exists():
            files = table_files(source)[0] if source.is_dir() else [source]
            return joint_digest([content_digest(file) for file in files])
        found = hashlib.sha256()
        for index in range(len(self)):
            found.update(f"{self.record_id(index)}\n".encode())
        return found.hexdigest()

    @abstractmethod
    def read_records(self) -> Sequence[Any]:
        """Read the annotations."""

    @abstractmethod
    def record_id(self, index: int) -> str:
        """Name a record for logs."""

    @abstractmethod
    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Make the sample of a record; all randomness comes from ``rng``.

        Raises:
            BadRecord: the record cannot become a sample.
            DecodeError: its media cannot be read.
        """

    def packed(self, index: int) -> Packed:
        """Return what a shard holds of a record, so that reading it there gives the sample, or the error, that it gives here."""
        raise NotImplementedError

    def shuffled(self, position: int, key: Sequence[int]) -> int:
        """Return the record at a position of a shuffled pass through all of them; every key gives a pass of its own."""
        return permuted(position, len(self), key)

    @property
    def pass_length(self) -> int:
        """Draws of a shuffled pass through all records."""
        return len(self)

    def drawn(self, draw: int, key: Sequence[int]) -> tuple[int, int]:
        """Return the record at a draw of the endless shuffled passes, and how many times it came before.

        Args:
            draw: counted from 0 over the whole run.
            key: decides the order, with the number of the pass after it.
        """
        visit, position = divmod(draw, self.pass_length)
        return self.shuffled(position, (*key, visit)), visit

    def length(self, index: int, rng: np.random.Generator) -> Length:
        """Return the size of the sample that ``sample`` makes of a record, without opening a file.

        It is exact but for what only the file tells: the digits of frame times in the prompt, a clip shorter than its frames, a
        missing sound track.

        Raises:
            BadRecord, DecodeError: the record cannot become a sample.
        """
        unopened = copy(self)
        unopened.reader, unopened.quarantine = expected_training_media, None
        sample = unopened.sample(index, rng)
        media = sample.n_media_tokens
        frames = sum(item.data.shape[1] for item in sample.media if item.kind != "audio")
        return Length(len(sample.input_ids) - media, media, frames)

    def report(self, message: str) -> None:
        """Log a message about the annotations, once for all processes."""
        _, rank, _ = process_numbers()
        if rank == 0:
            log.warning("datasets.%s: %s", self.name, message)

    def read_media(
        self,
        path: Path,
        rng: np.random.Generator,
        span: Span | None = None,
        *,
        processor: Any = None,
        modalities: Modalities | None = None,
    ) -> list[Media]:
        """Read what the model is trained on: input of the audio branch, then of the video branch.

        Args:
            path: the file.
            rng: source of all randomness.
            span: the part of a clip or a sound that is read; None: the whole file.
            processor: what reads images or clips, if not the ``vis_processor``.
            modalities: what is read of it, if not all that the model is trained on.

        Raises:
            BadRecord: the file has nothing that the model is trained on.
            DecodeError: it cannot be read.
        """
        spec, quarantine = self.spec, self.quarantine
        processor, modalities = processor or self.vis_processor, modalities or spec.modalities
        rng = self.view(path, rng)
        how = (modalities, *map(_identity, (processor, spec.audio_processor)), span)
        with nullcontext() if quarantine is None else quarantine.reading(path, rng, *how):
            return self.reader(path, processor, modalities, spec.audio_processor, rng, span, self.features)

    def use(self, features: FeatureSource) -> None:
        """Take what is stored of files from there.

        Raises:
            DataError: what is stored is not what this data set reads.
        """
        for key, processor in self.processors().items():
            features.check(f"datasets.{self.name}.{key}", processor, getattr(self.config, "views", None))
        self.features = features

    def processors(self) -> dict[str, Any]:
        """Return what reads the files, by key."""
        image, sound = getattr(self, "image_processor", None), self.spec.audio_processor
        found = {"vis_processor": self.vis_processor} | ({} if image is None else {"image_processor": image})
        return found | ({"audio": sound} if self.spec.modalities.audio_source == "sound" else {})

    def view(self, path: Path, rng: np.random.Generator) -> np.random.Generator:
        """Return what frames and crops of a file are drawn from: with ``views``, the one of them that ``rng`` chooses."""
        n_views: int | None = getattr(self.config, "views", None)
        return rng if n_views is None else View(path, int(rng.integers(n_views)))

    def __len__(self) -> int:
        return len(self.records)

    def tokenized(
        self,
        index: int,
        pieces: Sequence[TextSegment | Slot],
        media: Sequence[Media],
        *,
        max_length: int | None = None,
        max_targets: int | None = None,
    ) -> Sample:
        """Tokenise a rendered prompt into a sample, truncated if it is too long.

        Args:
            index: the record.
            pieces: its prompt and answers.
            media: the items of the slots.
            max_length: limit of the sample, in tokens, if less than the decoder's context.
            max_targets: limit of the tokens after the prompt, that is of caption or answer.
        Raises:
            BadRecord: nothing that carries loss fits into the context, or an image or clip does not.
        """
        encoded = encode(pieces, self.spec.tokenizer, self.spec.tokens_per_slot)
        return self.truncated_sample(index, encoded, media, max_length=max_length, max_targets=max_targets)

    def truncated_sample(
        self,
        index: int,
        encoded: Encoded,
        media: Sequence[Media],
        *,
        max_length: int | None = None,
        max_targets: int | None = None,
    ) -> Sample:
        """Make a sample of token ids and labels, as ``tokenized`` does."""
        length, limit = len(encoded.labels), min(self.spec.max_context, max_length or self.spec.max_context)
        if max_targets is not None:
            limit = min(limit, encoded.labels.count(IGNORE_LABEL) + max_targets)
        if (reason := _unusable(encoded, limit)) is not None:
            raise BadRecord(f"{self.source}: {self.record_id(index)}: {reason}")
        return Sample(
            id=f"{self.name}/{self.record_id(index)}",
            input_ids=torch.tensor(encoded.input_ids[:limit]),
            labels=torch.tensor(encoded.labels[:limit]),
            media=tuple(media),
            truncated=length > limit,
        )


def outside(folder: str | Path, name: str) -> str | None:
    """Return what is wrong with the path of a file that is not below a folder; None: it is. Links may lead anywhere."""
    if os.path.relpath(Path(folder, name), folder).split(os.sep)[0] != os.pardir:
        return None
    return f"{name!r:.200} is not below {folder}, the folder of the media. Move the file, or set that folder to one above it."


def make_processor(config: Any) -> Any:
    """Build the processor of a Config."""
    return registered_class(PROCESSORS, config)(config)


def processor_of(config: Any, processors: Any) -> Any:
    """Return the Config of the processor for the split of a data set: the one for training, or for inference if there is one."""
    held_out = split_of(config) != "train" and processors.eval is not None
    return processors.eval if held_out else processors.train


def _identity(processor: Any) -> tuple[str, Any]:
    """Return what tells one way of reading files from another."""
    return f"{type(processor).__module__}.{type(processor).__qualname__}", getattr(processor, "config", None)


def split_of(config: Any) -> str:
    """Return the split of a data set; a Config from outside may have none, and is trained on."""
    return getattr(config, "split", "train")


def _unusable(encoded: Encoded, limit: int) -> str | None:
    """Return why a prompt truncated to ``limit`` tokens cannot be trained on, or None."""
    if all(label == IGNORE_LABEL for label in encoded.labels):
        return "nothing in it carries loss: its answers are empty"
    fit = f"{len(encoded.labels)} tokens, and {limit} fit (model.max_instruct_len, and the decoder's context)"
    if all(label == IGNORE_LABEL for label in encoded.labels[:limit]):
        return f"its prompt leaves no room for an answer: {fit}"
    if any(token < 0 for token in encoded.input_ids[limit:]):
        return f"one of its images or clips would be cut off: {fit}"
    return None
