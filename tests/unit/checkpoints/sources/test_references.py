"""What a YAML may name as weights, and what a Config says after its references were fetched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from tests.hub_server import Hub, hub_serving, use
from video_llama.checkpoints.sources.known import find_known, near_name
from video_llama.checkpoints.sources.references import WeightsSource, fetched, hub_references, local_path
from video_llama.common.errors import DownloadError, WeightsError
from video_llama.config.serialize import remember_name

FILE, FOLDER = WeightsSource("file"), WeightsSource("dir")


@dataclass(frozen=True)
class Inner:
    model: Annotated[str, WeightsSource("dir")]


@dataclass(frozen=True)
class Config:
    llm: Annotated[str, WeightsSource("dir")]
    vit: Annotated[str, WeightsSource("file")] | None = None
    ckpt: Annotated[str, WeightsSource("file")] | None = None
    free: str = "org/name"
    inner: Inner | None = None

    def default_weights(self) -> dict[str, str]:
        return {"vit": "eva_clip_g"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a decoder in it and the cache folders of a user."""
    (tmp_path / "work" / "llm").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "weights").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_serving(Hub()) as running:
        use(running, folder / "hub", monkeypatch)
        yield running


def eva(folder: Path) -> Path:
    """Put EVA-CLIP where ``download`` puts it."""
    path = folder / "home" / "weights" / "eva_vit_g.pth"
    path.write_bytes(b"weights")
    return path


def test_a_known_name_is_accepted_once_it_is_downloaded(folder):
    missing = "eva_clip_g is not downloaded yet. To download it: video-llama download eva_clip_g"
    assert FILE.problem("eva_clip_g") == missing
    with pytest.raises(WeightsError, match=f"model.vit_ckpt: eva_clip_g: {missing}"):
        local_path("eva_clip_g", "model.vit_ckpt")
    path = eva(folder)
    assert FILE.problem("eva_clip_g") is None
    assert local_path("eva_clip_g", "model.vit_ckpt") == path


def test_the_address_in_a_published_yaml_is_a_known_name(folder):
    address = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/eva_vit_g.pth"
    assert FILE.problem(address) == FILE.problem("eva_clip_g")
    assert find_known(address) == find_known("eva_clip_g")


@pytest.mark.parametrize(
    ("rule", "value", "problem"),
    [
        (FILE, "eva_clip", "no such file: eva_clip. Did you mean eva_clip_g?"),
        (FILE, "branch.pth", "no such file: branch.pth"),
        (FILE, "llm", "not a file: llm"),
        (FILE, "org/name", "no such file: org/name"),
        (
            FILE,
            "https://a.b/c.pth",
            "no such file: https://a.b/c.pth. What is on the hub is written hf://org/name/file",
        ),
        (FILE, "hf://org/name", "no such file: hf://org/name. What is on the hub is written hf://org/name/file"),
        (
            FOLDER,
            "hf://org/name/f.pth",
            "no such directory: hf://org/name/f.pth. What is on the hub is written hf://org/name",
        ),
        (FOLDER, "llm/7b", "no such directory: llm/7b. To take it from the hub: hf://llm/7b"),
        (FOLDER, "eva_clip_g", "no such directory: eva_clip_g"),
        (FOLDER, "a/b/c", "no such directory: a/b/c"),
    ],
)
def test_what_is_none_of_these_is_refused_as_a_path(rule, value, problem):
    assert rule.problem(value) == problem


def test_a_hub_id_is_accepted_without_being_fetched(hub, folder, monkeypatch):
    assert FOLDER.problem("org/name@main") is None
    assert FILE.problem("hf://org/name/f.pth") is None
    assert hub.requests == []
    use(hub, folder / "hub", monkeypatch, offline=True)
    assert "is not in the hub's cache" in str(FOLDER.problem("org/name"))


