"""The whole model: frozen encoders, the trainable vision-language branch, the frozen decoder (Video-LLaMA, figure 1).

Shapes: B samples, L tokens, N media items, T frames, Q image queries, V video queries, D Q-Former width,
H decoder width.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from video_llama.checkpoints.compare import fill
from video_llama.common.errors import VideoLlamaError
from video_llama.common.modalities import MediaKind
from video_llama.common.part_times import backward_part, part
from video_llama.common.protocols import FrameEncoder
from video_llama.common.registry import MODELS
from video_llama.common.sharded_tensors import is_sharded
from video_llama.common.types import Batch, MediaGroup, ModelOutput
from video_llama.models.audio_branch import AudioBranch
from video_llama.models.compilation import compile_blocks
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.config import Recomputation
from video_llama.models.decoder.embedding_alone import for_prompts
from video_llama.models.decoder.language_model import LanguageModel
from video_llama.models.decoder.lora import adapters_alone
from video_llama.models.decoder.lora_merge import merge_lora
from video_llama.models.decoder.trained_decoder import export_decoder
from video_llama.models.encoder_keys import encoder_keys
from video_llama.models.encoders.factory import audio_processor, build_audio_encoder
from video_llama.models.encoders.imagebind import ImageBind
from video_llama.models.encoders.vision import VisionEncoder
from video_llama.models.freezing import is_trainable, keep_frozen_in_eval
from video_llama.models.part_formats import part_formats
from video_llama.models.precision import NumberFormat, no_autocast
from video_llama.models.prompting import caption_prompts, choose_template
from video_llama.models.qformer import QFormer
from video_llama.models.sharding import Sharding, check_sharding
from video_llama.models.splice import splice
from video_llama.models.stored_encoders import audio_width, check_stored_encoders, stored_fingerprint
from video_llama.models.trained_state import fill_trained, trained_tensors
from video_llama.models.training_flops import TrainingFlops
from video_llama.models.video_branch import VideoBranch
from video_llama.models.weights.fit import decoder_fit, fit
from video_llama.models.weights.loading import DECODER, WeightsFile, all_in, check_weights_files, read_weights_files
from video_llama.models.weights.unfilled import drop_values, leave_out, parameters_without_values
from video_llama.processors.feature_source import FeatureSource
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
    for_prompts = classmethod(for_prompts)
    merge_lora = classmethod(merge_lora)
    export_decoder = staticmethod(export_decoder)

    def __init__(self, config: VideoLLaMAConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder_folder.width
        store = config.stored_features
        if config.modalities.video:
            if store is None:
                self.vision, self.qformer = _frame_encoders(config)
            else:
                leave_out(lambda: _frame_encoders(config))
            self.video_branch = VideoBranch(
                config.num_video_query_token, config.max_frame_pos, config.fusion_head_layers, width, config.qformer
            )
        if config.equip_audio_branch:
            if store is None:
                self.audio_encoder = build_audio_encoder(config)
            else:
                leave_out(lambda: build_audio_encoder(config))
            self.audio_branch = AudioBranch(
                config.num_audio_query_token,
                config.max_audio_pos,
                config.interpolate_audio_pos,
                self.audio_encoder.width if store is None else audio_width(store, config),
                width,
                config.qformer,
            )

    @classmethod
    def from_config(
        cls, config: VideoLLaMAConfig, device: torch.device | str = "cpu", sharding: Sharding | None = None
    ) -> VideoLLaMA:
        """Build the model, load the weights that the config names, and freeze what it does not train.

        Weights that do not fit are refused before the decoder, the largest file, is read. Frozen parts stay mapped to their
        files where they can: on a CPU, in the number format of the file.

        Args:
            config: sizes and files.
            device: where the model will be.
            sharding: the parts that all processes of a run share; each must build the model. None: it is whole here.
        Raises:
            ConfigError: the decoder lacks the layers that ``lora`` asks for, or a part cannot be sharded.
            WeightsError: a file does not fit, or the decoder's folder is not whole or cannot be sharded.
        """
        check_sharding(config, sharding)
        model, files, formats = cls._unfilled(config, torch.device(device))
        model.load_decoder(formats["llama_precision"].stored, sharding)
        model._fill(files, formats)
        if sharding is not None and "vision" in sharding.parts:
            sharding.shard(model.vision, model.vision.blocks)
        if formats["llama_precision"].widens:
            model.decoder.compute_in_float32()
        if config.compile is not None:
            model.compile_parts(with_decoder=config.compile == "all")
        if config.recomputation is not None:
            model.recompute_activations(config.recomputation)
        return model.to(device)

    @classmethod
    def without_decoder(cls, config: VideoLLaMAConfig, device: torch.device | str = "cpu") -> VideoLLaMA:
        """Build the model for ``encode_frozen`` alone; see ``from_config``."""
        model, files, formats = cls._unfilled(config, torch.device(device))
        own = [{n: t for n, t in file.tensors.items() if not n.startswith(DECODER)} for file in files]
        model._fill([replace(file, tensors=tensors) for file, tensors in zip(files, own, strict=True)], formats)
        return model.to(device)

    @classmethod
    def _unfilled(
        cls, config: VideoLLaMAConfig, device: torch.device
    ) -> tuple[VideoLLaMA, list[WeightsFile], dict[str, NumberFormat]]:
        """Build the model without its decoder, and return it with the files to fill it from, and its number formats."""
        if config.stored_features is not None:
            check_stored_encoders(config.stored_features.folder, config.stored_features.manifest.encoders, config)
        files = read_weights_files(config)
        skeleton = cls.skeleton(config)
        check_weights_files(files, skeleton, config)
        config.decoder_folder.check()
        formats = part_formats(config, files, device)
        with parameters_without_values() if all_in(files, skeleton) else contextlib.nullcontext():
            model = cls(config)
        drop_values(model, {name for file in files for name in file.tensors})
        return model, files, formats

    def _fill(self, files: Sequence[WeightsFile], formats: Mapping[str, NumberFormat]) -> None:
        self.freeze()
        if "vit_precision" in formats:
            self.vision.set_precision(*formats["vit_precision"])
        if "audio_precision" in formats:
            cast("ImageBind", self.audio_encoder).set_precision(*formats["audio_precision"])
        self.load_weights(files)

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

    def load_decoder(self, dtype: torch.dtype, sharding: Sharding | None = None) -> None:
        """Load the decoder, with its weights in a number format; sharded, if that is among the parts of ``sharding``.

        Raises:
            WeightsError: its folder is not a complete model, or it takes embeddings of another width than its config says.
        """
        config, folder = self.config, self.config.decoder_folder
        own = sharding if sharding is not None and "decoder" in sharding.parts else None
        trained = not config.frozen_llama
        self.decoder = LanguageModel(folder, dtype, config.decoder_quantization, config.lora, own, trained=trained)
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

    def compile_parts(self, *, with_decoder: bool) -> None:
        """Compile the blocks of the encoders, and on request the decoder's layers, for sequences of any length."""
        for name in ("vision", "qformer", "audio_encoder"):
            if hasattr(self, name):
                compile_blocks(getattr(self, name))
        if with_decoder:
            compile_blocks(self.decoder.lm, dynamic=True)

    def recompute_activations(self, how: Recomputation) -> None:
        """Trade time for memory: recompute activations in the backward pass, of the decoder and of a trained ViT.

        Args:
            how: selective keeps the outputs of the decoder's matrix products and attention; a trained ViT recomputes all.
        """
        self.decoder.recompute_activations(how)
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
            VideoLlamaError: there is a group for a branch, or an encoder, that the model does not have.
        """
        raw = [group for group in media if not group.encoded]
        if raw and self.config.features is not None:
            raise VideoLlamaError("model.features: the model has no encoders, and only takes what is stored")
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

    @property
    def stored_features(self) -> FeatureSource | None:
        """The features that take the place of the frozen encoders; None: the model has these."""
        return self.config.stored_features

    @property
    def stored_fingerprint(self) -> dict[str, str]:
        """The ``frozen_fingerprint`` of the encoders whose output is stored."""
        store = self.config.stored_features
        return {} if store is None else stored_fingerprint(store, self.config)

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
            if self.config.modalities.video and self.config.features is None and is_sharded(self.vision):
                self._keep_pace()
            return iter(())
        trained = torch.is_grad_enabled() and (is_trainable(self.vision) or is_trainable(self.qformer))
        with contextlib.nullcontext() if trained else torch.no_grad(), no_autocast(groups[0].data):
            frames = torch.cat([rearrange(group.data, "n c t h w -> (n t) c h w") for group in groups])
            queries = self.qformer(self.vision(frames))
        parts = queries.split([group.data.shape[0] * group.data.shape[2] for group in groups])
        return iter(
            replace(group, data=rearrange(part, "(n t) q d -> n t q d", t=group.data.shape[2]), encoded=True)
            for group, part in zip(groups, parts, strict=True)
        )

    @torch.no_grad()
    def _keep_pace(self) -> None:
        """Run a sharded frame encoder on a black frame: processes with frames need this one."""
        frame = torch.zeros(1, 3, *[self.config.image_size] * 2, device=self.qformer.query_tokens.device)
        with no_autocast(frame):
            self.vision(frame)

    @torch.no_grad()
    def _encode_audio(self, group: MediaGroup) -> MediaGroup:
        """Run the audio encoder over sound, or over the frames that replace it."""
        with no_autocast(group.data):
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
        if self.decoder.is_sharded and torch.is_grad_enabled() and not embeds.requires_grad:
            embeds.requires_grad_()  # a batch of text: other processes need this one in their backward pass
        with self._decoder_autocast(embeds), part("decoder"):
            loss_sum, sample_losses = self.decoder.target_loss(embeds, batch.attention_mask, batch.labels)
        backward_part("decoder", loss_sum, embeds)
        return ModelOutput(loss_sum, batch.n_target_tokens, sample_losses)

    def _decoder_autocast(self, embeds: Tensor) -> AbstractContextManager[object]:
        return no_autocast(embeds) if self.config.frozen_llama else contextlib.nullcontext()

    def training_flops(self, batch: Batch) -> float | None:
        """Return the FLOPs of a training step's forward and backward; None for parts whose formula is not known."""
        return self._training_flops(batch)

    @cached_property
    def _training_flops(self) -> TrainingFlops:
        return TrainingFlops(self)

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the trained tensors by name; with adapters, also their alpha. They are the model's own, not copies."""
        return {name: t.detach() for name, t in trained_tensors(self).items()}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Fill the trained tensors.

        Raises:
            WeightsError: a name, a shape or the alpha of the adapters does not match.
        """
        fill_trained(self, state)


def _frame_encoders(config: VideoLLaMAConfig) -> tuple[VisionEncoder, QFormer]:
    vision = VisionEncoder(config.vit_model, config.image_size, config.vit_args, config.drop_path_rate)
    return vision, QFormer(config.num_query_token, vision.num_features, config.qformer)
