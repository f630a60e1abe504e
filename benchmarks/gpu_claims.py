"""What is claimed of a GPU, at the full size of a 7B model with random weights; ``benchmarks.gpu`` measures it."""

from __future__ import annotations

from benchmarks.rows import Row

STEP = "stage 1, batch 32: rate"
SPEEDUP = "stage 1, batch 32: rate over that of the original's path"
PEAK = "stage 1, batch 32: peak memory over that of the original's path"
CHECKPOINTED = "stage 1, batch 32: peak memory with activation checkpointing"
CACHED = "stage 1, batch 32: rate with stored features over that without"
DECODE_1 = "decoding, batch 1: rate"
DECODE_1_SPEEDUP = "decoding, batch 1: rate over that of a loop with a dynamic cache"
DECODE_32_SPEEDUP = "decoding, batch 32: rate over that of a loop with a dynamic cache"
IN_USE = "7B with sound, one answer: peak memory"

GPU_CLAIMS = [
    Row(STEP, None, "samples/s", bound=">= 80"),
    Row(SPEEDUP, None, "", bound=">= 1.5"),
    Row(PEAK, None, "", bound="<= 0.65"),
    Row(CHECKPOINTED, None, "GB", bound="<= 20"),
    Row(CACHED, None, "", bound=">= 2.8"),
    Row(DECODE_1, None, "tokens/s", bound=">= 225"),
    Row(DECODE_1_SPEEDUP, None, "", bound=">= 4"),
    Row(DECODE_32_SPEEDUP, None, "", bound=">= 4"),
    Row(IN_USE, None, "GB", bound="<= 24"),
]
