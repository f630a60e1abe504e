"""Train the toy ViT and Q-Former to classify colour, shape, size and position from a single frame.

They get frames of decoded H.264 files of training triples, and linear heads read the mean of the queries. Position is there on
purpose: with towers that learn only colour and shape, motion cannot be learned (9 % exact match).
For the same reason the position embedding starts as sines of amplitude 0.5 and the queries are spread out
(std 0.5): from the usual 0.02 the towers barely learn position.

Shapes: N frames, H x W pixels, P tokens, C tower width, Q queries.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from tools.toy_pretrain.optim import descend, schedule
from video_llama.checkpoints.io import write_weights
from video_llama.models.config import QFormerConfig
from video_llama.models.encoders.vision import VisionEncoder
from video_llama.models.qformer import QFormer
from video_llama.processors.decode import open_video
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import COLOURS, SHAPES, SIDE, SIZES, Scene, path, scenes

VIT_WIDTH, PATCH = 96, 8
VIT_ARGS = {"embed_dim": VIT_WIDTH, "depth": 4, "num_heads": 4, "patch_size": PATCH, "mlp_ratio": 4.0}
QFORMER = QFormerConfig(hidden_size=96, num_hidden_layers=2, num_attention_heads=4, intermediate_size=384, dropout=0.0)
NUM_QUERIES = 8
VISION_FILE, QFORMER_FILE = "vision.safetensors", "qformer.safetensors"

N_CLIPS, FRAMES_PER_CLIP = 3600, 8
BINS = 8
"""Bins of each axis for the classification of position."""
SHIFT = 3
"""Largest shift of a training frame along each axis, in pixels."""


def build_towers() -> tuple[VisionEncoder, QFormer]:
    """Return the towers with random weights."""
    vision = VisionEncoder("eva_clip_g", image_size=SIDE, vit_args=VIT_ARGS)
    return vision, QFormer(NUM_QUERIES, VIT_WIDTH, QFORMER)


def load_towers(weights: Path) -> tuple[VisionEncoder, QFormer]:
    """Return the trained towers, in float32 and eval mode."""
    vision, qformer = build_towers()
    for module, file in ((vision, VISION_FILE), (qformer, QFORMER_FILE)):
        module.load_state_dict({k: v.float() for k, v in load_file(weights / file).items()})
        module.eval().requires_grad_(False)
    return vision, qformer


@dataclass(frozen=True)
class Frames:
    """Decoded frames and what they show."""

    pixels: Tensor
    """uint8[N, 3, H, W]."""
    colour: Tensor
    """int64[N], an index into ``COLOURS``."""
    shape: Tensor
    """int64[N], an index into ``SHAPES``."""
    size: Tensor
    """int64[N], an index into ``SIZES``."""
    place: Tensor
    """float[N, 2]: x and y of the centre, as a fraction of the side."""

    def __getitem__(self, index: Tensor) -> Frames:
        return Frames(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def decode(scene: Scene) -> np.ndarray:
    """Return the frames of a scene as they come out of its file: uint8[T, H, W, 3]."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        write_clip(file, scene)
        reader = open_video(file)
        return reader.read(range(reader.n_frames)).numpy()


def make_frames(n_clips: int, seed: int, *, held_out: bool) -> Frames:
    """Render, encode and decode clips, and keep ``FRAMES_PER_CLIP`` frames of each."""
    pixels, colour, shape, size, place = [], [], [], [], []
    rng = np.random.default_rng(seed)
    for scene in tqdm(scenes(n_clips, seed, held_out=held_out), total=n_clips, desc="frames"):
        clip, centres = decode(scene), path(scene)
        for t in rng.choice(len(clip), FRAMES_PER_CLIP, replace=False):
            pixels.append(clip[t].transpose(2, 0, 1))
            colour.append(COLOURS.index(scene.colour))
            shape.append(SHAPES.index(scene.shape))
            size.append(SIZES.index(scene.size))
            place.append(centres[t] / SIDE)
    return Frames(
        torch.from_numpy(np.stack(pixels)),
        torch.tensor(colour),
        torch.tensor(shape),
        torch.tensor(size),
        torch.tensor(np.array(place), dtype=torch.float32),
    )


