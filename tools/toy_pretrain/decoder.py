"""Train the toy decoder: a LLaMA that reads the contents of media slots and can be steered by soft tokens.

Two phases. In the first the slots hold the plain embeddings of words; whether sound and frames belong together stays at
chance for some hundred steps and is learned only then, which noise from the first step would prevent. In the second the slots
are disturbed: mixed with one another, blurred by Gaussian noise, scaled. Without the second phase the decoder reads perfectly,
but no branch can learn to write for it (a third of the answers right, whatever the learning rate): its answers depend on exact
embeddings, and the gradient elsewhere does not point to them.

Shapes: B conversations, L tokens, H decoder width, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from tools.toy_pretrain.optim import descend, schedule
from tools.toy_pretrain.text import Example, Said, Slots, example
from tools.toy_pretrain.tokenizer import PIECES, train_tokenizer
from video_llama.toy.language import SOUND_QUESTIONS

CONFIG = LlamaConfig(
    vocab_size=PIECES,
    hidden_size=160,
    intermediate_size=432,
    num_hidden_layers=4,
    num_attention_heads=5,
    max_position_embeddings=512,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)

PROMPT_WEIGHT = 0.02
"""Loss weight of a token that is not part of an answer."""
BATCH = 48


@dataclass(frozen=True)
class Phase:
    """One part of the training."""

    steps: int
    lr: float
    disturbed: float
    """Share of conversations whose slots are perturbed."""


PHASES = (Phase(steps=1600, lr=1.5e-3, disturbed=0.0), Phase(steps=500, lr=8e-4, disturbed=0.8))


@dataclass(frozen=True)
class Tokens:
    """A batch of conversations."""

    ids: Tensor
    """int64[B, L], right-padded with 0."""
    weight: Tensor
    """float[B, L]: loss weight of each token as a target."""
    slot: Tensor
    """int64[B, L]: 1 and 2 in the first and second run of slots, 0 elsewhere."""


class Encoder:
    """Conversations to tokens."""

    def __init__(self, pieces: sentencepiece.SentencePieceProcessor) -> None:
        self.pieces = pieces
        self._cached = lru_cache(maxsize=50_000)(self._encode)

    def _encode(self, segment: tuple[Said, ...]) -> list[tuple[int, float, int]]:
        text, answers, end = "".join(said.text for said in segment), [], 0
        for said in segment:
            start, end = end, end + len(said.text)
            answers += [(start, end)] if said.answer else []
        out = self.pieces.encode(text, return_type="offset_mapping")
        tokens = []
        for i, (start, end) in zip(out["ids"], out["offsets"], strict=True):
            answered = any(a <= start and end <= b for a, b in answers)
            tokens.append((i, 1.0 if answered else PROMPT_WEIGHT, 0))
        return tokens

    def encode(self, parts: Example) -> list[tuple[int, float, int]]:
        """Return id, loss weight and run of slots for each token."""
        tokens, run = [(1, 0.0, 0)], 0
        for part in parts:
            if isinstance(part, Slots):
                run += 1
                tokens += [(self.pieces.encode(word)[0], 0.0, run) for word in part.words]
            else:
                tokens += self._cached(tuple(part))
        return tokens

    def batches(self, seed: int, size: int = BATCH, pool: int = 16) -> Iterator[Tokens]:
        """Yield batches of conversations of similar length."""
        rng = random.Random(seed)
        while True:
            rows = sorted((self.encode(example(rng)) for _ in range(size * pool)), key=len)
            groups = [rows[i : i + size] for i in range(0, len(rows), size)]
            rng.shuffle(groups)
            yield from map(collate, groups)


def collate(rows: list[list[tuple[int, float, int]]]) -> Tokens:
    """Pad conversations to one length."""
    length = max(map(len, rows))
    padded = [[*row, *[(0, 0.0, 0)] * (length - len(row))] for row in rows]
    ids, weight, slot = (torch.tensor([[token[k] for token in row] for row in padded]) for k in range(3))
    return Tokens(ids, weight, slot)


def disturb(embedded: Tensor, slot: Tensor, share: float, spread: float) -> Tensor:
    """Mix, blur and scale the contents of the slots, by a different amount in each conversation and run.

    Args:
        embedded: float[B, L, H].
        slot: int64[B, L], the run of slots of each position, 0 outside.
        share: the share of conversations to disturb.
        spread: standard deviation of the embedding table.
    """
    chosen = torch.rand(len(slot), 1) < share
    for run in (1, 2):
        here = (slot == run) & chosen
        if not here.any():
            continue
        neighbours = torch.multinomial((slot == run).float() + 1e-9, slot.shape[1], replacement=True)
        other = embedded.gather(1, neighbours[..., None].expand_as(embedded))
        blend = 0.5 * torch.rand(len(slot), 1, 1) * torch.rand(*slot.shape, 1)
        noise = torch.randn_like(embedded) * spread * torch.rand(len(slot), 1, 1)
        scale = torch.exp(torch.empty(len(slot), 1, 1).uniform_(-0.7, 2.3))
        embedded = torch.where(here[..., None], (torch.lerp(embedded, other, blend) + noise) * scale, embedded)
    return embedded


def _table(model: LlamaForCausalLM) -> nn.Embedding:
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    return table


def loss_of(model: LlamaForCausalLM, tokens: Tokens, disturbed: float = 0.0) -> Tensor:
    """Return the weighted cross-entropy of a batch."""
    table = _table(model)
    embedded = table(tokens.ids)
    if disturbed:
        embedded = disturb(embedded, tokens.slot, disturbed, table.weight.detach().std().item())
    logits = model(inputs_embeds=embedded).logits[:, :-1]  # right padding needs no mask: no target attends to it
    each = F.cross_entropy(logits.float().transpose(1, 2), tokens.ids[:, 1:], reduction="none")
    weight = tokens.weight[:, 1:]
    return (each * weight).sum() / weight.sum()


@torch.no_grad()
def measure(model: LlamaForCausalLM, encoder: Encoder, disturbed: float = 0.0, n: int = 384) -> dict[str, float]:
    """Return the share of new conversations whose answers are all right: match questions, and the others.

    Captions are left out, because their wording is random, and so are empty media.
    """
    rng, table = random.Random(99), _table(model)
    drawn = [
        parts for parts in (example(rng) for _ in range(n)) if Slots(()) not in parts and "<Image>" not in str(parts)
    ]
    right: dict[str, list[bool]] = {"match": [], "other": []}
    for start in range(0, len(drawn), BATCH):
        chunk = drawn[start : start + BATCH]
        tokens = collate([encoder.encode(parts) for parts in chunk])
        embedded = disturb(table(tokens.ids), tokens.slot, disturbed, table.weight.std().item())
        guess = model(inputs_embeds=embedded).logits[:, :-1].argmax(-1)
        wrong = ((guess != tokens.ids[:, 1:]) & (tokens.weight[:, 1:] == 1)).any(1)
        for parts, is_wrong in zip(chunk, wrong.tolist(), strict=True):
            right["match" if SOUND_QUESTIONS["belongs"] in str(parts) else "other"].append(not is_wrong)
    return {kind: sum(values) / max(1, len(values)) for kind, values in right.items()}


def _save(model: LlamaForCausalLM, directory: Path) -> None:
    model.half().save_pretrained(directory)
    model.float()
    for file in directory.iterdir():
        file.chmod(0o644)


def train_decoder(weights: Path) -> dict[str, float]:
    """Train tokenizer and decoder, write them as a Hugging Face folder in half precision, return what they reach."""
    torch.manual_seed(0)
    directory = weights / "decoder"
    encoder = Encoder(train_tokenizer(directory))
    model = LlamaForCausalLM(CONFIG)
    batches = encoder.batches(seed=5)
    for phase in PHASES:
        optimizer = torch.optim.AdamW(model.parameters(), lr=phase.lr, betas=(0.9, 0.98), weight_decay=0.01)
        rate = schedule(optimizer, phase.steps, floor=0.1)
        bar = tqdm(range(phase.steps), desc="decoder", mininterval=10)
        for step in bar:
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model, next(batches), phase.disturbed)
            descend(rate, loss)
            if step % 200 == 0 or step == phase.steps - 1:
                bar.write(f"decoder {step}: loss {loss.item():.4f} {measure(model, encoder, phase.disturbed)}")
    _save(model, directory)
    return measure(model, encoder)
