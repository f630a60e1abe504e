"""The page in a headless browser."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.browser import CHROMIUM, QUIET
from tests.demo_server import ENDLESS, Server, wait_until
from video_llama.toy.encode import write_clip, write_still
from video_llama.toy.scene import Scene

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser tests need playwright: pip install playwright"
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="the browser tests need Chromium (on Debian: apt install chromium)"
)

expect = playwright.expect
expect.set_options(timeout=20_000)
SCREENSHOTS = os.environ.get("VIDEO_LLAMA_SCREENSHOTS")
"""A folder to write the README's screenshots to."""


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield launched
        launched.close()


class Visitor:
    """A visitor of the page, who records every problem."""

    def __init__(self, page: playwright.Page, server: Server) -> None:
        self.page, self.server = page, server
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", self.record)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.goto(server.url)
        expect(page.locator("#send")).to_be_visible()

    def record(self, message: playwright.ConsoleMessage) -> None:
        # On a busy machine gradio may stop reporting the progress of an upload, which is harmless.
        if message.type == "error" and "upload_progress" not in message.location.get("url", ""):
            self.problems.append(f"{message.text} ({message.location})")

    def upload(self, path: Path) -> None:
        self.page.set_input_files("#file input[type=file]", path)

    def ask(self, question: str) -> None:
        self.page.fill("#question textarea", question)
        self.page.click("#send")

    def start_endless_answer(self, path: Path) -> playwright.Locator:
        """Upload a file, ask the question whose answer never ends, and return the answers once the first has begun."""
        self.upload(path)
        self.expect_frames(4)
        self.ask(ENDLESS)
        answers = self.page.locator("#chat [data-testid=bot]")
        expect(answers).to_have_text(re.compile("and so on"))
        return answers

    def expect_answers(self, *answers: str) -> None:
        expect(self.page.locator("#chat [data-testid=bot]")).to_have_text(list(answers), use_inner_text=True)
        expect(self.page.locator("#send")).to_be_visible()

    def expect_frames(self, n_frames: int) -> None:
        expect(self.page.locator("#model-input .frames img")).to_have_count(n_frames)

    def other_hosts(self) -> set[str]:
        return self.hosts - {"", f"127.0.0.1:{self.server.port}"}


@pytest.fixture(scope="module")
def context(browser: playwright.Browser) -> playwright.BrowserContext:
    """A context shared by most visitors, so that the page's assets are cached."""
    return browser.new_context(viewport={"width": 1280, "height": 800})


@pytest.fixture
def visit(context: playwright.BrowserContext, server: Server) -> Iterator[Callable[..., Visitor]]:
    """Open the page, each time as another visitor. In the end, none may have had a problem."""
    visitors = []

    def open_page(context: playwright.BrowserContext = context) -> Visitor:
        page = context.new_page()
        page.set_default_timeout(20_000)
        visitors.append(Visitor(page, server))
        return visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.page.close()
        assert visitor.problems == []
        assert visitor.other_hosts() == set()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    scenes = {
        "red": Scene("circle", "red", "left", "large", seed=1),
        "blue": Scene("star", "blue", "still", "large", seed=2),
    }
    paths = {name: folder / f"{name}.mp4" for name in scenes}
    for name, scene in scenes.items():
        write_clip(paths[name], scene)
    paths["image"] = folder / "image.jpg"
    write_still(paths["image"], Scene("square", "green", "still", "large", seed=3))
    paths["heic"] = folder / "photograph.heic"
    with Image.open(paths["image"]) as image:
        image.resize((320, 320)).save(paths["heic"])
    paths["corrupt"] = folder / "corrupt.mp4"
    paths["corrupt"].write_bytes(paths["red"].read_bytes()[:300] + bytes(2000))
    return paths


@pytest.fixture
def visitor(visit: Callable[..., Visitor]) -> Visitor:
    return visit()


def test_questions_about_the_frames_and_the_sound_of_a_clip_are_answered(visitor, files):
    expect(visitor.page.locator("#webcam, #microphone")).to_have_count(0)
    visitor.upload(files["red"])
    visitor.expect_frames(4)
    expect(visitor.page.locator("#model-input figcaption").first).to_have_text("0.0 s")
    expect(visitor.page.locator("#model-input .sound")).to_contain_text("Sound: used.")
    expect(visitor.page.locator("#model-input .segments img")).to_have_count(1)
    expect(visitor.page.locator("#preview video")).to_be_visible()
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")
    visitor.ask("What sound does it make?")
    visitor.expect_answers("It is red.", "It makes a low sound.")
    expect(visitor.page.locator("#stats")).to_contain_text("first token after")


