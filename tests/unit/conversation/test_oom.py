"""Running out of memory is reported with advice, whatever the wording of the library; other errors are unchanged."""

from __future__ import annotations

import pytest
import torch

from video_llama.common.errors import OutOfMemory
from video_llama.conversation.oom import within_memory

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.65 GiB of which 1.2 GiB is free."
)
CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


@pytest.fixture
def emptied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(1))
    return calls


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA),
        RuntimeError(CPU),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 137438953472 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "cpu on Windows", "cublas", "python"],
)
def test_running_out_of_memory_is_reported_with_advice_and_frees_the_cache(error, emptied):
    @within_memory
    def work() -> None:
        raise error

    with pytest.raises(
        OutOfMemory, match=r"out of memory \(.+\)\. Ask for fewer tokens .*low_resource: true"
    ) as caught:
        work()
    assert emptied == [1]
    assert caught.value.__context__ is None  # nothing keeps the tensors alive


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("out of memory"), KeyboardInterrupt()])
def test_other_errors_are_unchanged(error, emptied):
    @within_memory
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        work()
    assert caught.value is error
    assert emptied == []


def test_a_result_is_returned():
    @within_memory
    def work(a: int, *, b: int) -> int:
        return a + b

    assert work(1, b=2) == 3
