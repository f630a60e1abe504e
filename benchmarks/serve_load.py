"""``video-llama serve`` under load: wrong answers, memory, throughput, time to the first token, and a stop in the middle.

    python -m benchmarks.serve_load [--minutes 10] [--clients 64] [--clips 24] [--rows 16] [--cancelled 0.1]

The server runs with the toy model in a process of its own, on a free port of this machine. Each client asks one question after
the other, of clips, pictures, sounds and plain text, in streams and whole, and hangs up on some. Every answer is compared with
the one that the question gets alone.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from video_llama.toy.world import write_world

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = (
    "What colour is the shape?",
    "What shape is it?",
    "How does it move?",
    "What sound does it make?",
    "Describe the video.",
)
LONG = {"max_tokens": 64, "repetition_penalty": 0.1}
"""Makes the toy model repeat itself, up to 64 tokens."""
SETTLE_S = 30.0
"""Until the caches are full; memory is watched from then on."""


@dataclass
class Found:
    """What the clients found."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    n_tokens: int = 0


class Cut(Exception):
    """An answer that had begun and did not come to its end."""


@dataclass
class Reply:
    """An answer as it arrived."""

    text: str = ""
    n_tokens: int = 0
    first_s: float = 0.0
    is_whole: bool = False


def bodies(world: Path, n_clips: int) -> list[dict[str, Any]]:
    """Return the requests that clients choose from."""
    clips = sorted((world / "webvid").rglob("*.mp4"))[:n_clips]
    pictures = sorted(world.rglob("*.jpg"))[:4]
    assert len(clips) == n_clips, world
    assert pictures, world
    rng, found = random.Random(0), []
    for clip in clips:
        url = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
        for kind in ("video", "video", "audio"):
            found.append(_body(rng.choice(QUESTIONS), {"type": f"{kind}_url", f"{kind}_url": {"url": url}}))
    for picture in pictures:
        url = "data:image/jpeg;base64," + base64.b64encode(picture.read_bytes()).decode()
        found += [_body(rng.choice(QUESTIONS[:2]), {"type": "image_url", "image_url": {"url": url}})] * 3
    for text in ("Hello?", "What is a circle?", "Name a colour.", "What moves to the left?"):
        found += [_body(text)] * 6
    return [body | LONG if k % 2 else body for k, body in enumerate(found)]


def _body(question: str, *parts: dict[str, Any]) -> dict[str, Any]:
    content = [*parts, {"type": "text", "text": question}]
    return {"model": "toy", "messages": [{"role": "user", "content": content}], "max_tokens": 64}


async def ask(client: httpx2.AsyncClient, body: dict[str, Any], hang_up_after: int | None = None) -> Reply:
    """Ask in a stream.

    Args:
        hang_up_after: events after which the client hangs up; None: it does not.
    """
    reply, start, n_events = Reply(), time.perf_counter(), 0
    options = {"include_usage": True}
    async with client.stream(
        "POST", "/chat/completions", json={**body, "stream": True, "stream_options": options}
    ) as response:
        if response.status_code != 200:
            await response.aread()
            raise httpx2.HTTPStatusError(response.text, request=response.request, response=response)
        try:
            async for line in response.aiter_lines():
                if hang_up_after is not None and n_events >= hang_up_after:
                    return reply
                if line == "data: [DONE]":
                    reply.is_whole = True
                elif line.startswith("data: "):
                    n_events += 1
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        raise Cut(chunk["error"]["message"])
                    if chunk.get("usage"):
                        reply.n_tokens = chunk["usage"]["completion_tokens"]
                    text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                    if text and not reply.text:
                        reply.first_s = time.perf_counter() - start
                    reply.text += text
        except httpx2.HTTPError as error:
            raise Cut(str(error)) from error
    return reply


async def visit(
    client: httpx2.AsyncClient,
    questions: Sequence[tuple[dict[str, Any], str]],
    rng: random.Random,
    cancelled: float,
    is_over: Callable[[], bool],
    found: Found,
) -> None:
    """Ask one question after the other."""
    while not is_over():
        body, expected = rng.choice(questions)
        hang_up = rng.randrange(4) if rng.random() < cancelled else None
        try:
            reply = await ask(client, body, hang_up)
        except httpx2.HTTPStatusError as error:
            found.outcomes[str(error.response.status_code)] += 1
            if error.response.status_code == 429:
                await asyncio.sleep(rng.random() * float(error.response.headers["retry-after"]))
            continue
        except httpx2.HTTPError:  # no connection, or it was closed before the question arrived
            found.outcomes["refused"] += 1
            continue
        except Cut as error:
            found.outcomes["cut"] += 1
            found.wrong.append(str(error))
            continue
        if hang_up is not None:
            found.outcomes["hung up"] += 1
            continue
        found.outcomes["whole" if reply.is_whole else "cut"] += 1
        found.first_s.append(reply.first_s)
        found.n_tokens += reply.n_tokens
        if reply.is_whole and reply.text != expected:
            found.wrong.append(f"{body['messages'][0]['content'][-1]['text']!r}: {reply.text!r}, alone {expected!r}")


