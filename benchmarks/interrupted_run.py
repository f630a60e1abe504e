"""A toy training run whose processes say what they are doing, so that it can be interrupted at a chosen moment.

Its processes get the environment that the SLURM script in docs/training.md sets, without ``torchrun``: signals and exit codes are
then their own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

from video_llama.cli.main import main as video_llama
from video_llama.common.errors import VideoLlamaError
from video_llama.runners import saves
from video_llama.runners.runner_base import RunnerBase
from video_llama.toy.world import write_world

ROOT = Path(__file__).resolve().parents[1]
STEPS, SAVE_EVERY, KEEP_LAST = 12, 2, 2
LONGEST_S = 300.0
"""A process that takes longer hangs."""
KILL_WAIT_S = 30.0
"""From SIGTERM to SIGKILL, as schedulers do it."""
LOADING = "loading"
STARTS, ENDS = ("step", "saving", "validating"), ("stepped", "saved", "validated")


@dataclass(frozen=True)
class Case:
    """How many processes and loader processes a run has."""

    processes: int
    workers: int

    @property
    def name(self) -> str:
        """A name for its folder."""
        return f"{self.processes}_processes_{self.workers}_workers"


@dataclass(frozen=True)
class Moment:
    """When to interrupt: some seconds after the n-th time that a phase starts; phase ``any``: after the run starts."""

    phase: str
    nth: int
    seconds: float


class ToyRun:
    """A run that is under way.

    Args:
        case: its processes.
        config: its YAML.
        folder: its output folder.
        context: starts them.
    """

    def __init__(self, case: Case, config: Path, folder: Path, context: Any) -> None:
        self.events: list[tuple[float, str]] = []
        """Times and names of phases that started or ended, in the first process."""
        self._pipe, write = context.Pipe(duplex=False)
        self._open = True
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        argv = ["train", "--cfg-path", str(config), "--options"]
        argv += [f"run.output_dir={folder}", f"run.num_workers={case.workers}"]
        self.processes = []
        for rank in range(case.processes):
            env: dict[str, object] = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": case.processes}
            env |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
            process = context.Process(target=train, args=(argv, env, f"{folder}.log", write))
            process.start()
            self.processes.append(process)
        write.close()
        self.started = time.monotonic()

    def reached(self, moment: Moment) -> bool:
        """Wait for a moment; False: the run ended before."""
        if moment.phase == "any":
            return self._watched(until=self.started + moment.seconds)
        while Counter(name for _, name in self.events)[moment.phase] < moment.nth:
            if not self._read(LONGEST_S) or not self._open:
                return False
        return self._watched(until=time.monotonic() + moment.seconds)

    def phase(self) -> str:
        """Return what the first process is in the middle of, as far as it has said."""
        names = Counter(name.split()[0] for _, name in self.events)
        found = [start for start, end in zip(STARTS, ENDS, strict=True) if names[start] > names[end]]
        return "+".join(found) or ("between steps" if names else LOADING)

    def saved(self) -> set[str]:
        """Return the names of the checkpoints that were written."""
        return {name.split()[1] for _, name in self.events if name.startswith("saved ")}

    def seconds_of(self, phase: str) -> float:
        """Return how long a phase takes, at most."""
        end = ENDS[STARTS.index(phase)]
        starts = [at for at, name in self.events if name == phase]
        ends = [at for at, name in self.events if name.split()[0] == end]
        return max(b - a for a, b in zip(starts, ends, strict=True))

    def send(self, number: signal.Signals, *, to_all: bool = True) -> None:
        """Send a signal to all processes and those that load for them at once, or to the last process alone."""
        for process in self.processes if to_all else self.processes[-1:]:
            try:
                (os.killpg if to_all else os.kill)(process.pid, number)
            except ProcessLookupError:  # it has ended, or has no group of its own yet
                if process.is_alive():
                    os.kill(process.pid, number)

    def ended(self, within: float = LONGEST_S) -> list[int | None]:
        """Return the exit codes of all processes; None: it had not ended in time, and was killed."""
        deadline = time.monotonic() + within
        self._watched(deadline)
        for process in self.processes:
            process.join(max(0.1, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        if None in codes:
            self.send(signal.SIGKILL)
        for process in self.processes:
            process.join()
        self._watched(time.monotonic() + 1)
        return codes

    def _watched(self, until: float) -> bool:
        """Note what happens until a time; False: the run ended before."""
        while self._open and self._read(until - time.monotonic()):
            pass
        return self._open

    def _read(self, within: float) -> bool:
        """Wait for an event, or for the end of the run; False: neither comes within these seconds."""
        if not self._pipe.poll(max(0.0, within)):
            return False
        try:
            self.events.append((time.monotonic(), self._pipe.recv_bytes().decode()))
        except EOFError:
            self._open = False
        return True


def logged_steps(folder: Path) -> int:
    """Return the number of steps in a run's log."""
    log = folder / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def write_config(folder: Path) -> Path:
    """Write a toy world with damaged clips, and the YAML of a run on it; returns the YAML.

    The run mixes three data sets with media, one of them in shards, and one of text alone, reads frames and sound,
    accumulates, has dropout, and validates: losses, scores and answers of held-out clips.
    """
    world = write_world(folder / "world", n_clips=40, n_heldout=6, n_images=8)
    clips = [clip for clip in sorted(world.rglob("*.mp4")) if "heldout" not in clip.parts]
    for clip in clips[::9]:
        clip.write_bytes(clip.read_bytes()[:500])
    said = ("red", "blue", "green", "left", "right")
    _write_json(folder / "plain.json", [_dialogue(f"Say {word}.", word) for word in said])
    questions = json.loads((world / "heldout/questions.json").read_text(encoding="utf-8"))[:4]
    _write_json(folder / "questions.json", questions)
    held_out = [{"video": q["video"], "QA": [{"q": q["question"], "a": q["answer"]}]} for q in questions]
    _write_json(folder / "heldout.json", held_out)
    shown = str(world / "heldout/videos" / questions[0]["video"])
    _write_json(folder / "asked.jsonl", {"id": "colour", "video": shown, "question": "What colour is it?"})

    config: dict[str, Any] = yaml.safe_load((ROOT / "train_configs/toy/both_branches_finetune.yaml").read_text("utf-8"))
    weights = str(ROOT / "video_llama/toy/weights/branch.safetensors")
    config["paths"] |= {"world": str(world), "stage2": weights, "audiobranch": weights}
    config["model"] |= {"audio_source": "both", "qformer": config["model"]["qformer"] | {"dropout": 0.1}}
    videos = str(world / "heldout/videos")
    reads = {"train": {"name": "alpro_video_eval", "n_frms": 2, "image_size": 64}}
    for dataset in ("av_instruct", "webvid_instruct"):
        config["datasets"][dataset]["vis_processor"] = reads
    config["datasets"] |= {
        "plain": {
            "name": "llava_instruct",
            "build_info": {"anno_dir": str(folder / "plain.json"), "videos_dir": str(world)},
            "vis_processor": {"train": {"name": "blip2_image_eval", "image_size": 64}},
            "sample_ratio": 20,
        },
        "heldout": {
            "name": "webvid_instruct",
            "split": "val",
            "build_info": {"anno_dir": str(folder / "heldout.json"), "videos_dir": videos},
            "vis_processor": reads,
            "evaluator": {
                "name": "exact_match",
                "questions": str(folder / "questions.json"),
                "videos_dir": videos,
            },
        },
    }
    config["run"] |= {
        "max_epoch": 2, "iters_per_epoch": STEPS // 2, "warmup_steps": 4, "batch_size_train": 2, "accum_grad_iters": 2,
        "save_every": SAVE_EVERY, "keep_last": KEEP_LAST, "resume": "auto", "max_bad_fraction": 1.0, "log_samples": True,
        "collective_timeout": 1.0, "valid_splits": ["val"], "eval_every": 3, "batch_size_eval": 2,
        "eval_questions": str(folder / "asked.jsonl"), "eval_max_new_tokens": 8, "best": {"metric": "val/loss"},
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    words = ["make-shards", "--cfg-path", str(path), "--dataset", "webvid_instruct", "--records-per-shard", "16"]
    if video_llama([*words, "--output", str(folder / "shards")]):
        raise VideoLlamaError("make-shards failed")
    sharded = config["datasets"]["webvid_instruct"]
    sharded |= {"name": "instruct_wds", "build_info": {"storage": str(folder / "shards")}, "shuffle_window": 2}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _dialogue(question: str, answer: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def train(argv: list[str], env: dict[str, object], log: str, pipe: Connection) -> None:
    """Be a process of a run, and write the start and the end of each phase to the pipe, if this is the first one."""
    os.setsid()
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= {name: str(value) for name, value in env.items()}
    os.chdir(ROOT)
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as in a run that a shell starts
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # curves at the end take longer than the steps
    if env["RANK"] == 0:
        saves.write_checkpoint = reported(pipe, "saving", saves.write_checkpoint)
        RunnerBase.run_checks = reported(pipe, "validating", RunnerBase.run_checks)  # type: ignore[method-assign]
        RunnerBase.train_step = reported(pipe, "step", RunnerBase.train_step)  # type: ignore[method-assign]
    sys.exit(video_llama(argv))


def reported(pipe: Connection, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that writes its start and its end to a pipe."""

    def call(*args: Any) -> Any:
        pipe.send_bytes(phase.encode())
        result = function(*args)
        about = f" {args[0].name}" if phase == "saving" else ""
        pipe.send_bytes(f"{ENDS[STARTS.index(phase)]}{about}".encode())
        return result

    return call
