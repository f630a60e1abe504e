"""What one decoder layer of 7B width holds for the backward pass, in bf16, 512 tokens of one sequence.

python -m benchmarks.saved_activations
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from benchmarks.rows import Row, write
from video_llama.models.decoder.config import Recomputation
from video_llama.models.decoder.recomputation import recompute_layers

WIDTH, TOKENS = 4096, 512
Attention = Literal["sdpa", "eager"]


def main() -> None:
    """Measure the original's path and ours, with and without checkpointing."""
    original = of_layer("eager").bytes_per_token
    rows = [Row("original's path: attention matrices", original / 1024, "KiB per token")]
    ways: dict[str, tuple[Recomputation | None, str]] = {
        "ours": (None, "<= 0.5"),
        "ours, use_grad_checkpoint: selective": ("selective", "<= 0.5"),
        "ours, use_grad_checkpoint: full": ("full", "<= 10"),
    }
    for name, (how, bound) in ways.items():
        held = of_layer("sdpa", how)
        rows.append(Row(name, held.bytes_per_token / 1024, "KiB per token", bound=bound if how == "full" else None))
        if how != "full":
            rows.append(Row(f"{name}, over the original's", held.bytes_per_token / original, "", bound=bound))
    rows.append(Row("copies of frozen weights", of_layer("sdpa").weight_copies, "bytes", bound="<= 0"))
    write("saved_activations", rows)


@dataclass(frozen=True)
class Held:
    """What is in memory between the forward and the backward pass, besides the weights and the output."""

    bytes_per_token: float
    weight_copies: int
    """Bytes of tensors that have as many elements as a weight of a linear layer."""


def of_layer(attention: Attention, how: Recomputation | None = None) -> Held:
    """Run a frozen layer forward on an input that needs a gradient.

    Args:
        attention: transformers' implementation.
        how: activations are recomputed; None: they are kept.
    """
    model = frozen_layer(attention)
    if how is not None:
        recompute_layers(model, how)
    positions = model.rotary_emb(torch.empty(1, dtype=torch.bfloat16), torch.arange(TOKENS)[None])
    mask = None
    if attention == "eager":
        mask = torch.full((TOKENS, TOKENS), torch.finfo(torch.bfloat16).min, dtype=torch.bfloat16).triu(1)[None, None]
    leaf = torch.randn(1, TOKENS, WIDTH, dtype=torch.bfloat16, requires_grad=True)
    layer: Any = model.layers[0]

    def forward() -> Tensor:
        out: Tensor = layer(leaf * 1, attention_mask=mask, position_embeddings=positions)
        return out

    sizes = held_after(forward, [*model.parameters(), *positions, leaf])
    weights = {p.numel() for p in model.parameters() if p.ndim > 1}
    copies = sum(n_bytes for n_bytes, itemsize in sizes if n_bytes // itemsize in weights)
    return Held(sum(n_bytes for n_bytes, _ in sizes) / TOKENS, copies)


def frozen_layer(attention: Attention) -> LlamaModel:
    """Build a LLaMA of one layer, in bf16."""
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=11_008,
        num_attention_heads=32,
        num_hidden_layers=1,
        vocab_size=8,
    )
    config._attn_implementation = attention
    with torch.random.fork_rng(), torch.device("meta"):
        model = LlamaModel(config)
    rotary = type(model.rotary_emb)(config)
    model = model.bfloat16().to_empty(device="cpu").requires_grad_(False)
    for p in model.parameters():
        nn.init.constant_(p, 1 / WIDTH)
    model.rotary_emb = rotary
    return model


def held_after(forward: Callable[[], Tensor], inputs: Iterable[Tensor]) -> list[tuple[int, int]]:
    """Call a function; return bytes, and bytes per element, of what it made that lives on with the graph of its output."""
    known = {t.untyped_storage()._cdata for t in inputs}
    made: dict[int, tuple[StorageWeakRef, int, int]] = {}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for t in tree_leaves(out):
                if isinstance(t, Tensor) and (ref := StorageWeakRef(t.untyped_storage())).cdata not in known:
                    made[ref.cdata] = (ref, t.untyped_storage().nbytes(), t.element_size())
            return out

    with Watch():
        out = forward()
    gc.collect()
    own = out.untyped_storage()._cdata
    return [(size, each) for cdata, (ref, size, each) in made.items() if cdata != own and not ref.expired()]


if __name__ == "__main__":
    main()
