"""The whole model: frozen encoders, the trainable vision-language branch, the frozen decoder (Video-LLaMA, figure 1).

Shapes: B samples, L tokens, N media items, T frames, Q image queries, V video queries, D Q-Former width,
H decoder width.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from video_llama.checkpoints.compare import fill
from video_llama.common.errors import VideoLlamaError, WeightsError
from video_llama.common.modalities import MediaKind
from video_llama.common.part_times import backward_part, part
from video_llama.common.protocols import FrameEncoder
from video_llama.common.registry import MODELS
from video_llama.common.types import Batch, MediaGroup, ModelOutput
from video_llama.models.audio_branch import AudioBranch
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.config import Precision
from video_llama.models.decoder.language_model import LanguageModel
from video_llama.models.decoder.lora import ALPHA, adapters_alone, alpha_of
from video_llama.models.decoder.lora_merge import merge_lora
from video_llama.models.encoder_keys import encoder_keys
from video_llama.models.encoders.config import ImageBindConfig
from video_llama.models.encoders.factory import audio_processor, build_audio_encoder
from video_llama.models.encoders.imagebind import ImageBind
from video_llama.models.encoders.vision import VisionEncoder
from video_llama.models.freezing import is_trainable, keep_frozen_in_eval
from video_llama.models.precision import NumberFormat, number_formats
from video_llama.models.prompting import caption_prompts, choose_template
from video_llama.models.qformer import QFormer
from video_llama.models.splice import splice
from video_llama.models.training_flops import TrainingFlops
from video_llama.models.video_branch import VideoBranch
from video_llama.models.weights.fit import decoder_fit, fit
from video_llama.models.weights.loading import DECODER, WeightsFile, check_weights_files, read_weights_files
from video_llama.models.weights.unfilled import drop_values, parameters_without_values
from video_llama.prompts.sample_spec import SampleSpec


@MODELS.register("video_llama")
class VideoLLaMA(nn.Module):
    """Frames, sound and text in, next-token loss out; captions and instructions take the same path.

    Build one with ``from_config``. The constructor creates the encoders and the branches with random weights, and no decoder;
    ``skeleton`` runs it on the meta device.

    Args:
        config: sizes and files.
    """

    Config = VideoLLaMAConfig
    fit_file = staticmethod(fit)
    fit_decoder = staticmethod(decoder_fit)
    merge_lora = classmethod(merge_lora)

    def __init__(self, config: VideoLLaMAConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder_folder.width
        if config.modalities.video:
            self.vision = VisionEncoder(config.vit_model, config.image_size, config.vit_args, config.drop_path_rate)
            self.qformer = QFormer(config.num_query_token, self.vision.num_features, config.qformer)
            self.video_branch = VideoBranch(
                config.num_video_query_token, config.max_frame_pos, config.fusion_head_layers, width, config.qformer
            )
        if config.equip_audio_branch:
            self.audio_encoder = build_audio_encoder(config)
            self.audio_branch = AudioBranch(
                config.num_audio_query_token,
                config.max_audio_pos,
                config.interpolate_audio_pos,
                self.audio_encoder.width,
                width,
                config.qformer,
            )

    @classmethod
    def from_config(cls, config: VideoLLaMAConfig, device: torch.device | str = "cpu") -> VideoLLaMA:
        """Build the model, load the weights that the config names, and freeze what it does not train.

        Weights that do not fit are refused before the decoder, the largest file, is read. Frozen parts stay mapped to their
        files where they can: on a CPU, in the number format of the file.

        Args:
            config: sizes and files.
            device: where the model will be.
        Raises:
            ConfigError: the decoder lacks the layers that ``lora`` asks for.
            WeightsError: a file does not fit, or the decoder's folder is not whole.
        """
        files = read_weights_files(config)
        skeleton = cls.skeleton(config)
        check_weights_files(files, skeleton, config)
        config.decoder_folder.check()
        formats = _number_formats(config, files, torch.device(device))
        with parameters_without_values() if _all_in(files, skeleton) else contextlib.nullcontext():
            model = cls(config)
        drop_values(model, {name for file in files for name in file.tensors})
        model.load_decoder(formats["llama_precision"].stored)
        model.freeze()
        if config.modalities.video:
            model.vision.set_precision(*formats["vit_precision"])
        if "audio_precision" in formats:
            cast("ImageBind", model.audio_encoder).set_precision(*formats["audio_precision"])
        model.load_weights(files)
        if formats["llama_precision"].widens:
            model.decoder.compute_in_float32()
        if config.use_grad_checkpoint:
            model.recompute_activations()
        return model.to(device)

    @classmethod
    def skeleton(cls, config: VideoLLaMAConfig) -> VideoLLaMA:
        """Build names and shapes on the meta device, without the decoder except for its adapters.

        Raises:
            ConfigError: the decoder lacks the layers that ``lora`` asks for.
            WeightsError: the decoder's ``config.json`` is not readable.
        """
        with torch.device("meta"):
            model = cls(config)
        if config.lora is not None:
            decoder = copy.deepcopy(config.decoder_folder.skeleton)
            model.add_module("decoder", adapters_alone(decoder, config.lora))
        model.freeze()
        return model

    @staticmethod
    def sample_spec(config: VideoLLaMAConfig) -> SampleSpec:
        """Derive what data sets need from the model section, without building the model.

        Raises:
            ConfigError: the conversation template does not fit the decoder's tokenizer, or there is no caption prompt.
            WeightsError: the decoder's folder is not whole, or its tokenizer belongs to another model.
        """
        folder = config.decoder_folder
        folder.check()
        tokenizer = folder.tokenizer()
        tokenizer.literal_special_tokens = config.literal_special_tokens
        template = choose_template(config, tokenizer)
        return SampleSpec(
            tokenizer=tokenizer,
            template=template,
            tokens_per_slot=config.tokens_per_slot,
            max_txt_len=config.max_txt_len,
            max_instruct_len=config.max_instruct_len,
            max_context=folder.max_context,
            caption_prompts=caption_prompts(config, template),
            label_mask=config.label_mask,
            modalities=config.modalities,
            audio_processor=audio_processor(config),
            shared_settings=config.shared_settings(),
        )

    def load_decoder(self, dtype: torch.dtype) -> None:
        """Load the decoder, with its weights in a number format.

        Raises:
            WeightsError: its folder is not a complete model, or it takes embeddings of another width than its config says.
        """
        config, folder = self.config, self.config.decoder_folder
        self.decoder = LanguageModel(folder, dtype, config.decoder_quantization, config.lora)
        if self.decoder.width != folder.width:
            raise folder.error(
                f"{folder.path} takes embeddings of width {self.decoder.width}, but its config.json says {folder.width}. "
                "Decoders of this kind are not supported."
            )

    def load_weights(self, files: Sequence[WeightsFile]) -> None:
        """Fill the model; later files overwrite earlier ones.

        Raises:
            WeightsError: a file does not fit.
        """
        for file in files:
            fill(self, file.tensors, file.source)

    def freeze(self) -> None:
        """Stop training the parameters that ``config.is_trained`` excludes."""
        for name, p in self.named_parameters():
            if not self.config.is_trained(name):
                p.requires_grad_(False)
        self.train(self.training)

    def recompute_activations(self) -> None:
        """Trade time for memory: recompute activations in the backward pass, of all that gradients go through."""
        self.decoder.recompute_activations()
        if self.config.modalities.video and not self.config.freeze_vit:
            self.vision.vit.set_grad_checkpointing(True)

    def train(self, mode: bool = True) -> VideoLLaMA:
        """Set the mode; frozen modules stay in eval mode."""
        super().train(mode)
        keep_frozen_in_eval(self)
        return self

    def encode_frozen(self, media: Sequence[MediaGroup]) -> tuple[MediaGroup, ...]:
        """Run the frozen encoders over all media at once: those of frames, and that of sound.

        Args:
            media: raw groups; groups that are already encoded pass through unchanged.
        Returns:
            The groups with float[N, T, Q, D] features, or float[N, S, E] for the audio branch.
        Raises:
            TooManyFrames, TooManySegments: a clip or a sound is longer than its branch takes; nothing was computed.
            VideoLlamaError: there is a group for a branch that the model does not have.
        """
        raw = [group for group in media if not group.encoded]
        for group in raw:
            self._branch(group.kind).check_length(group.data.shape[1 if group.kind == "audio" else 2])
        with part("encoder"):
            visual = self._encode_frames([group for group in raw if group.kind in ("image", "video")])
            audio = iter([self._encode_audio(group) for group in raw if group.kind in ("audio", "audio_frames")])
        return tuple(
            group if group.encoded else next(visual if group.kind in ("image", "video") else audio) for group in media
        )

    def encoder_keys(self) -> dict[MediaKind, str]:
        """Return a digest of the frozen encoders of each kind of media, for a ``FeatureStore``; kinds with a trained one are left out."""
        return encoder_keys(self)

    def _branch(self, kind: MediaKind) -> VideoBranch | AudioBranch:
        """Return the branch for media of a kind, or raise VideoLlamaError."""
        if kind in ("image", "video"):
            if not self.config.modalities.video:
                raise VideoLlamaError(
                    "the model has no video branch: the audio branch alone is trained. Set "
                    "model.frozen_video_Qformer: false to train both, or model.frozen_audio_Qformer: true to train neither."
                )
            return self.video_branch
        if not self.config.equip_audio_branch:
            raise VideoLlamaError("the model has no audio branch. Set model.equip_audio_branch: true.")
        return self.audio_branch

    def _encode_frames(self, groups: Sequence[MediaGroup]) -> Iterator[MediaGroup]:
        """Run the image encoder and the image Q-Former over all frames at once."""
        if not groups:
            return iter(())
        trained = torch.is_grad_enabled() and (is_trainable(self.vision) or is_trainable(self.qformer))
        with contextlib.nullcontext() if trained else torch.no_grad(), _no_autocast(groups[0].data):
            frames = torch.cat([rearrange(group.data, "n c t h w -> (n t) c h w") for group in groups])
            queries = self.qformer(self.vision(frames))
        parts = queries.split([group.data.shape[0] * group.data.shape[2] for group in groups])
        return iter(
            replace(group, data=rearrange(part, "(n t) q d -> n t q d", t=group.data.shape[2]), encoded=True)
            for group, part in zip(groups, parts, strict=True)
        )

    @torch.no_grad()
    def _encode_audio(self, group: MediaGroup) -> MediaGroup:
        """Run the audio encoder over sound, or over the frames that replace it."""
        with _no_autocast(group.data):
            if group.kind == "audio_frames":
                # the config's check refuses frames for any other encoder
                vectors = cast("FrameEncoder", self.audio_encoder).encode_frames(group.data)
            else:
                vectors = self.audio_encoder.encode_audio(group.data)
                if self.config.audio_scale is not None:
                    vectors = F.normalize(vectors, dim=-1) * self.config.audio_scale
        return replace(group, data=vectors, encoded=True)

    def embed_prompt(self, input_ids: Tensor, media: Sequence[MediaGroup]) -> Tensor:
        """Return float[B, L, H]: token embeddings with the media in their slots."""
        embeds = self.decoder.embed(input_ids)
        for group in self.encode_frozen(media):
            embeds = splice(embeds, input_ids, self._branch(group.kind)(group.data), group.rows, group.slots)
        return embeds

    def forward(self, batch: Batch) -> ModelOutput:
        """Sum the loss over a batch's target tokens (Video-LLaMA, section 2.2)."""
        embeds = self.embed_prompt(batch.input_ids, batch.media)
        with _no_autocast(embeds), part("decoder"):
            loss_sum, sample_losses = self.decoder.target_loss(embeds, batch.attention_mask, batch.labels)
        backward_part("decoder", loss_sum, embeds)
        return ModelOutput(loss_sum, batch.n_target_tokens, sample_losses)

    def training_flops(self, batch: Batch) -> float | None:
        """Return the FLOPs of a training step's forward and backward; None for parts whose formula is not known."""
        return self._training_flops(batch)

    @cached_property
    def _training_flops(self) -> TrainingFlops:
        return TrainingFlops(self)

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the trained tensors by name; with adapters, also their alpha. They are the model's own, not copies."""
        return {name: t.detach() for name, t in self._trained().items()}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Fill the trained tensors.

        Raises:
            WeightsError: a name, a shape or the alpha of the adapters does not match.
        """
        own = self._trained()
        if own.keys() != state.keys():
            missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
            raise WeightsError(f"trainable tensors differ: missing {missing[:3]}, not of this model {extra[:3]}")
        for name, p in own.items():
            if p.shape != state[name].shape:
                raise WeightsError(f"{name}: shape {tuple(state[name].shape)}, expected {tuple(p.shape)}")
        if alpha_of(state) != alpha_of(own):
            raise WeightsError(f"the adapters have lora.alpha {alpha_of(state)}; this model has {alpha_of(own)}")
        with torch.no_grad():
            for name, p in own.items():
                p.copy_(state[name])

    def _trained(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint holds, by name."""
        alpha = {name: buffer for name, buffer in self.named_buffers() if name.endswith(ALPHA)}
        return {name: p for name, p in self.named_parameters() if p.requires_grad} | alpha


