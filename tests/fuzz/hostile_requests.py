"""Requests to ``video-llama serve`` that nobody means well with, drawn from a seed and a number alone."""

from __future__ import annotations

import base64
import gzip
import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class Hostile:
    """A request."""

    name: str
    raw: bytes
    """As it goes over the wire."""
    hangs_up: bool = False
    """The client does not wait for an answer."""
    patience_s: float = 60
    """Seconds until the client hangs up; not all requests are complete."""
    may_succeed: bool = True
    """Whether status 200 is no fault: what is odd about it may be ignored."""


@dataclass(frozen=True)
class Targets:
    """What requests aim at."""

    root: Path
    """The folder of files that may be read, with links out of it."""
    outside: Path
    """A clip next to it."""
    bait_port: int
    """A server on this machine."""
    clip: bytes
    junk: tuple[Any, ...] = field(
        default=(
            None,
            True,
            -1,
            0,
            1e308,
            10**30,
            "",
            "x",
            "\ud800",
            "\0",
            [],
            {},
            [[]],
            [None],
            {"": ""},
            "9" * 400,
            2**63,
            0.1,
        )
    )


def hostile(targets: Targets, seed: int, number: int) -> Hostile:
    """Return request ``number`` of a seed."""
    rng = random.Random(f"{seed} {number}")
    return KINDS[number % len(KINDS)](targets, rng)


def post(body: bytes, *headers: str, path: str = "/v1/chat/completions", length: int | str | None = None) -> bytes:
    """Return a request with a body."""
    size = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {size}"]
    head = "\r\n".join([*lines, "Connection: close", *headers, "", ""])
    return head.encode("utf-8", "surrogateescape") + body


