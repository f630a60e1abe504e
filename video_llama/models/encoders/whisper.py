"""Whisper's encoder (Radford et al. 2022), an alternative to ImageBind for sound.

Shapes: N sounds, S segments of 2 s, E width, L samples at 16 kHz, M mel bins, P positions, one for each 20 ms.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from video_llama.checkpoints.hf_folder import WeightsFolder
from video_llama.checkpoints.sources.references import local_path
from video_llama.common.errors import WeightsError
from video_llama.common.modalities import MediaKind
from video_llama.common.registry import AUDIO_ENCODERS
from video_llama.models.encoders.config import WhisperConfig
from video_llama.models.forward_flops import Forward, transformer
from video_llama.processors.audio import SEGMENT_SECONDS
from video_llama.processors.decode import SAMPLE_RATE

WINDOW, STEP = 400, 160
"""Of the spectrogram, in samples; the encoder makes one position of two steps."""
POSITIONS = SEGMENT_SECONDS * SAMPLE_RATE // (2 * STEP)
"""P of a segment; later positions belong to the silence that pads Whisper's input."""


@AUDIO_ENCODERS.register("whisper")
class Whisper(nn.Module):
    """Whisper's encoder, averaged over the positions of each segment. It takes no frames.

    Args:
        config: the folder; the constructor only reads its ``config.json``.
    """

    Config = WhisperConfig
    filters: Tensor

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        sizes = _read_config(config.model)
        self.encoder = WhisperEncoder(sizes)
        self.width = sizes.d_model
        self.n_samples = 2 * STEP * sizes.max_source_positions
        filters = mel_filter_bank(
            num_frequency_bins=1 + WINDOW // 2,
            num_mel_filters=sizes.num_mel_bins,
            min_frequency=0.0,
            max_frequency=SAMPLE_RATE / 2,
            sampling_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("filters", torch.tensor(filters.T, dtype=torch.float32), persistent=False)

    @staticmethod
    def own_weights(config: WhisperConfig) -> dict[str, Tensor]:
        """Read the encoder's tensors, by their names in this module.

        Raises:
            WeightsError: the folder holds no Whisper model, or its weights cannot be read.
        """
        _read_config(config.model)
        path = local_path(config.model, "model.audio_encoder.model")
        try:
            folder = WeightsFolder(path)
            names = {name.removeprefix("model."): name for name in folder.tensors}
            return {own: folder.read(name) for own, name in names.items() if own.startswith("encoder.")}
        except WeightsError as error:
            raise WeightsError(f"model.audio_encoder.model: {error}") from error

    def encode_audio(self, segments: Tensor) -> Tensor:
        """Map segments of sound, float[N, S, L], to float[N, S, E]."""
        features = self.log_mel(rearrange(segments, "n s l -> (n s) l"))
        positions = self.encoder(features).last_hidden_state[:, :POSITIONS]
        return rearrange(positions.mean(1), "(n s) e -> n s e", n=len(segments))

    def forward_flops(self, kind: MediaKind) -> Forward:
        """Return the FLOPs of one segment, which is padded to the encoder's 30 s."""
        encoder, frames = self.encoder, self.n_samples // STEP
        positions = frames // 2
        ends = self.filters.numel() + encoder.conv1.weight.numel() + encoder.conv2.weight.numel() / 2
        return Forward(2.0 * ends * frames) + transformer(encoder.layers, positions, self.width)

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Map waveforms, float[N, L], padded with silence, to Whisper's spectrograms, float[N, M, 2 P].

        transformers' WhisperFeatureExtractor computes the same, but takes and returns arrays on the CPU.
        """
        padded = F.pad(waveforms, (0, self.n_samples - waveforms.shape[1]))
        window = torch.hann_window(WINDOW, device=padded.device)
        power = torch.stft(padded, WINDOW, STEP, window=window, return_complex=True)[..., :-1].abs() ** 2
        mel = (self.filters @ power).clamp(min=1e-10).log10()
        loudest = mel.amax(dim=(1, 2), keepdim=True)
        return (mel.maximum(loudest - 8) + 4) / 4


def _read_config(folder: str) -> Any:
    """Read the config of a Whisper model.

    Raises:
        WeightsError: the folder has none, or that of another model.
    """
    where = f"model.audio_encoder.model: {folder}"
    path = local_path(folder, "model.audio_encoder.model")
    if not (path / "config.json").is_file():
        raise WeightsError(f"{where}: no config.json in this folder; expected a Whisper model in Hugging Face format")
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{where}/config.json is no valid config: {' '.join(str(error).split())}") from error
    if config.model_type != "whisper":
        raise WeightsError(f"{where} is a model of type {config.model_type}; expected Whisper")
    if config.max_source_positions < POSITIONS:
        raise WeightsError(f"{where} takes {config.max_source_positions} positions at once; a segment has {POSITIONS}")
    return config
