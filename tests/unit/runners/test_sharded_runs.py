"""Two processes that share a decoder have the losses of two that each hold it, and go on with one another's checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.processes import in_two_processes
from tests.unit.runners.runs import Samples, losses, metrics, runner, same, trained
from tests.unit.runners.test_validation import loss_check
from video_llama.checkpoints.convert import convert
from video_llama.checkpoints.io import SHARDS, read_checkpoint, write_weights
from video_llama.checkpoints.shards_folder import (
    check_shards,
    link_shards,
    read_whole,
    remove_checkpoint,
    shards_folder,
)
from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError, WeightsError
from video_llama.models.decoder.config import LoRAConfig
from video_llama.models.decoder.trained_decoder import export_decoder
from video_llama.models.sharding import Sharding
from video_llama.models.video_llama import VideoLLaMA
from video_llama.models.weights.loading import read_weights_files
from video_llama.runners.callbacks.checkpoint import keep_as
from video_llama.runners.stop import Stop

SETTINGS: dict[str, Any] = {
    "batch_size_train": 2, "max_epoch": 5, "iters_per_epoch": 4, "seed": 47, "max_grad_norm": 0.5,
}  # fmt: skip
UNEVEN: dict[str, Any] = {**SETTINGS, "max_epoch": 1, "batch_size_train": 4, "max_tokens_per_batch": 12}
"""Limits under which processes have different numbers of micro-batches."""
SHORT: dict[str, Any] = {**SETTINGS, "max_epoch": 2, "iters_per_epoch": 3, "init_lr": 1e-3, "min_lr": 1e-4, "ema": 0.9}
ADAPTED: dict[str, Any] = {"lora": LoRAConfig(r=2, dropout=0.0)}
TRAINED: dict[str, Any] = {"frozen_llama": False}


class Noted(NamedTuple):
    """What one process notes."""

    micro_batches: list[int]
    """How many it has in each step of the run with limits."""
    held: tuple[int, int]
    """Values of the decoder in its memory, and in the whole."""
    validated: list[dict[str, float | None]]
    """The losses on held-out samples: of the sharded model, and of the one that is not."""


def shared(world: World) -> Sharding:
    return Sharding(world, frozenset({"decoder"}))


def with_shared_vision(world: World, decoder: Path, folder: Path) -> VideoLLaMA:
    """The same model, with decoder and frame encoder shared. Random values cannot be drawn into shards, so they come from a file."""
    whole = tiny.model(decoder)
    file = folder / f"vision{world.rank}.safetensors"
    write_weights(file, {name: t for name, t in whole.state_dict().items() if name.startswith("vision.")})
    both = Sharding(world, frozenset({"decoder", "vision"}))
    model = VideoLLaMA.from_config(tiny.config(decoder, vit_ckpt=str(file)), sharding=both)
    model.qformer.load_state_dict(whole.qformer.state_dict())
    model.video_branch.load_state_dict(whole.video_branch.state_dict())
    return model


def train(world: World, decoder: Path, folder: Path) -> Noted:
    """Train with the decoder whole and sharded, go on with each other's checkpoints, and validate."""
    noted: dict[str, Any] = {}
    for name, sharding in (("whole", None), ("shared", shared(world))):
        run = trained(decoder, folder / name, model=tiny.model(decoder, sharding=sharding), world=world, **SETTINGS)
        noted[name] = loss_check(run.model, Samples(7))(world, Stop()).metrics  # type: ignore[union-attr]
        limited = trained(
            decoder, folder / f"uneven_{name}", model=tiny.model(decoder, sharding=sharding), world=world, **UNEVEN
        )
        adapted = tiny.model(decoder, sharding=sharding, **ADAPTED)
        trained(decoder, folder / f"adapted_{name}", model=adapted, world=world, **SHORT)
    trained(decoder, folder / "both_shared", model=with_shared_vision(world, decoder, folder), world=world, **SETTINGS)
    for name, other, sharding in (("whole", "shared", None), ("shared", "whole", shared(world))):
        resume = {"resume_ckpt_path": str(folder / other / "checkpoint_step000008.pth")}
        model = tiny.model(decoder, sharding=sharding)
        trained(decoder, folder / f"resumed_{name}", model=model, world=world, **SETTINGS, **resume)
    batches = limited.batches()
    held = sum(p.to_local().numel() for p in limited.model.decoder.parameters() if isinstance(p, DTensor))
    return Noted(
        [len(batches.micro_batches(step)) for step in range(4)],
        (held, sum(p.numel() for p in run.model.decoder.parameters())),
        [noted["shared"], noted["whole"]],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the two processes write."""
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def noted(decoder: Path, folder: Path) -> list[Noted]:
    """What each of the two processes noted of their runs."""
    return in_two_processes(train, folder, decoder, folder)


@pytest.fixture(scope="module")
def two(noted: list[Noted], folder: Path) -> Path:
    """The folder of the runs of two processes."""
    return folder


def test_a_shared_decoder_gives_the_losses_of_a_whole_one(two):
    assert losses(two / "shared") == pytest.approx(losses(two / "whole"), rel=1e-5)
    assert len(losses(two / "shared")) == 20
    norms = [[line["grad_norm"] for line in metrics(two / name)] for name in ("shared", "whole")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_shared_frame_encoder_gives_the_losses_of_a_whole_one_though_some_batches_have_no_frames(two):
    assert losses(two / "both_shared") == pytest.approx(losses(two / "whole"), rel=1e-5)


def test_each_process_holds_half_of_the_decoder(noted):
    for process in noted:
        held, whole = process.held
        assert held == pytest.approx(whole / 2, rel=0.01)


def test_processes_with_fewer_micro_batches_keep_pace(noted, two):
    assert noted[0].micro_batches != noted[1].micro_batches
    assert losses(two / "uneven_shared") == pytest.approx(losses(two / "uneven_whole"), rel=1e-5)


def test_adapters_of_a_shared_decoder_are_trained_as_those_of_a_whole_one(two):
    assert losses(two / "adapted_shared") == pytest.approx(losses(two / "adapted_whole"), rel=1e-5)


@pytest.mark.parametrize("name", ["whole", "shared"])
def test_a_run_goes_on_from_the_checkpoint_of_the_other_kind(two, name):
    assert losses(two / f"resumed_{name}") == pytest.approx(losses(two / "whole")[8:], rel=1e-5)


def test_the_checkpoint_of_a_frozen_decoder_is_one_file_of_the_branch(two):
    assert not shards_folder(two / "shared/checkpoint_step000008.pth").exists()
    names = [read_checkpoint(two / name / "checkpoint_step000008.pth")["model"].keys() for name in ("shared", "whole")]
    assert names[0] == names[1]


def test_losses_on_held_out_data_are_those_of_a_whole_decoder_though_one_process_has_fewer_batches(noted):
    for process in noted:
        found, expected = process.validated
        assert found == pytest.approx(expected, rel=1e-5)


# A decoder that is trained in full


def train_fully(world: World, decoder: Path, folder: Path) -> None:
    """Train the decoder too, whole and sharded, and go on in both ways from either kind of checkpoint."""

    def run(name: str, sharding: Sharding | None, **more: Any) -> None:
        model = tiny.model(decoder, sharding=sharding, **TRAINED)
        trained(decoder, folder / name, model=model, world=world, **SHORT, **more)

    run("whole", None)
    run("shared", shared(world))
    run("shared_bf16", Sharding(world, frozenset({"decoder"}), torch.bfloat16), amp=True, amp_dtype="bf16")
    run("whole_bf16", None, amp=True, amp_dtype="bf16")
    from_shared = {"resume_ckpt_path": str(folder / "shared/checkpoint_step000003.pth")}
    from_whole = {"resume_ckpt_path": str(folder / "whole/checkpoint_step000003.pth")}
    run("shared_from_shared", shared(world), **from_shared)
    run("whole_from_shared", None, **from_shared)
    run("shared_from_whole", shared(world), **from_whole)


@pytest.fixture(scope="module")
def full(decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs that train the decoder."""
    folder = tmp_path_factory.mktemp("full")
    in_two_processes(train_fully, folder, decoder, folder)
    return folder


def test_a_shared_decoder_is_trained_as_a_whole_one(full):
    assert losses(full / "shared") == pytest.approx(losses(full / "whole"), rel=1e-5)
    norms = [[line["grad_norm"] for line in metrics(full / name)] for name in ("shared", "whole")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert max(norms[0]) > SHORT["max_grad_norm"]  # so that they were clipped


@pytest.mark.parametrize("name", ["shared_bf16", "whole_bf16"])
def test_a_trained_decoder_computes_in_bf16_from_weights_in_fp32(full, name):
    found, exact = losses(full / name), losses(full / "whole")
    assert found == pytest.approx(exact, rel=0.03)
    assert found != pytest.approx(exact, rel=1e-5)
    path = full / name / "checkpoint_step000006.pth"
    weights = read_whole(path, read_checkpoint(path))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    step = max((tensor - tensor.bfloat16().float()).abs().max() for tensor in weights.values())
    assert step > 0  # values between those of bf16


def test_a_run_with_a_trained_decoder_resumes_from_its_shards_bit_for_bit(full):
    assert losses(full / "shared_from_shared") == losses(full / "shared")[3:]
    last = "checkpoint_step000006.pth"
    straight, resumed = (read_checkpoint(full / name / last) for name in ("shared", "shared_from_shared"))
    assert all(same(value, resumed[key]) for key, value in straight.items() if key != SHARDS)
    names = ("shared", "shared_from_shared")
    tensors = [read_whole(full / name / last, saved) for name, saved in zip(names, (straight, resumed), strict=True)]
    assert same(*tensors)


@pytest.mark.parametrize("name", ["whole_from_shared", "shared_from_whole"])
def test_a_run_with_a_trained_decoder_goes_on_whole_or_shared(full, name):
    assert losses(full / name) == pytest.approx(losses(full / "whole")[3:], rel=1e-5)


@pytest.mark.parametrize("name", ["shared", "whole"])
def test_a_trained_decoder_is_exported_to_a_folder_with_the_same_logits(full, decoder, tmp_path, name):
    path = full / name / "checkpoint_step000006.pth"
    export_decoder(tiny.config(decoder, **TRAINED), path, tmp_path / "decoder", "fp32")
    model = tiny.model(decoder, **TRAINED)
    runner(decoder, tmp_path / "again", model=model, **SHORT, resume_ckpt_path=str(path))
    exported, before = (AutoModelForCausalLM.from_pretrained(one).eval() for one in (tmp_path / "decoder", decoder))
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        logits = exported(ids).logits
        assert torch.equal(logits, model.decoder.lm(ids).logits)
        assert not torch.allclose(logits, before(ids).logits, atol=1e-2)
    config = tiny.config(tmp_path / "decoder", ckpt=str(tmp_path / "decoder/branch.pth"))
    used = VideoLLaMA.from_config(config).state_dict()
    branch = read_checkpoint(path)["model"]
    assert branch.keys() <= used.keys()
    assert all(torch.equal(tensor, used[n]) for n, tensor in branch.items() if n.startswith("video_branch"))


@pytest.mark.parametrize("name", ["shared", "whole"])
def test_a_checkpoint_with_a_decoder_is_not_mistaken_for_a_branch(full, decoder, tmp_path, name):
    config = tiny.config(decoder, ckpt=str(full / name / "checkpoint_step000006.pth"))
    with pytest.raises(WeightsError, match="video-llama export-decoder"):
        read_weights_files(config)
    with pytest.raises(WeightsError, match="video-llama export-decoder"):
        convert(config.ckpt, tmp_path / "theirs.pth")


def test_damaged_shards_are_named_and_an_earlier_checkpoint_is_used(full, decoder, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(full / "shared", folder)
    last = folder / "checkpoint_step000006.pth"
    damaged = max(shards_folder(last).iterdir(), key=lambda file: file.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(WeightsError, match=f"{damaged.name}: damaged"):
        runner(decoder, tmp_path / "other", model=tiny.model(decoder, **TRAINED), **SHORT, resume_ckpt_path=str(last))
    run = runner(decoder, folder, model=tiny.model(decoder, **TRAINED), **SHORT, resume="auto")
    assert run.state.step == 3
    assert f"{damaged}: damaged" in caplog.text
    damaged.unlink()
    with pytest.raises(WeightsError, match=f"{damaged.name}: no such file"):
        check_shards(last, read_checkpoint(last))


def test_a_checkpoint_is_deleted_and_kept_under_another_name_with_its_shards(full, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(full / "shared", folder)
    last, best = folder / "checkpoint_step000006.pth", folder / "checkpoint_best.pth"
    link_shards(last, best)
    keep_as(best, last)
    remove_checkpoint(last)
    assert not last.exists()
    assert not shards_folder(last).exists()
    check_shards(best, read_checkpoint(best))
    whole = read_checkpoint(full / "whole" / last.name)["model"]
    assert read_whole(best, read_checkpoint(best)).keys() == whole.keys()


def fail_to_write(world: World, decoder: Path, folder: Path) -> tuple[bool, str]:
    """Train with a checkpoint whose folder one process cannot write."""
    model = tiny.model(decoder, sharding=shared(world), **TRAINED)
    if world.rank == 1:
        dcp.FileSystemWriter.write_data = _full_disk  # type: ignore[method-assign]
    try:
        trained(decoder, folder, model=model, world=world, **SHORT)
    except TrainingError as error:
        return True, str(error)
    return False, ""


def _full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_ends_the_run_only_at_its_last_checkpoint_and_leaves_nothing(decoder, tmp_path):
    for failed, message in in_two_processes(fail_to_write, tmp_path, decoder, tmp_path / "run"):
        assert failed
        assert "the last checkpoint, of step 6, could not be written" in message
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "metrics.jsonl"]
    assert len(losses(tmp_path / "run")) == 6
