"""Weights files: a crash never leaves half of one, and reading one runs no code."""

from __future__ import annotations

import os
import pickle
import random
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from video_llama.checkpoints.io import FORMAT, read_checkpoint, read_weights, write_checkpoint, write_weights
from video_llama.common.errors import WeightsError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
STATE = {
    "model": TENSORS,
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]},
    "scaler": {},
    "config": "model:\n  arch: video_llama\n",
    "epoch": 1,
    "step": 20,
}

WRITERS = pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.pth", lambda path, tensors: write_checkpoint(path, {"model": tensors})),
        ("a.safetensors", write_weights),
    ],
    ids=["pth", "safetensors"],
)
Write = Callable[[Path, dict[str, Tensor]], None]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@contextmanager
def disk_full_after(n_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: writing goes well at first, and then does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


# --- written whole or not at all


@WRITERS
def test_a_written_file_is_read_back(tmp_path: Path, name: str, write: Write) -> None:
    write(tmp_path / name, TENSORS)
    assert equal(read_weights(tmp_path / name), TENSORS)
    assert os.listdir(tmp_path) == [name]


def test_a_checkpoint_keeps_everything_needed_to_resume(tmp_path: Path) -> None:
    write_checkpoint(str(tmp_path / "c.pth"), STATE)
    content = read_checkpoint(str(tmp_path / "c.pth"))
    assert equal(content.pop("model"), TENSORS)
    assert content.pop("format") == FORMAT
    assert content == {name: value for name, value in STATE.items() if name != "model"}


@WRITERS
def test_missing_parent_folders_are_created(tmp_path: Path, name: str, write: Write) -> None:
    write(tmp_path / "new" / "run" / name, TENSORS)
    assert equal(read_weights(tmp_path / "new" / "run" / name), TENSORS)


@WRITERS
def test_a_newer_file_replaces_an_older_one(tmp_path: Path, name: str, write: Write) -> None:
    write(tmp_path / name, {"x": torch.zeros(2)})
    write(tmp_path / name, TENSORS)
    assert equal(read_weights(tmp_path / name), TENSORS)
    assert os.listdir(tmp_path) == [name]


@WRITERS
def test_a_reader_of_the_old_file_can_finish_it(tmp_path: Path, name: str, write: Write) -> None:
    write(tmp_path / name, TENSORS)
    whole = (tmp_path / name).read_bytes()
    with open(tmp_path / name, "rb") as reader:
        write(tmp_path / name, {"x": torch.zeros(2)})
        assert reader.read() == whole


@WRITERS
def test_when_the_disk_fills_up_the_old_file_is_still_there_and_nothing_else(
    tmp_path: Path, name: str, write: Write
) -> None:
    write(tmp_path / name, TENSORS)
    with disk_full_after(100_000), pytest.raises(WeightsError, match=rf"{name}: cannot be written, and left as it was"):
        write(tmp_path / name, {"large": torch.zeros(1_000_000)})
    assert equal(read_weights(tmp_path / name), TENSORS)
    assert os.listdir(tmp_path) == [name]


@WRITERS
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, MemoryError])
def test_interrupted_while_writing_the_old_file_is_still_there_and_nothing_else(
    tmp_path: Path, name: str, write: Write, interrupt: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / name, TENSORS)

    def half(_: Any, to: Path | BinaryIO) -> None:
        to.write_bytes(b"half of a file") if isinstance(to, Path) else to.write(b"half of a file")
        raise interrupt

    monkeypatch.setattr("torch.save", half)
    monkeypatch.setattr("video_llama.checkpoints.io.save_file", half)
    with pytest.raises(interrupt):
        write(tmp_path / name, {"x": torch.zeros(2)})
    assert os.listdir(tmp_path) == [name]
    monkeypatch.undo()
    assert equal(read_weights(tmp_path / name), TENSORS)


def test_killed_while_writing_the_old_checkpoint_still_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "c.pth", STATE)

    def half_then_killed(_: Any, file: BinaryIO) -> None:
        file.write(b"half of a file")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("torch.save", half_then_killed)
    child = os.fork()
    if child == 0:
        write_checkpoint(tmp_path / "c.pth", {"model": {}})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert equal(read_weights(tmp_path / "c.pth"), TENSORS)


@WRITERS
def test_a_file_has_the_permissions_of_any_other_new_file(tmp_path: Path, name: str, write: Write) -> None:
    (tmp_path / "plain").touch()
    write(tmp_path / name, TENSORS)
    assert stat.filemode((tmp_path / name).stat().st_mode) == stat.filemode((tmp_path / "plain").stat().st_mode)


@WRITERS
def test_a_folder_or_a_file_in_the_way_is_reported(tmp_path: Path, name: str, write: Write) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(WeightsError, match=rf"{tmp_path}/{name}: cannot be written.*[Dd]irectory"):
        write(tmp_path / name, TENSORS)
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match=rf"{tmp_path}/file/{name}: cannot be written"):
        write(tmp_path / "file" / name, TENSORS)
    assert sorted(os.listdir(tmp_path)) == [name, "file"]


