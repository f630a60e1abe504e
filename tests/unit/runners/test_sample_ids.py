"""The sample ids of steps 500 to 600 are the same, however a run comes to them, and whoever loads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.specs import sample_spec
from tests.unit.datasets.folder import Folder, fake_processors, turns
from video_llama.common.distributed import World
from video_llama.datasets.length_groups import BatchLimits
from video_llama.datasets.mixture import BatchPlan, Mixture
from video_llama.prompts.tokenizer import load_tokenizer
from video_llama.runners.config import RunConfig
from video_llama.runners.step_batches import StepBatches

CUT = range(500, 600)
PLAN: dict[str, Any] = {"batch_size": 2, "accumulation": 2, "world_size": 1, "steps_per_epoch": 100}
TOKENIZER = Path(__file__).parents[2] / "fixtures/reference/text/tokenizer"

Step = list[tuple[str, ...]]
"""The ids of each micro-batch of a process."""


@pytest.fixture(autouse=True)
def _fake_processors() -> Iterator[None]:
    with fake_processors():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Clips and images of some captions and conversations of many lengths; one clip is corrupt."""
    folder = Folder(tmp_path, sample_spec(load_tokenizer(TOKENIZER)))
    folder.clips(*(f"p/{i}.mp4" for i in range(40)), *(f"COCO_train2014_{i}.jpg" for i in range(15)))
    folder.clips("p/7.mp4", content="broken")
    return folder


def mixture(folder: Folder) -> Mixture:
    """Read the annotations, as every start of a run does."""
    clips = folder.webvid(*((str(i), "p", "word " * (1 + i % 9)) for i in range(40)))
    talks = [
        {"image": f"{i}.jpg", "conversations": turns("<image>\nWhat is it?", "word " * (1 + 3 * i))} for i in range(15)
    ]
    return Mixture([clips, folder.llava(talks)], [3, 1], 42)


def config(workers: int = 0) -> RunConfig:
    return RunConfig(init_lr=0.1, max_epoch=1, batch_size_train=1, output_dir="", num_workers=workers)


def ids(folder: Folder, steps: range, rank: int = 0, workers: int = 0, **changes: Any) -> list[Step]:
    """Load steps as one process of a run that starts, or resumes, there; return what the batches hold."""
    plan = BatchPlan(**PLAN | changes)
    world = World(rank, plan.world_size, torch.device("cpu"))
    loader = StepBatches(mixture(folder), plan, world, config(workers), pad_id=0)
    return [[batch.ids for batch in batches] for batches in loader(steps)]


def replaced(folder: Folder, steps: range) -> list[int]:
    """Return the steps in which a record was replaced."""
    world = World(0, 1, torch.device("cpu"))
    loader = StepBatches(mixture(folder), BatchPlan(**PLAN), world, config(), pad_id=0)
    loaded = zip(steps, loader(steps), strict=True)
    return [step for step, batches in loaded if any(batch.replaced for batch in batches)]


def samples(step: Step) -> list[str]:
    return sorted(name for batch in step for name in batch)


def test_straight_through_and_resumed_at_500(folder: Folder) -> None:
    assert ids(folder, range(600))[500:] == ids(folder, CUT)


def test_resumed_at_any_step_on_the_way(folder: Folder) -> None:
    straight = ids(folder, CUT)
    for step in (501, 550, 599):
        assert ids(folder, range(step, 600)) == straight[step - 500 :]


@pytest.mark.parametrize("workers", [2, 5])
def test_with_0_2_and_5_workers(folder: Folder, workers: int) -> None:
    assert ids(folder, CUT, workers=workers) == ids(folder, CUT)


def test_with_a_corrupt_file_before_and_after_the_cut(folder: Folder) -> None:
    bad = replaced(folder, range(600))
    assert any(step < 500 for step in bad)
    assert any(step >= 500 for step in bad)
    straight = ids(folder, range(600))
    assert ids(folder, CUT) == ids(folder, CUT, workers=2) == straight[500:]
    assert not any("p/7.mp4" in name for step in straight for name in samples(step))


@pytest.mark.parametrize("steps_per_epoch", [550, 501, 7])
def test_across_an_epoch_boundary(folder: Folder, steps_per_epoch: int) -> None:
    changes = {"steps_per_epoch": steps_per_epoch}
    assert ids(folder, range(400, 600), **changes)[100:] == ids(folder, CUT, **changes)
    assert ids(folder, range(552, 600), workers=2, **changes) == ids(folder, CUT, **changes)[52:]


@pytest.mark.parametrize("limits", [BatchLimits(), BatchLimits(tokens=200), BatchLimits(frames=3)])
def test_with_length_grouping(folder: Folder, limits: BatchLimits) -> None:
    straight = ids(folder, range(450, 600), grouping=limits)[50:]
    assert ids(folder, CUT, grouping=limits) == ids(folder, CUT, workers=2, grouping=limits) == straight
    plain = ids(folder, CUT)
    assert [samples(step) for step in straight] == [samples(step) for step in plain]
    assert straight != plain


@pytest.mark.parametrize("grouping", [None, BatchLimits(), BatchLimits(tokens=200)])
def test_resumed_on_another_number_of_ranks_every_step_has_the_same_samples(folder: Folder, grouping: Any) -> None:
    alone = ids(folder, CUT, batch_size=1, accumulation=4, grouping=grouping)
    for world in (2, 4):
        split = {"batch_size": 1, "accumulation": 4 // world, "world_size": world, "grouping": grouping}
        ranks = [ids(folder, CUT, rank, **split) for rank in range(world)]
        for step, *shares in zip(alone, *ranks, strict=True):
            assert samples(step) == sorted(name for share in shares for name in samples(share))


def test_resumed_on_another_number_of_ranks_the_global_order_is_kept(folder: Folder) -> None:
    alone = ids(folder, CUT, batch_size=1, accumulation=4)
    for world in (2, 4):
        split = {"batch_size": 1, "accumulation": 4 // world, "world_size": world}
        ranks = [ids(folder, CUT, rank, **split) for rank in range(world)]
        for step, *shares in zip(alone, *ranks, strict=True):
            assert step == [batch for micro in zip(*shares, strict=True) for batch in micro]


@pytest.mark.parametrize("grouping", [None, BatchLimits()])
def test_two_ranks_never_take_the_same_sample_in_a_pass(folder: Folder, grouping: Any) -> None:
    folder.clips("p/7.mp4")  # whole again: a replacement may be a sample that another rank takes
    split = {"accumulation": 1, "world_size": 2, "grouping": grouping, "steps_per_epoch": 10}
    ranks = [ids(folder, range(10), rank, **split) for rank in (0, 1)]  # an epoch: a pass through the 40 clips at most
    first, second = ({name for step in steps for name in samples(step)} for steps in ranks)
    assert len(first) + len(second) == 40
    assert not first & second