def asking(*parts: Any, **fields: Any) -> bytes:
    """Return a body that asks about files."""
    message = {"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}
    return json.dumps({"model": "toy", "max_tokens": 4, "messages": [message], **fields}).encode("utf-8", "replace")


def url_part(rng: random.Random, url: str) -> dict[str, Any]:
    """Return a content part of any kind."""
    kind = rng.choice(["image_url", "video_url", "audio_url"])
    return {"type": kind, kind: {"url": url} if rng.random() < 0.7 else url}


def data_part(rng: random.Random, content: bytes, kind: str = "") -> dict[str, Any]:
    kind = kind or rng.choice(["image", "video", "audio"])
    text = base64.b64encode(content).decode()
    return {"type": f"{kind}_url", f"{kind}_url": {"url": f"data:{kind}/x;base64,{text}"}}


def path_outside(targets: Targets, rng: random.Random) -> Hostile:
    root, outside = str(targets.root), str(targets.outside)
    name = targets.outside.name
    path = rng.choice(
        [
            *(outside, f"{root}/../{name}", f"{root}/./../{name}", f"{root}//..//{name}", f"{root}/sub/../../{name}"),
            *(f"{root}/link.mp4", f"{root}/folder_link/{name}", f"{root}/loop", f"{root}/pipe", f"{root}/zero", root),
            *("/etc/passwd", "//etc/passwd", "/proc/self/environ", "/proc/self/mem", "/dev/zero", "/dev/stdin", "/"),
            *(f"{root}x/{name}", f"{root}\\..\\{name}", f"{root}\0/../{name}", f"{root}/proc_link/self/environ"),
            *(
                "../" * 20 + "etc/passwd",
                "/" + "../" * rng.randrange(2000) + "etc/passwd",
                "/" + "a" * rng.randrange(9000),
            ),
            f"{root}/../{root}/../{name}",
        ]
    )
    for _ in range(rng.randrange(3)):
        path = rng.choice(
            [quote(path), quote(path, safe=""), path.replace("..", "%2e%2e"), path.replace("/", "%2f"), path]
        )
    scheme = rng.choice(
        [
            "file://",
            "file://localhost",
            "FILE://",
            "file:",
            "file:/",
            "file:///",
            "file://127.0.0.1",
            "",
            "file://%2e%2e",
        ]
    )
    end = rng.choice(["", "", "#x", "?x", " ", "\n", "\0", "%00", "%00.mp4"])
    return Hostile("path", post(asking(url_part(rng, f"{scheme}{path}{end}"))), may_succeed=False)


def address_inside(targets: Targets, rng: random.Random) -> Hostile:
    host = rng.choice(
        [
            *("127.0.0.1", "localhost", "LOCALHOST", "localhost.", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0"),
            *("0", "127.1", "2130706433", "0x7f000001", "017700000001", "[::]", "169.254.169.254", "[fe80::1%25lo]", "10.0.0.1"),
            *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "192.168.0.1", "[fd00::1]", "loopback.test", "127.0.0.1.", "①②⑦.0.0.1"),
            *("allowed.test@127.0.0.1", "127.0.0.1#@allowed.test", "127.0.0.1\\@allowed.test", "allowed.test:80@127.0.0.1"),
            *("ip6-localhost", "127.0.0.1%00.allowed.test", "", "a" * 300, "[", "[::1", "xn--" + "a" * 60),
        ]
    )  # fmt: skip
    scheme = rng.choice(
        ["http://", "https://", "HTTP://", "http:", "http:/", "ftp://", "gopher://", "jar:http://", "//"]
    )
    port = rng.choice([f":{targets.bait_port}", f":{targets.bait_port}", ":0", ":99999", ":-1", ":x", ""])
    path = rng.choice(["/x.png", "", "/../x", "/x\r\nHost: evil", "/?http://allowed.test", "/%0d%0aX: y"])
    return Hostile("address", post(asking(url_part(rng, f"{scheme}{host}{port}{path}"))), may_succeed=False)


def wrong_types(targets: Targets, rng: random.Random) -> Hostile:
    body = json.loads(asking(data_part(rng, targets.clip, "video"), **_all_fields(rng)))
    for _ in range(rng.randrange(1, 4)):
        here: Any = body
        while True:
            key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
            if isinstance(here[key], dict | list) and here[key] and rng.random() < 0.7:
                here = here[key]
                continue
            here[key] = rng.choice(targets.junk)
            break
    return Hostile("types", post(json.dumps(body).encode()))


def _all_fields(rng: random.Random) -> dict[str, Any]:
    fields = {
        "temperature": 1, "top_p": 0.5, "seed": 1, "stop": ["x"], "n": 2, "frequency_penalty": 1, "presence_penalty": 1,
        "repetition_penalty": 1.1, "logprobs": True, "top_logprobs": 2, "stream": True, "stream_options": {"include_usage": True},
        "num_frames": 2, "sampling": "uniform", "fps": 1, "use_audio": False, "media_io_kwargs": {"video": {"num_frames": 2}},
        "mm_processor_kwargs": {"use_audio_in_video": False}, "tools": [], "response_format": {"type": "text"}, "user": "x",
    }  # fmt: skip
    return {name: value for name, value in fields.items() if rng.random() < 0.4}


def huge_counts(targets: Targets, rng: random.Random) -> Hostile:
    n = rng.choice([100, 3000, 20000])
    message = {"role": "user", "content": "hi"}
    body: Any = rng.choice(
        [
            {"n": 10**rng.randrange(2, 30)}, {"max_tokens": 10 ** rng.randrange(3, 40)}, {"top_logprobs": 10**6, "logprobs": True},
            {"messages": [message] * n}, {"messages": [message, {"role": "assistant", "content": "x"}] * n + [message]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * n}]}, {"stop": ["x"] * n},
            {"messages": [{"role": "user", "content": "x" * n * 50}]}, {"messages": [{"role": "user", "content": "\u200d\U0001f469" * n}]},
            {"messages": [{"role": "user", "content": [data_part(rng, b"x", "image")] * n}]}, {"seed": -(10**30)},
            {"messages": [{"role": "user", "content": " " * n}]}, {"model": "x" * n}, {"num_frames": 10**9}, {"fps": 1e308},
            {f"field{k}": k for k in range(n)}, {"stop": "x" * n}, {"temperature": 1e300}, {"user": "x" * n},
            {"messages": [{"role": "user", "content": [url_part(rng, "data:video/jpeg;base64," + "AAAA," * n)]}]},
        ]
    )  # fmt: skip
    raw = json.loads(asking())
    text = json.dumps({**raw, **body})
    if rng.random() < 0.2:
        text = text.replace(
            '"toy"',
            rng.choice(["[" * n + "]" * n, '{"a":' * n + "1" + "}" * n, "9" * n, "NaN", "-Infinity", "1e" + "9" * n]),
        )
    return Hostile("counts", post(text.encode()))


def bombs(targets: Targets, rng: random.Random) -> Hostile:
    side = rng.choice([20000, 60000, 2**31 - 1])
    zeros = zlib.compress(bytes(3_000_000), 9)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def png(width: int, height: int, *more: bytes) -> bytes:
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zeros) + chunk(b"IEND", b"")

    wav = (
        b"RIFF\xff\xff\xff\xffWAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 65535, 2**31, 2**32 - 1, 65535, 16)
        + b"data\xff\xff\xff\xff"
    )
    gif = (
        b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\x80\0\0"
        + b"\0" * 6
        + (b"!\xf9\x04\0\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0") * 3000
        + b";"
    )
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://" + str(targets.outside).encode() + b"\n"
    concat = b"ffconcat version 1.0\nfile '" + str(targets.outside).encode() + b"'\n"
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    content = rng.choice(
        [
            *(png(side, side), png(3000, 3000, *[chunk(b"zTXt", b"a\0\0" + zeros)] * 20), png(1, 1, chunk(b"iCCP", b"a\0\0" + zeros))),
            *(wav, wav + bytes(5000), gif, playlist, concat, svg, b"%!PS\n(/etc/passwd) run", gzip.compress(targets.clip), b"II*\0" + b"\xff" * 200),
        ]
    )  # fmt: skip
    part = data_part(rng, content)
    if rng.random() < 0.2:
        squeezed = gzip.compress(asking(part) + b" " * 30_000_000)
        return Hostile("bomb", post(squeezed, "Content-Encoding: gzip"), may_succeed=False)
    return Hostile("bomb", post(asking(part)))


