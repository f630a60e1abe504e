"""Adding a delta: sums are right, folders that do not fit are refused, and nothing partial is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.deltas import CONFIG, EMBEDDINGS, VOCABULARY, Tensors, base_tensors, delta_tensors, read_folder, write_folder
from video_llama.checkpoints.delta import shards
from video_llama.checkpoints.delta.delta import NORM, apply_delta, invert_delta, looks_like_delta
from video_llama.checkpoints.hf_folder import WeightsFolder
from video_llama.common.errors import WeightsError
from video_llama.prompts.tokenizer import load_tokenizer

BASE = base_tensors()
DELTA = delta_tensors(BASE)
BUFFER = "model.layers.0.self_attn.rotary_emb.inv_freq"
WEIGHT = "model.layers.1.mlp.up_proj.weight"


class Folders(NamedTuple):
    """Where the three are."""

    base: Path
    delta: Path
    target: Path


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "llama", tmp_path / "delta", tmp_path / "vicuna")


def write(folders: Folders, base: Tensors = BASE, delta: Tensors = DELTA) -> None:
    write_folder(folders.base, base)
    write_folder(folders.delta, delta)


def refused(folders: Folders, *words: str) -> None:
    """Adding is refused in these words, and nothing is left of the target, or is beside it."""
    before = sorted(os.listdir(folders.target.parent))
    with pytest.raises(WeightsError) as caught:
        apply_delta(*folders)
    for word in words:
        assert word in str(caught.value)
    assert sorted(os.listdir(folders.target.parent)) == before


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: t for name, t in tensors.items() if name not in names}


def added(name: str) -> Tensor:
    """Base + delta, the base's missing rows being zeros."""
    sum_ = DELTA[name].to(torch.float32 if name.endswith("inv_freq") else torch.float16, copy=True)
    sum_[: len(BASE[name])] += BASE[name]
    return sum_


# --- sums


