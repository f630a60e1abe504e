"""The part of a causal language model after its last layer: the output layer, with the scaling or capping of its family.

Shapes: B sequences, L tokens, N chosen positions, H hidden width, W vocabulary.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput


class OutputHead:
    """The head of a causal language model, to be called apart from the layers below it.

    Families differ in what they do to logits: Gemma 2 caps them, Cohere and Granite scale them. The head is therefore the family's
    own ``forward``, on a model whose layers are replaced by given hidden states.

    Args:
        lm: a causal language model of transformers.
    """

    def __init__(self, lm: Any) -> None:
        self._lm = lm

    @staticmethod
    def is_separate(skeleton: Any) -> bool:
        """Return whether a family's layers are one module that its ``forward`` calls, so that hidden states can replace them.

        Args:
            skeleton: the model on the meta device.
        """
        hidden = torch.empty(1, 1, skeleton.config.get_text_config().hidden_size, device="meta")
        layers = _GivenHidden(_layers(skeleton), hidden)
        try:
            logits = _forward(skeleton, layers)
        except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False  # it is called in another way
        return layers.called and logits.shape[:-1] == (1, 1)

    @property
    def vocabulary(self) -> int:
        """W."""
        return int(self._lm.config.get_text_config().vocab_size)

    @property
    def is_trained(self) -> bool:
        """Whether a parameter of the output layer is."""
        return any(p.requires_grad for p in self._lm.get_output_embeddings().parameters())

    def hidden_at(self, positions: Tensor, **inputs: Any) -> Tensor:
        """Run the layers below the head.

        Args:
            positions: int64[N], in the flattened sequences.
            inputs: of the model, for B sequences of L tokens.
        Returns:
            float[N, H].
        """
        found: list[Tensor] = []

        def take(_: nn.Module, __: Any, out: Any) -> None:
            found.append(out.last_hidden_state.flatten(0, 1).index_select(0, positions))
            out.last_hidden_state = out.last_hidden_state[:, :0]  # the logits of no position

        with _layers(self._lm).register_forward_hook(take):
            self._lm(**inputs)
        return found[0]

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the logits, float[N, W], of hidden states, float[N, H]."""
        return _forward(self._lm, _GivenHidden(_layers(self._lm), hidden[None]))[0]


class _GivenHidden(nn.Module):
    """Stands in for a model's layers: returns given hidden states, whatever its input.

    Args:
        layers: what it replaces; a family may read a setting from it.
        hidden: float[1, N, H].
    """

    def __init__(self, layers: nn.Module, hidden: Tensor) -> None:
        super().__init__()
        self.hidden, self.called = hidden, False
        self.__dict__["_replaced"] = layers  # not as a submodule

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_replaced"], name)

    def forward(self, *_: Any, **__: Any) -> _LayersOutput:
        """Return the hidden states."""
        self.called = True
        return _LayersOutput(last_hidden_state=self.hidden)


@dataclass
class _LayersOutput(ModelOutput):
    """Hidden states alone: caches, attentions and router logits are None under any name."""

    last_hidden_state: Tensor | None = None

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _layers(lm: Any) -> nn.Module:
    layers: nn.Module = getattr(lm, lm.base_model_prefix)
    return layers


def _forward(lm: Any, layers: _GivenHidden) -> Tensor:
    """Return the logits that a model computes with its layers replaced."""
    head = copy.copy(lm)  # shares all parameters
    head._modules = {**lm._modules, lm.base_model_prefix: layers}
    logits: Tensor = type(lm).forward(head, inputs_embeds=layers.hidden, use_cache=False).logits
    return logits
