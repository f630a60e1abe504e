"""``video-llama chat``: questions about a file, from the shell."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--cfg-path", required=True, metavar="YAML", help="such as eval_configs/toy.yaml")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    media = parser.add_mutually_exclusive_group(required=True)
    media.add_argument("--video", metavar="FILE", help="clip to ask about")
    media.add_argument("--image", metavar="FILE", help="image to ask about")
    media.add_argument(
        "--sound", metavar="FILE", help="sound to ask about: a file of sound, or a clip that is not shown"
    )
    parser.add_argument(
        "--audio",
        action=argparse.BooleanOptionalAction,
        help="hear the clip's sound, or fail; or do not. Default: hear it where there is any",
    )
    parser.add_argument("--question", action="append", required=True, help="give it several times for a dialogue")
    parser.add_argument("--max-new-tokens", type=int, default=300, help="longest answer (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one")
    parser.add_argument("--json", action="store_true", help="print one JSON object: answers, frame_times, sound")


def run(args: argparse.Namespace) -> int:
    """Show the file, ask the questions, print the answers."""
    from video_llama.conversation.chat import Chat  # slow to import

    chat = Chat.from_config(args.cfg_path, args.options, args.device)
    shown = chat.upload(video=args.video, image=args.image, audio=args.sound, hear=args.audio)
    answers = []
    for question in args.question:
        answers.append(chat.ask(question, args.max_new_tokens))
        if not args.json:
            print(f"> {question}\n{answers[-1]}", flush=True)
    if args.json:
        times = [round(t, 6) for t in shown.seen.times] if shown.seen else []
        print(json.dumps({"answers": answers, "frame_times": times, "sound": shown.sound}, ensure_ascii=False))
    elif chat.hears:
        print(f"sound: {shown.sound}")
    return 0
