"""``torchrun`` with several machines and processes: one run, with the losses of a single process, also with a shared decoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, losses, torchrun, torchrun_agents
from video_llama.cli.train import train as run_training

pytestmark = pytest.mark.slow

STAGE_1 = "train_configs/toy/stage1_pretrain.yaml"
TWENTY = ["run.max_epoch=1", "run.iters_per_epoch=20", "run.warmup_steps=5"]
SHARD = "run.parallel.decoder=shard"


@pytest.fixture(scope="module")
def one_process(world, tmp_path_factory):
    """The first 20 losses of stage 1 at 8 samples a step, on one process."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run_training(STAGE_1, [f"paths.world={world}", f"run.output_dir={folder}", "run.batch_size_train=8", *TWENTY])
    return losses(folder)


def processes(folder: Path) -> int:
    found: int = json.loads((folder / "run.json").read_text())["sessions"][0]["processes"]
    return found


def test_two_machines_that_share_a_decoder_form_one_run_with_the_losses_of_one_process(world, tmp_path, one_process):
    run = [f"paths.world={world}", f"run.output_dir={tmp_path}", "run.batch_size_train=4", SHARD, *TWENTY]
    torchrun_agents(2, 1, STAGE_1, *run)
    assert processes(tmp_path) == 2
    assert losses(tmp_path) == pytest.approx(one_process, rel=1e-4)


@pytest.mark.faults
@pytest.mark.parametrize("placement", ["run.parallel.decoder=replicate", SHARD])
def test_one_machine_with_four_processes_and_two_with_two_have_the_losses_of_one_process(
    world, tmp_path, one_process, placement
):
    run = [f"paths.world={world}", "run.batch_size_train=2", placement, *TWENTY]
    torchrun(4, STAGE_1, *run, f"run.output_dir={tmp_path / '1x4'}")
    torchrun_agents(2, 2, STAGE_1, *run, f"run.output_dir={tmp_path / '2x2'}")
    for name in ("1x4", "2x2"):
        assert processes(tmp_path / name) == 4
        assert losses(tmp_path / name) == pytest.approx(one_process, rel=1e-4)
