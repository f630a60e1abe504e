"""Pages of results and of comparisons, without files: what they show, whatever is in the results."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from video_llama.cli import recorded_pictures
from video_llama.cli.comparison_page import comparison_html
from video_llama.cli.evaluation_page import evaluation_html, shown_questions
from video_llama.cli.interval_plots import bar, difference_scale, dot, scale_of
from video_llama.cli.main import main
from video_llama.cli.question_card import cut

MODEL = {
    "cfg_path": "eval_configs/toy.yaml",
    "options": [],
    "config": {"arch": "video_llama", "equip_audio_branch": False},
    "inference": {"video": {"name": "alpro_video_eval"}, "image": {"name": "blip2_image_eval", "image_size": 32}},
    "weights": [{"file": "branch.safetensors", "sha256": "ab" * 32}],
}


def item(n: int, right: float, **more: Any) -> dict[str, Any]:
    kind = ("colour", "shape")[n % 2]
    return {
        "id": str(n), "clip": f"clip{n // 2}", "file": f"clip{n // 2}.png", "media": "image", "types": {"type": kind},
        "prompt": f"What {kind}?", "options": [], "references": ["ring"], "answer": "ring" if right else "star",
        "scores": {"accuracy": right}, **more,
    }  # fmt: skip


def score(*right: float) -> dict[str, Any]:
    return {"value": sum(right) / len(right), "n": len(right), "n_clips": 2, "interval": [0.25, 0.75]}


def results(*right: float, folder: Path | str = "none", **more: Any) -> dict[str, Any]:
    benchmark = {
        "settings": {"media_dir": str(folder)}, "answered": len(right), "failed": 0, "without_sound_track": 0, "prompt": "<question>",
        "annotations": {"test.jsonl": "cd" * 32}, "published_file": None,
        "counts": {"found": len(right) + 1, "missing": 1, "asked": len(right), "scored": len(right)}, "missing_clips": ["lost"],
        "scores": {"accuracy": {**score(*right), "by": {"type": {"colour": score(*right[::2])}}}},
        "items": [item(n, r) for n, r in enumerate(right)],
    }  # fmt: skip
    return {
        "format": 1, "model": MODEL, "generation": {"max_new_tokens": 8}, "versions": {"torch": "2"},
        "benchmarks": {"manifest": benchmark | more},
    }  # fmt: skip


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html.split("</style>")[1]))


# --- Results


def test_scores_have_their_intervals_and_what_they_stand_on():
    text = text_of(evaluation_html(results(1, 0, 1, 1)))
    assert "accuracy 75.0 % [25.0, 75.0] 4 2" in text
    assert "colour 100.0 % [25.0, 75.0] 2 2" in text
    assert "1 clips are not in the media folder; their questions are left out lost" in text
    assert "generation.max_new_tokens 8" in text
    assert "manifest: SHA-256 of test.jsonl cdcd" in text
    assert "branch.safetensors abab" in text


def test_texts_of_questions_and_answers_are_shown_as_texts():
    hostile = "</dd><script>alert(1)</script><img src=x onerror=alert(1)>"
    content = results(1, 0)
    record = content["benchmarks"]["manifest"]
    for one in record["items"]:
        one |= dict.fromkeys(("id", "clip", "prompt", "answer"), hostile)
        one |= {"references": [hostile], "types": {hostile: hostile}, "file": hostile}
        one["conditions"] = {hostile: {"answer": hostile, "scores": {"accuracy": 0.0}, "partner": hostile}}
    record["items"].append(item(9, 0) | {"answer": None, "error": hostile})
    del record["items"][-1]["answer"]
    record["scores"]["accuracy"]["by"] = {hostile: {hostile: score(1)}}
    record["missing_clips"] = [hostile]
    content["model"] = {**MODEL, "cfg_path": hostile, "options": [hostile], "inference": {hostile: hostile}}
    content["benchmarks"][hostile] = content["benchmarks"].pop("manifest")
    other = deepcopy(content)
    other["benchmarks"][hostile]["items"][0]["scores"]["accuracy"] = 0.0
    for html in (evaluation_html(content), comparison_html((hostile, content), (hostile, other))):
        assert "<script" not in html
        assert "<img src=x" not in html
        assert "&lt;script&gt;" in html


def test_what_cannot_be_shown_of_a_file_is_told_instead(tmp_path):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "clip0.png")
    (tmp_path / "clip1.png").write_text("no picture")
    html = evaluation_html(results(1, 0, 1, 1, 0, folder=tmp_path))
    assert html.count("data:image/webp") == 2
    assert html.count("No pictures: ") == 3
    assert f"No pictures: {tmp_path}/clip2.png: no such file" in html


def test_results_of_a_processor_that_is_unknown_here_have_no_pictures():
    content = results(1, 0)
    content["model"] = {**MODEL, "inference": {"video": {"name": "mine"}}}
    html = evaluation_html(content)
    assert html.count("how the model read files is not known here") == 2


def test_a_page_has_room_for_so_many_pictures(tmp_path, monkeypatch):
    for n in range(3):
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (64, 64, 3), np.uint8)).save(
            tmp_path / f"clip{n}.png"
        )
    monkeypatch.setattr(recorded_pictures, "MOST_BYTES", 3000)
    html = evaluation_html(results(1, 0, 1, 1, 0, folder=tmp_path))
    assert html.count("data:image/webp") + html.count("this page is large enough") == 5
    assert "this page is large enough" in html


def test_pages_of_the_same_results_are_equal():
    assert evaluation_html(results(1, 0, 1)) == evaluation_html(results(1, 0, 1))


@pytest.mark.parametrize("n", [1, 5, 40])
def test_the_lowest_scores_are_not_those_of_the_sample_again(n):
    record = results(*([0.0, 1.0] * n))["benchmarks"]["manifest"]
    shown = shown_questions(record, 8)
    assert len(shown.sample) == min(8, 2 * n)
    assert not {one["id"] for one in shown.sample} & {one["id"] for one in shown.worst}
    assert all(one["scores"]["accuracy"] == 0 for one in shown.worst)
    assert shown == shown_questions(record, 8)


def test_a_benchmark_of_ones_own_without_scores_of_single_questions_has_a_page():
    items = [
        {"id": 1, "prompt": "What?", "file": "a.mp4", "answer": "ring"},
        {"id": 2, "prompt": "What?", "error": "lost"},
    ]
    record = {"settings": None, "answered": 1, "failed": 1, "without_sound_track": 0, "scores": {"colour": {"value": 0.5}}, "items": items}  # fmt: skip
    content = results(1)
    content["benchmarks"] = {"mine": record}
    text = text_of(evaluation_html(content))
    assert "colour 50.0 %" in text
    assert "1 lost 2" in text  # one question, its reason, its id


def test_questions_without_references_have_a_page():
    content = results(1, scores={}, items=[item(0, 1) | {"references": [], "scores": {}}])
    assert "These questions have no references, so nothing is scored." in evaluation_html(content)


def test_the_accuracy_of_guessing_is_marked_where_questions_have_options():
    options = [item(n, 1) | {"options": ["ring", "star"], "references": ["B"]} for n in range(2)]
    html = evaluation_html(results(1, 1, items=options))
    assert "The line marks guessing: 50.0 %." in html
    assert "<li>B. star</li>" in html
    assert 'class="mark" d="M50.00' in html


def test_reliance_is_drawn_for_each_type_with_differences_beyond_chance_marked():
    full = {"n": 9, "n_clips": 9, "value": 1.0, "interval": [0.9, 1.0], "difference": None, "unchanged": None, "entropy": 1.5, "n_answers": 3}  # fmt: skip
    black = full | {
        "value": 0.25, "interval": [0.1, 0.4], "unchanged": {"value": 0.5, "interval": [0.4, 0.6]},
        "difference": {"value": -0.75, "interval": [-0.9, -0.6], "p": 0.001, "n_better": 0, "n_worse": 7},
    }  # fmt: skip
    silent = black | {
        "value": None,
        "interval": [None, None],
        "n": 0,
        "difference": None,
        "unchanged": None,
        "entropy": None,
    }
    rows = {"full": full, "black": black, "silent": silent}
    reliance = {"conditions": list(rows), "metric": "accuracy", "all": rows, "by": {"type": {"colour": rows}}}
    html = evaluation_html(results(1, reliance=reliance))
    assert html.count('class="card panel"') == 2
    assert html.count("fill lower") == 2
    assert "silent silence instead of the sound" in text_of(html)
    assert "black 9 25.0 % −75.0 [−90.0, −60.0] 0.0010 50.0 % [40.0, 60.0] 1.50 3" in text_of(html)
    unscored = {key: row | {"value": None, "difference": None} for key, row in rows.items()}
    html = evaluation_html(results(1, reliance={**reliance, "metric": None, "all": unscored, "by": {}}))
    assert "black 9 50.0 % [40.0, 60.0] 1.50 3" in text_of(html)
    assert (
        html.split('class="card panel"')[1].split("</table>")[0].count('class="fill') == 1
    )  # full and silent have no share


def test_likelihoods_of_options_and_verdicts_of_a_judge_are_shown():
    choice = item(0, 1) | {
        "options": ["ring", "<b>"], "references": ["A"], "log_likelihoods": [-0.1, -2.4], "n_tokens": [1, 3],
        "judge": {"judge_score": {"score": 4, "yes": True}, "detail": {"error": "no <number>"}},
    }  # fmt: skip
    judge = {"judge": "local:mine", "prompt_version": "1", "prompts": {"detail": "How detailed?"}, "judged": 1, "missing": 1, "missing_items": {"0": "no <number>"}}  # fmt: skip
    scores = {"accuracy": score(1.0), "judge_score": score(0.8)}
    html = evaluation_html(results(1, items=[choice], judge=judge, scores=scores))
    text = text_of(html)
    assert "ring 90.9 % −0.100 1" in text
    assert "&lt;b&gt; 9.1 % −2.400 3" in text
    assert "Judge: judge_score: 4 of 5, yes · detail: no &lt;number&gt;" in text
    assert "judge_score 0.800 [" in text
    assert "Judged 1 of 2" in text
    assert "manifest: judge.prompts.detail How detailed?" in text


# --- Comparisons


def test_a_comparison_shows_differences_and_both_answers_of_what_flipped():
    first, second = results(0, 0, 1, 1), results(1, 0, 1, 0)
    second["generation"] = {"max_new_tokens": 16}
    text = text_of(comparison_html(("a.json", first), ("b.json", second)))
    assert "accuracy 50.0 % 50.0 % 0.0 [" in text
    assert "Better in B 1 question " in text
    assert "Reference ring A star wrong B ring right" in text
    assert "Worse in B 1 question " in text
    assert "generation.max_new_tokens 8 16" in text


def test_a_comparison_of_equal_results_says_so():
    text = text_of(comparison_html(("a.json", results(1, 0)), ("b.json", results(1, 0))))
    assert "No question has another score." in text
    assert "Nothing but the answers." in text


def test_questions_beyond_those_with_pictures_are_listed():
    html = comparison_html(("a.json", results(*[0.0] * 40)), ("b.json", results(*[1.0] * 40)))
    assert html.count("<article") == 16
    assert "<summary>24 more</summary>" in html


def test_the_command_writes_the_page(tmp_path, capsys):
    for name, content in (("a", results(0, 1)), ("b", results(1, 1))):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
    assert main(["compare", *paths, "--page", str(tmp_path / "new/page.html")]) == 0
    assert "How B differs from A" in (tmp_path / "new/page.html").read_text()
    (tmp_path / "file").write_text("")
    assert main(["compare", *paths, "--page", str(tmp_path / "file/page.html")]) == 1
    assert "cannot be written" in capsys.readouterr().err


# --- Numbers


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 0.5, "50.0 %"),
        ("CIDEr", 0.5, "0.500"),
        ("BLEU-4", 0.25, "0.250"),
        ("judge", 3.5, "3.500"),
        ("x", None, "–"),
    ],
)
def test_shares_are_percentages_and_other_scores_are_not(metric, value, text):
    assert scale_of(metric, [value]).text(value) == text


def test_zero_has_no_sign_and_minus_is_a_minus():
    scale = scale_of("accuracy", [1.0])
    assert (scale.signed(-0.00001), scale.signed(0.5), scale.signed(-0.5)) == ("0.0", "+50.0", "−50.0")
    assert scale.signed_interval([-0.5, 0.0]) == "[−50.0, 0.0]"
    assert scale.interval([None, None]) == ""


def test_a_difference_is_coloured_only_if_its_interval_leaves_out_zero():
    scale = difference_scale(scale_of("accuracy", [1.0]), [-0.3, 0.1])
    assert (scale.low, scale.high) == (-0.5, 0.5)
    assert "lower" in dot(-0.2, [-0.3, -0.1], scale)
    assert "lower" not in dot(-0.2, [-0.3, 0.1], scale)
    assert bar(None, None, scale) == ""


def test_long_texts_are_cut_and_say_so():
    assert cut("a" * 9 + "b" * 11, 15) == "aaaaa … (5 characters) … bbbbbbbbbb"
