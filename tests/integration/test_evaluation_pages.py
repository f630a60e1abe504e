"""The pages of evaluations and of comparisons in a browser."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium, contrast, fits, opened
from tests.integration.conftest import ROOT, Result
from video_llama.cli.main import main
from video_llama.conversation.engine import Engine

SCREENSHOTS = os.environ.get("VIDEO_LLAMA_SCREENSHOTS")
"""A folder to write the picture in docs/evaluation.md to."""
MOST_BYTES = 5_000_000


def evaluate(world: Path, output: Path, *more: str) -> list[str]:
    """The words of an evaluation of the toy model on questions about held-out clips."""
    lines = []
    for name in ("questions", "sound_questions"):
        for asked in json.loads((world / f"heldout/{name}.json").read_text()):
            keys = {key: asked[key] for key in ("id", "video", "question", "answer")}
            lines.append(json.dumps(keys | {"type": asked["kind"]}))
    output.mkdir()
    (output / "test.jsonl").write_text("\n".join(lines))
    return [
        "evaluate", "--cfg-path", "toy", "--benchmark", "manifest", "prompt=<question>", "--annotations", str(output / "test.jsonl"),
        "--media-dir", str(world / "heldout/videos"), "--output", str(output), "--max-new-tokens", "12", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(world: Path, loaded: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation; beside its results, ``other.json``, those of a run with some other answers."""
    output = tmp_path_factory.mktemp("evaluated") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(Engine, "from_job", lambda *args: loaded)
        assert main(evaluate(world, output, "--limit", "40")) == 0
    results = json.loads((output / "results.json").read_text())
    for n, item in enumerate(results["benchmarks"]["manifest"]["items"]):
        if n % 5 == 0:
            item |= {"answer": "It is something else.", "scores": dict.fromkeys(item["scores"], 0.0)}
    (output / "other.json").write_text(json.dumps(results))
    return output


@pytest.fixture(scope="module")
def compared(evaluated: Path) -> Path:
    """The page of a comparison."""
    page = evaluated / "compared.html"
    assert main(["compare", str(evaluated / "results.json"), str(evaluated / "other.json"), "--page", str(page)]) == 0
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390), ("dark", 390)])
def test_the_pages_are_shown_on_screens_and_phones(
    evaluated: Path, compared: Path, browser: Any, scheme: str, width: int
) -> None:
    for path in (evaluated / "report.html", compared):
        assert path.stat().st_size < MOST_BYTES
        with opened(browser, path, scheme, width) as page:
            assert fits(page)
            assert page.locator(".sample img").count() >= page.locator(".sample").count() > 4
            for selector in (".lead", "td small", "th", "td.right", ".asked dt", "figcaption", "footer"):
                assert contrast(page, selector) > 4.5, (path.name, selector)


def test_a_report_shows_what_the_model_got_and_answered(evaluated: Path, browser: Any) -> None:
    items = json.loads((evaluated / "results.json").read_text())["benchmarks"]["manifest"]["items"]
    with opened(browser, evaluated / "report.html", "light") as page:
        card = page.locator(".sample").first
        shown = next(item for item in items if item["id"] == card.locator(".set").inner_text())
        assert card.locator(".item.video img").count() == 4
        assert card.locator(".item.audio img").count() >= 1
        assert shown["prompt"] in card.inner_text()
        assert shown["answer"] in card.locator(".answers").inner_text()
        assert page.locator("svg.plot").first.bounding_box()["width"] > 100


def test_right_and_wrong_answers_are_hidden_with_the_keyboard(evaluated: Path, browser: Any) -> None:
    from video_llama.cli.evaluation_page import evaluation_html
    from video_llama.cli.page import write_page

    path = evaluated / "other.html"
    write_page(path, evaluation_html(json.loads((evaluated / "other.json").read_text())))
    with opened(browser, path, "light") as page:
        cards = page.locator(".sample:visible")
        n, n_wrong = cards.count(), page.locator(".sample.wrong").count()
        assert 0 < n_wrong < n
        page.locator(".show-right").focus()
        page.keyboard.press("Space")
        assert cards.count() == n_wrong
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        assert cards.count() == 0


def test_printed_pages_are_light_and_lose_nothing(evaluated: Path, browser: Any) -> None:
    with opened(browser, evaluated / "report.html", "dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert contrast(page, "h1") > 10
        assert page.locator(".filter:visible").count() == 0
        assert page.locator(".sample:visible").count() == page.locator(".sample").count()
        folded = page.locator("details:not([open]) tbody td").first
        assert folded.evaluate("cell => cell.checkVisibility({contentVisibilityAuto: true})")
        page.emulate_media(media="screen")
        assert not folded.evaluate("cell => cell.checkVisibility({contentVisibilityAuto: true})")


def test_clips_that_have_gone_leave_a_comparison_with_its_texts(
    evaluated: Path, command: Callable[..., Result], tmp_path: Path
) -> None:
    results = json.loads((evaluated / "results.json").read_text())
    results["benchmarks"]["manifest"]["settings"]["media_dir"] = str(tmp_path / "gone")
    (tmp_path / "moved.json").write_text(json.dumps(results))
    found = command("compare", tmp_path / "moved.json", evaluated / "other.json", "--page", tmp_path / "page.html")
    assert found.code == 0
    html = (tmp_path / "page.html").read_text()
    assert html.count("No pictures: ") == html.count("<article") > 0


@pytest.mark.skipif(SCREENSHOTS is None, reason="writes the picture in docs/evaluation.md")
def test_the_picture_of_the_documentation(world: Path, browser: Any, root: Path, tmp_path: Path) -> None:
    conditions = "silent,other_sound,black,shuffled"
    assert main(evaluate(world, tmp_path / "results", "--conditions", conditions)) == 0
    with opened(browser, tmp_path / "results/report.html", "light", 1100, 1150) as page:
        page.get_by_text("What the answers depend on").evaluate("title => scrollTo(0, title.offsetTop - 30)")
        page.screenshot(path=Path(SCREENSHOTS or "", "evaluation.png"))
