"""A model whose decoder runs in a vLLM: encoders, Q-Formers, projections and the token embedding stay here."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from video_llama.common.distributed import choose_device
from video_llama.common.errors import ConfigError, VideoLlamaError
from video_llama.common.registry import MODELS
from video_llama.config.loader import JobConfig
from video_llama.config.serialize import registered_class
from video_llama.conversation.config_in_use import load_for_inference, with_system
from video_llama.conversation.engine import Engine
from video_llama.conversation.prefill import Prompt, embedded
from video_llama.conversation.processors import build_processors, inference_config
from video_llama.conversation.vllm_decoding import VllmDecoding
from video_llama.conversation.vllm_server import VllmServer

log = logging.getLogger(__name__)

PREFIX = "vllm="


def vllm_address(engine: str) -> VllmServer | None:
    """Read ``--engine``: ``vllm=http://HOST:PORT``, or ``local``, for which there is no address.

    Raises:
        VideoLlamaError: it is neither.
    """
    if engine == "local":
        return None
    if not engine.startswith(PREFIX):
        raise VideoLlamaError(f"--engine {engine}: expected local, or {PREFIX}http://HOST:PORT")
    return VllmServer(engine.removeprefix(PREFIX))


def bridge(
    server: VllmServer,
    cfg_path: str | Path,
    options: Iterable[str] = (),
    device: str = "auto",
    *,
    max_rows: int = 64,
    max_waiting: int = 256,
) -> tuple[Engine, VllmDecoding]:
    """Build the part of a model that stays here, and connect it to the vLLM with its decoder.

    >>> engine, decoding = bridge(VllmServer("http://127.0.0.1:8001"), "eval_configs/toy.yaml")
    >>> worker = Worker(engine, decoding)

    Args:
        server: the vLLM.
        cfg_path, options, device: see ``Engine.from_config``.
        max_rows, max_waiting: see ``VllmDecoding``.
    Raises:
        ConfigError: the config is wrong, or the model cannot be divided so.
        DecoderUnavailable: the vLLM cannot be reached, takes no embeddings, or serves another decoder.
    """
    chosen = choose_device(device)
    server.check_version()
    job = load_for_inference(cfg_path, options)
    engine = prompt_engine(job, chosen, server.max_context)
    decoder = PurePosixPath(str(job.model.decoder_folder.path)).name
    if PurePosixPath(server.folder).name != decoder:
        log.warning("warning: vLLM serves %s, and model.llama_model is %s: are they the same?", server.folder, decoder)
    spec = engine.spec
    text = f"{spec.template.end_sym} What do you see and hear?"
    ids = [token.id for token in spec.tokenizer.encode(text)]
    server.check_embeddings(ids, embedded(engine.model, Prompt(ids, [])))
    return engine, VllmDecoding(engine, server, max_rows=max_rows, max_waiting=max_waiting)


def prompt_engine(job: JobConfig, device: torch.device, max_context: int) -> Engine:
    """Build an engine that encodes files and makes prompts, without the layers of its decoder.

    Args:
        max_context: of the program that runs the decoder.
    """
    model_class: Any = registered_class(MODELS, job.model)
    if not hasattr(model_class, "for_prompts"):
        raise ConfigError(["model.arch: the decoder of this model cannot run elsewhere: its class has no for_prompts"])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    inference = inference_config(job)
    spec = with_system(model_class.sample_spec(job.model), inference.system)
    spec = replace(spec, max_context=min(spec.max_context, max_context))
    return Engine(model_class.for_prompts(job.model, device).eval(), spec, *build_processors(inference))
