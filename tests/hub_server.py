"""A hub on this machine: as much of its API as huggingface_hub needs to download and upload models and files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.file_server import running

LARGE = (".safetensors", ".bin", ".pth")
"""Suffixes of files in git-lfs, whose ETag is a SHA-256."""


@dataclass
class Hub:
    """Repositories and their commits. Any revision but a commit is a branch."""

    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Repository -> commit -> file -> content."""
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    """(repository, branch) -> commit."""
    damaged: set[str] = field(default_factory=set)
    """Files that are sent with another content than declared."""
    gated: set[str] = field(default_factory=set)
    """Repositories that need a token."""
    on_byte: tuple[int, Callable[[], None]] | None = None
    """Called once, when so many bytes of a large file have been sent; the answer stops there."""
    token: str = "secret"
    """What an upload must bring."""
    private: set[str] = field(default_factory=set)
    """Repositories that were created as private ones."""
    sent: dict[str, bytes] = field(default_factory=dict)
    """Large files that were uploaded, by their SHA-256."""
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def push(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit, and return it."""
        commits = self.commits.setdefault(repo, {})
        commit = hashlib.sha1(f"{repo}{branch}{len(commits)}".encode()).hexdigest()
        commits[commit] = files
        self.branches[repo, branch] = commit
        return commit

    def downloads(self, file: str) -> int:
        """How often a file was asked for."""
        return sum(request.startswith("GET") and request.endswith(f"/{file}") for request in self.requests)

    def env(self, cache: Path) -> dict[str, str]:
        """The environment of a process that uses this hub."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(cache), "NO_PROXY": "127.0.0.1"}


def folder_files(folder: Path) -> dict[str, bytes]:
    """The files of a folder, for ``push``."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def hub_serving(hub: Hub) -> Iterator[Hub]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {unquote(self.path)}")
            try:
                _answer(hub, self)
            except OSError:  # the client has gone
                self.close_connection = True

        do_HEAD = do_GET

        def do_POST(self) -> None:
            hub.requests.append(f"{self.command} {unquote(self.path)}")
            try:
                _take(hub, self)
            except OSError:
                self.close_connection = True

        do_PUT = do_POST

        def log_message(self, *args: object) -> None:
            pass

    with running(Handler) as port:
        hub.url = f"http://127.0.0.1:{port}"
        yield hub


def use(hub: Hub, cache: Path, patch: pytest.MonkeyPatch, *, offline: bool = False) -> None:
    """Make huggingface_hub in this process use the hub; it reads its environment only once."""
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_XET": True,  # this hub takes large files by git-lfs alone
    }.items():
        patch.setattr(constants, name, value)
    patch.setenv("NO_PROXY", "127.0.0.1")


def _answer(hub: Hub, handler: BaseHTTPRequestHandler) -> None:
    path = unquote(handler.path.partition("?")[0])
    if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(?:revision|tree)/(.+?))?", path):
        repo, revision, file = found[1], found[2] or "main", None
    elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+)", path):
        repo, (revision, file) = found[1], _split(hub, found[1], found[2])
    else:
        return _error(handler, 404, "")
    commit = hub.branches.get((repo, revision), revision)
    if "/tree/" in path and commit not in hub.commits.get(repo, {}):
        _, folder = _split(hub, repo, revision)  # a folder of the repository: ours have none that is listed
        return _error(handler, 404, "EntryNotFound" if folder else "RevisionNotFound")
    if repo in hub.gated and "Authorization" not in handler.headers:
        return _error(handler, 401, "GatedRepo")
    if repo not in hub.commits:
        return _error(handler, 401, "RepoNotFound")
    if commit not in hub.commits[repo]:
        return _error(handler, 404, "RevisionNotFound")
    files = hub.commits[repo][commit]
    if file is not None:
        return _send_file(hub, handler, commit, files, file)
    if "/tree/" in path:
        return _send_json(handler, [_listed(name, content) for name, content in files.items()])
    siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
    return _send_json(handler, {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "tags": []})


def _take(hub: Hub, handler: BaseHTTPRequestHandler) -> None:
    """Answer what changes a repository."""
    path, body = unquote(handler.path.partition("?")[0]), _body(handler)
    if found := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):  # the address itself is the permission
        assert hashlib.sha256(body).hexdigest() == found[1]
        hub.sent[found[1]] = body
        return _send_json(handler, {})
    if handler.headers.get("Authorization") != f"Bearer {hub.token}":
        return _error(handler, 401, "")
    if path == "/api/validate-yaml":
        return _send_json(handler, {"errors": [], "warnings": []})
    if path == "/api/repos/create":
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in hub.commits:
            return _error(handler, 409, "")
        hub.push(repo, {})
        if asked.get("private") or asked.get("visibility") == "private":
            hub.private.add(repo)
        return _send_json(handler, {"url": f"{hub.url}/{repo}", "name": repo})
    if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
        modes = {True: "lfs", False: "regular"}
        paths = [file["path"] for file in json.loads(body)["files"]]
        files = [{"path": name, "uploadMode": modes[name.endswith(LARGE)], "shouldIgnore": False} for name in paths]
        return _send_json(handler, {"files": files})
    if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
        objects = [
            {**file, "actions": {"upload": {"href": f"{hub.url}/lfs/{file['oid']}"}}}
            for file in json.loads(body)["objects"]
        ]
        return _send_json(handler, {"transfer": "basic", "objects": objects})
    if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
        repo = found[1]
        files = dict(hub.commits[repo][hub.branches[repo, "main"]])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.sent[value["oid"]]
        commit = hub.push(repo, files)
        return _send_json(handler, {"commitUrl": f"{hub.url}/{repo}/commit/{commit}", "commitOid": commit})
    return _error(handler, 404, "")


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


def _split(hub: Hub, repo: str, rest: str) -> tuple[str, str]:
    """Split revision and file; a branch may have slashes."""
    for known, branch in hub.branches:
        if known == repo and rest.startswith(f"{branch}/"):
            return branch, rest.removeprefix(f"{branch}/")
    revision, _, file = rest.partition("/")
    return revision, file


def _etag(name: str, content: bytes) -> str:
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _listed(name: str, content: bytes) -> dict[str, Any]:
    large = (
        {"lfs": {"oid": _etag(name, content), "size": len(content), "pointerSize": 130}} if name.endswith(LARGE) else {}
    )
    return {"type": "file", "path": name, "size": len(content), "oid": "0" * 40, **large}


def _send_file(hub: Hub, handler: BaseHTTPRequestHandler, commit: str, files: dict[str, bytes], name: str) -> None:
    if name not in files:
        return _error(handler, 404, "EntryNotFound", commit)
    content = files[name]
    etag = f'"{_etag(name, content)}"'
    handler.send_response(200)
    handler.send_header("X-Repo-Commit", commit)
    handler.send_header("ETag", etag)
    if name.endswith(LARGE):
        handler.send_header("X-Linked-ETag", etag)
        handler.send_header("X-Linked-Size", str(len(content)))
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if handler.command == "HEAD":
        return None
    body = bytes(len(content)) if name in hub.damaged else content
    if hub.on_byte is not None and name.endswith(LARGE):
        (limit, call), hub.on_byte = hub.on_byte, None
        handler.wfile.write(body[:limit])
        handler.wfile.flush()
        call()
        handler.close_connection = True
    else:
        handler.wfile.write(body)
    return None


def _send_json(handler: BaseHTTPRequestHandler, content: Any) -> None:
    body = json.dumps(content).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _error(handler: BaseHTTPRequestHandler, status: int, code: str, commit: str = "") -> None:
    handler.send_response(status)
    handler.send_header("X-Error-Code", code)
    handler.send_header("X-Repo-Commit", commit)
    handler.send_header("Content-Length", "0")
    handler.end_headers()
