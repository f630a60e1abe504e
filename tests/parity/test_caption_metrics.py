"""Caption tokens and scores equal those of the COCO caption tools, which run the Stanford tokenizer.

``VIDEO_LLAMA_METRICS=FILE`` compares another file of the format of ``tests/fixtures/captions/coco.json``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FIXTURES
from video_llama.evaluation.caption_metrics import caption_scores
from video_llama.evaluation.ptb_tokenizer import ptb_tokenize

CAPTIONS = FIXTURES / "captions"


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads(Path(os.environ.get("VIDEO_LLAMA_METRICS", CAPTIONS / "coco.json")).read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["references", "candidates"])
def test_the_tokens_are_those_of_the_stanford_tokenizer(recorded, kind):
    captions = [caption for of_clip in recorded[kind].values() for caption in of_clip]
    tokens = [caption for of_clip in recorded[f"tokenized_{kind}"].values() for caption in of_clip]
    assert len(tokens) == len(captions) > 0
    assert ptb_tokenize(captions) == tokens


def test_the_scores_are_those_of_the_coco_tools(recorded):
    candidates = {clip: caption for clip, (caption,) in recorded["candidates"].items()}
    scores = caption_scores(recorded["references"], candidates)
    compared = recorded["corpus"].keys() - {"METEOR", "SPICE"}  # which this package does not compute
    assert compared == scores.keys()
    for name in compared:
        assert scores[name].corpus == pytest.approx(recorded["corpus"][name], abs=1e-9), name
    for name in recorded["each"].keys() & compared:
        assert scores[name].each == pytest.approx(recorded["each"][name], abs=1e-9), name


def test_lines_that_captions_seldom_hold_have_the_tokens_of_the_stanford_tokenizer():
    lines = json.loads((CAPTIONS / "ptb_lines.json").read_text(encoding="utf-8"))["lines"]
    found = ptb_tokenize(line for line, _ in lines)
    differences = [(line, got, wanted) for (line, wanted), got in zip(lines, found, strict=True) if got != wanted]
    assert differences == []