def broken_media(targets: Targets, rng: random.Random) -> Hostile:
    content = bytearray(targets.clip)
    for _ in range(rng.choice([1, 3, 10, 50])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.2:
        del content[rng.randrange(len(content)) :]
    return Hostile("media", post(asking(data_part(rng, bytes(content), rng.choice(["video", "audio"])))))


def headers(targets: Targets, rng: random.Random) -> Hostile:
    body = asking()
    name = "X-" + "a" * rng.randrange(1, 9)
    raw = rng.choice(
        [
            post(body, f"{name}: {'x' * 100_000}"),
            post(body, *[f"X-{k}: y" for k in range(5000)]),
            post(body, length=-1), post(body, length="1e3"), post(body, length=10**18), post(body, length=""),
            post(body, f"Content-Length: {len(body) + 5}"), post(body, "Transfer-Encoding: chunked"),
            post(b"ffffffffff\r\nx", "Transfer-Encoding: chunked", length=3),
            post(body).replace(b"Host: localhost", b"Host: evil.example"), post(body).replace(b"Host: localhost\r\n", b""),
            post(body).replace(b"Host: localhost", b"Host: localhost\r\nHost: evil.example"),
            post(body).replace(b"HTTP/1.1", b"HTTP/9.9"), post(body).replace(b"POST", rng.choice([b"GET", b"PUT", b"TRACE", b"CONNECT", b"\x00", b"PRI"])),
            post(body).replace(b"application/json", rng.choice([b"text/plain", b"multipart/form-data", b"application/json; charset=utf-7", b"x" * 500])),
            post(body, "Authorization: Bearer " + "x" * 10_000), post(body, "Authorization: \x00\x01"), post(body, "Expect: 100-continue"),
            post(body, "Upgrade: websocket", "Connection: Upgrade"), post(body, "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"),
            post(body, f"{name}: a\nb"), post(body, " : x"), post(body, "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil"),
            b"\x16\x03\x01\x02\x00\x01\x00" + rng.randbytes(300), b"GET /" + b"../" * 3000 + b"etc/passwd HTTP/1.1\r\n\r\n", b"\r\n" * 3000, b"",
        ]
    )  # fmt: skip
    return Hostile("headers", raw, patience_s=1)


def odd_paths(targets: Targets, rng: random.Random) -> Hostile:
    path = rng.choice(
        [
            *(
                "/v1/models/../../etc/passwd",
                "/v1/models/%2e%2e%2fetc%2fpasswd",
                "/v1/models/%00",
                "/v1/models/" + "a" * 5000,
                "//v1/models",
            ),
            *(
                "/docs/../../etc/passwd",
                "/static/../etc/passwd",
                "/v1/models/\xff".encode().decode("latin-1"),
                "/v1/%ff",
                "/metrics?x=" + "y" * 5000,
            ),
            *(
                "http://localhost/v1/models",
                "*",
                "/openapi.json/..",
                "/v1/files",
                "/v1/chat/completions/",
                "/health/../v1/models",
                "/v1;x/models",
            ),
        ]
    )
    method = rng.choice(["GET", "POST", "HEAD", "OPTIONS", "DELETE"])
    return Hostile(
        "paths", f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1")
    )


def bodies(targets: Targets, rng: random.Random) -> Hostile:
    good = asking(data_part(rng, targets.clip, "video"), stream=rng.random() < 0.5)
    if rng.random() < 0.4:  # a client that stops in the middle, or does not wait
        cut = rng.choice([len(good), rng.randrange(len(good))])
        return Hostile("hang-up", post(good)[: -(len(good) - cut) or None], hangs_up=True)
    body = rng.choice(
        [
            *(
                b"",
                b"null",
                b"[]",
                b"{}",
                b'"x"',
                b"\xff\xfe",
                b"\x00" * 100,
                b"{",
                good[:-1],
                good + b"}",
                rng.randbytes(2000),
                b"x" * 6_000_000,
            ),
            *(
                good.replace(b"toy", b"\xff"),
                good.replace(b'"toy"', b'"\\ud800"'),
                b"\xef\xbb\xbf" + good,
                good.decode().encode("utf-16"),
            ),
            *(
                good.replace(b"base64,", b"base64,==" + b"=" * 1000),
                good.replace(b'"user"', b'"user", "role": "system"'),
            ),
        ]
    )
    return Hostile("body", post(body))


KINDS: list[Callable[[Targets, random.Random], Hostile]] = [
    *(path_outside, address_inside, wrong_types, huge_counts, bombs, broken_media, headers, odd_paths, bodies),
]
