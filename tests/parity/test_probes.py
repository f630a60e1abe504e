"""Inputs of about 1e-3, at which each LayerNorm's eps shows.

Measured over a whole reference: no difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tests.parity.conftest import Reference
from tests.parity.tolerances import PROBE, PROBE_RELATIVE
from video_llama.checkpoints.published import BLIP2_QFORMER, EVA_CLIP_G, IMAGEBIND_HUGE, VISION_BRANCH
from video_llama.models.video_llama import VideoLLaMA


def norm_of(models: Sequence[VideoLLaMA], weight: str) -> nn.Module:
    """Return our module with a weight of the original, found through the key maps."""
    if weight.startswith("llama_model."):
        ours = weight.replace("llama_model.", "decoder.lm.")
    else:
        in_file = weight.removeprefix("visual_encoder.").removeprefix("audio_encoder.")
        formats = BLIP2_QFORMER, VISION_BRANCH, EVA_CLIP_G, IMAGEBIND_HUGE
        ours = next(names[in_file] for f in formats if (names := f.key_map.to_ours([in_file]).names))
    name = ours.removesuffix(".weight")
    return next(modules[name] for model in models if name in (modules := dict(model.named_modules())))


@torch.no_grad()
def test_each_norm_has_the_originals_eps_and_values(
    model_with_audio: VideoLLaMA, model_on_frames: VideoLLaMA, reference: Reference
) -> None:
    probes, golden = reference.info["scenarios"]["probe"], reference.of("probe")
    assert probes
    assert golden.keys() == {f"{name}/{end}" for name in probes for end in ("input", "output")}
    for name, probe in probes.items():
        norm = norm_of([model_with_audio, model_on_frames], probe["weight"])
        assert probe["eps"] == (norm.eps if isinstance(norm, nn.LayerNorm) else norm.variance_epsilon), name
        ours, theirs = norm(golden[f"{name}/input"]), golden[f"{name}/output"]
        torch.testing.assert_close(ours, theirs, rtol=PROBE_RELATIVE, atol=PROBE, msg=lambda m, n=name: f"{n}: {m}")
