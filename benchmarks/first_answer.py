"""Time and memory of a dialogue's first answer, from the files of a model to its last token.

    python -m benchmarks.first_answer --cfg-path toy --video clip.mp4 [--device cpu] [--tokens 16] [--options key=value ...]

Seconds are of the clock and, after it, of the CPU, which other programs do not lengthen. Memory of its own is what the process
needs; mapped files come on top, and the system takes their memory back when others need it.
"""

from __future__ import annotations

import argparse
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from video_llama.conversation.chat import Chat


def main() -> None:
    """Load a model, show a clip, and ask about it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg-path", required=True)
    parser.add_argument("--video", required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, default=16, help="longest answer")
    parser.add_argument("--options", nargs="*", default=[])
    args = parser.parse_args()
    threading.Thread(target=watch, daemon=True).start()
    with phase("files"):
        chat = Chat.from_config(args.cfg_path, args.options, args.device)
    with phase("clip"):
        chat.upload(video=args.video)
    pieces = chat.stream("What is happening in the video?", max_new_tokens=args.tokens)
    with phase("answer"):
        for _ in pieces:
            pass
    stats = chat.last
    if stats is None:
        raise SystemExit("no answer")
    rate = "" if stats.tokens_per_s is None else f", then {stats.tokens_per_s:.2f} tokens/s"
    print(f"first token {stats.first_token_s:.1f} s after a prompt of {stats.prompt_tokens} tokens{rate}")


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Print the time that a phase takes, and the most memory so far."""
    began, used = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    own, mapped = peak["RssAnon:"] / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{name:7} {seconds:7.1f} s {cpu:7.1f} s CPU; {own:5.1f} GiB of its own, {mapped:5.1f} with mapped files",
        flush=True,
    )


peak = {"RssAnon:": 0}
"""The most memory that the process has had, in KiB."""


def watch() -> None:
    """Look at the memory of this process several times a second."""
    while True:
        for line in Path("/proc/self/status").read_text().splitlines():
            key, _, rest = line.partition("\t")
            if key in peak:
                peak[key] = max(peak[key], int(rest.split()[0]))
        time.sleep(0.05)


if __name__ == "__main__":
    main()
