"""The batches of a process, step by step, from loader processes that are replaced when they die, or are stuck in a file."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from multiprocessing import connection
from typing import Any, NamedTuple

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError
from video_llama.datasets.collate import collate
from video_llama.datasets.mixture import BatchPlan, RankBatches
from video_llama.datasets.readings import Reading, Readings
from video_llama.runners.config import RunConfig
from video_llama.runners.stalls import Stalled, Stalls, naming_stalls
from video_llama.runners.stop import SIGNALS

log = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Times that loader processes may die, or be ended, over one step."""

POLL = 1.0
"""Seconds between two looks at what the loader processes read, while their batch is awaited."""


class StepBatches:
    """Iterates over the micro-batches of each step, as lists.

    What a step draws depends on its number alone, so a loader process that is killed is replaced and the order stays.

    Args:
        mixture: what is drawn from. Its ``quarantine`` learns what loader processes were stuck in.
        plan: how the draws are split.
        world: the processes of the run, of which this one loads its part.
        config: the ``run`` section.
        pad_id: token that fills batches.
    """

    collate: Callable[..., Any] = staticmethod(collate)
    """Makes a batch of samples; see ``datasets.collate``."""

    def __init__(
        self,
        mixture: Any,
        plan: BatchPlan,
        world: World,
        config: RunConfig,
        *,
        pad_id: int,
    ) -> None:
        self.mixture, self.plan, self.world = mixture, plan, world
        self.num_workers, self.read_timeout = config.num_workers, config.read_timeout
        self.pad_id = pad_id
        self.readings = Readings(multiprocessing.get_context(), max(1, self.num_workers))
        self._counts = dict[int, int]()  # micro-batches of each step that the loader has come to

    def __call__(self, steps: range) -> Generator[list[Any], None, None]:
        """Yield the batches of the given steps. Closing it ends the loader processes, for which Python would wait at exit.

        Raises:
            TrainingError: the data cannot be used, or loader processes die, or are stuck, time and again.
        """
        step, deaths, crashed_in = steps.start, 0, Reading()
        while step < steps.stop:
            others, handler = set(multiprocessing.active_children()), _other_handler()
            batches = iter(self.loader(range(step, steps.stop)))
            workers = set(multiprocessing.active_children()) - others
            # torch's handler raises wherever the main thread is when one dies, and would tear a step; reading notices it too.
            signal.signal(signal.SIGCHLD, handler)
            stalls = Stalls(self.readings, self.read_timeout)
            try:
                while step < steps.stop:
                    first = self._next(batches, stalls)
                    yield [first, *(self._next(batches, stalls) for _ in range(self._counts.pop(step) - 1))]
                    step, deaths, crashed_in = step + 1, 0, Reading()
            except TrainingError as error:  # what a loader process raised comes with its traceback
                raise TrainingError(str(error).rpartition(f"{TrainingError.__name__}: ")[2].rstrip()) from error
            except (RuntimeError, OSError, EOFError, Stalled) as error:
                deaths += 1
                if isinstance(error, Stalled):
                    self._hold(step, error, workers, last=deaths > MAX_DEATHS)
                elif (death := self._death(workers)) is None:
                    raise
                elif deaths > MAX_DEATHS:
                    raise TrainingError(
                        f"step {step}: {death}, for the {deaths}th time over this step. If memory is short, lower "
                        "run.num_workers or run.batch_size_train."
                    ) from error
                else:
                    log.warning("step %d: %s; it is replaced", step, death)
                    if death.is_crash and death.reading.path and death.reading == crashed_in:
                        self._replace(death.reading, f"reading it ends the process by signal {death.signal}")
                    crashed_in = death.reading
            finally:
                del batches  # ends its processes, unless the traceback of an exception keeps it alive
                for worker in workers:
                    worker.kill()  # they ignore SIGTERM, with which Python would wait for them when it exits

    def micro_batches(self, step: int) -> list[list[Any]]:
        """Return what this process's micro-batches of a step are made of."""
        return list(RankBatches(self.mixture, self.plan, self.world.rank, range(step, step + 1)))

    def positions(self, steps: range) -> Iterator[list[Any]]:
        """Yield what the micro-batches of some steps are made of."""
        for step in steps:
            batches = self.micro_batches(step)
            self._counts[step] = len(batches)
            yield from batches

    def loader(self, steps: range) -> DataLoader[Any]:
        """Load this process's micro-batches of some steps."""
        return DataLoader(
            self.mixture,
            batch_sampler=self.positions(steps),
            num_workers=self.num_workers,
            collate_fn=partial(self.collate, pad_id=self.pad_id),
            pin_memory=self.world.device.type == "cuda",
            worker_init_fn=partial(_start, readings=self.readings),
            timeout=min(POLL, self.read_timeout / 2) if self.num_workers else 0,
        )

    def _next(self, batches: Iterator[Any], stalls: Stalls) -> Any:
        """Return the next batch.

        Raises:
            Stalled: a loader process is stuck.
        """
        if not self.num_workers:
            with naming_stalls(self.readings, self.read_timeout):
                return next(batches)
        while True:
            try:
                return next(batches)
            except RuntimeError as error:
                if not str(error).startswith("DataLoader timed out"):
                    raise
            stalls.check()

    def _hold(self, step: int, stalled: Stalled, workers: Iterable[Any], *, last: bool) -> None:
        """End the loader processes that are stuck, and have what they were reading replaced.

        Raises:
            TrainingError: it is the last time that this may happen in a step.
        """
        reason = f"not read within run.read_timeout, {self.read_timeout:g} s"
        for worker in workers:
            if (reading := stalled.by_process.get(worker.pid)) is not None:
                worker.kill()
                self._replace(reading, reason)
                log.warning(
                    "step %d: %s: %s; its loader process and the record are replaced", step, reading.name, reason
                )
        if last:
            raise TrainingError(
                f"step {step}: {stalled}, for the {MAX_DEATHS + 1}th time over this step: {reason}. If the disk or the network "
                "is that slow, raise run.read_timeout; if it does not answer at all, resume the run when it does."
            ) from stalled

    def _replace(self, reading: Reading, reason: str) -> None:
        if self.mixture.quarantine is not None:
            self.mixture.quarantine.hold(reading, reason)

    def _death(self, workers: set[Any]) -> Death | None:
        """Return how one of the loader processes died; None: all of them run, or ended by themselves."""
        ended = connection.wait([worker.sentinel for worker in workers], timeout=1)
        for worker in (worker for worker in workers if worker.sentinel in ended):
            worker.join()  # its exit code may come a moment later
            if worker.exitcode:
                _, reading = self.readings.now().get(worker.pid, (0, Reading()))
                return Death(worker.exitcode, reading)
        return None