class Probe(nn.Module):
    """The towers, and linear heads on the mean query, which are discarded after training."""

    def __init__(self) -> None:
        super().__init__()
        self.vision, self.qformer = build_towers()
        self.sizes = (len(COLOURS), len(SHAPES), len(SIZES), BINS, BINS, 2)
        self.heads = nn.Linear(QFORMER.hidden_size, sum(self.sizes))
        _initialise(self.vision, self.qformer)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return logits of colour, shape, size, x-bin and y-bin, and the place, for uint8[N, 3, H, W]."""
        return self.heads(self.qformer(self.vision(pixels)).mean(1)).split(self.sizes, dim=1)

    def loss(self, frames: Frames) -> Tensor:
        """Return the mean loss over the frames."""
        colour, shape, size, x_bin, y_bin, place = self(frames.pixels)
        bins = (frames.place * BINS).long().clamp(0, BINS - 1)
        what = F.cross_entropy(colour, frames.colour) + F.cross_entropy(shape, frames.shape)
        what = what + F.cross_entropy(size, frames.size)
        where = F.cross_entropy(x_bin, bins[:, 0]) + F.cross_entropy(y_bin, bins[:, 1])
        return what + 10 * F.mse_loss(place, frames.place) + 0.5 * where

    @torch.no_grad()
    def measure(self, frames: Frames) -> dict[str, float]:
        """Return the accuracy of colour, shape and size, and the mean error of place along an axis, in pixels."""
        parts = [self(chunk) for chunk in frames.pixels.split(256)]
        colour, shape, size, _, _, place = (torch.cat(part) for part in zip(*parts, strict=True))
        return {
            "colour": (colour.argmax(1) == frames.colour).float().mean().item(),
            "shape": (shape.argmax(1) == frames.shape).float().mean().item(),
            "size": (size.argmax(1) == frames.size).float().mean().item(),
            "place_px": (place - frames.place).abs().mean().item() * SIDE,
        }


def shift(frames: Frames) -> Frames:
    """Move each frame by up to ``SHIFT`` pixels along each axis, so that shapes meet the patch grid everywhere."""
    pixels, by = shifted(frames.pixels)
    return replace(frames, pixels=pixels, place=frames.place + by / SIDE)


def shifted(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Move each of uint8[N, 3, H, W]; returns the same shape, and int64[N, 2], to the right and downwards in pixels."""
    padded = F.pad(pixels.float(), [SHIFT] * 4, mode="replicate").byte()
    offset = torch.randint(0, 2 * SHIFT + 1, (len(padded), 2))
    moved = [image[:, y : y + SIDE, x : x + SIDE] for image, (x, y) in zip(padded, offset.tolist(), strict=True)]
    return torch.stack(moved), SHIFT - offset


def _initialise(vision: VisionEncoder, qformer: QFormer) -> None:
    side, width = SIDE // PATCH, VIT_WIDTH
    grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).reshape(-1, 2)
    waves = torch.exp(-math.log(100.0) * torch.arange(width // 4) / (width // 4))
    angles = (grid[:, :, None] * waves).flatten(1)
    with torch.no_grad():
        vision.vit.pos_embed.zero_()
        vision.vit.pos_embed[0, 1:] = 0.5 * torch.cat([angles.sin(), angles.cos()], 1)
        qformer.query_tokens.normal_(std=0.5)
    for module in qformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)


def train_towers(weights: Path, steps: int = 3500, batch: int = 64, lr: float = 1e-3) -> dict[str, float]:
    """Train the towers, write them in half precision and return what they reach on frames of held-out triples."""
    torch.manual_seed(0)
    frames = make_frames(N_CLIPS, seed=11, held_out=False)
    unseen = make_frames(100, seed=12, held_out=True)
    probe = Probe()
    optimizer = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=0.01)
    rate = schedule(optimizer, steps)
    bar = tqdm(range(steps), desc="towers", mininterval=10)
    for step in bar:
        loss = probe.loss(shift(frames[torch.randint(len(frames.pixels), (batch,))]))
        descend(rate, loss)
        if step % 200 == 0 or step == steps - 1:
            bar.write(f"towers {step}: loss {loss.item():.3f} {probe.measure(unseen)}")
    for module, file in ((probe.vision, VISION_FILE), (probe.qformer, QFORMER_FILE)):
        write_weights(weights / file, {k: v.half() for k, v in module.state_dict().items()})
    return probe.measure(unseen)
