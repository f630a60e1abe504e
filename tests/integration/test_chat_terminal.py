"""``video-llama chat`` without a question: in a terminal, and with questions from a pipe."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, Result
from video_llama.conversation.chat import Chat
from video_llama.toy.encode import write_clip, write_still
from video_llama.toy.scene import Scene

TOY = "eval_configs/toy.yaml"
COLOUR, SHAPE = "What colour is the shape?", "What shape is it?"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A red ring that moves left, and an image of a blue square."""
    folder = tmp_path_factory.mktemp("my files")
    write_clip(folder / "clip.mp4", Scene("ring", "red", "left", "large", seed=1))
    write_still(folder / "picture.jpg", Scene("square", "blue", "still", "large", seed=2))
    return {"clip": folder / "clip.mp4", "picture": folder / "picture.jpg"}


@pytest.fixture(scope="module")
def loaded() -> Chat:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return Chat.from_config(TOY, device="cpu")


class Typed(io.StringIO):
    """Input typed by a person."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def talk(command, loaded, monkeypatch) -> Callable[..., Result]:
    """Run ``video-llama chat`` with lines on its input."""

    def run(*lines: str, words: tuple[object, ...] = (), typed: bool = False, shown: bool = True) -> Result:
        monkeypatch.setattr(Chat, "from_config", lambda *args: Chat(loaded.engine))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: typed and shown)
        monkeypatch.setattr(sys, "stdin", (Typed if typed else io.StringIO)("".join(f"{line}\n" for line in lines)))
        return command("chat", "--cfg-path", TOY, *words)

    return run


# A pipe


def test_each_piped_line_is_a_question_and_stdout_has_only_answers(talk, files):
    code, out, err = talk(COLOUR, "", f"  {SHAPE}", words=("--video", files["clip"]))
    assert (code, out) == (0, f"> {COLOUR}\nIt is red.\n> {SHAPE}\nIt is a ring.\n")
    assert err.endswith(f"shown: {files['clip']} (4 frames, sound: used)\n")


def test_slash_commands_show_files_and_reset_the_dialogue(talk, files):
    shown, picture = f"/video {files['clip']}", f"/image '{files['picture']}'"
    code, out, err = talk(shown, SHAPE, "/reset", picture, COLOUR, "/help", "/quit", COLOUR)
    assert (code, out) == (0, f"> {SHAPE}\nIt is a ring.\n> {COLOUR}\nIt is blue.\n")
    assert "a new dialogue" in err
    assert "/audio FILE   ask about a sound" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/video", "/video: no such command, or its file is missing. /help lists all commands."),
        ("/vidoe clip.mp4", "/vidoe clip.mp4: no such command"),
        ("/reset now", "/reset now: no such command"),
        ("/video none.mp4", "none.mp4: no such file"),
        ("/video ~nobody-by-this-name/a.mp4", "~nobody-by-this-name/a.mp4: no such file"),
        ("/video https://host/clip.mp4", "download it first"),
        ("/audio none.wav", "none.wav: no such file"),
        ("word " * 500, "exceed the decoder's context"),
    ],
)
def test_a_failed_line_is_explained_and_the_next_is_answered(talk, files, line, message):
    code, out, err = talk(line, COLOUR, words=("--video", files["clip"]))
    assert (code, out) == (1, f"> {COLOUR}\nIt is red.\n")
    assert message in err
    assert "Traceback" not in err


def test_a_tilde_in_a_path_is_expanded(talk, files, monkeypatch):
    monkeypatch.setenv("HOME", str(files["clip"].parent))
    assert talk("/video ~/clip.mp4", COLOUR).out == f"> {COLOUR}\nIt is red.\n"


def test_bytes_that_are_not_text_do_not_end_the_chat(files):
    words = [sys.executable, "-m", "video_llama.cli.main", "chat", "--cfg-path", TOY, "--video", files["clip"]]
    lines = b"\xff\xfe caf\xe9?\n" + COLOUR.encode()
    result = subprocess.run(words, input=lines, cwd=ROOT, capture_output=True, check=False, env=environment())
    assert result.returncode == 0, result.stderr
    assert f"> {COLOUR}\nIt is red.\n" in result.stdout.decode()


# Flags


def test_the_stats_are_printed_on_stderr(talk, files):
    code, out, err = talk(COLOUR, words=("--video", files["clip"], "--stats"))
    assert (code, out) == (0, f"> {COLOUR}\nIt is red.\n")
    numbers = r"first token \d+\.\d\d s, \d+\.\d tokens/s, answer \d+ tokens, prompt \d+ tokens, files \d+\.\d\d s\n"
    assert re.search(numbers, err)


def test_the_stats_of_beam_search_have_no_rate(command, files):
    words = ["--video", files["clip"], "--question", COLOUR, "--num-beams", 2, "--stats", "--json"]
    code, out, err = command("chat", "--cfg-path", TOY, *words)
    assert (code, '"It is red."' in out) == (0, True)
    assert " s, all at once, answer " in err


def test_the_same_seed_gives_the_same_answer(talk, files):
    def answer(seed: int) -> str:
        words = ("--video", files["clip"], "--temperature", 3, "--top-p", 1, "--seed", seed, "--max-new-tokens", 12)
        return talk("Describe it.", words=words).out

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature", "-1"], "temperature: -1.0; expected 0, or a number from 0.01 to 100"),
        (["--top-p", "0"], "top_p: 0.0; expected a number above 0, up to 1"),
        (["--num-beams", "0"], "num_beams: 0; expected a whole number, at least 1"),
        (["--seed", "-3"], "seed: -3; expected"),
        (["--json"], "--json prints the answers to --question: give at least one"),
        (["--question", COLOUR], "no file to ask about: give --video, --image or --sound"),
    ],
)
def test_contradictory_options_are_refused_before_the_model_is_built(command, words, message):
    code, out, err = command("chat", "--cfg-path", "no such.yaml", *words)
    assert (code, out) == (1, "")
    assert err == f"{message}\n" or message in err


def test_turns_dropped_from_the_context_are_reported(talk, files):
    code, out, err = talk(*[COLOUR + " word" * 30] * 4, words=("--video", files["clip"]))
    assert (code, out.count("> What colour")) == (0, 4)
    assert "the decoder's context is full: the oldest turns are left out, 1 so far" in err


# A terminal


def test_in_a_terminal_questions_are_not_echoed_and_an_error_does_not_fail_the_command(talk, files):
    code, out, err = talk(COLOUR, "/oops", SHAPE, words=("--video", files["clip"]), typed=True)
    assert (code, out) == (0, "> It is red.\n> > It is a ring.\n> \n")
    assert "/oops: no such command" in err
    assert "/help lists all commands" in err


def test_answers_redirected_to_a_file_are_alone_in_it(talk, files):
    code, out, _ = talk(COLOUR, SHAPE, words=("--video", files["clip"]), typed=True, shown=False)
    assert (code, out) == (0, "It is red.\nIt is a ring.\n")


def test_an_interrupt_stops_the_answer_but_not_the_chat(talk, files, loaded):
    calls = 0

    def interrupt(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    hook = loaded.engine.model.decoder.lm.register_forward_pre_hook(interrupt)
    try:
        code, out, err = talk(COLOUR, SHAPE, words=("--video", files["clip"]), typed=True)
    finally:
        hook.remove()
    assert code == 0, err
    assert out.endswith("> It is a ring.\n> \n")
    assert "Traceback" not in err


def test_an_interrupt_ends_a_piped_chat(talk, files, loaded):
    def interrupt(*_: object) -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    hook = loaded.engine.model.decoder.lm.register_forward_pre_hook(interrupt)
    try:
        assert talk(COLOUR, SHAPE, words=("--video", files["clip"])).code == 130
    finally:
        hook.remove()


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}


class Terminal:
    """A real terminal that runs the command."""

    def __init__(self, *words: object) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "video_llama.cli.main", "chat", "--cfg-path", TOY, *map(str, words)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C until it has an effect: Python notices it late while readline is busy."""
        self.process.send_signal(signal.SIGINT)
        while not select.select([self.master], [], [], 2)[0]:
            self.process.send_signal(signal.SIGINT)

    def wait_for(self, text: str) -> None:
        """Read until a text is shown; drop what came before it."""
        deadline = time.monotonic() + 180
        while text not in self.shown:
            assert select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0], self.shown
            try:
                self.shown += os.read(self.master, 4096).decode().replace("\r\n", "\n")
            except OSError:  # Linux raises this when the other end is closed
                raise AssertionError(self.shown) from None
        self.shown = self.shown.partition(text)[2]


@pytest.fixture
def terminal(files) -> Iterator[Terminal]:
    opened = Terminal("--video", files["clip"])
    yield opened
    opened.process.kill()
    opened.process.wait()
    os.close(opened.master)


def test_in_a_real_terminal_a_dialogue_continues_until_it_is_ended(terminal):
    terminal.wait_for("> ")
    terminal.type(f"{COLOUR}\n")
    terminal.wait_for("It is red.\n> ")
    terminal.type("half a line")
    terminal.wait_for("half a line")
    terminal.interrupt()
    terminal.wait_for("\n> ")
    terminal.type(f"{SHAPE}\n")
    terminal.wait_for("It is a ring.\n> ")
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0
