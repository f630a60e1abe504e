"""Settings of the model, and their consequences: what is trained, and what samples must hold. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Interval

from video_llama.checkpoints.sources.references import WeightsSource, local_path
from video_llama.common.errors import ConfigError
from video_llama.common.modalities import AudioInput, MediaKind, Modalities
from video_llama.common.registry import AUDIO_ENCODERS
from video_llama.config.fields import ExistingPath, Operational, Registered
from video_llama.models.contradictions import contradictions
from video_llama.models.decoder.config import LORA_WEIGHTS, LoRAConfig, Precision, Quantization, Recomputation
from video_llama.models.default_weights import default_weights, missing_defaults
from video_llama.models.encoders.config import ImageBindConfig
from video_llama.models.idle_settings import idle_settings
from video_llama.models.qformer_config import QFormerConfig as QFormerConfig
from video_llama.processors.config import MAX_LOST, Channels
from video_llama.prompts.templates import MODEL_TYPES, ORIGINAL_TEMPLATES, Template

if TYPE_CHECKING:
    from video_llama.models.decoder.folder import DecoderFolder
    from video_llama.processors.feature_shards import FeatureShards


@dataclass(frozen=True, kw_only=True)
class VideoLLaMAConfig:
    """The ``model`` section of a YAML with ``arch: video_llama``."""

    PUBLISHED: ClassVar[tuple[str, ...]] = ("fusion_header_type", "end_sym")
    """Keys kept for published YAMLs: each accepts a single value and changes nothing."""
    default_weights = default_weights

    model_type: Literal["pretrain_vicuna", "pretrain_llama_v2", "vicuna", "llama_v2", "ziya", "billa", "auto"] = (
        "pretrain_vicuna"
    )
    """Conversation template of the decoder. auto: the chat template of its tokenizer."""

    strict_template: bool = False
    """Refuse a model_type that differs from the chat template of the decoder's tokenizer, instead of warning about it."""

    literal_special_tokens: Literal["text", "original"] = "text"
    """What </s> and other special tokens are in questions, answers and captions: text; or special tokens, as in the original."""

    features: Annotated[str, ExistingPath(kind="dir"), Operational()] | None = None
    """Train on what video-llama cache-features stored in this folder. The frame encoder, the image Q-Former and the audio encoder
    are not built then, and their weights need not be there. null: files are read and encoded."""

    vit_model: str = "eva_clip_g"
    """Frame encoder: eva_clip_g, or timm/<name> for any other timm vision transformer."""

    vit_args: dict[str, Any] = field(default_factory=dict)
    """Overrides of the timm model's arguments, such as depth or embed_dim."""

    vit_ckpt: Annotated[str, WeightsSource(kind="file", unless="features")] | None = None
    """Weights of the frame encoder and ln_vision: a file, a known name, or hf://org/name/file. null: eva_clip_g, at full size."""

    vit_precision: Precision = "auto"
    """Number format of the frame encoder. auto: on a GPU fp16, or bf16 if its file is in bf16; on a CPU that of its file."""

    image_size: Annotated[int, Ge(1)] = 224
    """Side of a frame, in pixels."""

    drop_path_rate: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Stochastic depth of a trained frame encoder."""

    use_grad_checkpoint: Annotated[bool | Recomputation, Operational()] = False
    """Recompute activations of the decoder, and of a trained frame encoder, in the backward pass: full, or true, all; selective
    keeps the outputs of the decoder's matrix products and attention."""

    compile: Annotated[Literal["towers", "all"] | None, Operational()] = None
    """Compile the blocks of the encoders (towers), or those and the decoder's layers (all), which takes about a minute at the
    start; a machine that cannot does without. null: nothing."""

    freeze_vit: bool = True
    """Do not train the frame encoder and ln_vision."""

    q_former_model: Annotated[str, WeightsSource(kind="file", unless="features")] | None = None
    """Weights of the image Q-Former and its query tokens. null: blip2_qformer, at full size."""

    num_query_token: Annotated[int, Ge(1)] = 32
    """Q: queries of the image Q-Former, for each frame."""

    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    """Size of the image Q-Former; the video Q-Former has the same widths."""

    freeze_qformer: bool = True
    """Do not train the image Q-Former."""

    llama_model: Annotated[str, WeightsSource(kind="dir")]
    """The decoder, any Hugging Face causal language model: a folder, or its id on the hub, org/name or org/name@revision."""

    llama_precision: Precision = "auto"
    """Number format of the decoder. auto: as for vit_precision."""

    strict_precision: bool = False
    """Compute in the number formats of the YAML, vit_precision, llama_precision and audio_precision, even if the device is slow at
    them, not in fp32 or fp16."""

    low_resource: bool = False
    """Load the decoder in 8 bits; the same as quantization: int8."""

    quantization: Quantization | None = None
    """Load the decoder's linear layers in 8 bits (int8) or 4 (nf4); the branches never are. null: as low_resource says."""

    frozen_llama: bool = True
    """Do not train the decoder's own weights. false: all of them, kept in fp32."""

    lora: LoRAConfig | None = None
    """Train low-rank adapters in the decoder, besides the branches. null: none."""

    frozen_llama_proj: bool = False
    """Do not train the linear layer to the decoder."""

    frozen_video_Qformer: bool = False
    """Do not train the video Q-Former, its queries and the frame positions."""

    fusion_header_type: Literal["seqTransf"] = "seqTransf"
    """How frames are fused: by the video Q-Former."""

    fusion_head_layers: Annotated[int, Ge(1)] = 2
    """Layers of the video Q-Former."""

    max_frame_pos: Annotated[int, Ge(1)] = 32
    """Longest clip, in frames."""

    num_video_query_token: Annotated[int, Ge(1)] = 32
    """V: tokens that a clip or an image takes in the decoder's sequence."""

    equip_audio_branch: bool = False
    """Build the audio-language branch."""

    audio_encoder: Annotated[Any, Registered(AUDIO_ENCODERS, key="name")] | None = None
    """Encoder of segments of sound, by registered name or with its settings. null: imagebind_huge."""

    imagebind_ckpt_path: Annotated[str, WeightsSource(only_with="equip_audio_branch", unless="features")] | None = None
    """Weights of ImageBind: the file, or the folder that holds imagebind_huge.pth. null: imagebind_huge, at full size."""

    audio_precision: Precision = "auto"
    """Number format of ImageBind. auto: fp16 on a GPU, fp32 on a CPU. Other audio encoders are in fp32."""

    audio_source: Literal["frames", "sound", "both"] | None = None
    """Input of the audio branch in training. frames: those of the clip or image, through ImageBind's vision trunk, as in the
    original; both: for each sample one of the two, drawn at random. null: frames, as published YAMLs mean it, or sound if
    the encoder takes no frames. Inference uses sound."""

    audio_segments: Annotated[int, Ge(1)] = 8
    """S: segments of 2 s that are read from an audio track."""

    audio_channels: Channels = "mix"
    """What is used of a track of several channels: their mean, or the first alone, as in the original."""

    audio_max_lost: Annotated[float, Interval(ge=0, le=1)] = MAX_LOST
    """Largest fraction of a track that may be damaged or missing; what is lost is reported. 0: none."""

    max_audio_pos: Annotated[int, Ge(1)] = 8
    """Longest sound, in segments; or longest clip, in frames, if the audio branch takes frames."""

    interpolate_audio_pos: bool = False
    """Stretch the position table over sounds of more than max_audio_pos segments, instead of refusing them."""

    audio_scale: Annotated[float, Ge(0.01)] | None = None
    """Norm that the audio encoder's vectors of sound are scaled to. null: unchanged. ImageBind's have norm 20 for sound and 1
    for frames; the released branches are trained on frames and used with sound."""

    num_audio_query_token: Annotated[int, Ge(1)] = 8
    """A: tokens that a sound takes in the decoder's sequence."""

    frozen_audio_Qformer: bool = True
    """Do not train the audio branch: its Q-Former, queries, segment positions and linear layer."""

    prompt_path: Annotated[str, ExistingPath(kind="file")] | None = None
    """File of caption prompts, one per line, each with <ImageHere>; one is drawn for each caption. null: no prompt."""

    prompt_template: str | None = None
    """Text around a caption prompt, with {} for the prompt. null: the template's own."""

    end_sym: str | None = None
    """Text that ends a caption. null: the template's own."""

    label_mask: Literal["answers", "original"] = "answers"
    """Tokens of instruction data with loss. answers: answers and their end symbols; original: also some template words."""

    max_txt_len: Annotated[int, Ge(1)] = 32
    """Longest caption, in tokens; longer ones are truncated."""

    max_instruct_len: Annotated[int, Ge(1)] = 512
    """Longest instruction sample, in tokens; longer ones are truncated."""

    llama_proj_model: Annotated[str, WeightsSource(kind="file")] | None = None
    """MiniGPT-4's linear layer, to initialise the branch's."""

    ckpt: Annotated[str, WeightsSource(kind="file")] | None = None
    """Trained weights of the branch, such as an earlier stage's; or a released file, such as video_llama/finetune-vicuna7b-v2."""

    ckpt_2: Annotated[str, WeightsSource(kind="file")] | None = None
    """More trained weights, loaded over ckpt's."""

    ckpt_ema: Annotated[bool, Operational()] = False
    """Read the moving average of the weights (run.ema) from ckpt, not the last ones."""

    ckpt_2_ema: Annotated[bool, Operational()] = False
    """The same for ckpt_2."""

    @property
    def template(self) -> Template | None:
        """The conversation template that ``model_type`` names. None: the chat template of the decoder's tokenizer."""
        return MODEL_TYPES.get(self.model_type)

    @cached_property
    def decoder_folder(self) -> DecoderFolder:
        """The folder that ``llama_model`` names: one object for all who use this config, so that it is read once."""
        from video_llama.models.decoder.folder import DecoderFolder  # imports torch

        return DecoderFolder(local_path(self.llama_model, "model.llama_model"), key="model.llama_model")

    @cached_property
    def stored_features(self) -> FeatureShards | None:
        """The store that ``features`` names, opened once for all who use this config."""
        if self.features is None:
            return None
        from video_llama.processors.feature_shards import FeatureShards  # imports torch

        return FeatureShards(self.features)

    @property
    def recomputation(self) -> Recomputation | None:
        """How activations are recomputed in the backward pass; None: they are kept."""
        return "full" if self.use_grad_checkpoint is True else self.use_grad_checkpoint or None

    @property
    def audio_encoder_config(self) -> Any:
        """The Config of the audio encoder; ImageBind-Huge's if none is named."""
        return ImageBindConfig() if self.audio_encoder is None else self.audio_encoder

    @property
    def tokens_per_slot(self) -> dict[MediaKind, int]:
        """Tokens that an item of each kind takes in the decoder's sequence."""
        slots: dict[MediaKind, int] = {"image": self.num_video_query_token, "video": self.num_video_query_token}
        if self.equip_audio_branch:
            slots |= {"audio": self.num_audio_query_token, "audio_frames": self.num_audio_query_token}
        return slots

    @property
    def modalities(self) -> Modalities:
        """What a training sample takes from a file: the inputs of the trained branches.

        If only the audio branch is trained, the model has no frame encoder, no image Q-Former and no video branch.
        """
        trains_audio = self.equip_audio_branch and not self.frozen_audio_Qformer
        video = not (self.frozen_video_Qformer and self.frozen_llama_proj and trains_audio)
        default: AudioInput = "frames" if self.audio_encoder_config.takes_frames else "sound"
        return Modalities(video=video, audio_source=(self.audio_source or default) if trains_audio else None)

    def is_trained(self, name: str) -> bool:
        """Return whether a parameter, or all parameters of a submodule, are trained.

        A frozen decoder trains its adapters alone. What a subclass adds to the model is trained.

        Args:
            name: dotted name in the model, such as ``video_branch.qformer``.
        """
        if name.split(".")[0] == "decoder":
            return not self.frozen_llama or any(part in LORA_WEIGHTS for part in name.split("."))
        return not any(f"{name}.".startswith(f"{part}.") for part in self._frozen_parts())

    def _frozen_parts(self) -> tuple[str, ...]:
        """Return the submodules that are not trained, apart from the decoder."""
        frozen = {
            "vision": self.freeze_vit,
            "qformer": self.freeze_qformer,
            "video_branch.qformer": self.frozen_video_Qformer,
            "video_branch.frame_position": self.frozen_video_Qformer,
            "video_branch.to_decoder": self.frozen_llama_proj,
            "audio_encoder": True,
            "audio_branch": self.frozen_audio_Qformer,
        }
        return tuple(part for part, is_frozen in frozen.items() if is_frozen)

    def for_inference(self) -> VideoLLaMAConfig:
        """Return the config of the same model in use: nothing is trained, so no part may start at random.

        Encoders that were trained may be in ``ckpt``, so they need no file of their own here.

        Raises:
            ConfigError: a setting that inference needs is missing.
        """
        if self.ckpt is None:
            raise ConfigError(["model.ckpt is not set: the branch would answer at random"])
        checked = self.checked_in_use()
        if problems := [*checked.check(), *checked.check_files()]:  # training may leave out what inference needs
            raise ConfigError([f"for inference, model.{key}: {message}" for key, message in problems])
        return self.frozen()

    def checked_in_use(self) -> VideoLLaMAConfig:
        """Return the config whose contradictions are those of use: parts that were trained need no file of their own."""
        trained = {
            name: getattr(self, name) for name in ("freeze_vit", "freeze_qformer", "frozen_llama", "drop_path_rate")
        }
        return replace(self.frozen(), **trained)

    def frozen(self) -> VideoLLaMAConfig:
        """Return the config of the same model with nothing trained, and sound as the input of the audio branch."""
        return replace(
            self,
            features=None,
            frozen_video_Qformer=True,
            frozen_llama_proj=True,
            frozen_audio_Qformer=True,
            audio_source="sound",
            freeze_vit=True,
            freeze_qformer=True,
            frozen_llama=True,
            drop_path_rate=0.0,
        )

    @property
    def trains_nothing(self) -> bool:
        """Whether all encoders and branches are frozen, as for inference."""
        parts = ("vision", "qformer", "video_branch.qformer", "video_branch.to_decoder", "audio_branch")
        return not any(map(self.is_trained, parts))

    @property
    def audio_inputs(self) -> tuple[AudioInput, ...]:
        """Inputs of the audio encoder: those of ``audio_source`` in training, sound in use."""
        source = self.modalities.audio_source or "sound"
        return ("sound", "frames") if source == "both" else (source,)

    @property
    def decoder_quantization(self) -> Quantization | None:
        """How the decoder is loaded; ``low_resource`` and ``quantization`` both set it."""
        return "int8" if self.low_resource else self.quantization

    def shared_settings(self) -> dict[str, Any]:
        """Return settings that data sets may repeat or must respect, by their key in the data sets' sections."""
        modalities = self.modalities
        shared = {
            # the original's data sets give the number of audio queries here if only the audio branch is trained
            "num_video_query_token": self.num_video_query_token if modalities.video else self.num_audio_query_token,
            "tokenizer_name": self.llama_model,
            "model_type": self.model_type.removeprefix("pretrain_"),
            "image_size": self.image_size,
            "takes_system": self.template is None or "{system}" in self.template.chat.first,
        }
        if modalities.video:
            shared["max_frame_pos"] = self.max_frame_pos
        if modalities.audio_source in ("frames", "both") and not self.interpolate_audio_pos:
            shared["max_audio_pos"] = self.max_audio_pos
        return shared

    def notes(self, trains: bool) -> Iterable[tuple[str, str]]:
        """Yield (key, message) for each setting without effect, and for a default that may not be what is meant.

        Args:
            trains: whether the file is for training, and not for use alone.
        """
        yield from idle_settings(self, trains)
        if trains and self.audio_source is None and self.modalities.audio_source == "frames":
            yield "audio_source", "not set: the audio branch trains on frames, as in the original. Others: sound, both"

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield the settings that contradict each other, and frozen parts without weights."""
        yield from contradictions(self)

    def check_files(self) -> Iterable[tuple[str, str]]:
        """Yield the weights that are used where a key is left out, and are not on this machine."""
        yield from missing_defaults(self)

    def check_training(self) -> Iterable[tuple[str, str]]:
        """Yield contradictions that matter in training alone: those of ``model_type`` and the text of samples."""
        template = self.template
        if self.end_sym is not None and template is None:
            yield "end_sym", f"{self.end_sym!r}, but model_type auto takes it from the tokenizer. Leave end_sym out."
        elif self.end_sym is not None and template is not None and self.end_sym != template.end_sym:
            yield (
                "end_sym",
                f"{self.end_sym!r} contradicts model_type {self.model_type}, whose answers end with "
                f"{template.end_sym!r}. Leave end_sym out, or change model_type.",
            )
        if self.label_mask == "original" and template not in ORIGINAL_TEMPLATES:
            yield "label_mask", f"original, but the original had no template {self.model_type}. Leave label_mask out."
