"""Which number format a part of the model gets, by what was asked, its file, and the device."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from video_llama.models import precision
from video_llama.models.precision import NumberFormat, cpu_flags, is_fast, number_format, number_formats

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FP16, BF16, FP32 = torch.float16, torch.bfloat16, torch.float32
PLAIN = frozenset({"avx2", "avx512f", "f16c"})


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: request.param)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: request.param)


@pytest.mark.parametrize("cpu", [PLAIN, frozenset()], indirect=True)
@pytest.mark.parametrize("in_file", [FP16, BF16, FP32])
def test_on_a_cpu_without_the_instructions_weights_are_as_in_the_file_and_compute_in_fp32(cpu, in_file):
    assert number_format("auto", in_file, CPU) == NumberFormat(in_file, FP32)


@pytest.mark.parametrize(
    ("cpu", "fast"),
    [
        (PLAIN | {"avx512_bf16"}, {BF16}),
        (PLAIN | {"avx512_bf16", "avx512_fp16", "amx_bf16"}, {BF16, FP16}),
        (PLAIN | {"amx_bf16"}, {BF16}),
        (PLAIN | {"amx_fp16"}, {FP16}),
    ],
    indirect=["cpu"],
)
@pytest.mark.parametrize("in_file", [FP16, BF16, FP32])
def test_on_a_cpu_with_the_instructions_weights_compute_as_in_the_file(cpu, fast, in_file):
    computed = in_file if in_file in fast else FP32
    assert number_format("auto", in_file, CPU) == NumberFormat(in_file, computed)


@pytest.mark.parametrize("gpu", [(7, 0), (7, 5), (8, 0), (9, 0)], indirect=True)
def test_on_a_gpu_auto_is_fp16_or_for_a_bf16_file_bf16_if_the_gpu_has_it(gpu):
    has_bf16 = torch.cuda.get_device_capability(GPU) >= (8, 0)
    assert number_format("auto", FP16, GPU) == (FP16, FP16)
    assert number_format("auto", FP32, GPU) == (FP16, FP16)
    assert number_format("auto", BF16, GPU) == ((BF16, BF16) if has_bf16 else (FP16, FP16))


@pytest.mark.parametrize("gpu", [(7, 5), (9, 0)], indirect=True)
@pytest.mark.parametrize("in_file", [FP16, BF16, FP32])
def test_fp16_and_fp32_stay_what_they_say_on_a_gpu(gpu, in_file):
    assert number_format("fp16", in_file, GPU) == (FP16, FP16)
    assert number_format("fp32", in_file, GPU) == (FP32, FP32)


@pytest.mark.parametrize(
    ("asked", "cpu", "loose", "strict"),
    [
        ("fp16", PLAIN, (FP16, FP32), (FP16, FP16)),
        ("bf16", PLAIN, (BF16, FP32), (BF16, BF16)),
        ("fp32", PLAIN, (FP32, FP32), (FP32, FP32)),
        ("bf16", PLAIN | {"avx512_bf16"}, (BF16, BF16), (BF16, BF16)),
        ("auto", PLAIN, (FP16, FP32), (FP16, FP32)),
    ],
    indirect=["cpu"],
)
def test_what_a_cpu_is_slow_at_is_computed_in_fp32_unless_precision_is_strict(asked, cpu, loose, strict):
    assert number_format(asked, FP16, CPU) == loose
    assert number_format(asked, FP16, CPU, strict=True) == strict


@pytest.mark.parametrize("gpu", [(7, 5)], indirect=True)
def test_a_gpu_without_bf16_uses_fp16_unless_precision_is_strict(gpu):
    assert number_format("bf16", FP32, GPU) == (FP16, FP16)
    assert number_format("bf16", FP32, GPU, strict=True) == (BF16, BF16)


def notices(caplog: pytest.LogCaptureFixture, vit: str, llama: str, device: torch.device, strict: bool = False):
    caplog.clear()
    asked = {"llama_precision": llama, "vit_precision": vit}
    number_formats(asked, dict.fromkeys(asked, FP16), device, strict)
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("cpu", [PLAIN], indirect=True)
def test_one_line_says_what_replaces_the_format_that_was_asked_for(cpu, caplog):
    assert notices(caplog, "fp16", "fp16", CPU) == [
        "warning: model.llama_precision, model.vit_precision: this CPU is slow in fp16, so weights are stored in fp16 and "
        "computed in fp32. model.strict_precision: true computes in fp16"
    ]
    assert [line.split(": this CPU is slow in ")[1][:4] for line in notices(caplog, "fp16", "bf16", CPU)] == [
        "fp16",
        "bf16",
    ]
    assert notices(caplog, "auto", "fp32", CPU) == notices(caplog, "fp16", "fp16", CPU, strict=True) == []


@pytest.mark.parametrize("gpu", [(7, 5)], indirect=True)
def test_the_line_names_the_gpu(gpu, caplog):
    assert notices(caplog, "auto", "bf16", GPU) == [
        "warning: model.llama_precision: this GPU is slow in bf16, so weights are stored in fp16 and computed in fp16. "
        "model.strict_precision: true computes in bf16"
    ]


def test_instruction_sets_are_read_from_linux(monkeypatch):
    text = "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx2 avx512_bf16\nbugs\t\t: amx_fp16\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: text)
    assert cpu_flags() == {"fpu", "avx2", "avx512_bf16"}
    assert is_fast(BF16, CPU)
    assert not is_fast(FP16, CPU)


def test_where_linux_says_nothing_no_instructions_are_assumed(monkeypatch):
    def missing(path: Path, encoding: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert cpu_flags() == frozenset()
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: "Features : fp asimd\n")
    assert cpu_flags() == frozenset()