def test_an_answer_is_streamed(visitor, files):
    answer = visitor.start_endless_answer(files["red"])
    before = len(answer.inner_text())
    wait_until(lambda: len(answer.inner_text()) > before)
    visitor.page.click("#stop")
    expect(visitor.page.locator("#send")).to_be_visible()


def test_a_stopped_answer_is_kept_and_the_next_question_is_answered(visitor, files):
    answers = visitor.start_endless_answer(files["blue"])
    visitor.page.click("#stop")
    expect(visitor.page.locator("#send")).to_be_visible()
    visitor.ask("What colour is the shape?")
    expect(answers).to_have_text([re.compile("^and so on"), "It is blue."])


def test_a_question_stopped_while_it_waits_returns_to_its_box(visit, files):
    talker, waiter = visit(), visit()
    for visitor in (talker, waiter):
        visitor.upload(files["red"])
        visitor.expect_frames(4)
    talker.ask(ENDLESS)
    expect(talker.page.locator("#chat [data-testid=bot]")).to_have_text(re.compile("and so on"))
    waiter.ask("What shape is it?")
    expect(waiter.page.locator("#stop")).to_be_visible()
    waiter.page.click("#stop")
    expect(waiter.page.locator("#question textarea")).to_have_value("What shape is it?")
    expect(waiter.page.locator("#chat [data-testid=user]")).to_have_count(0)
    waiter.page.click("#send")
    talker.page.click("#stop")
    waiter.expect_answers("It is a circle.")


def test_closing_a_tab_during_an_answer_frees_the_model_and_deletes_the_files(visit, files, server, tmp_path):
    leaver, mine = visit(), tmp_path / "leaving.mp4"
    mine.write_bytes(files["blue"].read_bytes())
    leaver.upload(mine)
    leaver.expect_frames(4)
    assert "leaving.mp4" in {path.name for path in server.uploads()}
    leaver.ask(ENDLESS)
    expect(leaver.page.locator("#chat [data-testid=bot]")).to_have_text(re.compile("and so on"))
    leaver.page.close()
    stayer = visit()
    stayer.upload(files["red"])
    stayer.expect_frames(4)
    stayer.ask("What colour is the shape?")
    stayer.expect_answers("It is red.")
    wait_until(lambda: "leaving.mp4" not in {path.name for path in server.uploads()})


def test_two_visitors_have_separate_dialogues(visit, browser, files):
    red, blue = visit(), visit(browser.new_context())
    red.upload(files["red"])
    blue.upload(files["blue"])
    red.expect_frames(4)
    blue.expect_frames(4)
    red.ask("What colour is the shape?")
    blue.ask("What colour is the shape?")
    red.expect_answers("It is red.")
    blue.expect_answers("It is blue.")
    red.ask("What shape is it?")
    red.expect_answers("It is red.", "It is a circle.")
    blue.expect_answers("It is blue.")


def test_restart_clears_the_chat_and_keeps_the_file(visitor, files):
    visitor.upload(files["red"])
    visitor.expect_frames(4)
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")
    visitor.page.click("#restart")
    visitor.expect_answers()
    expect(visitor.page.locator("#preview video")).to_be_visible()
    visitor.ask("What shape is it?")
    visitor.expect_answers("It is a circle.")


def test_an_image_can_replace_a_clip(visitor, files):
    visitor.upload(files["red"])
    visitor.expect_frames(4)
    visitor.page.click("#other-file")
    expect(visitor.page.locator("#file")).to_be_visible()
    expect(visitor.page.locator("#model-input .empty")).to_be_visible()
    visitor.upload(files["image"])
    visitor.expect_frames(1)
    expect(visitor.page.locator("#model-input .sound")).to_have_text("Sound: off. An image has none.")
    expect(visitor.page.locator("#preview img")).to_be_visible()
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is green.")


def test_a_heic_photograph_is_visible_although_the_browser_cannot_decode_it(visitor, files):
    visitor.upload(files["heic"])
    visitor.expect_frames(1)
    photograph = visitor.page.locator("#preview img")
    expect(photograph).to_be_visible()
    assert photograph.evaluate("image => image.naturalWidth") > 100


def test_the_sound_can_be_switched_off(visitor, files):
    visitor.upload(files["red"])
    expect(visitor.page.locator("#model-input .sound")).to_contain_text("Sound: used.")
    visitor.page.uncheck("#use-audio input")
    expect(visitor.page.locator("#model-input .sound")).to_contain_text("You switched it off")
    expect(visitor.page.locator("#model-input .segments")).to_have_count(0)
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")


