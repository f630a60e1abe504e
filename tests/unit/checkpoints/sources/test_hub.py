"""Models and files of a small hub on this machine, fetched by huggingface_hub and pinned to their commits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub.utils import _http

from tests.hub_server import Hub, hub_serving, use
from video_llama.checkpoints.sources import hub as module
from video_llama.checkpoints.sources.hub import HubReference, fetch, find, model_files
from video_llama.common.errors import DownloadError

REPO = "org/tiny"
WEIGHTS = random.Random(0).randbytes(1_000_000)
MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.model": b"pieces",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"the same again",
    "modeling_tiny.py": b"raise SystemExit",
    "onnx/model.onnx": b"another format",
    "README.md": b"words",
}
FETCHED = {"config.json", "tokenizer.model", "model.safetensors"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_serving(Hub()) as running:
        yield running


@pytest.fixture
def cache(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache."""
    use(hub, tmp_path / "hub", monkeypatch)
    return tmp_path / "hub"


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    return tmp_path / "journals"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", HubReference("Qwen/Qwen2.5-0.5B-Instruct")),
        ("hf://org/name", HubReference("org/name")),
        ("org/name@v1.0", HubReference("org/name", None, "v1.0")),
        ("org/name@refs/pr/3", HubReference("org/name", None, "refs/pr/3")),
        ("hf://org/name/file.pth", HubReference("org/name", "file.pth")),
        ("hf://org/name/a/b.pth", HubReference("org/name", "a/b.pth")),
        ("hf://org/name@main/a/b.pth", HubReference("org/name", "a/b.pth", "main")),
        ("hf://org/name@refs/pr/3/b.pth", HubReference("org/name", "b.pth", "refs/pr/3")),
        ("hf://org/name/b.pth@main", HubReference("org/name", "b.pth", "main")),
        *(
            (text, None)
            for text in ("name", "org/name/", "./org/name", "/org/name", "a/b/c", "~/name", "org/name@", "")
        ),
        *((text, None) for text in ("hf://name", "hf://org/name@a/b.pth@b", "https://org/name", "org/na me")),
    ],
)
def test_what_a_text_names_on_the_hub(text, reference):
    assert HubReference.parse(text) == reference
    assert reference is None or HubReference.parse(str(reference)) == reference


def test_a_text_that_starts_with_a_folder_here_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "ckpt").mkdir()
    monkeypatch.chdir(tmp_path)
    assert HubReference.parse("ckpt/llama") is None
    assert HubReference.parse("hf://ckpt/llama") == HubReference("ckpt/llama")


def test_one_set_of_weights_is_fetched_and_no_code():
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert set(model_files(MODEL)) == FETCHED
    assert model_files([*shards, "consolidated.safetensors", "model.fp16.safetensors", "x.gguf"]) == shards
    assert model_files(["pytorch_model.bin", "flax_model.msgpack"]) == ["pytorch_model.bin"]


def test_a_model_is_fetched_once_and_named_with_its_commit(hub, cache, journals):
    commit = hub.push(REPO, MODEL)
    assert find(HubReference(REPO)) is None
    assert fetch(HubReference(REPO), journals) == HubReference(REPO, None, commit)
    folder = find(HubReference(REPO))
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == FETCHED
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    fetch(HubReference(REPO), journals)
    assert hub.downloads("model.safetensors") == 1


def test_the_newest_commit_is_fetched_unless_a_revision_is_named(hub, cache, journals):
    old = hub.push(REPO, MODEL)
    fetch(HubReference(REPO), journals)
    new = hub.push(REPO, {**MODEL, "config.json": b"{}"})
    assert fetch(HubReference(REPO, None, old), journals).revision == old
    assert fetch(HubReference(REPO), journals).revision == new
    branch = hub.push(REPO, MODEL, branch="refs/pr/1")
    assert fetch(HubReference(REPO, None, "refs/pr/1"), journals).revision == branch
    assert hub.downloads("model.safetensors") == 1, "the same content is kept once"


def test_a_file_is_fetched_alone(hub, cache, journals):
    commit = hub.push(REPO, {**MODEL, "branches/vl.pth": b"branch"})
    reference = HubReference(REPO, "branches/vl.pth")
    assert fetch(reference, journals) == HubReference(REPO, "branches/vl.pth", commit)
    path = find(HubReference(REPO, "branches/vl.pth", commit))
    assert path is not None
    assert path.read_bytes() == b"branch"
    assert hub.downloads("model.safetensors") == 0


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (HubReference("org/none"), r"org/none: neither a path here nor a repository of http://127.* log in"),
        (HubReference(REPO, None, "v9"), r"org/tiny@v9: the repository has no revision v9"),
        (HubReference(REPO, "vl.pth"), r"hf://org/tiny/vl\.pth: the repository has no file vl\.pth"),
        (HubReference("org/data"), r"org/data: the repository has no config\.json"),
        (HubReference("org/gated"), r"org/gated: accept its terms on http://127.*/org/gated, then log in"),
    ],
)
def test_what_cannot_be_had_is_named_with_the_reason(hub, cache, journals, reference, message):
    for repo, files in ((REPO, MODEL), ("org/gated", MODEL), ("org/data", {"README.md": b""})):
        hub.push(repo, files)
    hub.gated = {"org/gated"}
    with pytest.raises(DownloadError, match=message):
        fetch(reference, journals)


