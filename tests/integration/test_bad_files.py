"""Files that cannot be read: a run with a few of them ends, is repeated bit for bit without opening them, and names them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.integration.conftest import losses

STAGE_1 = "train_configs/toy/stage1_pretrain.yaml"
PASS = ["datasets.cc_sbu_align.sample_ratio=0", "run.max_epoch=2", "run.iters_per_epoch=4", "run.batch_size_train=8"]
"""64 samples of 60 clips, so that each is drawn."""
RUN = [*PASS, "run.warmup_steps=0", "run.log_samples=true"]


def clips_of(world: Path) -> list[Path]:
    return sorted((world / "webvid/videos").rglob("*.mp4"))


def break_files(clips: list[Path]) -> None:
    """Break clips in as many ways as there are."""
    for i, clip in enumerate(clips):
        content = clip.read_bytes()
        clip.unlink()
        if i % 4 == 3:
            os.mkfifo(clip)
        else:
            clip.write_bytes([b"", content[: len(content) // 2], os.urandom(5000)][i % 4])


def listed(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "bad_samples.jsonl").read_text().splitlines()]


def samples(folder: Path) -> list[str]:
    return (folder / "samples.rank0.jsonl").read_text().splitlines()


@pytest.fixture
def mine(world, tmp_path) -> Path:
    return shutil.copytree(world, tmp_path / "world")


@pytest.mark.slow
def test_a_run_with_five_percent_of_its_files_broken_ends_and_a_second_one_opens_none_of_them(mine, tmp_path, train):
    broken = clips_of(mine)[5::15]
    assert 0.05 <= len(broken) / len(clips_of(mine)) < 0.07
    good = clips_of(mine)[0]
    break_files(broken)
    options = [f"paths.world={mine}", *RUN]
    assert train(STAGE_1, *options, f"run.output_dir={tmp_path / 'one'}").code == 0
    lines = listed(tmp_path / "one")
    assert {line["path"] for line in lines} == {str(clip) for clip in broken}
    assert len(lines) == len(broken)
    assert all(line["reason"] and line["id"].startswith("webvid/") and line["replaced_by"] for line in lines)
    report = (tmp_path / "one" / "report.md").read_text()
    assert f"lists {len(broken)} files and 0 records without one" in report

    for clip in broken:  # files that are opened now are good, and would give other samples
        clip.unlink()
        shutil.copy(good, clip)
    ledger = f"run.bad_samples={tmp_path / 'one' / 'bad_samples.jsonl'}"
    assert train(STAGE_1, *options, f"run.output_dir={tmp_path / 'two'}", ledger).code == 0
    assert samples(tmp_path / "two") == samples(tmp_path / "one")
    assert losses(tmp_path / "two") == losses(tmp_path / "one")
    assert {line["path"] for line in listed(tmp_path / "two")} == {str(clip) for clip in broken}

    assert train(STAGE_1, *options, f"run.output_dir={tmp_path / 'three'}", "run.max_epoch=1").code == 0
    assert samples(tmp_path / "three") != samples(tmp_path / "one")[:4], "without the ledger, the files are opened"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_with_broken_files_before_and_after_the_cut_has_the_samples_of_one_that_is_not(
    mine, tmp_path, train, workers
):
    break_files(clips_of(mine)[5::12])
    options = [f"paths.world={mine}", *RUN, f"run.num_workers={workers}", "run.max_bad_fraction=0.5"]
    assert train(STAGE_1, *options, f"run.output_dir={tmp_path / 'straight'}").code == 0
    cut = [*options, f"run.output_dir={tmp_path / 'run'}"]
    assert train(STAGE_1, *cut, "run.max_epoch=1").code == 0
    before = len(listed(tmp_path / "run"))
    assert train(STAGE_1, *cut, "run.resume=auto", "--allow-changed").code == 0
    assert 0 < before < len(listed(tmp_path / "run"))
    assert samples(tmp_path / "run") == samples(tmp_path / "straight")
    assert listed(tmp_path / "run") == listed(tmp_path / "straight")


def test_a_run_with_most_of_its_files_broken_stops_with_a_message(mine, tmp_path, train):
    break_files([clip for i, clip in enumerate(clips_of(mine)) if i % 5 < 3])
    code, _, err = train(STAGE_1, f"paths.world={mine}", *RUN, f"run.output_dir={tmp_path / 'run'}")
    assert code == 1
    assert "Traceback" not in err
    assert "records were bad: surely more than run.max_bad_fraction, 0.05" in err
    assert "bad_samples.jsonl lists them with reasons" in err
    assert max(line["step"] for line in listed(tmp_path / "run")) < 4
