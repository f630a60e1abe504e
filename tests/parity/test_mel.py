"""Spectrograms of sound segments, from the original's waveforms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.parity.conftest import Reference
from video_llama.processors.audio import MEL_STD, SEGMENT_SECONDS, log_mel, segment_starts, span, spectrogram
from video_llama.processors.decode import SAMPLE_RATE
from video_llama.processors.decode.waveform import resampled

ATOL = 1e-4
"""The goldens' tolerance for outputs. Measured: all are equal on two or more threads. On one, the mean of 64000 samples is
rounded differently, which shows in quiet bins: 8e-5."""


@pytest.fixture(scope="module")
def cases(reference: Reference) -> dict[str, dict[str, Any]]:
    return reference.read("data/audio_goldens.json")["cases"]


@pytest.fixture(scope="module")
def tensors(reference: Reference) -> dict[str, Tensor]:
    return load_file(reference.folder / "data/audio_goldens.safetensors")


def waveform_of(case: str, tensors: dict[str, Tensor]) -> Tensor:
    return tensors[f"{case.split('/')[0]}/waveform_int16"].float() / 32768


def assert_near(ours: Tensor, golden: Tensor, what: str) -> None:
    """Compare as much as the golden contains: smaller directories keep only the first time frames."""
    part = ours[tuple(slice(size) for size in golden.shape)]
    torch.testing.assert_close(part, golden, atol=ATOL, rtol=0.0, msg=lambda m: f"{what}: {m}")


def test_segments_start_and_end_where_the_original_cuts_them(cases):
    segmented = {name: case for name, case in cases.items() if "sample_slices" in case}
    assert segmented
    for name, case in segmented.items():
        n_samples = case["n_samples_16k"]
        starts = segment_starts(n_samples / SAMPLE_RATE, len(case["sample_slices"]))
        timepoints = [time for start in starts for time in (start, start + SEGMENT_SECONDS)]
        assert timepoints == pytest.approx([time for pair in case["clip_timepoints"] for time in pair], abs=1e-9), name
        slices = [(start, min(stop, n_samples)) for start, stop in case["sample_slices"]]
        assert [span(start, n_samples) for start in starts] == slices, name


def test_spectrograms_of_segments_are_the_originals(cases, tensors):
    compared = [name for name in cases if f"{name}/mel" in tensors]
    assert compared
    for name in compared:
        rate = cases[name]["sample_rate"]
        waveform = torch.cat(list(resampled([waveform_of(name, tensors).numpy()], rate)), 1)
        if (golden := tensors.get(f"stages/resampled_{rate}_to_{SAMPLE_RATE}")) is not None:
            assert_near(waveform, golden, f"{name}, resampled")
        n_samples = waveform.shape[1]
        assert n_samples == cases[name]["n_samples_16k"], name
        starts = segment_starts(n_samples / SAMPLE_RATE, len(cases[name]["sample_slices"]))
        mel = torch.stack([spectrogram(waveform[:, slice(*span(start, n_samples))]) for start in starts])
        assert [1, *mel.shape] == cases[name]["out_shape"], name
        assert_near(mel[None], tensors[f"{name}/mel"], name)


def test_spectrograms_before_normalisation_are_the_originals(cases, tensors):
    compared = [name for name in cases if f"{name}/fbank" in tensors]
    assert compared
    for name in compared:
        mel = log_mel(waveform_of(name, tensors))
        assert list(mel.shape) == cases[name]["shape"], name
        assert_near(mel / MEL_STD, tensors[f"{name}/fbank"] / MEL_STD, name)
