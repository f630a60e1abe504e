"""Scores of captions, where the reference values do not reach."""

from __future__ import annotations

import pytest

from video_llama.common.errors import DataError
from video_llama.evaluation.caption_metrics import caption_scores

REFERENCES = {
    "kettle": ["a robot is filling a kettle", "a machine pours water into a kettle"],
    "otters": ["two otters are juggling shells", "otters play with shells"],
    "puppet": ["a puppet spills paint on a rug"],
}


def test_a_caption_that_is_a_reference_has_full_scores():
    scores = caption_scores(REFERENCES, {clip: captions[0] for clip, captions in REFERENCES.items()})
    for name in ("BLEU-1", "BLEU-4", "ROUGE-L"):
        assert scores[name].each == pytest.approx((1, 1, 1), abs=1e-8), name
    assert scores["CIDEr"].each[2] == pytest.approx(10)
    assert all(0 < score < 10 for score in scores["CIDEr"].each[:2])


def test_each_score_belongs_to_its_clip_whatever_the_order():
    candidates = {
        "puppet": "nothing at all",
        "otters": "two otters are juggling shells",
        "kettle": "a robot is filling it",
    }
    for score in caption_scores(REFERENCES, candidates).values():
        assert score.each[2] < score.each[0] < score.each[1]


def test_an_empty_caption_scores_nothing():
    scores = caption_scores(REFERENCES, {**{clip: refs[0] for clip, refs in REFERENCES.items()}, "puppet": " . "})
    assert [scores[name].each[2] for name in ("ROUGE-L", "CIDEr")] == [0, 0]
    assert scores["BLEU-1"].each[2] < 1e-6


def test_rare_ngrams_are_those_of_few_clips_so_one_clip_alone_has_no_cider():
    one = {"kettle": REFERENCES["kettle"]}
    assert caption_scores(one, {"kettle": "a robot is filling a kettle"})["CIDEr"].corpus == 0


@pytest.mark.parametrize(
    ("references", "candidates", "problem"),
    [
        ({}, {}, "at least one clip"),
        ({"a": ["x"]}, {"b": "x"}, "one candidate for each clip"),
        ({"a": ["x"], "b": []}, {"a": "x", "b": "y"}, "1 clips have no reference, such as b"),
    ],
)
def test_captions_without_references_are_refused(references, candidates, problem):
    with pytest.raises(DataError, match=problem):
        caption_scores(references, candidates)
