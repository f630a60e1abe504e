"""The web page, used in a browser without a window."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.demo_server import ENDLESS, Server, wait_until
from video_llama.toy.encode import write_clip, write_still
from video_llama.toy.scene import Scene

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser tests need playwright: pip install playwright"
)
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="the browser tests need Chromium (on Debian: apt install chromium)"
)

expect = playwright.expect
expect.set_options(timeout=20_000)
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
PICTURES = os.environ.get("VIDEO_LLAMA_SCREENSHOTS")
"""A folder: the pictures of the README are made anew in it."""


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield launched
        launched.close()


class Visitor:
    """Somebody at the page, and all that went wrong there."""

    def __init__(self, page: playwright.Page, server: Server) -> None:
        self.page, self.server = page, server
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", self.note)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.goto(server.url)
        expect(page.locator("#send")).to_be_visible()

    def note(self, said: playwright.ConsoleMessage) -> None:
        # Gradio gives up telling of the progress of an upload that a busy machine begins late.
        if said.type == "error" and "upload_progress" not in said.location.get("url", ""):
            self.problems.append(f"{said.text} ({said.location})")

    def upload(self, path: Path) -> None:
        self.page.set_input_files("#file input[type=file]", path)

    def ask(self, question: str) -> None:
        self.page.fill("#question textarea", question)
        self.page.click("#send")

    def hear_endless(self, path: Path) -> playwright.Locator:
        """Show a file and ask what is answered without end; returns the answers, once the first has begun."""
        self.upload(path)
        self.expect_seen(4)
        self.ask(ENDLESS)
        answers = self.page.locator("#chat [data-testid=bot]")
        expect(answers).to_have_text(re.compile("and so on"))
        return answers

    def expect_answers(self, *answers: str) -> None:
        expect(self.page.locator("#chat [data-testid=bot]")).to_have_text(list(answers), use_inner_text=True)
        expect(self.page.locator("#send")).to_be_visible()

    def expect_seen(self, n_frames: int) -> None:
        expect(self.page.locator("#given .frames img")).to_have_count(n_frames)

    def other_hosts(self) -> set[str]:
        return self.hosts - {"", f"127.0.0.1:{self.server.port}"}


@pytest.fixture(scope="module")
def context(browser: playwright.Browser) -> playwright.BrowserContext:
    """Of most visitors: what the page loads is kept for the next one."""
    return browser.new_context(viewport={"width": 1280, "height": 800})


@pytest.fixture
def visit(context: playwright.BrowserContext, server: Server) -> Iterator[Callable[..., Visitor]]:
    """Open the page, each time as another person. In the end nothing may have gone wrong for any of them."""
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
    paths["picture"] = folder / "picture.jpg"
    write_still(paths["picture"], Scene("square", "green", "still", "large", seed=3))
    paths["corrupt"] = folder / "corrupt.mp4"
    paths["corrupt"].write_bytes(paths["red"].read_bytes()[:300] + bytes(2000))
    return paths


@pytest.fixture
def visitor(visit: Callable[..., Visitor]) -> Visitor:
    return visit()


def test_a_clip_is_shown_and_its_colour_and_its_sound_are_told(visitor, files):
    expect(visitor.page.locator("#webcam, #microphone")).to_have_count(0)
    visitor.upload(files["red"])
    visitor.expect_seen(4)
    expect(visitor.page.locator("#given figcaption").first).to_have_text("0.0 s")
    expect(visitor.page.locator("#given .sound")).to_contain_text("Sound: used.")
    expect(visitor.page.locator("#given .segments img")).to_have_count(1)
    expect(visitor.page.locator("#preview video")).to_be_visible()
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")
    visitor.ask("What sound does it make?")
    visitor.expect_answers("It is red.", "It makes a low sound.")
    expect(visitor.page.locator("#stats")).to_contain_text("first word after")


def test_an_answer_is_written_while_it_is_thought_of(visitor, files):
    answer = visitor.hear_endless(files["red"])
    before = len(answer.inner_text())
    wait_until(lambda: len(answer.inner_text()) > before)
    visitor.page.click("#stop")
    expect(visitor.page.locator("#send")).to_be_visible()


def test_a_stopped_answer_stays_and_the_next_question_is_answered(visitor, files):
    answers = visitor.hear_endless(files["blue"])
    visitor.page.click("#stop")
    expect(visitor.page.locator("#send")).to_be_visible()
    visitor.ask("What colour is the shape?")
    expect(answers).to_have_text([re.compile("^and so on"), "It is blue."])


def test_a_question_that_is_stopped_while_it_waits_is_given_back(visit, files):
    talker, waiter = visit(), visit()
    for visitor in (talker, waiter):
        visitor.upload(files["red"])
        visitor.expect_seen(4)
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


def test_a_tab_that_is_closed_amid_an_answer_frees_the_model_and_its_files(visit, files, server, tmp_path):
    leaver, mine = visit(), tmp_path / "leaving.mp4"
    mine.write_bytes(files["blue"].read_bytes())
    leaver.upload(mine)
    leaver.expect_seen(4)
    assert "leaving.mp4" in {path.name for path in server.uploads()}
    leaver.ask(ENDLESS)
    expect(leaver.page.locator("#chat [data-testid=bot]")).to_have_text(re.compile("and so on"))
    leaver.page.close()
    stayer = visit()
    stayer.upload(files["red"])
    stayer.expect_seen(4)
    stayer.ask("What colour is the shape?")
    stayer.expect_answers("It is red.")
    wait_until(lambda: "leaving.mp4" not in {path.name for path in server.uploads()})


def test_two_people_at_once_keep_their_dialogues_apart(visit, browser, files):
    red, blue = visit(), visit(browser.new_context())
    red.upload(files["red"])
    blue.upload(files["blue"])
    red.expect_seen(4)
    blue.expect_seen(4)
    red.ask("What colour is the shape?")
    blue.ask("What colour is the shape?")
    red.expect_answers("It is red.")
    blue.expect_answers("It is blue.")
    red.ask("What shape is it?")
    red.expect_answers("It is red.", "It is a circle.")
    blue.expect_answers("It is blue.")


def test_restart_forgets_what_was_said_and_keeps_the_file(visitor, files):
    visitor.upload(files["red"])
    visitor.expect_seen(4)
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")
    visitor.page.click("#restart")
    visitor.expect_answers()
    expect(visitor.page.locator("#preview video")).to_be_visible()
    visitor.ask("What shape is it?")
    visitor.expect_answers("It is a circle.")


def test_a_picture_takes_the_place_of_a_clip(visitor, files):
    visitor.upload(files["red"])
    visitor.expect_seen(4)
    visitor.page.click("#other-file")
    expect(visitor.page.locator("#file")).to_be_visible()
    expect(visitor.page.locator("#given .empty")).to_be_visible()
    visitor.upload(files["picture"])
    visitor.expect_seen(1)
    expect(visitor.page.locator("#given .sound")).to_have_text("Sound: off. A picture has none.")
    expect(visitor.page.locator("#preview img")).to_be_visible()
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is green.")


def test_the_sound_can_be_switched_off(visitor, files):
    visitor.upload(files["red"])
    expect(visitor.page.locator("#given .sound")).to_contain_text("Sound: used.")
    visitor.page.uncheck("#hear input")
    expect(visitor.page.locator("#given .sound")).to_contain_text("It was switched off")
    expect(visitor.page.locator("#given .segments")).to_have_count(0)
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")


def test_an_example_is_shown_and_answered_with_one_click(visitor):
    examples = visitor.page.locator("#examples button")
    expect(examples).to_have_count(4)
    for number, answer in enumerate(("It is red.", "It goes around.", "It makes a rising sound.", "No.")):
        examples.nth(number).click()
        visitor.expect_answers(answer)


@pytest.mark.parametrize(
    ("question", "message"),
    [("What colour is the shape?", "Show a video, a picture or a sound first"), ("   ", "The question is empty")],
)
def test_a_question_that_cannot_be_asked_is_told_of_and_the_page_stays_usable(visitor, files, question, message):
    steps = []
    # Three things happen on a click: the question is taken, it is answered, "Ask" is offered again. The last one counts.
    with visitor.page.expect_response(lambda it: "run/predict" in it.url and (steps.append(it) or len(steps) == 2)):
        visitor.ask(question)
    notice = visitor.page.locator("#chat-notice")
    expect(notice).to_contain_text(message)
    visitor.upload(files["red"])
    visitor.expect_seen(4)
    expect(notice).to_be_hidden()
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")


def test_a_corrupt_file_is_told_of_and_the_page_stays_usable(visitor, files):
    notice = visitor.page.locator("#file-notice")
    visitor.upload(files["corrupt"])
    expect(notice).to_contain_text("corrupt.mp4: ")
    assert str(visitor.server.folder) not in notice.inner_text()
    visitor.upload(files["red"])
    visitor.expect_seen(4)
    expect(notice).to_be_hidden()
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")


def test_a_file_of_another_kind_is_refused_by_the_browser_and_the_page_stays_usable(visitor, files, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    visitor.upload(tmp_path / "notes.txt")
    expect(visitor.page.locator(".toast-body")).to_contain_text("Invalid file type: notes.txt")
    visitor.upload(files["red"])
    visitor.expect_seen(4)


def test_a_file_that_is_gone_is_told_of(visitor, files, server, tmp_path):
    mine = tmp_path / "mine.mp4"
    mine.write_bytes(files["red"].read_bytes())
    visitor.upload(mine)
    visitor.expect_seen(4)
    (held,) = (path for path in server.uploads() if path.name == "mine.mp4")
    held.unlink()
    visitor.ask("What colour is the shape?")
    visitor.expect_answers("It is red.")
    visitor.page.click("#restart")
    expect(visitor.page.locator("#file-notice")).to_have_text("mine.mp4: the file is no longer here. Choose it again.")
    # The player may have asked for more of it.
    visitor.problems = [problem for problem in visitor.problems if "mine.mp4" not in problem]


def test_what_is_typed_and_what_files_are_called_is_text_and_never_code(visitor, files, tmp_path):
    code = (
        "<img src=x onerror=alert(1)><script>alert(2)</script> **x** ![y](http://example.org/z.png) {{7*7}} ${alert(3)}"
    )
    named = tmp_path / "<img src=x onerror=alert(4)> ${alert(5)} {{value}}.mp4"
    named.write_bytes(files["red"].read_bytes())
    visitor.upload(named)
    visitor.expect_seen(4)
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
    if PICTURES:
        page.wait_for_function("document.querySelector('#preview video').readyState == 4")
        name = "demo.png" if scheme == "light" else "demo_dark_phone.png"
        page.screenshot(path=Path(PICTURES) / name, full_page=True)
