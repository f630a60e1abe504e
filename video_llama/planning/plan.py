"""What a config needs in training and in use, on which cards it fits, and which settings make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from video_llama.common.errors import ConfigError, WeightsError
from video_llama.common.registry import MODELS
from video_llama.common.types import Batch
from video_llama.config.loader import UNSET, JobConfig
from video_llama.config.serialize import registered_class
from video_llama.conversation.processors import inference_config
from video_llama.models.decoder.config import Precision, Recomputation
from video_llama.models.model_class import WeightsTools
from video_llama.models.precision import DTYPES, NumberFormat, chosen_format, is_fast
from video_llama.planning.estimate import ADAM_MOMENTS, Formats, Need, Part, PlannedModel
from video_llama.planning.speed import expected_seconds, seconds_at_roof
from video_llama.planning.tracing import Trace
from video_llama.planning.workload import (
    Workload,
    at_batch,
    batch_of,
    training_media,
    training_workload,
    use_media,
    use_workload,
)
from video_llama.runners.config import RunConfig
from video_llama.runners.device_peaks import CARDS
from video_llama.runners.micro_batch import divisors
from video_llama.runners.numerics import autocast_dtype

GPU_RESERVE = 1_000_000_000
"""Bytes of a CUDA context with the libraries' kernels and workspaces, and of memory between tensors that none fits into."""
CPU_RESERVE = 800_000_000
"""Bytes of Python, PyTorch and the modules of a process."""
SHOWN_CARDS = ("L4", "A10", "RTX 4090", "A100 40GB", "A100", "H100", "H200")


@dataclass(frozen=True)
class Target:
    """What to plan for."""

    memory: int
    """Bytes of one device."""
    gpus: int = 1
    """Training processes, each with a device."""
    on_cpu: bool = False
    text: int | None = None
    """Tokens of text of a training sample. None: as many as the settings allow."""


@dataclass(frozen=True)
class Way:
    """One way to train, or to use, the model."""

    changes: tuple[str, ...]
    """Settings that differ from the config."""
    need: Need
    fits: bool
    batch: int | None = None
    """Largest batch of a forward pass that fits, up to the config's. None: not even one sample does, or it is not for training."""
    accumulation: int | None = None
    """``accum_grad_iters`` that keeps the samples of a step with that batch."""


@dataclass(frozen=True)
class OnCard:
    """What to expect on a card."""

    card: str
    memory_gb: float
    training_fits: bool | None = None
    """As configured. None: the config is not for training."""
    samples_at_roof: float | None = None
    """Samples per second over all processes, if every operation ran at the card's peak or bandwidth."""
    samples_expected: float | None = None
    use_fits: bool | None = None
    tokens_at_roof: float | None = None
    """Tokens per second of one answer: each reads all weights of the decoder."""


@dataclass(frozen=True)
class Plan:
    """What a config needs."""

    target: Target
    parts: list[Part]
    flops: dict[str, float]
    """FLOPs of a forward pass of one training sample, or of one dialogue, by part."""
    training: list[Way] = field(default_factory=list)
    training_work: Workload | None = None
    training_flops: float | None = None
    """Of forward and backward, for one sample."""
    use: list[Way] = field(default_factory=list)
    use_work: Workload | None = None
    cards: list[OnCard] = field(default_factory=list)


def make_plan(job: JobConfig, target: Target) -> Plan:
    """Plan a config.

    Args:
        job: the config; its files need not be there, but for the decoder's ``config.json``.
        target: what to plan for.
    Raises:
        ConfigError: it lacks something, or its model is no ``VideoLLaMA``.
        WeightsError: the decoder's folder cannot be read.
    """
    model_class = _model_class(job)
    planner = _Planner(job, target, model_class)
    parts, flops, found = planner.as_configured.parts, {}, Plan(target, [], {})
    if planner.trains:
        found = planner.training()
        flops = found.flops
    try:
        used = planner.use()
    except ConfigError:
        if not planner.trains:
            raise
        used = Plan(target, [], {})
    if not planner.trains:
        parts = planner.used.parts
        flops = used.flops
    cards = [planner.on_card(name, found, used) for name in (() if target.on_cpu else SHOWN_CARDS)]
    return replace(found, parts=parts, flops=flops, use=used.use, use_work=used.use_work, cards=cards)


def _model_class(job: JobConfig) -> Any:
    if job.model is None:
        raise ConfigError(["model: the section is missing"])
    if UNSET in (getattr(job.model, "llama_model", None), job.model):
        raise ConfigError(
            [
                "model.llama_model is ???: set it to a folder with the decoder's config.json and tokenizer, such as --options "
                "model.llama_model=DIR. Weights are not needed."
            ]
        )
    model_class: Any = registered_class(MODELS, job.model)
    if not isinstance(model_class, WeightsTools):
        raise ConfigError(["model.arch: only video_llama, and models derived from it, can be planned"])
    return model_class


