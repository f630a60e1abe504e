"""A run that is asked to stop finishes its step, saves and leaves with a code of its own; before the first step, at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.runners.runs import metrics, runner, trained
from video_llama.common.errors import Preempted
from video_llama.runners.stop import SIGNALS, Stop

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_the_run_after_the_step_saved_and_it_resumes_with_the_same_numbers(
    decoder, tmp_path, number, capfd
):
    trained(decoder, tmp_path / "straight")
    with Stop().listening() as stop:
        run = runner(decoder, tmp_path / "run", stop=stop)
        backward = run.backward

        def signalled(*args):
            if run.state.step == 1:
                os.kill(os.getpid(), number)
            return backward(*args)

        run.backward = signalled
        with pytest.raises(Preempted, match=rf"{number.name}: saved after step 2 of 6 in .*run.resume=auto") as stopped:
            run.train()
    assert stopped.value.exit_code == 75
    assert f"{number.name}: the run stops after this step" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "run").glob("*.pth")] == ["checkpoint_step000002.pth"]
    trained(decoder, tmp_path / "run", resume="auto")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "straight")


def test_a_signal_in_the_last_step_of_a_run_does_not_matter(decoder, tmp_path):
    with Stop().listening() as stop:
        run = runner(decoder, tmp_path, stop=stop)
        backward = run.backward
        run.backward = lambda *args: (run.state.step == 5 and os.kill(os.getpid(), signal.SIGTERM), backward(*args))[1]
        run.train()
    assert run.state.step == 6


def test_the_time_limit_ends_the_run_after_a_step(decoder, tmp_path):
    with pytest.raises(Preempted, match=r"run.max_hours: 1e-09: saved after step 1 of 6"):
        trained(decoder, tmp_path, stop=Stop(max_hours=1e-9))
    assert (tmp_path / "checkpoint_step000001.pth").exists()


def test_before_the_first_step_a_signal_ends_the_run_at_once():
    with Stop().listening(), pytest.raises(Preempted, match="SIGUSR1 before the first step; nothing was lost"):
        os.kill(os.getpid(), signal.SIGUSR1)


def test_a_signal_that_loading_swallowed_still_keeps_the_steps_from_starting(decoder, tmp_path):
    with Stop().listening() as stop:
        run = runner(decoder, tmp_path, stop=stop)
        with suppress(Preempted):  # as in a destructor
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Preempted):
            run.train()
    assert run.state.step == 0


def test_the_handlers_of_before_are_restored():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Stop().listening():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_ctrl_c_leaves_at_once():
    program = """
        import os, signal, time
        from video_llama.runners.stop import Stop
        with Stop().listening() as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            print(stop.reason, flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            print("still here", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGINT
    assert done.stdout == "SIGINT\n"
    assert "Ctrl-C again leaves at once" in done.stderr
