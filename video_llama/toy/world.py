"""Write the toy world: real files in the layouts of WebVid, CC3M, LLaVA and VideoChat, and held-out questions.

    <directory>/webvid/filter_annotation/{0.tsv,1.csv}      webvid/videos/<page_dir>/<videoid>.mp4
                cc3m/filter_cap.json                        cc3m/image/<image_id>.jpg
                llava/llava_instruct.json                   llava/train2014/COCO_train2014_<name>.jpg
                videochat/videochat_instruct.json           (its videos are relative to webvid/videos)
                soundchat/soundchat_instruct.json           (likewise)
                avchat/avchat_instruct.json                 avchat/videos/<name>.mp4, and some of webvid/videos
                                                            (its videos are relative to <directory>)
                heldout/questions.json                      heldout/videos/heldout_<number>.mp4
                heldout/sound_questions.json                heldout/videos/foreign_<number>.mp4, and those above
                world.json                                  the arguments, written last

No training file shows one of the 36 held-out combinations of shape, colour and motion. Clips in ``avchat/videos`` and
held-out foreign clips have the sound of another shape; the questions cover as many clips with their own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from video_llama.common.errors import DataError
from video_llama.common.files import replacing
from video_llama.toy import layouts
from video_llama.toy.encode import write_clip, write_still
from video_llama.toy.language import QUESTIONS, SOUND_QUESTIONS
from video_llama.toy.layouts import Item
from video_llama.toy.scene import Scene, scenes, with_other_sounds

VERSION = 6
"""Increased when the same arguments give another world."""
LAYOUTS = ("webvid", "cc3m", "llava", "videochat", "soundchat", "avchat", "heldout")
MANIFEST = "world.json"

_FEW = 200
"""Number of files that one process writes before several processes have started."""


def write_world(
    directory: str | Path, n_clips: int = 3000, n_heldout: int = 216, n_images: int = 600, seed: int = 0
) -> Path:
    """Write a world, unless the directory holds it already.

    ``world.json`` holds the arguments once the world is complete. A world with the same arguments stays unchanged; one
    with other arguments, or an incomplete one, is replaced.

    Args:
        directory: target; only the folders named above are changed.
        n_clips: training clips in WebVid, VideoChat and soundchat; another third as many have foreign sound.
        n_heldout: clips of held-out combinations, and the number of those with foreign sound; multiples of 108 contain
            each combination and size equally often.
        n_images: stills in CC3M, and again in LLaVA.
        seed: the same seed gives the same bytes.
    Returns:
        The directory.
    Raises:
        DataError: a folder to replace is not part of a world.
    """
    directory = Path(directory)
    manifest = directory / MANIFEST
    arguments = {
        "version": VERSION,
        "n_clips": n_clips,
        "n_heldout": n_heldout,
        "n_images": n_images,
        "seed": seed,
    }
    if _read(manifest) == arguments:
        return directory
    _clear(directory, manifest)

    _write_files(directory, n_clips, n_heldout, n_images, seed)
    with replacing(manifest) as temporary:
        temporary.write_text(json.dumps(arguments, indent=1) + "\n", encoding="utf-8")
    return directory


def _write_files(directory: Path, n_clips: int, n_heldout: int, n_images: int, seed: int) -> None:
    """Draw the scenes of each data set and write its media and annotations."""
    clips = _items(layouts.webvid_file, scenes(n_clips, 4 * seed, held_out=False))
    captioned = _items(layouts.cc3m_file, scenes(n_images, 4 * seed + 1, held_out=False))
    instructed = _items(layouts.llava_file, scenes(n_images, 4 * seed + 2, held_out=False))
    heldout = _items("heldout_{:04d}.mp4".format, scenes(n_heldout, 4 * seed + 3, held_out=True))
    foreign = _items(
        "avchat/videos/{:04d}.mp4".format,
        with_other_sounds(scenes(max(1, n_clips // 3), 4 * seed + 3, held_out=False)),
    )
    heldout_foreign = _items("foreign_{:04d}.mp4".format, with_other_sounds(scenes(n_heldout, 4 * seed, held_out=True)))
    _write_media(
        [(directory / "webvid" / "videos" / clip.file, clip.scene) for clip in clips]
        + [(directory / clip.file, clip.scene) for clip in foreign]
        + [(directory / "heldout" / "videos" / clip.file, clip.scene) for clip in heldout + heldout_foreign]
        + [(directory / "cc3m" / "image" / still.file, still.scene) for still in captioned]
        + [(directory / "llava" / "train2014" / still.file, still.scene) for still in instructed]
    )
    layouts.write_webvid(directory / "webvid" / "filter_annotation", clips)
    layouts.write_cc3m(directory / "cc3m" / "filter_cap.json", captioned)
    layouts.write_llava(directory / "llava" / "llava_instruct.json", instructed)
    layouts.write_videochat(directory / "videochat" / "videochat_instruct.json", clips)
    layouts.write_soundchat(directory / "soundchat" / "soundchat_instruct.json", clips)
    own = [replace(clip, file=f"webvid/videos/{clip.file}") for clip in clips[: len(foreign)]]
    layouts.write_avchat(directory / "avchat" / "avchat_instruct.json", own + foreign)
    layouts.write_heldout(directory / "heldout" / "questions.json", heldout, QUESTIONS)
    layouts.write_heldout(directory / "heldout" / "sound_questions.json", heldout + heldout_foreign, SOUND_QUESTIONS)


def _clear(directory: Path, manifest: Path) -> None:
    """Remove an older or incomplete world, recognised by its manifest, and mark the directory as incomplete.

    Raises:
        DataError: a folder to replace is not part of a world.
    """
    theirs = [name for name in LAYOUTS if (directory / name).exists()]
    if theirs and not manifest.exists():
        raise DataError(f"{directory}: {', '.join(theirs)} there are not of a toy world. Choose another directory.")
    directory.mkdir(parents=True, exist_ok=True)
    manifest.write_text('{"complete": false}\n', encoding="utf-8")
    for name in LAYOUTS:
        shutil.rmtree(directory / name, ignore_errors=True)


def _items(name: Callable[[int], str], drawn: Iterable[Scene]) -> list[Item]:
    return [Item(name(i), scene) for i, scene in enumerate(drawn)]


def _read(manifest: Path) -> object:
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _write_media(jobs: list[tuple[Path, Scene]]) -> None:
    """Write all files, on all cores if there are many."""
    for folder in {file.parent for file, _ in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=len(jobs), desc="toy world", unit="file", mininterval=0.5)
    with bar:
        if len(jobs) <= _FEW:
            for job in jobs:
                bar.update(_write_one(job))
            return
        # Spawned, not forked: a fork would break the threads of PyTorch that the caller may have.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
            for done in pool.map(_write_one, jobs, chunksize=16):
                bar.update(done)


def _write_one(job: tuple[Path, Scene]) -> int:
    file, scene = job
    (write_clip if file.suffix == ".mp4" else write_still)(file, scene)
    return 1
