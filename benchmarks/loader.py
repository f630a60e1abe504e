"""From clips to the training loader's tensors: the original's way and ours, in turn.

    python -m benchmarks.loader [CLIP ...] [--samples 16] [--workers 2]     (without clips: toy ones)

The original reads 8 frames with decord, which starts as many threads as it likes, crops and scales them as float32, and
normalises each clip in the loader's processes. Here, the model normalises a batch on its device, and its time is not counted.
Prints minima over the rounds and their ratios; the machine's noise affects all alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.minima import minima
from benchmarks.samples import toy_clips
from video_llama.models.encoders.normalisation import CLIP_MEAN, CLIP_STD
from video_llama.processors.bicubic import resize_clip
from video_llama.processors.config import VideoTrainConfig
from video_llama.processors.crop import Box, crop, random_box
from video_llama.processors.decode import open_video
from video_llama.processors.frame_sampling import uniform
from video_llama.processors.video import AlproVideoTrain

SIDE, FRAMES, BATCH = 224, 8, 2
CONFIG = VideoTrainConfig(image_size=SIDE, n_frms=FRAMES, sampling="uniform")


def main() -> None:
    """Measure each clip, then a loader of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in the processes of a loader
    with tempfile.TemporaryDirectory() as folder:
        clips = args.clips or toy_clips(Path(folder))
        measure_transform(clips)
        for clip in clips:
            measure_decoding(clip)
        measure_loader((clips * args.samples)[: args.samples], args.workers)


def measure_transform(clips: Iterable[Path]) -> None:
    """Print the CPU time from decoded frames to a sample, with another crop for each clip, and its bytes."""
    decoded = [decoded_by_decord(clip, threads=1) for clip in clips]
    boxes = [drawn_box(np.random.default_rng(i)) for i in range(len(decoded))]
    ways = {"original": original_transform, "ours": our_transform}
    each = minima(
        {
            (name, i): partial(way, clip, box)
            for i, (clip, box) in enumerate(zip(decoded, boxes, strict=True))
            for name, way in ways.items()
        },
        time.process_time,
    )
    mean = {name: sum(each[name, i] for i in range(len(decoded))) / len(decoded) for name in ways}
    print(f"CPU of the transform: {ratios(mean, 1000, 'ms')}")
    sizes = {name: way(decoded[0], boxes[0]).nbytes for name, way in ways.items()}
    print(f"sample: {ratios(sizes, 1e-6, 'MB')}")


def measure_decoding(clip: Path) -> None:
    """Print the CPU time, of all threads, from a file to 8 frames."""
    ways: dict[str, Callable[[], object]] = {
        "decord, as the original": partial(decoded_by_decord, clip, threads=0),
        "decord, one thread": partial(decoded_by_decord, clip, threads=1),
        "ours": partial(decoded_by_us, clip),
    }
    print(f"CPU of decoding {clip.name}: {ratios(minima(ways, time.process_time), 1000, 'ms')}")


def measure_loader(clips: list[Path], workers: int) -> None:
    """Print the samples per second of loaders that have started."""
    sets = {"original": OriginalClips(clips), "ours": OurClips(clips)}
    loaders = {
        name: DataLoader(clips, BATCH, num_workers=workers, persistent_workers=workers > 0)
        for name, clips in sets.items()
    }
    best = minima({name: partial(passed, loader) for name, loader in loaders.items()})
    rates = {name: len(clips) / seconds for name, seconds in best.items()}
    print(f"loader with {workers} workers: {ratios(rates, 1, 'samples/s')}")


def passed(loader: DataLoader[Tensor]) -> None:
    """Pass through a loader."""
    for _ in loader:
        pass


class OriginalClips(Dataset[Tensor]):
    """Clips read as the original read them. Every pass draws the same crops."""

    def __init__(self, clips: list[Path]) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, i: int) -> Tensor:
        """float32[3, T, S, S]."""
        frames = decoded_by_decord(self._clips[i], threads=0)
        return original_transform(frames, drawn_box(np.random.default_rng(i)))


class OurClips(OriginalClips):
    """Clips read by the processor of training clips."""

    def __getitem__(self, i: int) -> Tensor:
        """uint8[3, T, S, S]."""
        frames = AlproVideoTrain(CONFIG)(self._clips[i], np.random.default_rng(i)).data
        assert isinstance(frames, Tensor)
        return frames


def decoded_by_decord(clip: Path, threads: int) -> Tensor:
    """uint8[T, S, S, 3], scaled while decoding; ``threads`` 0 leaves their number to decord, as the original does."""
    import decord

    video = decord.VideoReader(str(clip), height=SIDE, width=SIDE, num_threads=threads)
    return torch.from_numpy(video.get_batch(uniform(len(video), FRAMES)).asnumpy())


def decoded_by_us(clip: Path) -> Tensor:
    """uint8[T, S, S, 3]."""
    video = open_video(clip, "pyav", (SIDE, SIDE))
    return video.read(uniform(video.n_frames, FRAMES))


def drawn_box(rng: np.random.Generator) -> Box:
    """Draw a crop as in training."""
    return random_box(SIDE, SIDE, CONFIG.min_scale, CONFIG.max_scale, rng)


def original_transform(frames: Tensor, box: Box) -> Tensor:
    """Crop, scale, truncate to 8 bits, and normalise: uint8[T, S, S, 3] to float32[3, T, S, S]."""
    clip = crop(frames.permute(3, 0, 1, 2).float(), box)
    scaled = F.interpolate(clip, (SIDE, SIDE), mode="bicubic", align_corners=False)
    pixels = scaled.permute(1, 2, 3, 0).to(torch.uint8).permute(3, 0, 1, 2).float() / 255
    mean, std = (torch.tensor(values)[:, None, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return pixels.clone().sub_(mean).div_(std)


def our_transform(frames: Tensor, box: Box) -> Tensor:
    """Crop and scale, as ``AlproVideoTrain``: uint8[T, S, S, 3] to uint8[3, T, S, S]."""
    return resize_clip(crop(frames.permute(3, 0, 1, 2), box), SIDE)


def ratios(values: dict[str, float] | dict[str, int], factor: float, unit: str) -> str:
    """Return values, and how they compare with the last one."""
    last = values[list(values)[-1]]
    return ", ".join(f"{name} {value * factor:.2f} {unit} ({last / value:.3f})" for name, value in values.items())


if __name__ == "__main__":
    main()