def test_tensors_that_are_views_of_others_are_written_by_value(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    write_weights(tmp_path / "w.safetensors", {"t": whole.t()})
    assert torch.equal(read_weights(tmp_path / "w.safetensors")["t"], whole.t())


# --- read without running code


def test_tensors_are_at_the_top_of_a_file_or_under_model(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "flat.pth")
    torch.save({"model": TENSORS, "epoch": 3}, tmp_path / "nested.pth")
    torch.save({"model": TENSORS}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for name in ("flat.pth", "nested.pth", "legacy.pth"):
        assert equal(read_weights(tmp_path / name), TENSORS)


class TouchesFile:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, zipped: bool) -> None:
    path, proof = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"model": TouchesFile(proof)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=rf"{path}: refused: beside tensors it holds posix\.mkdir.*run code"):
        read_weights(path)
    assert not proof.exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, protocol: int) -> None:
    path, proof = tmp_path / "evil.pth", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"model": TouchesFile(proof)}, protocol=protocol))
    with pytest.raises(WeightsError, match=rf"{path}: refused: beside tensors it holds posix\.mkdir.*run code"):
        read_weights(path)
    assert not proof.exists()


def test_the_kind_of_a_file_depends_on_its_content_not_its_name(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2)}
    write_weights(tmp_path / "w.safetensors", tensors)
    write_checkpoint(tmp_path / "c.pth", {"model": tensors})
    for old, new in (("w.safetensors", "w.pth"), ("c.pth", "c.safetensors")):
        (tmp_path / old).rename(tmp_path / new)
        assert read_weights(tmp_path / new).keys() == tensors.keys()


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.ones(2, device="meta"), "without values"),
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.ones(2, dtype=torch.complex64), "complex"),
    ],
)
def test_a_tensor_without_plain_values_is_named(tmp_path: Path, tensor: torch.Tensor, kind: str) -> None:
    torch.save({"model": {"good": torch.ones(1), "odd": tensor}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=rf"w\.pth: odd is .*{kind}"):
        read_weights(tmp_path / "w.pth")


def test_a_whole_pickled_module_is_refused_with_its_class(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(WeightsError, match=r"holds torch\.nn\.modules\.linear\.Linear.*state_dict\(\)"):
        read_weights(tmp_path / "module.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_message_advises_to_switch_the_safety_off(tmp_path: Path) -> None:
    for content in (b"\x80\x02garbage", pickle.dumps(TouchesFile(tmp_path / "ran")), b"text"):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            read_weights(tmp_path / "bad.pth")
        assert "weights_only" not in str(caught.value)


SUFFIXES = pytest.mark.parametrize("suffix", [".pth", ".safetensors"])


@SUFFIXES
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file. Download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a git-lfs pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html>404</html>", "a web page, not the file itself"),
        (b"<html><body>Sign in</body></html>", "a web page, not the file itself"),
    ],
)
def test_what_a_failed_download_left_is_recognised(tmp_path: Path, suffix: str, content: bytes, reason: str) -> None:
    path = tmp_path / f"eva{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{path}: {reason}"):
        read_weights(path)


@SUFFIXES
def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(WeightsError, match=rf"{tmp_path}/none{suffix}: no such file"):
        read_weights(tmp_path / f"none{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(WeightsError, match=rf"{tmp_path}/folder{suffix}: a directory"):
        read_weights(tmp_path / f"folder{suffix}")


@WRITERS
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, name: str, write: Write) -> None:
    write(tmp_path / name, TENSORS)
    whole = (tmp_path / name).read_bytes()
    for n in range(1, len(whole), 40):
        (tmp_path / name).write_bytes(whole[:n])
        with pytest.raises(WeightsError, match=rf"{tmp_path}/{name}: "):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_refused_or_read_but_never_an_error_of_another_kind(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "damaged.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3, 10))):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        with suppress(WeightsError):
            read_weights(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.ones(1)], "holds a list, expected a table"),
        (torch.ones(1), "holds a Tensor, expected a table"),
        ({"model": {"a": 1}}, "holds no table of tensors, neither at the top nor under 'model'"),
        ({"model": [torch.ones(1)]}, "holds no table of tensors"),
        ({"epoch": 1, "lr": 0.1}, "holds no table of tensors"),
        ({1: torch.ones(1)}, "holds no table of tensors"),
    ],
)
def test_a_file_without_a_table_of_tensors_is_refused(tmp_path: Path, content: Any, reason: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=reason):
        read_weights(tmp_path / "w.pth")


def test_a_checkpoint_of_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.pth", {"format": "video_llama/3", "model": TENSORS})
    for read in (read_checkpoint, read_weights):
        with pytest.raises(WeightsError, match=r"c\.pth: written in format video_llama/3; .* Update video_llama"):
            read(tmp_path / "c.pth")


def test_tensors_of_a_gpu_run_are_read_where_there_is_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(save(TENSORS))
    write_checkpoint(tmp_path / "c.pth", STATE)
    for name in ("w.safetensors", "c.pth"):
        assert {t.device.type for t in read_weights(tmp_path / name).values()} == {"cpu"}