def test_a_token_opens_a_gated_repository(hub, cache, journals, monkeypatch):
    hub.gated, commit = {REPO}, hub.push(REPO, MODEL)
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    assert fetch(HubReference(REPO), journals).revision == commit


def test_offline_what_is_cached_is_used_and_the_rest_refused_with_a_way_out(hub, cache, journals, monkeypatch):
    commit = hub.push(REPO, MODEL)
    fetch(HubReference(REPO), journals)
    use(hub, cache, monkeypatch, offline=True)
    hub.requests.clear()
    assert fetch(HubReference(REPO), journals).revision == commit
    message = r"org/other is not in the hub's cache, .*hub, and HF_HUB_OFFLINE is set\. Run this once without"
    with pytest.raises(DownloadError, match=message):
        fetch(HubReference("org/other"), journals)
    assert hub.requests == []


def test_if_the_hub_is_down_what_is_cached_is_used_and_the_rest_refused(cache, journals, monkeypatch, caplog):
    with hub_serving(Hub()) as gone:
        commit = gone.push(REPO, MODEL)
        use(gone, cache, monkeypatch)
        fetch(HubReference(REPO), journals)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    assert fetch(HubReference(REPO), journals).revision == commit
    assert f"the hub cannot be reached; {REPO}@{commit} is used as cached" in caplog.text
    with pytest.raises(DownloadError, match=r"org/other: not in the hub's cache, and http://127.* cannot be reached"):
        fetch(HubReference("org/other"), journals)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model"])
def test_a_wrong_digest_is_refused_and_the_file_removed(hub, cache, journals, name):
    hub.push(REPO, MODEL)
    hub.damaged = {name}
    with pytest.raises(DownloadError, match=r"has the digest .*; the hub declares .* removed; try again"):
        fetch(HubReference(REPO), journals)
    folder = find(HubReference(REPO))
    assert folder is not None
    assert not (folder / name).exists()
    hub.damaged = set()
    fetch(HubReference(REPO), journals)
    assert (folder / name).read_bytes() == MODEL[name]
    assert hub.downloads("config.json") == 1, "what had the right digest is kept"


def test_a_wrong_digest_is_found_although_the_process_that_downloaded_it_was_killed(hub, cache, journals, monkeypatch):
    hub.push(REPO, MODEL)
    hub.damaged = {"model.safetensors"}

    def killed(blob: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_check_digest", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(HubReference(REPO), journals)
    use(hub, cache, monkeypatch, offline=True)
    with pytest.raises(DownloadError, match="the hub declares"):
        fetch(HubReference(REPO), journals)


def test_a_model_that_does_not_fit_on_the_disk_is_not_begun(hub, cache, journals, monkeypatch):
    hub.push(REPO, MODEL)
    free = module.shutil._ntuple_diskusage(10, 10, len(WEIGHTS) - 1)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: free)
    with pytest.raises(DownloadError, match=r"0\.0 GB are needed, 0\.0 GB are free on the disk of .*hub"):
        fetch(HubReference(REPO), journals)
    assert hub.downloads("model.safetensors") == 0


def test_killed_ten_times_at_random_moments_a_file_of_the_hub_is_whole_or_absent(hub, tmp_path):
    hub.push("DAMO-NLP-SG/Video-LLaMA-Series", {"finetune-vicuna7b-v2.pth": WEIGHTS})
    chance = random.Random(2)
    command = [sys.executable, "-m", "video_llama.cli.main", "download", "video_llama/finetune-vicuna7b-v2"]
    env = {**os.environ, **hub.env(tmp_path / "hub"), "VIDEO_LLAMA_HOME": str(tmp_path / "home")}
    for moment in [0, 1, *(chance.randrange(len(WEIGHTS)) for _ in range(8))]:
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            hub.on_byte = (moment, partial(process.kill))
            assert process.wait() == -signal.SIGKILL
        assert [path for path in tmp_path.rglob("*.pth") if path.exists()] == []
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    (path,) = tmp_path.rglob("*.pth")
    assert path.read_bytes() == WEIGHTS
    assert done.stdout.split("\n")[1:3] == [f"  {path}", "  model.ckpt: video_llama/finetune-vicuna7b-v2"]
