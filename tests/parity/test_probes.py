"""Inputs of about 1e-3, at which each LayerNorm's eps shows.

Measured over a whole reference: no difference.
"""

from __future__ import annotations

import torch
from torch import nn

from tests.parity.conftest import Reference
from tests.parity.tolerances import PROBE, PROBE_RELATIVE
from video_llama.checkpoints.formats import BLIP2_QFORMER, EVA_CLIP_G, VISION_BRANCH
from video_llama.models.video_llama import VideoLLaMA

OF_IMAGEBIND = "ib_"


def norm_of(model: VideoLLaMA, weight: str) -> nn.Module:
    """Return our module that holds a weight of the original, found as a weights file's tensors are."""
    if weight.startswith("llama_model."):
        ours = weight.replace("llama_model.", "decoder.lm.")
    else:
        in_file = weight.removeprefix("visual_encoder.")
        formats = BLIP2_QFORMER, VISION_BRANCH, EVA_CLIP_G
        ours = next(names[in_file] for f in formats if (names := f.key_map.to_ours([in_file]).names))
    return model.get_submodule(ours.removesuffix(".weight"))


@torch.no_grad()
def test_each_norm_has_the_originals_eps_and_values(model: VideoLLaMA, reference: Reference) -> None:
    probes = {n: p for n, p in reference.info["scenarios"]["probe"].items() if not n.startswith(OF_IMAGEBIND)}
    golden = {n: t for n, t in reference.of("probe").items() if not n.startswith(OF_IMAGEBIND)}
    assert probes
    assert golden.keys() == {f"{name}/{end}" for name in probes for end in ("input", "output")}
    for name, probe in probes.items():
        norm = norm_of(model, probe["weight"])
        assert probe["eps"] == (norm.eps if isinstance(norm, nn.LayerNorm) else norm.variance_epsilon), name
        ours, theirs = norm(golden[f"{name}/input"]), golden[f"{name}/output"]
        torch.testing.assert_close(ours, theirs, rtol=PROBE_RELATIVE, atol=PROBE, msg=lambda m, n=name: f"{n}: {m}")
