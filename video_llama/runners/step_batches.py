"""The batches of a process, step by step, from loader processes that are replaced when they die."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable
from functools import partial
from multiprocessing import connection
from typing import Any

from torch.utils.data import DataLoader

from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError
from video_llama.datasets.collate import collate
from video_llama.datasets.mixture import BatchPlan, RankBatches
from video_llama.runners.stop import SIGNALS

log = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Loader processes that may die over one step."""


class StepBatches:
    """Iterates over the micro-batches of each step, as lists.

    What a step draws depends on its number alone, so a loader process that is killed is replaced and the order stays.

    Args:
        mixture: what is drawn from.
        plan: how the draws are split.
        world: the processes of the run, of which this one loads its part.
        num_workers: loader processes.
        pad_id: token that fills batches.
    """

    collate: Callable[..., Any] = staticmethod(collate)
    """Makes a batch of samples; see ``datasets.collate``."""

    def __init__(self, mixture: Any, plan: BatchPlan, world: World, *, num_workers: int, pad_id: int) -> None:
        self.mixture, self.plan, self.world = mixture, plan, world
        self.num_workers, self.pad_id = num_workers, pad_id

    def __call__(self, steps: range) -> Generator[list[Any], None, None]:
        """Yield the batches of the given steps. Closing it ends the loader processes, for which Python would wait at exit.

        Raises:
            TrainingError: the data cannot be used, or loader processes die time and again.
        """
        step, deaths = steps.start, 0
        while step < steps.stop:
            others, handler = set(multiprocessing.active_children()), signal.getsignal(signal.SIGCHLD)
            batches = iter(self.loader(range(step, steps.stop)))
            workers = set(multiprocessing.active_children()) - others
            # torch's handler raises wherever the main thread is when one dies, and would tear a step; reading notices it too.
            signal.signal(signal.SIGCHLD, handler)
            try:
                while step < steps.stop:
                    loaded = list(itertools.islice(batches, self.plan.accumulation))
                    yield loaded
                    step, deaths = step + 1, 0
            except TrainingError as error:  # what a loader process raised comes with its traceback
                raise TrainingError(str(error).rpartition(f"{TrainingError.__name__}: ")[2].rstrip()) from error
            except (RuntimeError, OSError, EOFError) as error:
                if (death := _death(workers)) is None:
                    raise
                deaths += 1
                if deaths > MAX_DEATHS:
                    raise TrainingError(
                        f"step {step}: {death}, for the {deaths}th time over this step. If memory is short, lower "
                        "run.num_workers or run.batch_size_train; with run.num_workers=0, the file that does it shows."
                    ) from error
                log.warning("step %d: %s; it is replaced", step, death)
            finally:
                del batches  # ends its processes, unless the traceback of an exception keeps it alive
                for worker in workers:
                    worker.kill()  # they ignore SIGTERM, with which Python would wait for them when it exits

    def positions(self, steps: range) -> Iterable[list[Any]]:
        """Return what this process's micro-batches of some steps are made of."""
        return RankBatches(self.mixture, self.plan, self.world.rank, steps)

    def loader(self, steps: range) -> DataLoader[Any]:
        """Load this process's micro-batches of some steps."""
        return DataLoader(
            self.mixture,
            batch_sampler=self.positions(steps),
            num_workers=self.num_workers,
            collate_fn=partial(self.collate, pad_id=self.pad_id),
            pin_memory=self.world.device.type == "cuda",
            worker_init_fn=ignore_signals,
        )


def ignore_signals(worker: int) -> None:
    """Leave signals that a terminal or a scheduler sends to all processes to the one that trains."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _death(workers: set[Any]) -> str | None:
    """Return which loader process died and how; None: all of them run, or ended by themselves."""
    ended = connection.wait([worker.sentinel for worker in workers], timeout=1)
    for worker in (worker for worker in workers if worker.sentinel in ended):
        worker.join()  # its exit code may come a moment later
        if worker.exitcode:
            how = f"signal {-worker.exitcode}" if worker.exitcode < 0 else f"exit code {worker.exitcode}"
            by_kernel = " (the kernel sends it when memory runs out)" if worker.exitcode == -signal.SIGKILL else ""
            return f"a loader process died by {how}{by_kernel}"
    return None