class Death(NamedTuple):
    """How a loader process ended."""

    exit_code: int
    reading: Reading
    """What it was reading."""

    @property
    def signal(self) -> int:
        """The signal that ended it; 0: none."""
        return max(0, -self.exit_code)

    @property
    def is_crash(self) -> bool:
        """Whether the decoder may have crashed, rather than someone having ended the process."""
        return self.signal in (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)

    def __str__(self) -> str:
        how = f"signal {self.signal}" if self.signal else f"exit code {self.exit_code}"
        by_kernel = " (the kernel sends it when memory runs out)" if self.signal == signal.SIGKILL else ""
        while_in = f" in {self.reading.name}" if self.reading.name else ""
        return f"a loader process died by {how}{by_kernel}{while_in}"


def _start(worker: int, readings: Readings) -> None:
    """Prepare a loader process."""
    ignore_signals(worker)
    readings.join(worker)


def ignore_signals(worker: int) -> None:
    """Leave signals that a terminal or a scheduler sends to all processes to the one that trains."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _other_handler() -> Any:
    """Return the handler of SIGCHLD; the default one for that of torch, which any loader before may have left."""
    handler = signal.getsignal(signal.SIGCHLD)
    return signal.SIG_DFL if getattr(handler, "__module__", None) == signal_handling.__name__ else handler
