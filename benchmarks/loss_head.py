"""The loss after the decoder's last layer: logits at all positions, and at the quarter of them that are targets.

python -m benchmarks.loss_head
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.mid_size import DECODER, TARGETS, TEXT, VOCABULARY
from benchmarks.minima import timed
from benchmarks.rows import Row, time_rows, write
from video_llama.common.types import IGNORE_LABEL
from video_llama.models.decoder.chunked_loss import chunked_losses
from video_llama.models.decoder.output_head import OutputHead

BATCH = 8
ALL, OURS = "logits at all positions", "logits at the targets"


def main() -> None:
    """Measure forward and backward, and compare the results."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    lm = LlamaForCausalLM(DECODER).requires_grad_(False)
    hidden = torch.randn(BATCH, TEXT, DECODER.hidden_size, requires_grad=True)
    labels = torch.randint(VOCABULARY, (BATCH, TEXT))
    labels[:, :-TARGETS] = IGNORE_LABEL
    ways = {
        ALL: partial(all_logits, lm, hidden, labels),
        OURS: partial(targets_alone, OutputHead(lm), hidden, labels),
    }
    (loss, gradient), (our_loss, our_gradient) = (way() for way in ways.values())
    rows = time_rows(timed(ways), ALL, bounds={OURS: ">= 3"})
    difference = float((our_gradient - gradient).abs().max() / gradient.abs().max())
    write(
        "loss_head",
        [
            *rows,
            Row("relative difference of the loss", float((our_loss - loss).abs() / loss), "", bound="<= 0.00001"),
            Row("largest difference of a gradient over the largest gradient", difference, "", bound="<= 0.00001"),
        ],
    )


def all_logits(lm: LlamaForCausalLM, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return loss and gradient as the original computes them; labels are those of the next token already."""
    logits = lm.lm_head(hidden).float().contiguous()
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_LABEL, reduction="sum")
    return loss.detach(), torch.autograd.grad(loss, hidden)[0]


def targets_alone(head: OutputHead, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return loss and gradient as ``LanguageModel.target_loss`` does."""
    positions = (labels != IGNORE_LABEL).flatten().nonzero().squeeze(1)
    chosen = hidden.flatten(0, 1).index_select(0, positions)
    loss = chunked_losses(head, chosen, labels.flatten()[positions]).sum()
    return loss.detach(), torch.autograd.grad(loss, hidden)[0]


if __name__ == "__main__":
    main()
