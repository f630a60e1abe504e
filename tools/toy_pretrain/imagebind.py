"""Train the toy ImageBind: a sound and a frame get vectors that are close if they belong to the same shape.

The trunks get decoded H.264 and AAC of training triples, and learn from pairs alone (ImageBind, section 3): a frame matches all
sounds of its shape in a batch, and the other way round. Silence and empty frames match each other, like one more shape, so that
a silenced clip is close to no shape.

Shapes: N clips, A sounds, T frames of a clip, H x W pixels, M x F mel bins and time frames, E output width.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from tools.toy_pretrain.optim import descend, schedule
from tools.toy_pretrain.towers import PATCH, VISION_FILE, VIT_WIDTH, shifted
from video_llama.checkpoints.io import write_weights
from video_llama.models.encoders.config import ImageBindConfig, TrunkConfig
from video_llama.models.encoders.imagebind import ImageBind, VisionTrunk
from video_llama.processors.audio import ImageBindAudio, spectrogram
from video_llama.processors.config import AudioConfig
from video_llama.processors.decode import SAMPLE_RATE, open_video
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import SHAPES, SIDE, Scene, scenes
from video_llama.toy.sound import SECONDS

TOY_IMAGEBIND = ImageBindConfig(
    audio=TrunkConfig(embed_dim=96, depth=3, num_heads=4),
    vision=TrunkConfig(embed_dim=VIT_WIDTH, depth=4, num_heads=4),
    image_size=SIDE,
    patch_size=PATCH,
    out_embed_dim=64,
)
"""Sizes of the toy ImageBind; the toy YAMLs repeat them. The vision trunk has the size of the toy ViT."""
IMAGEBIND_FILE = "imagebind.safetensors"
PREFIX = "audio_encoder."
"""Name prefix in the file, as in the whole model."""

N_CLIPS, FRAMES_PER_CLIP = 1800, 8
SOUNDS_PER_KIND, FRAMES_PER_KIND = 2, 16
"""Per batch. Sounds are learned much sooner than frames, and each takes four times as long."""
TEMPERATURE = 0.1
"""Temperature of the softmax over cosines."""
NOTHING = len(SHAPES)
"""The kind of silence and of a frame without a shape."""
LOUDER = 0.3
"""Largest change of a training sound's level, in standard deviations of a spectrogram: about 12 dB."""
LATER = 10
"""Largest shift of a training sound in time, in time frames: 0.1 s."""


