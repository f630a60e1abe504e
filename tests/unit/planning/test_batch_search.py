"""``batch_size_train: auto`` takes the largest batch that fits every process, and steps keep their samples."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.unit.runners.runs import ALONE, Samples
from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError
from video_llama.config.loader import JobConfig
from video_llama.datasets.mixture import Mixture
from video_llama.planning import batch_search
from video_llama.planning.batch_search import largest, settled
from video_llama.runners.config import RunConfig
from video_llama.runners.micro_batch import divisors
from video_llama.runners.parallel_config import ParallelConfig


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "batch_sizes"


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_decoder(tmp_path_factory.mktemp("decoder"))


def job(decoder: Path, **settings: Any) -> JobConfig:
    settings = {"init_lr": 1e-2, "max_epoch": 1, "iters_per_epoch": 2, "batch_size_train": "auto", **settings}
    run = RunConfig(output_dir="out", device="cpu", amp=False, **settings)
    return JobConfig(model=tiny.config(decoder), run=run)


def find(config: JobConfig, model: Any, world: World = ALONE) -> RunConfig:
    mixture = Mixture([Samples()], [1.0], 0)
    found: RunConfig = settled(config, model, mixture, world, pad_id=0).run
    return found


class Others(World):
    """Other processes, for whom more than so many samples are too many."""

    def all_reduce_sum(self, *values: float) -> list[float]:
        return [value + (self.tried > 4) for value in values]

    def fits(self, size: int) -> bool:
        object.__setattr__(self, "tried", size)
        return True


def test_sizes_are_powers_of_two_and_three_quarters_of_them_that_split_the_samples() -> None:
    assert divisors(48) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 48]
    assert divisors(32) == [1, 2, 4, 8, 16, 32]
    assert divisors(5) == [1]


@pytest.mark.parametrize("limit", range(1, 50))
def test_the_largest_size_that_fits_is_found(limit: int) -> None:
    sizes = divisors(48)
    assert largest(sizes, lambda size: size <= limit, ALONE) == max(size for size in sizes if size <= limit)


def test_what_does_not_fit_another_process_does_not_fit_the_run() -> None:
    others = Others(0, 2, torch.device("cpu"))
    assert largest(divisors(32), others.fits, others) == 4


def test_if_nothing_fits_the_error_says_what_to_do() -> None:
    with pytest.raises(TrainingError, match="not even 1 of the longest samples fits"):
        largest([1, 2], lambda size: False, ALONE)


def test_a_step_keeps_its_samples(decoder: Path) -> None:
    run = find(job(decoder, global_batch_size=24), tiny.model(decoder))
    assert (run.batch_size_train, run.accum_grad_iters) == (24, 1)
    assert run.samples_per_step(1) == 24


def test_less_memory_gives_smaller_batches_and_more_of_them(
    decoder: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    model, found = tiny.model(decoder), []
    for memory in (10**9, 10**7, 3 * 10**6):
        monkeypatch.setattr(batch_search, "available_memory", lambda memory=memory: memory)
        run = find(job(decoder, global_batch_size=64), model)
        assert run.micro_batch_size * run.accum_grad_iters == 64
        found.append(run.micro_batch_size)
        for file in cache.iterdir():
            file.unlink()
    assert found == sorted(found, reverse=True)
    assert found[0] == 64 > found[-1]


def test_a_trial_finds_where_memory_ends(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model(decoder)
    forward, tried = model.forward, []

    def limited(batch: Any) -> Any:
        tried.append(len(batch.ids))
        if len(batch.ids) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(batch)

    model.forward = limited  # type: ignore[method-assign]
    monkeypatch.setattr(batch_search, "_by_estimate", batch_search._by_trial)
    run = find(job(decoder, global_batch_size=48), model)
    assert (run.batch_size_train, run.accum_grad_iters) == (12, 4)
    assert {12, 16} <= set(tried)
    assert all(p.grad is None for p in model.parameters())


def test_another_error_of_a_trial_is_raised(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model(decoder)
    monkeypatch.setattr(model, "forward", lambda batch: (_ for _ in ()).throw(RuntimeError("shapes do not match")))
    monkeypatch.setattr(batch_search, "_by_estimate", batch_search._by_trial)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        find(job(decoder, global_batch_size=8), model)


def test_what_was_found_is_kept_for_the_same_config_and_no_other(
    decoder: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny.model(decoder)
    find(job(decoder, global_batch_size=8), model)
    (file,) = cache.iterdir()
    assert json.loads(file.read_text()) == {"batch_size_train": 8}
    file.write_text('{"batch_size_train": 2}')
    with caplog.at_level(logging.INFO):
        assert find(job(decoder, global_batch_size=8), model).batch_size_train == 2
    assert "found before" in caplog.text
    assert find(job(decoder, global_batch_size=16), model).batch_size_train == 16
    other = job(decoder, global_batch_size=8)
    other = replace(other, model=replace(other.model, use_grad_checkpoint=True))
    assert find(other, model).batch_size_train == 8


@pytest.mark.parametrize("content", ["", "[]", '{"batch_size_train": 7}', '{"batch_size_train": "8"}'])
def test_a_damaged_note_is_ignored(decoder: Path, cache: Path, content: str) -> None:
    model = tiny.model(decoder)
    find(job(decoder, global_batch_size=8), model)
    (file,) = cache.iterdir()
    file.write_text(content)
    assert find(job(decoder, global_batch_size=8), model).batch_size_train == 8


def test_looking_changes_neither_random_numbers_nor_weights(decoder: Path) -> None:
    model = tiny.model(decoder, dropout=0.1).eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    find(job(decoder, global_batch_size=8), model)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert not model.training


def test_processes_that_cannot_share_a_step_are_refused(decoder: Path) -> None:
    with pytest.raises(TrainingError, match="8 samples cannot be shared evenly by 3 processes"):
        find(job(decoder, global_batch_size=8), tiny.model(decoder), World(0, 3, torch.device("cpu")))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"batch_size_train": "auto"}, "batch_size_train"),
        ({"batch_size_train": "auto", "global_batch_size": 8, "accum_grad_iters": 2}, "accum_grad_iters"),
        ({"batch_size_train": "auto", "global_batch_size": 8, "max_tokens_per_batch": 99}, "max_tokens_per_batch"),
        ({"batch_size_train": 4, "global_batch_size": 8}, "global_batch_size"),
    ],
)
def test_settings_that_contradict_auto_are_named(settings: dict[str, Any], key: str) -> None:
    config = RunConfig(init_lr=1.0, max_epoch=1, output_dir="out", device="cpu", **settings)
    assert [found for found, _ in config.check()] == [key]


def test_parts_that_are_shared_are_refused_because_trials_that_fail_in_one_process_stop_the_others(
    decoder: Path,
) -> None:
    run = job(decoder, global_batch_size=8, parallel=ParallelConfig(decoder="shard")).run
    assert [key for key, _ in run.check()] == ["batch_size_train"]


def test_a_model_without_encoders_is_tried_with_stored_features(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, used = tiny.model(decoder), []
    monkeypatch.setattr(Samples, "use", lambda self, features: used.append(features), raising=False)
    monkeypatch.setattr(type(model), "stored_features", "a store")
    find(job(decoder, global_batch_size=4), model)
    assert used == ["a store"]