class _Planner:
    """Plans of one config; traces are kept, because several answers need the same."""

    def __init__(self, job: JobConfig, target: Target, model_class: Any) -> None:
        self.job, self.target, self.model_class = job, target, model_class
        self.trains = isinstance(job.run, RunConfig) and job.trains
        self.stores = job.model.features is not None
        """Whether training reads stored features; the encoders are planned all the same, for use."""
        self.as_configured = self._model(replace(job.model, features=None))
        self._traces: dict[tuple[Recomputation | None, Workload, bool], Trace] = {}

    def training(self) -> Plan:
        """Plan training: as configured, and with settings that need less."""
        work = training_workload(self.job, self.target.gpus, self.target.text)
        trace = self._trace(self.as_configured, work, stored=self.stores)
        ways = [self._way((), self.as_configured, work, stored=self.stores)]
        if not self.target.on_cpu or not ways[0].fits:
            ways += self._other_ways(work, fits=ways[0].fits)
        flops = {part: n / work.batch for part, n in trace.flops_by_part.items() if part}
        return Plan(self.target, [], flops, training=ways, training_work=work, training_flops=trace.flops / work.batch)

    @property
    def _accumulation(self) -> int:
        return int(self.job.run.accum_grad_iters)

    def _other_ways(self, work: Workload, *, fits: bool) -> Iterator[Way]:
        """Yield ways that need less; fewer frames, which change what is learnt, only if it does not fit."""
        model = self.as_configured.config
        saving = model if model.use_grad_checkpoint else replace(model, use_grad_checkpoint=True)
        recomputed = self.as_configured if saving is model else self._model(saving)
        key = () if model.use_grad_checkpoint else ("model.use_grad_checkpoint: true",)
        if key:
            yield self._way(key, recomputed, work, stored=self.stores)
        if model.decoder_quantization is None:
            yield self._way((*key, "model.quantization: nf4"), recomputed.quantised("nf4"), work, stored=self.stores)
        if self.target.gpus > 1 and model.decoder_quantization is None:
            yield self._way(
                (*key, "run.parallel: {decoder: shard}"), recomputed, work, shards=self.target.gpus, stored=self.stores
            )
        if work.frames > 1 and not fits:
            fewer = replace(work, frames=work.frames // 2)
            yield self._way((*key, f"n_frms: {fewer.frames}"), recomputed, fewer, stored=self.stores)
        if model.freeze_vit and model.freeze_qformer and not self.stores:
            yield self._way((*key, "model.features: DIR"), recomputed, work, stored=True)

    def _way(
        self, changes: tuple[str, ...], model: PlannedModel, work: Workload, *, shards: int = 1, stored: bool = False
    ) -> Way:
        """Estimate one way to train, at the config's batch and at the largest that fits."""

        def need(size: int) -> Need:
            trace = self._trace(model, at_batch(work, size), stored=stored)
            return self._need(model, trace, shards=shards, stored=stored)

        most = need(work.batch)
        if self._fits(most):
            return Way(changes, most, True, work.batch, self._accumulation)
        if work.batch == 1:
            return Way(changes, most, False)
        least = need(1)
        # The peak is the largest of several sums, each of which grows evenly: between the two it is at most a straight line.
        slope = (most.activations - least.activations) / (work.batch - 1)
        sizes = [n for n in divisors(work.batch * self._accumulation) if n <= work.batch]
        fitting = [n for n in sizes if self._fits(replace(least, activations=least.activations + int(slope * (n - 1))))]
        best = max(fitting, default=None)
        return Way(changes, most, False, best, best and work.batch * self._accumulation // best)

    def _trace(self, model: PlannedModel, work: Workload, *, stored: bool = False) -> Trace:
        """Trace a training step; one with a quantised or sharded decoder is that of the whole decoder."""
        key = (model.config.recomputation, work, stored)
        if key not in self._traces:
            batch = batch_of(model.config, work, training_media(model.config))
            self._traces[key] = model.in_training(_encoded(model, batch) if stored else batch, self._accumulation)
        return self._traces[key]

    def _need(self, model: PlannedModel, trace: Trace, *, shards: int = 1, stored: bool = False) -> Need:
        averages = int(self.job.run.ema is not None) if isinstance(self.job.run, RunConfig) else 0
        parts = {part.name: part.n_bytes for part in model.parts}
        if stored:
            parts = {name: size for name, size in parts.items() if name not in ("vision", "qformer", "audio_encoder")}
        if shards > 1:
            parts["decoder"] = parts["decoder"] // shards + _gathered(model.model.decoder.lm)
        return Need(
            weights=sum(parts.values()),
            optimizer=(ADAM_MOMENTS + averages) * model.trained_bytes(),
            activations=trace.peak + model.widest(),
            reserve=self._reserve,
            flops=trace.flops,
        )

    def use(self) -> Plan:
        """Plan use: as configured, and with a smaller decoder."""
        config = _in_use(self.job.model)
        frames = getattr(inference_config(self.job).video, "n_frms", 8)
        work = use_workload(self.job, frames)
        batch = batch_of(config, work, use_media(config))
        self.used = self._model(config)
        trace = self.used.in_use(batch)
        ways = []
        for kind in (config.quantization, *(("int8", "nf4") if config.decoder_quantization is None else ())):
            model = self.used if kind == config.quantization else self.used.quantised(kind)
            need = Need(model.weights(), 0, trace.peak + model.widest(), self._reserve, trace.flops)
            changes = () if kind == config.quantization else (f"model.quantization: {kind}",)
            ways.append(Way(changes, need, self._fits(need)))
        return Plan(self.target, [], {p: n for p, n in trace.flops_by_part.items() if p}, use=ways, use_work=work)

    def on_card(self, name: str, training: Plan, use: Plan) -> OnCard:
        """Return what to expect on a card of the table."""
        card = CARDS[name]
        limit = int(card.memory_gb * 1e9)
        found = OnCard(name, card.memory_gb)
        if (work := training.training_work) is not None:
            samples, trace = work.batch * self.target.gpus, self._trace(self.as_configured, work, stored=self.stores)
            found = replace(
                found,
                training_fits=training.training[0].need.total <= limit,
                samples_at_roof=samples / seconds_at_roof(trace, card),
                samples_expected=samples / expected_seconds(trace, card),
            )
        if use.use:
            decoder = next(part.n_bytes for part in self.used.parts if part.name == "decoder")
            found = replace(found, use_fits=use.use[0].need.total <= limit, tokens_at_roof=card.bandwidth / decoder)
        return found

    def _fits(self, need: Need) -> bool:
        return need.total <= self.target.memory

    @property
    def _reserve(self) -> int:
        return CPU_RESERVE if self.target.on_cpu else GPU_RESERVE

    def _model(self, config: Any) -> PlannedModel:
        return PlannedModel(self.model_class, config, formats_of(config, self.job.run, on_cpu=self.target.on_cpu))


def formats_of(config: Any, run: Any, *, on_cpu: bool) -> Formats:
    """Return the number formats that a model will have on this computer's CPU, or on a GPU that has all of them.

    Args:
        config: the ``model`` section.
        run: the ``run`` section. None: the model is not trained.
        on_cpu: whether it is for the CPU.
    """
    cpu = torch.device("cpu")
    fast = [dtype for dtype in DTYPES.values() if not on_cpu or is_fast(dtype, cpu)]
    try:
        of_decoder = config.decoder_folder.number_format
    except WeightsError:  # its weights are not there
        of_decoder = getattr(config.decoder_folder.config, "dtype", None) or torch.float16

    def chosen(asked: Precision, in_file: torch.dtype) -> NumberFormat:
        return chosen_format(asked, in_file, fast, on_cpu=on_cpu, strict=config.strict_precision)

    vision = chosen(config.vit_precision if config.freeze_vit else "fp32", torch.float16)
    decoder = chosen(config.llama_precision if config.frozen_llama else "fp32", of_decoder)
    audio = chosen(config.audio_precision, torch.float32)
    amp = None
    if isinstance(run, RunConfig) and run.amp:
        amp = autocast_dtype(run, cpu) if on_cpu else DTYPES[run.amp_dtype or "bf16"]
    return Formats(vision, decoder, audio, amp)


def _in_use(config: Any) -> Any:
    """Return the model in use; the file of its branch need not be there yet.

    Raises:
        ConfigError: settings contradict each other in use.
    """
    if problems := list(config.checked_in_use().check()):
        raise ConfigError([f"in use, model.{key}: {message}" for key, message in problems])
    return config.frozen()


def _encoded(model: PlannedModel, batch: Batch) -> Batch:
    """Return the batch with the frozen encoders' output in place of media, as a store has it."""
    with torch.no_grad():
        return replace(batch, media=model.model.eval().encode_frozen(batch.media))


def _gathered(lm: Any) -> int:
    """Return the bytes of a sharded decoder that are whole at one time: two layers, and what belongs to no layer."""
    layers: Sequence[Any] = [m for m in lm.modules() if isinstance(m, GradientCheckpointingLayer)]
    sizes = [sum(p.nbytes for p in layer.parameters()) for layer in layers]
    return sum(sorted(sizes)[-2:]) + sum(p.nbytes for p in lm.parameters()) - sum(sizes)