def load_imagebind(weights: Path) -> ImageBind:
    """Return the trained trunks, in float32 and eval mode."""
    model = ImageBind(TOY_IMAGEBIND)
    tensors = load_file(weights / IMAGEBIND_FILE)
    model.load_state_dict({k.removeprefix(PREFIX): v.float() for k, v in tensors.items()})
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Clips:
    """Decoded or made-up clips, and their kind."""

    frames: Tensor
    """uint8[N, T, 3, H, W]."""
    mel: Tensor
    """float[N, 1, M, F], normalised."""
    kind: Tensor
    """int64[N], an index into ``SHAPES``, or ``NOTHING``."""

    def __getitem__(self, index: Tensor) -> Clips:
        return Clips(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def record(scene: Scene) -> tuple[Tensor, Tensor]:
    """Return frames, uint8[16, 3, H, W], and spectrogram, float[1, M, F], of a scene as they come out of its file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        write_clip(file, scene)
        reader = open_video(file)
        audio = ImageBindAudio(AudioConfig(n_segments=1)).read_track(reader.sound()).data
        return reader.read(range(reader.n_frames)).permute(0, 3, 1, 2), audio[0]


def make_clips(n_clips: int, seed: int, *, held_out: bool) -> Clips:
    """Render, encode and decode clips, and keep ``FRAMES_PER_CLIP`` frames of each."""
    frames, mel, kind = [], [], []
    rng = np.random.default_rng(seed)
    for scene in tqdm(scenes(n_clips, seed, held_out=held_out), total=n_clips, desc="clips"):
        vision, audio = record(scene)
        frames.append(vision[rng.choice(len(vision), FRAMES_PER_CLIP, replace=False)])
        mel.append(audio)
        kind.append(SHAPES.index(scene.shape))
    return Clips(torch.stack(frames), torch.stack(mel), torch.tensor(kind))


def make_nothing(n_clips: int, seed: int) -> Clips:
    """Make frames of one colour, half of them black, and sounds, half of them hiss and half of a constant level."""
    rng = torch.Generator().manual_seed(seed)
    colour = torch.randint(0, 130, (n_clips, FRAMES_PER_CLIP, 3, 1, 1), generator=rng)
    colour[: n_clips // 2] = 0
    mel = []
    for i in range(n_clips):
        loudness, level = (torch.rand((), generator=rng) for _ in range(2))
        hiss = torch.randn(1, round(SECONDS * SAMPLE_RATE), generator=rng) * 10 ** (-5 + 2.5 * loudness)
        audio = spectrogram(hiss)
        mel.append(torch.full_like(audio, -1.3 + 1.9 * level.item()) if i % 2 else audio)
    frames = colour.expand(-1, -1, -1, SIDE, SIDE).to(torch.uint8)
    return Clips(frames, torch.stack(mel), torch.full((n_clips,), NOTHING))


def join(*parts: Clips) -> Clips:
    """Concatenate clips."""
    return Clips(*(torch.cat([getattr(p, name) for p in parts]) for name in Clips.__dataclass_fields__))


def initialise(trunk: VisionTrunk, vit: dict[str, Tensor]) -> None:
    """Initialise the vision trunk from the toy ViT, which has the same blocks under other names.

    Args:
        trunk: to be filled, except for its ``head``. Its ``pre_norm`` gives tokens about the spread of the ViT's.
        vit: tensors of ``VISION_FILE``.
    """
    vit = {name: tensor.float() for name, tensor in vit.items()}
    weight, bias = vit["vit.patch_embed.proj.weight"], vit["vit.patch_embed.proj.bias"]
    positions = vit["vit.pos_embed"].clone()
    positions[:, 1:] += bias  # a convolution without bias
    tensors = {
        "cls_token": vit["vit.cls_token"],
        "pos_embed": positions,
        "patch.weight": torch.stack([weight, weight], 2) / 2,
        "pre_norm.weight": torch.full_like(bias, 0.5),
        "pre_norm.bias": torch.zeros_like(bias),
        "head_norm.weight": vit["ln_vision.weight"],
        "head_norm.bias": vit["ln_vision.bias"],
        "head.weight": trunk.head.weight,
    }
    for i in range(len(trunk.blocks)):
        theirs, ours = f"vit.blocks.{i}.", f"blocks.{i}."
        q_bias, v_bias = vit[theirs + "attn.q_bias"], vit[theirs + "attn.v_bias"]
        tensors[ours + "attn.in_proj_bias"] = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
        tensors[ours + "attn.in_proj_weight"] = vit[theirs + "attn.qkv.weight"]
        for their, our in (
            ("attn.proj", "attn.out_proj"),
            ("norm1", "norm_1"),
            ("norm2", "norm_2"),
            ("mlp.fc1", "fc1"),
            ("mlp.fc2", "fc2"),
        ):
            for part in ("weight", "bias"):
                tensors[f"{ours}{our}.{part}"] = vit[f"{theirs}{their}.{part}"]
    trunk.load_state_dict(tensors)


def draw(clips: Clips, per_kind: int) -> Clips:
    """Draw clips, equally many of each kind, with one frame of each."""
    members = [torch.nonzero(clips.kind == kind)[:, 0] for kind in range(NOTHING + 1)]
    index = torch.cat([those[torch.randint(len(those), (per_kind,))] for those in members])
    frame = torch.randint(FRAMES_PER_CLIP, (len(index),))
    return Clips(clips.frames[index, frame][:, None], clips.mel[index], clips.kind[index])


def vary_sounds(mel: Tensor) -> Tensor:
    """Make sounds louder or softer, earlier or later: float[N, 1, M, F] to the same shape."""
    later = torch.randint(-LATER, LATER + 1, (len(mel),)).tolist()
    moved = torch.stack([one.roll(by, -1) for one, by in zip(mel, later, strict=True)])
    return moved + torch.empty(len(mel), 1, 1, 1).uniform_(-LOUDER, LOUDER)


def vary_frames(pixels: Tensor) -> Tensor:
    """Move frames, mirror every second one and swap their colour channels: uint8[N, 3, H, W] to the same shape.

    This never turns one shape into another. Without it, twice as many frames are misclassified.
    """
    moved, _ = shifted(pixels)
    moved[::2] = moved[::2].flip(-1)
    channels = torch.rand(len(moved), 3).argsort(1)
    return moved[torch.arange(len(moved))[:, None], channels]


def loss_of(audio: Tensor, vision: Tensor, same: Tensor) -> Tensor:
    """Return InfoNCE in both directions, where every pair of one kind is a match.

    Args:
        audio: float[A, E], unit vectors of sounds.
        vision: float[N, E], unit vectors of frames.
        same: bool[A, N], whether sound and frame are of one kind; each row and column has at least one true value.
    """
    logits = audio @ vision.T / TEMPERATURE
    by_sound = F.cross_entropy(logits, same / same.sum(1, keepdim=True))
    by_frame = F.cross_entropy(logits.T, same.T / same.T.sum(1, keepdim=True))
    return (by_sound + by_frame) / 2


@torch.no_grad()
def embed(model: ImageBind, clips: Clips) -> tuple[Tensor, Tensor]:
    """Return the unit vectors of sounds, float[N, E], and of the first frame of each clip, float[N, E]."""
    audio = torch.cat([model.audio(part) for part in clips.mel.split(64)])
    return F.normalize(audio, dim=-1), torch.cat([model.vision(part) for part in clips.frames[:, 0].split(64)])


def measure(model: ImageBind, known: Clips, unseen: Clips) -> dict[str, float]:
    """Return how well the two modalities agree on unseen clips.

    Args:
        known: clips whose mean vectors represent each kind.
        unseen: clips to classify.
    Returns:
        sound, frame: share of sounds whose kind is that of the nearest mean of known frames, and the reverse;
        retrieved: share of frames to which the nearest sound is of their kind; matching, other: mean cosine of a
        sound and a frame of one kind, and of two; lowest, highest: the extremes of these.
    """
    means = [
        F.normalize(torch.stack([vectors[known.kind == kind].mean(0) for kind in range(NOTHING + 1)]), dim=-1)
        for vectors in embed(model, known)
    ]
    audio, vision = embed(model, unseen)
    cosines = vision @ audio.T
    same = unseen.kind[:, None] == unseen.kind
    right = {
        "sound": (audio @ means[1].T).argmax(1) == unseen.kind,
        "frame": (vision @ means[0].T).argmax(1) == unseen.kind,
        "retrieved": unseen.kind[cosines.argmax(1)] == unseen.kind,
    }
    return {
        **{name: hits.float().mean().item() for name, hits in right.items()},
        "matching": cosines[same].mean().item(),
        "other": cosines[~same].mean().item(),
        "lowest": cosines[same].min().item(),
        "highest": cosines[~same].max().item(),
    }


def train_imagebind(weights: Path, steps: int = 1000, lr: float = 1e-3) -> dict[str, float]:
    """Train the trunks, write them in half precision and return how they agree on clips of held-out triples."""
    torch.manual_seed(0)
    clips = join(make_clips(N_CLIPS, seed=21, held_out=False), make_nothing(N_CLIPS // len(SHAPES), seed=21))
    unseen = join(make_clips(216, seed=22, held_out=True), make_nothing(36, seed=22))
    model = ImageBind(TOY_IMAGEBIND)
    initialise(model.vision, load_file(weights / VISION_FILE))
    model.audio.log_scale.requires_grad_(False)  # it only scales lengths, which cosines ignore
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    rate = schedule(optimizer, steps, warmup=50)
    bar = tqdm(range(steps), desc="imagebind", mininterval=10)
    for step in bar:
        sounds, images = draw(clips, SOUNDS_PER_KIND), draw(clips, FRAMES_PER_KIND)
        audio = F.normalize(model.audio(vary_sounds(sounds.mel)), dim=-1)
        vision = model.vision(vary_frames(images.frames[:, 0]))
        loss = loss_of(audio, vision, sounds.kind[:, None] == images.kind)
        descend(rate, loss)
        if step % 200 == 0 or step == steps - 1:
            bar.write(f"imagebind {step}: loss {loss.item():.3f} {measure(model, unseen, unseen)}")
    write_weights(weights / IMAGEBIND_FILE, {PREFIX + k: v.half() for k, v in model.state_dict().items()})
    return measure(load_imagebind(weights), clips[torch.arange(0, len(clips.kind), 6)], unseen)