def _number_formats(
    config: VideoLLaMAConfig, files: Sequence[WeightsFile], device: torch.device
) -> dict[str, NumberFormat]:
    """Choose the number formats of the frame encoder and of ImageBind, if there are any, and of the decoder."""
    asked: dict[str, Precision] = {"llama_precision": config.llama_precision}
    in_files = {"llama_precision": config.decoder_folder.number_format}
    if config.modalities.video:
        asked["vit_precision"] = config.vit_precision if config.freeze_vit else "fp32"
        of_vit = [t.dtype for file in files for name, t in file.tensors.items() if name.startswith("vision.vit.")]
        in_files["vit_precision"] = of_vit[-1] if of_vit else torch.float32
    if config.equip_audio_branch and isinstance(config.audio_encoder_config, ImageBindConfig):
        asked["audio_precision"] = config.audio_precision
        in_files["audio_precision"] = torch.float32  # whatever its file is in
    return number_formats(asked, in_files, device, config.strict_precision)


def _all_in(files: Sequence[WeightsFile], skeleton: nn.Module) -> bool:
    """Return whether every parameter has a value in a file; the decoder's are apart."""
    own = {name for name, _ in skeleton.named_parameters() if not name.startswith(DECODER)}
    return own <= {name for file in files for name in file.tensors}


def _no_autocast(like: Tensor) -> torch.autocast:
    """Turn the trainer's autocast off: frozen parts run in their own number format."""
    return torch.autocast(like.device.type, enabled=False)