def test_one_click_shows_an_example_and_answers_its_question(visitor):
    examples = visitor.page.locator("#examples button")
    expect(examples).to_have_count(4)
    for number, answer in enumerate(("It is red.", "It goes around.", "It makes a rising sound.", "No.")):
        examples.nth(number).click()
        visitor.expect_answers(answer)


@pytest.mark.parametrize(
    ("question", "message"),
    [("What colour is the shape?", "Upload a video, image or audio file first"), ("   ", "The question is empty")],
)
def test_an_invalid_question_is_reported_and_the_page_stays_usable(visitor, files, question, message):
    steps = []
    # A click runs three handlers: ask, answer, finish. Wait for the last one.
    with visitor.page.expect_response(lambda it: "run/predict" in it.url and (steps.append(it) or len(steps) == 2)):
        visitor.ask(question)
    notice = visitor.page.locator("#chat-notice")
    expect(notice).to_contain_text(message)
    visitor.upload(files["red"])
    visitor.expect_frames(4)
    expect(notice).to_be_hidden()
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")


def test_a_corrupt_file_is_reported_and_the_page_stays_usable(visitor, files):
    notice = visitor.page.locator("#file-notice")
    visitor.upload(files["corrupt"])
    expect(notice).to_contain_text("corrupt.mp4: ")
    assert str(visitor.server.folder) not in notice.inner_text()
    visitor.upload(files["red"])
    visitor.expect_frames(4)
    expect(notice).to_be_hidden()
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")


def test_a_file_of_another_type_is_refused_by_the_browser_and_the_page_stays_usable(visitor, files, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    visitor.upload(tmp_path / "notes.txt")
    expect(visitor.page.locator(".toast-body")).to_contain_text("Invalid file type: notes.txt")
    visitor.upload(files["red"])
    visitor.expect_frames(4)


def test_a_deleted_file_is_reported(visitor, files, server, tmp_path):
    mine = tmp_path / "mine.mp4"
    mine.write_bytes(files["red"].read_bytes())
    visitor.upload(mine)
    visitor.expect_frames(4)
    (uploaded,) = (path for path in server.uploads() if path.name == "mine.mp4")
    uploaded.unlink()
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")
    visitor.page.click("#restart")
    expect(visitor.page.locator("#file-notice")).to_have_text("mine.mp4: the file no longer exists. Upload it again.")
    # The player may have requested more of the file.
    visitor.problems = [problem for problem in visitor.problems if "mine.mp4" not in problem]


def test_questions_and_file_names_are_shown_as_text_and_never_run(visitor, files, tmp_path):
    code = (
        "<img src=x onerror=alert(1)><script>alert(2)</script> **x** ![y](http://example.org/z.png) {{7*7}} ${alert(3)}"
    )
    named = tmp_path / "<img src=x onerror=alert(4)> ${alert(5)} {{value}}.mp4"
    named.write_bytes(files["red"].read_bytes())
    visitor.upload(named)
    visitor.expect_frames(4)
    visitor.ask(code)
    expect(visitor.page.locator("#chat [data-testid=user]")).to_have_text(code)
    expect(visitor.page.locator("#send")).to_be_visible()
    assert visitor.page.locator("#chat img, #chat script, #chat a, #preview img").count() == 0
    wrong = tmp_path / "<img src=x onerror=alert(6)>.mp4"
    wrong.write_bytes(files["corrupt"].read_bytes())
    visitor.page.click("#other-file")
    visitor.upload(wrong)
    expect(visitor.page.locator("#file-notice")).to_contain_text("cannot open it")
    assert visitor.page.locator("#file-notice img").count() == 0


@pytest.mark.parametrize(("size", "scheme"), [((1280, 800), "light"), ((390, 844), "dark")], ids=["desktop", "phone"])
def test_everything_fits_on_a_desktop_and_on_a_phone(visit, browser, size, scheme):
    visitor = visit(browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme))
    page = visitor.page
    page.locator("#examples button").nth(0).click()
    visitor.expect_answers("It is red.")
    visitor.ask("What sound does it make?")
    visitor.expect_answers("It is red.", "It makes a low sound.")
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    if size[0] == 1280:
        assert page.evaluate("document.documentElement.scrollHeight") == size[1]
    if SCREENSHOTS:
        page.wait_for_function("document.querySelector('#preview video').readyState == 4")
        name = "demo.png" if scheme == "light" else "demo_dark_phone.png"
        page.screenshot(path=Path(SCREENSHOTS) / name, full_page=True)
