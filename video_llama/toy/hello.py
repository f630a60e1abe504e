"""``make hello``: the shipped toy model answers questions about a shipped clip. Nothing is downloaded or trained."""

from __future__ import annotations

import sys
from pathlib import Path

from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.chat import Chat
from video_llama.toy.language import QUESTIONS, SOUND_QUESTIONS
from video_llama.toy.scene import Scene

CLIP = Path(__file__).with_name("hello.mp4")
SCENE = Scene("star", "white", "around", "large", seed=3)
"""What ``write_clip`` drew in it: a combination that no training clip shows."""

ASKED = (QUESTIONS["colour"], QUESTIONS["motion"], SOUND_QUESTIONS["sound"])

NEXT = f"""
Ask it something yourself:

    video-llama chat --cfg-path toy --video {CLIP}

Train such a model in a few minutes, on a world of clips with known answers:   make quickstart
Use the full-size model, or train on your own data:                            README.md
"""


def main() -> int:
    """Ask, print the answers, and return an exit code."""
    try:
        chat = Chat.from_config("toy")
        shown = chat.upload(video=CLIP)
        print(f"clip: {CLIP}")
        for question in ASKED:
            print(f"> {question}\n{chat.ask(question)}")
    except VideoLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"sound: {shown.audio_status}")
    print(NEXT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
