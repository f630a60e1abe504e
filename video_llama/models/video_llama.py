"""The whole model: frozen encoders, the trainable vision-language branch, the frozen decoder (Video-LLaMA, figure 1).

Shapes: B samples, L tokens, N media items, T frames, Q image queries, V video queries, D Q-Former width,
H decoder width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from video_llama.checkpoints.merge import fill
from video_llama.checkpoints.state import read_weights
from video_llama.common.config_types import AtLeast, ExistingPath
from video_llama.common.contracts import Batch, BuildContext, MediaGroup, ModelOutput
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.common.registries import MODELS
from video_llama.models.freezing import freeze, is_trainable, keep_frozen_in_eval
from video_llama.models.language_model import LanguageModel, max_context, read_config
from video_llama.models.qformer import QFormer, QFormerConfig
from video_llama.models.splice import splice
from video_llama.models.video_branch import VideoBranch
from video_llama.models.vision_encoder import VisionEncoder
from video_llama.prompts.labels import PLACEHOLDER
from video_llama.prompts.templates import MODEL_TYPES, Template
from video_llama.prompts.tokenizer import load_tokenizer

Precision = Literal["fp16", "bf16", "fp32"]
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class VideoLLaMAConfig:
    """The ``model`` section of a YAML with ``arch: video_llama``."""

    model_type: Literal["pretrain_vicuna", "pretrain_llama_v2", "vicuna", "llama_v2"] = "pretrain_vicuna"
    """Names the conversation template of the decoder."""

    vit_model: str = "eva_clip_g"
    """Frame encoder: eva_clip_g, or timm/<name> for any other timm vision transformer."""

    vit_args: dict[str, Any] = field(default_factory=dict)
    """Overrides of the timm model's arguments, such as depth or embed_dim."""

    vit_ckpt: Annotated[str, ExistingPath(kind="file")] | None = None
    """Weights of the frame encoder and ln_vision."""

    vit_precision: Precision = "fp16"
    """Number format of the frame encoder."""

    image_size: Annotated[int, AtLeast(1)] = 224
    """Side of a frame, in pixels."""

    drop_path_rate: float = 0.0
    """Stochastic depth of the frame encoder, where it is trained."""

    use_grad_checkpoint: bool = False
    """Recompute activations of the decoder, and of a trained frame encoder, in the backward pass."""

    freeze_vit: bool = True
    """Keep the frame encoder and ln_vision as they are."""

    q_former_model: Annotated[str, ExistingPath(kind="file")] | None = None
    """Weights of the image Q-Former and its query tokens."""

    num_query_token: Annotated[int, AtLeast(1)] = 32
    """Q: queries of the image Q-Former, for each frame."""

    qformer: QFormerConfig = QFormerConfig()
    """Size of the image Q-Former; the video Q-Former has the same widths."""

    freeze_qformer: bool = True
    """Keep the image Q-Former as it is."""

    llama_model: Annotated[str, ExistingPath(kind="dir")]
    """Folder of the decoder: any Hugging Face causal language model."""

    llama_precision: Precision = "fp16"
    """Number format of the decoder."""

    low_resource: Literal[False] = False
    """Load the decoder in 8 bits."""

    frozen_llama_proj: bool = False
    """Keep the linear layer to the decoder as it is."""

    frozen_video_Qformer: bool = False
    """Keep the video Q-Former, its queries and the frame positions as they are."""

    fusion_header_type: Literal["seqTransf"] = "seqTransf"
    """How frames are fused: by the video Q-Former."""

    fusion_head_layers: Annotated[int, AtLeast(1)] = 2
    """Layers of the video Q-Former."""

    max_frame_pos: Annotated[int, AtLeast(1)] = 32
    """Longest clip, in frames."""

    num_video_query_token: Annotated[int, AtLeast(1)] = 32
    """V: tokens that a clip or an image takes in the decoder's sequence."""

    equip_audio_branch: Literal[False] = False
    """Build the audio-language branch."""

    frozen_audio_Qformer: Literal[True] = True
    """Keep the audio Q-Former as it is."""

    prompt_path: Annotated[str, ExistingPath(kind="file")] | None = None
    """Prompts for captions, one a line, each with <ImageHere>; one is drawn for each caption. null: no prompt."""

    prompt_template: str | None = None
    """Text around a caption prompt, with {} for the prompt. null: the template's own."""

    end_sym: str | None = None
    """Text that ends a caption. null: the template's own."""

    max_txt_len: Annotated[int, AtLeast(1)] = 32
    """Longest caption, in tokens; longer ones are cut."""

    max_instruct_len: Annotated[int, AtLeast(1)] = 512
    """Longest instruction sample, in tokens; longer ones are cut at the end."""

    ckpt: Annotated[str, ExistingPath(kind="file")] | None = None
    """Trained weights of the branch, such as an earlier stage's."""

    ckpt_2: Annotated[str, ExistingPath(kind="file")] | None = None
    """More trained weights, put on top of ckpt's."""

    @property
    def template(self) -> Template:
        """The conversation template that ``model_type`` names."""
        return MODEL_TYPES[self.model_type]

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield the settings that contradict each other."""
        if self.prompt_template is not None and self.prompt_template.count("{}") != 1:
            yield "prompt_template", f"needs {{}} once, where the prompt goes; it is {self.prompt_template!r}"
        if self.end_sym is not None and self.end_sym != self.template.end_sym:
            yield (
                "end_sym",
                f"{self.end_sym!r} contradicts model_type {self.model_type}, whose answers end with "
                f"{self.template.end_sym!r}. Leave end_sym out, or change model_type.",
            )
        if self.drop_path_rate and self.freeze_vit:
            yield (
                "drop_path_rate",
                "has no effect while freeze_vit is true, since frozen parts never drop. Set it to 0.",
            )
        if not self.freeze_vit and self.vit_precision != "fp32":
            yield "vit_precision", f"{self.vit_precision}, but freeze_vit is false: what is trained needs fp32"


@MODELS.register("video_llama")
class VideoLLaMA(nn.Module):
    """Frames and text in, next-token loss out; captions and instructions take the same path.

    Args:
        config: sizes and files. The decoder is read here; ``load_weights`` fills the rest.
    """

    Config = VideoLLaMAConfig

    def __init__(self, config: VideoLLaMAConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionEncoder(config.vit_model, config.image_size, config.vit_args, config.drop_path_rate)
        self.qformer = QFormer(config.num_query_token, self.vision.num_features, config.qformer)
        self.decoder = LanguageModel(config.llama_model, DTYPES[config.llama_precision])
        self.video_branch = VideoBranch(
            config.num_video_query_token,
            config.max_frame_pos,
            config.fusion_head_layers,
            self.decoder.width,
            config.qformer,
        )

    @classmethod
    def from_config(cls, config: VideoLLaMAConfig) -> VideoLLaMA:
        """Build, fill with the weights that the config names, freeze."""
        model = cls(config)
        model.load_weights()
        model.freeze()
        return model

    @staticmethod
    def build_context(config: VideoLLaMAConfig) -> BuildContext:
        """Derive what data sets need from the model section, without building the model."""
        around = config.prompt_template or config.template.caption
        return BuildContext(
            tokenizer=load_tokenizer(config.llama_model),
            template=config.template,
            tokens_per_slot={"image": config.num_video_query_token, "video": config.num_video_query_token},
            max_txt_len=config.max_txt_len,
            max_context=min(max_context(read_config(config.llama_model)), config.max_instruct_len),
            caption_prompts=tuple(around.replace("{}", prompt) for prompt in read_prompts(config.prompt_path)),
            end_sym=config.end_sym or config.template.end_sym,
            model_args={
                "num_video_query_token": config.num_video_query_token,
                "tokenizer_name": config.llama_model,
                "model_type": config.model_type.removeprefix("pretrain_"),
                "image_size": config.image_size,
                "max_frame_pos": config.max_frame_pos,
            },
        )

    def load_weights(self) -> None:
        """Fill the encoders and the branch from the files the config names.

        Raises:
            WeightsError: a file does not fit, or holds no tensor.
        """
        if self.config.vit_ckpt:
            fill(self.vision, read_weights(self.config.vit_ckpt), self.config.vit_ckpt)
        if self.config.q_former_model:
            fill(self.qformer, read_weights(self.config.q_former_model), self.config.q_former_model)
        filled: set[str] = set()
        for path in (self.config.ckpt, self.config.ckpt_2):
            if path:
                tensors = read_weights(path)
                fill(self, tensors, path, whole=False)
                filled |= tensors.keys()
        self._check_parts(filled)
        self.vision.set_precision(DTYPES[self.config.vit_precision])

    def _check_parts(self, filled: set[str]) -> None:
        """Raise WeightsError when a part of the branch got some of its tensors only: the rest would be random."""
        for name, part in self.video_branch.named_children():
            own = {f"video_branch.{name}.{tensor}" for tensor in part.state_dict()}
            missing = sorted(own - filled)
            if missing and own & filled:
                raise WeightsError(
                    f"model.ckpt fills video_branch.{name} only in part: {len(missing)} of {len(own)} tensors are not "
                    f"in it, such as {missing[0]}. Was it trained with other model settings?"
                )

    def freeze(self) -> None:
        """Apply the ``freeze_*`` and ``frozen_*`` settings; the decoder is always frozen."""
        config, branch = self.config, self.video_branch
        freeze(self.decoder)
        if config.freeze_vit:
            freeze(self.vision)
        if config.freeze_qformer:
            freeze(self.qformer)
        if config.frozen_video_Qformer:
            freeze(branch.qformer)
            freeze(branch.frame_position)
        if config.frozen_llama_proj:
            freeze(branch.to_decoder)
        if config.use_grad_checkpoint:
            self.decoder.recompute_activations()
            if not config.freeze_vit:
                self.vision.vit.set_grad_checkpointing(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> VideoLLaMA:
        """Set the mode; frozen modules stay in eval mode."""
        super().train(mode)
        keep_frozen_in_eval(self)
        return self

    def encode_frozen(self, media: Sequence[MediaGroup]) -> tuple[MediaGroup, ...]:
        """Run the image encoder and the image Q-Former over all frames of all groups at once.

        Args:
            media: groups with uint8[N, 3, T, H, W] frames; groups already encoded pass through.
        Returns:
            The groups with float[N, T, Q, D] features.
        Raises:
            TooManyFrames: a clip is longer than the branch takes; nothing was computed.
        """
        raw = [group for group in media if not group.encoded]
        if not raw:
            return tuple(media)
        for group in raw:
            self.video_branch.check_length(group.frames.shape[2])
        trained = torch.is_grad_enabled() and (is_trainable(self.vision) or is_trainable(self.qformer))
        with contextlib.nullcontext() if trained else torch.no_grad(), _no_autocast(raw[0].frames):
            frames = torch.cat([rearrange(group.frames, "n c t h w -> (n t) c h w") for group in raw])
            queries = self.qformer(self.vision(frames))
        parts = iter(queries.split([group.frames.shape[0] * group.frames.shape[2] for group in raw]))
        return tuple(
            group
            if group.encoded
            else replace(
                group, frames=rearrange(next(parts), "(n t) q d -> n t q d", t=group.frames.shape[2]), encoded=True
            )
            for group in media
        )

    def embed_prompt(self, input_ids: Tensor, media: Sequence[MediaGroup]) -> Tensor:
        """Return float[B, L, H]: token embeddings with the media in their slots."""
        embeds = self.decoder.embed(input_ids)
        for group in self.encode_frozen(media):
            tokens = self.video_branch(group.frames)
            embeds = splice(embeds, input_ids, tokens, group.rows, group.slots)
        return embeds

    def forward(self, batch: Batch) -> ModelOutput:
        """Sum the loss over a batch's target tokens (Video-LLaMA, section 2.2)."""
        embeds = self.embed_prompt(batch.input_ids, batch.media)
        with _no_autocast(embeds):
            loss_sum = self.decoder.target_loss(embeds, batch.attention_mask, batch.labels)
        return ModelOutput(loss_sum, batch.n_target_tokens)

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the trainable tensors by name, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.named_parameters() if p.requires_grad}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Fill the trainable tensors.

        Raises:
            WeightsError: a name or shape does not match.
        """
        own = {name: p for name, p in self.named_parameters() if p.requires_grad}
        if own.keys() != state.keys():
            missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
            raise WeightsError(f"trainable tensors differ: missing {missing[:3]}, not of this model {extra[:3]}")
        for name, p in own.items():
            if p.shape != state[name].shape:
                raise WeightsError(f"{name}: shape {tuple(state[name].shape)}, expected {tuple(p.shape)}")
        with torch.no_grad():
            for name, p in own.items():
                p.copy_(state[name])


def _no_autocast(like: Tensor) -> torch.autocast:
    """Frozen parts run in their own number format, whatever the trainer's autocast says."""
    return torch.autocast(like.device.type, enabled=False)


def read_prompts(path: str | None) -> list[str]:
    """Read caption prompts; without a file the media stand alone.

    Raises:
        ConfigError: a file without a usable line.
    """
    if path is None:
        return [PLACEHOLDER]
    prompts = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
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