def test_a_folder_of_that_name_wins(hub, folder, monkeypatch):
    hub.push("org/name", {"config.json": b"{}"})
    Path("org/name").mkdir(parents=True)
    eva(folder)
    assert fetched(Config(llm="org/name")).llm == "org/name"
    assert local_path("org/name", "model.llm") == Path("org/name")
    assert hub.requests == []


def test_a_fetched_config_names_commits_and_default_weights(hub, folder):
    llm, inner = (hub.push(repo, {"config.json": b"{}"}) for repo in ("org/llm", "org/inner"))
    branch = hub.push("org/files", {"a/b.pth": b"x"})
    config = Config(llm="org/llm", ckpt="hf://org/files/a/b.pth", inner=Inner("hf://org/inner"))
    remember_name(config, "registered")
    eva(folder)
    new = fetched(config)
    expected: dict[str, Any] = {
        "llm": f"org/llm@{llm}",
        "ckpt": f"hf://org/files@{branch}/a/b.pth",
        "vit": "eva_clip_g",
    }
    assert new == Config(**expected, inner=Inner(f"org/inner@{inner}"))
    assert new._registered_name == "registered"
    assert [key for key, _ in hub_references(new)] == ["model.llm", "model.ckpt", "model.inner.model"]
    assert local_path(new.ckpt, "model.ckpt").read_bytes() == b"x"
    assert fetched(new) == new


def test_a_known_file_of_the_hub_is_named_with_its_commit_and_never_fetched(hub, folder):
    name, file = "video_llama/finetune-vicuna7b-v2", "finetune-vicuna7b-v2.pth"
    commit = hub.push("DAMO-NLP-SG/Video-LLaMA-Series", {file: b"branch"})
    assert str(FILE.problem(name)).endswith(f"video-llama download {name}")
    assert hub.requests == []
    from video_llama.cli.main import main

    assert main(["download", name]) == 0
    eva(folder)
    hub.push("DAMO-NLP-SG/Video-LLaMA-Series", {file: b"a newer one"})
    pinned = fetched(Config(llm="llm", ckpt=name)).ckpt
    assert pinned == f"hf://DAMO-NLP-SG/Video-LLaMA-Series@{commit}/{file}"
    assert local_path(pinned, "model.ckpt").read_bytes() == b"branch"


def test_a_run_that_goes_on_uses_the_recorded_commit_unless_the_yaml_names_one(hub, folder):
    eva(folder)
    old = hub.push("org/llm", {"config.json": b"{}"})
    recorded = {"llm": f"org/llm@{old}", "inner": {"model": f"org/llm@{old}"}}
    new = hub.push("org/llm", {"config.json": b"[]"})
    config = Config(llm="org/llm", inner=Inner("org/llm"))
    assert fetched(config, recorded) == Config(llm=f"org/llm@{old}", vit="eva_clip_g", inner=Inner(f"org/llm@{old}"))
    assert fetched(config).llm == f"org/llm@{new}"
    assert fetched(Config(llm="org/llm@main"), recorded).llm == f"org/llm@{new}"
    assert fetched(Config(llm="org/llm"), {"llm": "/a/folder"}).llm == f"org/llm@{new}"


def test_a_failed_download_names_the_key(hub, folder):
    eva(folder)
    with pytest.raises(DownloadError, match=r"^model\.inner\.model: org/none: neither"):
        fetched(Config(llm="llm", inner=Inner("org/none")))


def test_names_are_suggested():
    assert near_name("imagebind") == " Did you mean imagebind_huge?"


@dataclass(frozen=True)
class Optional:
    has_sound: bool = False
    sound: Annotated[str, WeightsSource(only_with="has_sound")] | None = None


@pytest.mark.parametrize(("has_sound", "named"), [(False, []), (True, ["model.sound"])])
def test_what_is_not_used_is_not_fetched(has_sound, named):
    config = Optional(has_sound, "hf://org/name/sound.pth")
    assert [key for key, _ in hub_references(config)] == named
    if not has_sound:
        assert fetched(config) == config
