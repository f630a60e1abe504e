"""Scores on the model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.sharing.conftest import Toy
from video_llama.common.errors import VideoLlamaError
from video_llama.common.files import sha256_of
from video_llama.sharing.export import export
from video_llama.sharing.scores import read_scores


def write_results(folder: Path, ckpt: Path, **changes: Any) -> Path:
    scores = {"accuracy": {"value": 0.5, "n": 40, "n_clips": 20, "interval": [0.35, 0.65]}, "bleu": {"value": 0.25}}
    content = {
        "format": 1,
        "model": {"weights": [{"file": ckpt.name, "sha256": sha256_of(ckpt)}]},
        "benchmarks": {"music_avqa": {"answered": 40, "scores": scores}},
        **changes,
    }
    path = folder / "results.json"
    path.write_text(json.dumps(content))
    return path


def test_scores_with_their_intervals_are_in_the_card_and_its_metadata(toy: Toy, tmp_path):
    job = toy.job()
    scores = read_scores(write_results(tmp_path, toy.path("ckpt")), job.model)
    export(job, tmp_path / "out", "bundle", scores=scores)
    _, front, text = (tmp_path / "out/README.md").read_text().split("---\n", 2)
    assert "| music_avqa | accuracy | 0.5 | 0.35 to 0.65 | 40 |" in text
    assert "| music_avqa | bleu | 0.25 |  |  |" in text
    (index,) = yaml.safe_load(front)["model-index"]
    assert [result["metrics"][0]["value"] for result in index["results"]] == [0.5, 0.25]


def test_scores_of_other_weights_are_refused(toy: Toy, tmp_path):
    path = write_results(tmp_path, toy.path("vit_ckpt"))
    with pytest.raises(VideoLlamaError, match=r"results.json: holds scores of other weights than model.ckpt: .*branch"):
        read_scores(path, toy.job().model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "written in format 2; this version reads 1"),
        ({"benchmarks": []}, "is not the results.json of video-llama evaluate"),
        (
            {"benchmarks": {"a": {"scores": {"b": {"value": "high"}}}}},
            "is not the results.json of video-llama evaluate",
        ),
        ({"model": {}}, "is not the results.json of video-llama evaluate"),
    ],
)
def test_a_file_of_another_kind_is_refused(toy: Toy, tmp_path, changes, message):
    with pytest.raises(VideoLlamaError, match=message):
        read_scores(write_results(tmp_path, toy.path("ckpt"), **changes), toy.job().model)
    with pytest.raises(VideoLlamaError, match="no such file"):
        read_scores(tmp_path / "nothing.json", toy.job().model)