@pytest.mark.parametrize(
    ("base_files", "delta_files"),
    [
        ((".safetensors", 1), (".safetensors", 1)),
        ((".bin", 3), (".safetensors", 2)),
        ((".safetensors", 2), (".bin", 3)),
    ],
)
def test_every_tensor_is_the_sum_however_the_two_are_split_into_files(
    folders: Folders, base_files: tuple[str, int], delta_files: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_CHUNK", 1000)  # bytes, so that these tensors are cut too
    write_folder(folders.base, BASE, *base_files)
    write_folder(folders.delta, DELTA, *delta_files)
    apply_delta(*folders)
    target = read_folder(folders.target)
    assert target.keys() == BASE.keys()
    for name, tensor in target.items():
        assert tensor.dtype == added(name).dtype
        assert torch.equal(tensor, added(name)), name
    assert len(WeightsFolder(folders.target).shards) == delta_files[1]


def test_the_target_is_a_decoder_with_the_tokenizer_and_the_config_of_the_delta(folders: Folders) -> None:
    write(folders)
    apply_delta(*folders)
    model, loading = AutoModelForCausalLM.from_pretrained(folders.target, output_loading_info=True)
    assert not any(loading.values())
    assert model.dtype == torch.float16
    assert torch.equal(model.state_dict()[WEIGHT], added(WEIGHT))
    assert model.config.vocab_size == VOCABULARY + 1
    assert json.loads((folders.target / "added_tokens.json").read_text()) == {"[PAD]": VOCABULARY}
    assert load_tokenizer(folders.target).encode("a red square") == load_tokenizer(folders.base).encode("a red square")
    assert json.loads((folders.target / "config.json").read_text())["torch_dtype"] == "float16"


def test_a_delta_without_added_rows_and_weights_in_other_types_work_too(folders: Folders) -> None:
    delta = {name: t.float() for name, t in delta_tensors(BASE, added=0).items()}
    write(folders, {name: t.float() for name, t in BASE.items()}, delta)
    apply_delta(*folders)
    expected = BASE[WEIGHT] + delta[WEIGHT].half()
    assert torch.equal(read_folder(folders.target)[WEIGHT], expected)


@pytest.mark.parametrize("lacking", ["base", "delta"])
def test_buffers_that_one_side_lacks_are_left_out(folders: Folders, lacking: str) -> None:
    one = without(BASE, BUFFER) if lacking == "base" else BASE
    other = without(DELTA, BUFFER) if lacking == "delta" else DELTA
    write(folders, one, other)
    apply_delta(*folders)
    assert read_folder(folders.target).keys() == without(BASE, BUFFER).keys()


@pytest.mark.parametrize(("tokens", "rows"), [(40, 40), (30, 640 - VOCABULARY)], ids=["a row each", "padded to 64"])
def test_many_new_tokens_are_added_where_the_tokenizer_of_the_delta_names_them(
    folders: Folders, tokens: int, rows: int
) -> None:
    write(folders, delta=delta_tensors(BASE, added=rows))
    (folders.delta / "added_tokens.json").write_text(json.dumps({f"<{i}>": VOCABULARY + i for i in range(tokens)}))
    apply_delta(*folders)
    assert len(read_folder(folders.target)[EMBEDDINGS[0]]) == VOCABULARY + rows


# --- taking it off


def test_taking_the_delta_off_gives_the_base_back_to_fp16_rounding(folders: Folders, tmp_path: Path) -> None:
    write(folders)
    apply_delta(*folders)
    invert_delta(folders.target, folders.delta, tmp_path / "back")
    back, target = read_folder(tmp_path / "back"), read_folder(folders.target)
    assert back.keys() == BASE.keys()
    exact = total = 0
    for name, tensor in BASE.items():
        assert back[name].shape == tensor.shape
        size = torch.maximum(tensor.float().abs(), target[name][: len(tensor)].float().abs())
        assert bool(((back[name].float() - tensor.float()).abs() <= 2**-10 * size).all()), name
        exact, total = exact + int((back[name] == tensor).sum()), total + tensor.numel()
    assert exact / total > 0.9
    model, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(loading.values())
    assert load_tokenizer(tmp_path / "back").vocab_size == len(model.get_input_embeddings().weight) == VOCABULARY


def test_a_model_that_is_not_the_base_plus_this_delta_is_refused(folders: Folders, tmp_path: Path) -> None:
    write(folders)
    with pytest.raises(WeightsError, match="different vocabularies"):
        invert_delta(folders.base, folders.delta, tmp_path / "back")
    assert not (tmp_path / "back").exists()


# --- refused before anything is written


@pytest.mark.parametrize("lacking", ["base", "delta"])
def test_a_tensor_that_one_side_lacks_is_named(folders: Folders, lacking: str) -> None:
    one = without(BASE, WEIGHT) if lacking == "base" else BASE
    other = without(DELTA, WEIGHT) if lacking == "delta" else DELTA
    write(folders, one, other)
    refused(folders, str(getattr(folders, lacking)), "lacks 1 tensors", WEIGHT)


def test_another_width_is_named(folders: Folders) -> None:
    write(folders, base={**BASE, WEIGHT: torch.ones(32, 20).half()})
    refused(folders, "different sizes", WEIGHT, "(32, 20)", "(32, 16)")


@pytest.mark.parametrize("added_rows", [-5, 40])
def test_another_vocabulary_is_named(folders: Folders, added_rows: int) -> None:
    write(folders, delta=delta_tensors(BASE, added=added_rows))
    refused(folders, "different vocabularies", str(VOCABULARY), str(VOCABULARY + added_rows))


def test_rows_added_to_one_embedding_only_are_refused(folders: Folders) -> None:
    write(folders, delta={**DELTA, EMBEDDINGS[1]: DELTA[EMBEDDINGS[1]][:-1]})
    refused(folders, "different vocabularies", EMBEDDINGS[1])


def test_tokenizers_that_differ_are_named(folders: Folders) -> None:
    write(folders)
    reference = Path(__file__).parents[2] / "fixtures" / "reference" / "text" / "tokenizer" / "tokenizer.model"
    shutil.copy(reference, folders.base)
    refused(folders, "different vocabularies: token ", "Use the base that the delta was made from")


def test_a_type_other_than_floating_point_is_named(folders: Folders) -> None:
    write(folders, base={**BASE, WEIGHT: BASE[WEIGHT].to(torch.int8)})
    refused(folders, WEIGHT, "int8", "expected fp16, bf16 or fp32")


def test_swapped_folders_and_two_of_a_kind_are_named(folders: Folders) -> None:
    write(folders)
    refused(Folders(folders.delta, folders.base, folders.target), "the two are swapped")
    refused(Folders(folders.base, folders.base, folders.target), "both are whole models")
    refused(Folders(folders.delta, folders.delta, folders.target), "both are deltas")


def test_a_delta_that_is_in_the_base_already_is_named(folders: Folders) -> None:
    write(folders)
    apply_delta(*folders)
    again = folders._replace(base=folders.target, target=folders.target.with_name("again"))
    refused(again, "vicuna: this delta is in it already")


def test_a_config_of_another_size_is_named(folders: Folders) -> None:
    write(folders)
    config = folders.delta / "config.json"
    config.write_text(json.dumps({**CONFIG, "model_type": "llama"}))
    refused(folders, "config.json: vocab_size is 560, but the embeddings have 561 rows")
    config.write_text("<!DOCTYPE html>")
    refused(folders, "config.json: a web page")
    config.unlink()
    refused(folders, "config.json: no such file")


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer_config.json"])
def test_a_tokenizer_that_failed_to_download_is_named(folders: Folders, name: str) -> None:
    write(folders)
    (folders.delta / name).write_text("version https://git-lfs.github.com/spec/v1")
    refused(folders, str(folders.delta / name), "git-lfs pointer")


def test_nothing_is_overwritten(folders: Folders) -> None:
    write(folders)
    folders.target.mkdir()
    (folders.target / "mine.txt").write_text("precious")
    refused(folders, "vicuna: is not empty")
    refused(folders._replace(target=folders.base), "llama: is not empty")
    refused(folders._replace(target=folders.target / "mine.txt"), "mine.txt: a file is there")
    refused(folders._replace(target=folders.base / "new"), "lies in", str(folders.base))
    assert (folders.target / "mine.txt").read_text() == "precious"


def test_too_little_disk_space_is_reported_before_writing(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folders)
    full = shutil.disk_usage(folders.base)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    monkeypatch.setattr("video_llama.checkpoints.delta.delta.write_shards", lambda *_: pytest.fail("written"))
    refused(folders, "are free on this disk")


# --- failed, interrupted or killed while writing


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["base", "delta"])
@pytest.mark.parametrize("name", [WEIGHT, NORM])
def test_a_value_that_is_not_finite_is_named_and_nothing_is_left(
    folders: Folders, side: str, name: str, value: float
) -> None:
    tensors = {"base": BASE, "delta": DELTA}
    broken = tensors[side][name].clone()
    broken[3] = value
    write(folders, **{**tensors, side: {**tensors[side], name: broken}})
    refused(folders, str(getattr(folders, side)), f"{name} holds NaN or infinity")