async def load(base: str, process: subprocess.Popen[bytes], args: argparse.Namespace, world: Path) -> bool:
    """Put the server under load; print what is found, and return whether all is as it should be."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=args.clients)
    async with httpx2.AsyncClient(base_url=base, timeout=600, limits=limits) as client:
        asked = bodies(world, args.clips)
        alone = [await ask(client, body) for body in asked]  # also fills caches
        questions = [(body, reply.text) for body, reply in zip(asked, alone, strict=True)]
        start = time.perf_counter()
        order = random.Random(1).sample(asked, len(asked))
        replies = [await ask(client, body) for body in order]
        seconds = time.perf_counter() - start
        single_rate, idle_s = len(replies) / seconds, statistics.median(reply.first_s for reply in replies)
        print(
            f"one at a time: {single_rate:.1f} answers/s, first token after {1000 * idle_s:.0f} ms (median)", flush=True
        )
        few = await _few(client, questions, args)
        print(f"with 4 clients, who find free rows: {1000 * few:.0f} ms, {few / idle_s:.2f} times as long", flush=True)

        found, end = Found(), time.perf_counter() + 60 * args.minutes
        rngs = [random.Random(k) for k in range(args.clients)]

        def over() -> bool:
            return time.perf_counter() > end

        start, memory = time.perf_counter(), asyncio.ensure_future(_memory(process.pid, over))
        await asyncio.gather(*(visit(client, questions, rng, args.cancelled, over, found) for rng in rngs))
        seconds = time.perf_counter() - start
        rate, (slope, now_mb) = found.outcomes["whole"] / seconds, await memory
        print(
            f"{args.clients} clients for {seconds:.0f} s: {dict(found.outcomes)}, {found.n_tokens / seconds:.0f} tokens/s"
        )
        print(f"throughput: {rate:.1f} answers/s, {rate / single_rate:.2f} times one at a time")
        ordered = sorted(found.first_s)
        print(
            f"first token: median {ordered[len(ordered) // 2]:.2f} s, 95 % within {ordered[int(0.95 * len(ordered))]:.2f} s"
        )
        print(f"memory: {now_mb:.0f} MB, {slope:+.2f} MB/min after {SETTLE_S:.0f} s; wrong answers: {len(found.wrong)}")
        for line in found.wrong[:10]:
            print(f"  {line}")

        stopped = Found()
        asking = [
            asyncio.ensure_future(visit(client, questions, rng, 0.0, lambda: process.poll() is not None, stopped))
            for rng in rngs
        ]
        await asyncio.sleep(2)
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait, 120)
        await asyncio.gather(*asking)
        print(f"stopped under load: exit code {code}, {dict(stopped.outcomes)}")
    return not (found.wrong or stopped.wrong or found.outcomes["cut"] or stopped.outcomes["cut"] or code)


async def _few(client: httpx2.AsyncClient, questions: Sequence[Any], args: argparse.Namespace) -> float:
    found, end = Found(), time.perf_counter() + min(20.0, 60 * args.minutes)
    rngs = [random.Random(f"few {k}") for k in range(4)]
    await asyncio.gather(
        *(visit(client, questions, rng, 0.0, lambda: time.perf_counter() > end, found) for rng in rngs)
    )
    return statistics.median(found.first_s)


async def _memory(pid: int, is_over: Callable[[], bool]) -> tuple[float, float]:
    """Watch the memory of a process; return its growth in MB/min, once caches are full, and what it is, in MB."""
    start, points = time.perf_counter(), list[tuple[float, float]]()
    while not is_over():
        await asyncio.sleep(1)
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        points.append((time.perf_counter() - start, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
    print("memory, MB, minute by minute:", *(f"{mb:.0f}" for _, mb in points[::60]))
    late = [point for point in points if point[0] > SETTLE_S] or points
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope if len(late) > 2 else 0.0
    return 60 * slope, late[-1][1]


def main() -> int:
    """Start a server, and put it under load; return 1 if an answer was wrong or cut."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--clips", type=int, default=24, help="files of each kind; the server keeps 64 encoded ones")
    parser.add_argument("--rows", type=int, default=16, help="answers generated at once")
    parser.add_argument("--cancelled", type=float, default=0.1, help="share of questions whose client hangs up")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        world = write_world(Path(folder) / "world", n_clips=args.clips, n_heldout=4, n_images=4)
        command = [
            sys.executable,
            "-m",
            "video_llama.cli.main",
            "serve",
            "--cfg-path",
            "toy",
            "--device",
            "cpu",
            "--port",
            "0",
            "--max-rows",
            str(args.rows),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TMPDIR": folder}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while not (found := re.findall(r"at (http\S+/v1)\.", Path(log.name).read_text())):
                if process.poll() is not None:
                    raise SystemExit(Path(log.name).read_text())
                time.sleep(0.2)
            return 0 if asyncio.run(load(found[0], process, args, world)) else 1
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
