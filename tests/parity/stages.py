"""The values of a model stage by stage, and which tokens the decoder attends to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from video_llama.common.modalities import MediaKind
from video_llama.common.types import Sample, slot_id
from video_llama.datasets.collate import collate
from video_llama.models.qformer import QFormer
from video_llama.models.video_llama import VideoLLaMA
from video_llama.prompts.labels import Slot, encode
from video_llama.prompts.tokenizer import load_tokenizer


class Stages(dict[str, Tensor]):
    """Intermediate values, by the reference's names of the stages."""

    def __init__(self) -> None:
        super().__init__()
        self.hooks: list[Any] = []

    def into(self, module: nn.Module, name: str) -> None:
        self.hooks.append(module.register_forward_pre_hook(lambda _, args: self.__setitem__(name, args[0])))

    def out_of(self, module: nn.Module, name: str) -> None:
        self.hooks.append(module.register_forward_hook(lambda _, args, out: self.__setitem__(name, out)))

    def of_qformer(self, qformer: QFormer, name: str) -> None:
        self.into(qformer, f"{name}_encoder_hidden_states")
        self.out_of(qformer.bert.layernorm, f"{name}_embeddings_out")
        for k, layer in enumerate(qformer.bert.encoder.layer):
            self.out_of(layer, f"{name}_layer{k}_out")
        self.out_of(qformer, f"{name}_query_output")
        self.out_of(qformer, f"{name}_out")

    def stop(self) -> None:
        for hook in self.hooks:
            hook.remove()


def attention_to_media(model: VideoLLaMA, kind: MediaKind, n_items: int) -> Tensor:
    """Return int64[N, V]: the attention mask of each item's tokens in our batches."""
    tokenizer = load_tokenizer(model.config.llama_model)
    encoded = encode([Slot(0, kind)], tokenizer, model.config.tokens_per_slot)
    ids = torch.tensor(encoded.input_ids)
    batch = collate([Sample(str(k), ids, torch.tensor(encoded.labels)) for k in range(n_items)], tokenizer.pad_id)
    return batch.attention_mask[batch.input_ids == slot_id(0)].view(n_items, -1)