def test_a_sum_beyond_fp16_is_named(folders: Folders) -> None:
    write(folders, base={**BASE, WEIGHT: torch.full_like(BASE[WEIGHT], 1e6, dtype=torch.float32)})
    refused(folders, WEIGHT, "too large for fp16")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_nothing(
    folders: Folders, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folders)

    def half(folder: Path, *_: object) -> None:
        (folder / "model.safetensors").write_bytes(b"half of a file")
        raise error

    monkeypatch.setattr("video_llama.checkpoints.delta.delta.write_shards", half)
    with pytest.raises(WeightsError if isinstance(error, OSError) else KeyboardInterrupt):
        apply_delta(*folders)
    assert sorted(os.listdir(folders.base.parent)) == ["delta", "llama"]


def test_the_remains_of_a_killed_run_are_hidden_and_removed_by_the_next(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folders)

    def half_then_killed(folder: Path, *_: object) -> None:
        (folder / "model-00007-of-00009.safetensors").write_bytes(b"half of a file")
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr("video_llama.checkpoints.delta.delta.write_shards", half_then_killed)
        apply_delta(*folders)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert sorted(os.listdir(folders.base.parent)) == [".vicuna.partial", "delta", "llama"]
    apply_delta(*folders)
    assert sorted(os.listdir(folders.base.parent)) == ["delta", "llama", "vicuna"]
    assert [file.name for file in folders.target.glob("*.safetensors")] == ["model.safetensors"]


def test_two_runs_for_one_target_do_not_mix(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folders)

    def meanwhile(*_: object) -> None:
        monkeypatch.undo()
        with pytest.raises(WeightsError, match="another process is writing there"):
            apply_delta(*folders)
        raise KeyboardInterrupt

    monkeypatch.setattr("video_llama.checkpoints.delta.delta.write_shards", meanwhile)
    with pytest.raises(KeyboardInterrupt):
        apply_delta(*folders)


# --- memory


PEAK = """
import sys
from pathlib import Path
from video_llama.checkpoints.delta.delta import apply_delta

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

small, large = map(Path, sys.argv[1:])
apply_delta(small / "llama", small / "delta", small / "vicuna")
before = peak()
apply_delta(large / "llama", large / "delta", large / "vicuna")
print(peak() - before)
"""


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_memory_stays_under_twice_the_largest_file(tmp_path: Path, suffix: str) -> None:
    large = {**BASE, WEIGHT: torch.ones(40 * 2**19, 1).half(), BUFFER: torch.ones(40 * 2**18)}  # 40 MB each
    for size, base in (("small", BASE), ("large", large)):
        write_folder(tmp_path / size / "llama", base, suffix, 2)
        write_folder(tmp_path / size / "delta", {n: t / 128 for n, t in base.items()}, suffix, 2)
    files = WeightsFolder(tmp_path / "large" / "delta").shards
    words = [sys.executable, "-c", PEAK, str(tmp_path / "small"), str(tmp_path / "large")]
    result = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert int(result.stdout) < 2 * max(file.stat().st_size for file in files)


def test_a_delta_differs_from_a_model_in_its_last_norm() -> None:
    assert looks_like_delta(DELTA[NORM])
    assert not looks_like_delta(BASE[NORM])
