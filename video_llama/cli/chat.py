"""``video-llama chat``: questions about files, from the shell or in a conversation at the terminal."""

from __future__ import annotations

import argparse
import json

from video_llama.cli.options import add_generation_flags, generation_settings
from video_llama.common.errors import VideoLlamaError
from video_llama.config.flags import add_model_flags, model_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_model_flags(parser)
    media = parser.add_mutually_exclusive_group()
    media.add_argument("--video", metavar="FILE", help="clip to ask about")
    media.add_argument("--image", metavar="FILE", help="image to ask about")
    media.add_argument(
        "--sound", metavar="FILE", help="sound to ask about: a sound file, or a clip whose frames are ignored"
    )
    parser.add_argument(
        "--audio",
        action=argparse.BooleanOptionalAction,
        help="require the clip's sound, or ignore it. Default: use it if there is any",
    )
    parser.add_argument(
        "--question",
        action="append",
        help="question to ask; repeat for a dialogue. Without it, questions are read from the terminal",
    )
    add_generation_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object: answers, frame_times, sound")
    parser.add_argument("--stats", action="store_true", help="print time and size of each answer on stderr")


def run(args: argparse.Namespace) -> int:
    """Show the file, ask the questions, print the answers."""
    from video_llama.cli.terminal import converse, note_stats, say, show  # slow to import
    from video_llama.conversation.chat import Chat

    file = {"video": args.video, "image": args.image, "audio": args.sound}
    if args.question and not any(file.values()):
        raise VideoLlamaError("no file to ask about: give --video, --image or --sound")
    if args.json and not args.question:
        raise VideoLlamaError("--json prints the answers to --question: give at least one")
    settings = generation_settings(args)
    chat = Chat.from_config(args.cfg_path, model_options(args), args.device)
    if not args.question:
        if any(file.values()):
            show(chat, use_audio=args.audio, **file)
        return converse(chat, settings, args.audio, args.stats)
    shown = chat.upload(use_audio=args.audio, **file)
    answers = []
    for question in args.question:
        if args.json:
            answers.append(chat.ask(question, settings))
            note_stats(chat, args.stats)
        else:
            say(chat, question, settings, args.stats, echo=True)
    if args.json:
        times = [round(t, 6) for t in shown.frames.times] if shown.frames else []
        content = {"answers": answers, "frame_times": times, "sound": str(shown.audio_status)}
        print(json.dumps(content | ({"damage": shown.damage} if shown.damage else {}), ensure_ascii=False))
        return 0
    if chat.engine.has_audio:
        print(f"sound: {shown.audio_status}")
    if shown.damage:
        print(f"damaged file: {shown.damage}")
    return 0
