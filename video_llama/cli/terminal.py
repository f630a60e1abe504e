"""A dialogue in a terminal, or with one question per line from a pipe: questions and answers on stdout, the rest on stderr."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.chat import Chat
from video_llama.conversation.settings import GenerationSettings

HELP = """\
/video FILE   ask about a clip
/image FILE   ask about an image
/audio FILE   ask about a sound
/reset        start a new dialogue
/help         print this
/quit         quit, like Ctrl-D
Anything else is a question. Ctrl-C stops an answer."""


def converse(chat: Chat, settings: GenerationSettings, use_audio: bool | None, stats: bool) -> int:
    """Answer questions and run slash commands until the input ends.

    Args:
        chat: the dialogue; may have files already.
        settings: of all answers.
        use_audio: for clips, see ``Chat.upload``.
        stats: print time and size of each answer.
    Returns:
        The exit code: 1 if a piped line failed, else 0.
    """
    typed, failed = sys.stdin.isatty(), False
    prompt = "> " if typed and sys.stdout.isatty() else ""
    if typed:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # gives ``input`` a history and editing
        note("Give a file with /video, /image or /audio, then ask about it. /help lists all commands.")
    elif isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        try:
            line = input(prompt).strip()
            if line == "/quit":
                return int(failed)
            if line.startswith("/"):
                _obey(chat, line, use_audio)
            elif line:
                say(chat, line, settings, stats, echo=not typed)
        except EOFError:
            if prompt:
                print()
            return int(failed)
        except KeyboardInterrupt:
            if not typed:
                raise
            print()
        except VideoLlamaError as error:
            note(str(error))
            failed = not typed


def say(chat: Chat, question: str, settings: GenerationSettings, stats: bool, *, echo: bool) -> None:
    """Ask a question and stream the answer; ``echo``: print the question first."""
    with contextlib.closing(chat.stream(question, settings)) as pieces:
        start = next(pieces, "")  # an error comes before anything is printed
        print(f"> {question}\n{start}" if echo else start, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
    print(flush=True)
    note_stats(chat, stats)


def show(chat: Chat, *, use_audio: bool | None = None, **file: str | Path | None) -> None:
    """Upload a file, and print what the model gets from it. See ``Chat.upload``."""
    upload = chat.upload(use_audio=use_audio, **file)
    parts = [f"{upload.frames.data.shape[1]} frames"] if upload.frames and upload.frames.kind == "video" else []
    if chat.engine.has_audio:
        parts.append(f"sound: {upload.audio_status}")
    if upload.damage:
        parts.append(f"damaged: {upload.damage}")
    (path,) = (path for path in file.values() if path is not None)
    note(f"shown: {path}" + (f" ({', '.join(parts)})" if parts else ""))


def note_stats(chat: Chat, stats: bool) -> None:
    """Report dropped turns and, if requested, time and size of the last answer."""
    last = chat.last
    assert last is not None, "something was answered"
    if last.dropped_turns:
        note(f"the decoder's context is full: the oldest turns are left out, {last.dropped_turns} so far")
    if stats:
        rate = "all at once" if last.tokens_per_s is None else f"{last.tokens_per_s:.1f} tokens/s"
        note(
            f"first token {last.first_token_s:.2f} s, {rate}, answer {last.answer_tokens} tokens, "
            f"prompt {last.prompt_tokens} tokens, files {last.encode_s:.2f} s"
        )


def note(text: str) -> None:
    """Print anything but an answer, to stderr."""
    print(text, file=sys.stderr, flush=True)


def _obey(chat: Chat, line: str, use_audio: bool | None) -> None:
    """Run a slash command."""
    command, _, file = line.partition(" ")
    file = file.strip().strip("'\"")
    if command in ("/video", "/image", "/audio") and file:
        path = os.path.expanduser(file)
        show(chat, use_audio=use_audio if command == "/video" else None, **{command[1:]: path})
    elif line == "/reset":
        chat.reset()
        note("a new dialogue")
    elif line == "/help":
        note(HELP)
    else:
        raise VideoLlamaError(f"{line}: no such command, or its file is missing. /help lists all commands.")
