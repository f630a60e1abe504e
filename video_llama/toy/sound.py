"""The audio of a toy clip: each shape has its own sound."""

from __future__ import annotations

import math

import numpy as np

from video_llama.toy.scene import FPS, N_FRAMES, SHAPES, Scene

SOUNDS = ("low", "high", "rising", "falling", "noisy", "pulsing")
"""The sound of each shape, in the order of ``SHAPES``."""

SAMPLE_RATE = 16000
"""Samples per second, one channel."""
SECONDS = N_FRAMES / FPS


def sound_of(shape: str) -> str:
    """Return the word for a shape's sound."""
    return SOUNDS[SHAPES.index(shape)]


def synthesise(scene: Scene) -> np.ndarray:
    """Return the audio of a clip: float32[samples], between -1 and 1."""
    rng = scene.rng(2)
    t = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    pitch, phase = rng.uniform(0.92, 1.08), rng.uniform()
    wave = {
        "low": lambda: _tone(220 * pitch) * _gate(t, 2.0, 0.6, phase),
        "high": lambda: _tone(1760 * pitch) * _gate(t, 2.0, 0.6, phase),
        "rising": lambda: _sweep(300 * pitch, 2400 * pitch),
        "falling": lambda: _sweep(2400 * pitch, 300 * pitch),
        "noisy": lambda: rng.standard_normal(t.size) * 0.4 * _gate(t, 3.0, 0.5, phase),
        "pulsing": lambda: _tone(700 * pitch) * _gate(t, 12.0, 0.4, phase),
    }[sound_of(scene.sound_shape)]()
    hiss = rng.standard_normal(t.size) * 0.004
    return np.clip(wave * rng.uniform(0.3, 0.7) + hiss, -1, 1).astype(np.float32)


def _tone(hertz: float) -> np.ndarray:
    return _sweep(hertz, hertz)


def _sweep(start: float, end: float) -> np.ndarray:
    """Return the phase of a glide between two frequencies, in hertz, linear in pitch over the clip."""
    n = round(SECONDS * SAMPLE_RATE)
    hertz = start * (end / start) ** (np.arange(n) / n)
    return np.sin(2 * math.pi * np.cumsum(hertz) / SAMPLE_RATE)


def _gate(t: np.ndarray, hertz: float, duty: float, phase: float) -> np.ndarray:
    """Return an envelope, 0 to 1 for each sample, that switches a sound on and off ``hertz`` times a second without clicks."""
    position = (t * hertz + phase) % 1.0
    edge = 0.005 * hertz
    return np.clip(np.minimum(position, duty - position) / edge, 0.0, 1.0)
