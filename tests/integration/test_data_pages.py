"""``preview`` and ``check-data``: what they find, what they show, and that a killed check goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.browser import chromium, contrast, fits, opened
from tests.integration.conftest import ROOT, Result
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene
from video_llama.toy.world import write_world

SCREENSHOTS = os.environ.get("VIDEO_LLAMA_SCREENSHOTS")
"""A folder to write the picture in docs/data.md to."""
DATA_MD = (ROOT / "docs/data.md").read_text(encoding="utf-8")
SECTION = DATA_MD.split("## Your own data: `manifest`")[1].split("\n## ")[0]
NO_WEIGHTS = ("model.ckpt=", "model.ckpt_2=")
JSON_LINES, DATASETS_YAML = (re.findall(rf"```{kind}\n(.*?)```", SECTION, re.DOTALL)[0] for kind in ("json", "yaml"))


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of docs/data.md, its files, and a YAML that trains the toy model on it."""
    folder = tmp_path_factory.mktemp("mine")
    for name in ("clips", "frames/river"):
        (folder / name).mkdir(parents=True)
    write_clip(folder / "clips/river.mp4", Scene("ring", "red", "left", "large", seed=1))
    write_clip(folder / "clips/town.mp4", Scene("star", "blue", "right", "small", seed=2))
    for i in range(12):
        Image.new("RGB", (64, 48), (20 * i, 90, 60)).save(folder / f"frames/river/{i}.jpg")
    Image.new("RGB", (64, 64), (200, 60, 60)).save(folder / "still.jpg")
    (folder / "mine.jsonl").write_text(JSON_LINES)
    toy = yaml.safe_load((ROOT / "train_configs/toy/both_branches_finetune.yaml").read_text())
    example = yaml.safe_load(DATASETS_YAML)
    for processor in example["datasets"]["mine"]["vis_processor"].values():
        processor["image_size"] = 64
    example["datasets"]["mine"]["build_info"]["manifest"] = str(folder / "mine.jsonl")
    toy.update(example)
    toy["run"]["output_dir"] = str(folder / "run")
    (folder / "mine.yaml").write_text(yaml.safe_dump(toy))
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


# --- The example of the documentation


def test_the_manifest_of_the_documentation_can_be_used(mine: Path, command: Callable[..., Result]) -> None:
    found = command("check-data", "--cfg-path", mine / "mine.yaml", "--workers", 1)
    assert (found.code, found.out.splitlines()[0]) == (0, "mine: 5 of 5 records read, 0 bad")
    report = json.loads((mine / "run/check_data/report.json").read_text())
    assert report["datasets"]["mine"]["files"] == 4
    assert report["datasets"]["mine"]["with_sound"] == 2


def test_check_config_knows_a_manifest(mine: Path, command: Callable[..., Result]) -> None:
    found = command("check-config", mine / "mine.yaml", "--for", "train", "--options", *NO_WEIGHTS)
    assert (found.code, found.out.splitlines()[0]) == (0, f"{mine / 'mine.yaml'}: ok for training")
    wrong = command("check-config", mine / "mine.yaml", "--options", "datasets.mine.build_info.manifest=none.jsonl")
    assert wrong.code == 1
    assert "datasets.mine.build_info.manifest: no such file: none.jsonl" in wrong.err


@pytest.mark.slow
def test_a_manifest_is_trained_and_validated_on(mine: Path, command: Callable[..., Result], tmp_path: Path) -> None:
    config = yaml.safe_load((mine / "mine.yaml").read_text())
    config["datasets"]["held"] = {**config["datasets"]["mine"], "split": "val"}
    config["run"] |= {"valid_splits": ["val"], "iters_per_epoch": 2, "batch_size_train": 2, "warmup_steps": 0}
    config["run"]["output_dir"] = str(tmp_path / "run")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert command("train", "--cfg-path", tmp_path / "mine.yaml", "--options", *NO_WEIGHTS).code == 0
    steps = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [step["by_dataset"]["mine"]["samples"] for step in steps] == [2, 2]
    (validated,) = [json.loads(line) for line in (tmp_path / "run/validation.jsonl").read_text().splitlines()]
    assert validated["val/loss"] > 0
    assert validated.get("val/skipped", 0) == 0


# --- The preview


@pytest.fixture(scope="module")
def previewed(mine: Path) -> Path:
    """The page of the first samples of a run on the example."""
    from video_llama.cli.main import main

    os.chdir(ROOT)
    assert main(["preview", "--cfg-path", str(mine / "mine.yaml"), "--n", "10"]) == 0
    return mine / "run/preview.html"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390), ("dark", 390)])
def test_a_preview_is_shown_on_screens_and_phones(previewed: Path, browser: Any, scheme: str, width: int) -> None:
    with opened(browser, previewed, scheme, width) as page:
        assert fits(page)
        assert page.locator(".sample").count() == 10
        for selector in (".lead", ".t.loss", ".slot", "figcaption", ".sample header .count"):
            assert contrast(page, selector) > 4.5, selector
        light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(251, 251, 250)"
        assert light == (scheme == "light")


def test_a_preview_shows_the_tokens_their_loss_and_the_media(previewed: Path, browser: Any) -> None:
    with opened(browser, previewed, "light") as page:
        compared = page.locator(".sample", has_text="Which is the town?").first
        slots = compared.locator(".text .slot").all_inner_texts()
        assert [slot.split(" · ")[0].rstrip(" 0123456789") for slot in slots] == [
            "Sound",
            "Clip",
            "Sound",
            "Clip",
            "Image",
        ]
        assert compared.locator(".text .loss").all_inner_texts()[:2] != []
        assert "".join(compared.locator(".text .loss").all_inner_texts()).lstrip().startswith("Clip B.")
        assert compared.locator(".item.video").nth(0).locator("img").count() == 8
        assert compared.locator(".item.video figcaption").first.inner_text().endswith(" s")
        boundary = "getComputedStyle(document.querySelector('.text .t')).boxShadow"
        assert page.evaluate(boundary) != "none"
        page.locator("#boundaries").uncheck()
        assert page.evaluate(boundary) == "none"


def test_what_a_preview_shows_is_what_the_run_draws_first(mine: Path, previewed: Path) -> None:
    from video_llama.cli.job_data import load_data_config
    from video_llama.datasets.mixture import BatchPlan, RankBatches, build_mixture

    job, spec = load_data_config(str(mine / "mine.yaml"), [])
    mixture = build_mixture(job.datasets, spec, job.run.seed)
    steps = job.run.steps_per_epoch(len(mixture), 1)
    plan = BatchPlan(batch_size=job.run.batch_size_train, accumulation=1, world_size=1, steps_per_epoch=steps)
    first = next(iter(RankBatches(mixture, plan, 0, range(1))))
    drawn = [mixture.datasets[ref.dataset].record_id(ref.record) for ref in first[:10]]
    assert re.findall(r'class="id mono">(.*?)<', previewed.read_text()) == drawn


def test_a_text_of_the_data_is_shown_as_text(mine: Path, command: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "hostile.jsonl").write_text(
        json.dumps(
            {
                "conversations": [
                    {"from": "human", "value": "<script>alert(1)</script>"},
                    {"from": "gpt", "value": "<b>bold</b>"},
                ]
            }
        )
    )
    options = [f"datasets.mine.build_info.manifest={tmp_path / 'hostile.jsonl'}", f"run.output_dir={tmp_path}"]
    assert command("preview", "--cfg-path", mine / "mine.yaml", "--options", *options).code == 0
    html = (tmp_path / "preview.html").read_text()
    assert "<script" not in html
    assert "<b>bold" not in html


@pytest.mark.skipif(SCREENSHOTS is None, reason="writes the picture in docs/data.md")
def test_the_picture_of_the_documentation(browser: Any, tmp_path: Path, command: Callable[..., Result]) -> None:
    write_world(tmp_path / "world", n_clips=24, n_heldout=12, n_images=12)
    options = [f"paths.world={tmp_path / 'world'}", f"run.output_dir={tmp_path}"]
    config = ROOT / "train_configs/toy/both_branches_finetune.yaml"
    assert command("preview", "--cfg-path", config, "--options", *options).code == 0
    with opened(browser, tmp_path / "preview.html", "light", 1100, 728) as page:
        page.screenshot(path=Path(SCREENSHOTS or "", "preview.png"))


# --- The check


@pytest.fixture
def broken(mine: Path, tmp_path: Path) -> list[str]:
    """Options that add a manifest with broken records; its folder is that of the test."""
    for name in ("clips", "still.jpg"):
        source = mine / name
        shutil.copytree(source, tmp_path / name) if source.is_dir() else shutil.copy(source, tmp_path)
    shutil.copy(tmp_path / "clips/town.mp4", tmp_path / "clips/copy.mp4")
    (tmp_path / "clips/empty.mp4").write_bytes(b"")
    (tmp_path / "clips/cut.mp4").write_bytes((tmp_path / "clips/town.mp4").read_bytes()[:5000])
    os.mkfifo(tmp_path / "clips/fifo.mp4")
    records = [{"video": f"clips/{name}.mp4", "caption": f"The {name}."} for name in
               ("river", "town", "copy", "empty", "cut", "fifo", "none", "river", "river")]  # fmt: skip
    lines = [json.dumps(record) for record in records] + ['{"video": "clips/river.mp4", "capt']
    (tmp_path / "broken.jsonl").write_text("\n".join(lines) + "\n")
    return [f"datasets.mine.build_info.manifest={tmp_path / 'broken.jsonl'}", f"run.output_dir={tmp_path / 'run'}"]


def test_broken_files_are_listed_with_reasons_and_counted(
    mine: Path, broken: list[str], tmp_path: Path, command: Callable[..., Result]
) -> None:
    check = ("check-data", "--cfg-path", mine / "mine.yaml", "--workers", 2, "--write-ledger", "--options", *broken)
    found = command(*check)
    assert found.code == 1
    assert "mine: 10 of 10 records read, 5 bad" in found.out
    report = json.loads((tmp_path / "run/check_data/report.json").read_text())
    reasons = {Path(entry["path"] or entry["id"]).name: entry["reason"] for entry in report["bad"]}
    assert reasons["empty.mp4"] == "empty file (zero bytes)"
    assert reasons["fifo.mp4"] == "not a regular file"
    assert reasons["none.mp4"] == "no such file"
    assert "cut.mp4" in reasons
    assert reasons["line 10"].endswith("broken.jsonl:10: not valid JSON: Unterminated string starting at")
    assert report["copies"]["largest"] == [[str(tmp_path / "clips/copy.mp4"), str(tmp_path / "clips/town.mp4")]]
    assert report["repeated"]["largest"] == [["mine/line 1", "mine/line 8", "mine/line 9"]]

    ledger = tmp_path / "run/bad_samples.jsonl"
    assert {Path(json.loads(line)["path"] or "").name for line in ledger.read_text().splitlines()} == {
        "", "empty.mp4", "fifo.mp4", "none.mp4", "cut.mp4"
    }  # fmt: skip
    shutil.copy(tmp_path / "clips/town.mp4", tmp_path / "clips/none.mp4")
    again = command("check-data", "--cfg-path", mine / "mine.yaml", "--workers", 1, "--retry", "--options", *broken)
    assert f"{ledger}: 5 lines dropped, 5 records to read again" in again.out
    assert "mine: 10 of 10 records read, 4 bad" in again.out
    assert ledger.read_text() == ""


def test_files_that_have_changed_are_read_again(
    mine: Path, broken: list[str], tmp_path: Path, command: Callable[..., Result]
) -> None:
    check = ("check-data", "--cfg-path", mine / "mine.yaml", "--workers", 1, "--options", *broken)
    assert "mine: 10 of 10 records read, 5 bad" in command(*check).out
    shutil.copy(tmp_path / "clips/town.mp4", tmp_path / "clips/none.mp4")
    assert "mine: 10 of 10 records read, 4 bad" in command(*check).out
    (tmp_path / "clips/copy.mp4").write_bytes(b"")
    found = command(*check)
    assert "mine: 10 of 10 records read, 5 bad" in found.out
    assert "2 × empty file (zero bytes)" in found.out


def test_a_run_opens_no_file_of_the_ledger(
    mine: Path, broken: list[str], tmp_path: Path, command: Callable[..., Result]
) -> None:
    from video_llama.cli.job_data import load_data_config
    from video_llama.common.errors import DecodeError
    from video_llama.datasets.mixture import build_mixture
    from video_llama.datasets.quarantine import Quarantine

    command("check-data", "--cfg-path", mine / "mine.yaml", "--workers", 1, "--write-ledger", "--options", *broken)
    shutil.copy(tmp_path / "clips/town.mp4", tmp_path / "clips/empty.mp4")
    job, spec = load_data_config(str(mine / "mine.yaml"), broken)
    mixture = build_mixture(job.datasets, spec, seed=0)
    (data,) = mixture.datasets
    index = next(i for i in range(len(data)) if data.record_id(i) == "line 4")
    assert data.sample(index, np.random.default_rng(0)).media
    data.quarantine = Quarantine(tmp_path / "run/bad_samples.jsonl")
    with pytest.raises(DecodeError, match="empty file"):
        data.sample(index, np.random.default_rng(1))


def long_check(mine: Path, folder: Path, records: int, workers: int) -> list[str]:
    """Write ``many.jsonl``, one record many times; return the command that checks it, with its output in ``run``."""
    record = json.dumps({"video": str(mine / "clips/river.mp4"), "caption": "The river."})
    (folder / "many.jsonl").write_text((record + "\n") * records)
    options = [
        f"datasets.mine.build_info.manifest={folder / 'many.jsonl'}", f"run.output_dir={folder / 'run'}",
        "datasets.mine.build_info.allow_outside=true",
    ]  # fmt: skip
    return ["check-data", "--cfg-path", str(mine / "mine.yaml"), "--workers", str(workers), "--options", *options]


def wait_for_lines(process: subprocess.Popen[Any], journal: Path, n: int) -> None:
    """Wait until the journal of a running check has n lines."""
    while not journal.exists() or journal.read_bytes().count(b"\n") < n:
        assert process.poll() is None
        time.sleep(0.02)


def test_an_interrupted_check_says_how_to_go_on(mine: Path, tmp_path: Path) -> None:
    words = long_check(mine, tmp_path, records=2000, workers=2)
    process = subprocess.Popen(
        [sys.executable, "-m", "video_llama.cli.main", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_for_lines(process, tmp_path / "run/check_data/records.jsonl", 5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"stopped after \d+ of 2000 records; the same command goes on", err)
    assert "Traceback" not in err


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_a_report_is_shown(
    mine: Path, broken: list[str], tmp_path: Path, browser: Any, command: Callable[..., Result], scheme: str, width: int
) -> None:
    command("check-data", "--cfg-path", mine / "mine.yaml", "--workers", 2, "--options", *broken)
    with opened(browser, tmp_path / "run/check_data/report.html", scheme, width) as page:
        assert fits(page)
        assert page.locator(".verdict").inner_text().startswith("5 records (50 %) cannot be used")
        assert page.locator("svg.histogram").count() == 6
        page.locator("summary").click()
        assert page.locator("details tr").count() == 6
        for selector in (".lead", ".verdict", ".axis", "td", "th", ".figures dt"):
            assert contrast(page, selector) > 4.5, selector


def test_a_sample_of_the_records_is_contained_in_a_larger_one(
    mine: Path, broken: list[str], tmp_path: Path, command: Callable[..., Result]
) -> None:
    check = ("check-data", "--cfg-path", mine / "mine.yaml", "--workers", 1, "--options", *broken, "--sample")
    read = []
    for n in (2, 6):
        assert f"mine: {n} of 10 records read" in command(*check, n).out
        lines = (tmp_path / "run/check_data/records.jsonl").read_text().splitlines()[1:]
        read.append(list(dict.fromkeys(json.loads(line)["record"] for line in lines)))
    assert len(read[1]) == 6
    assert read[1][:2] == read[0]


def test_a_killed_check_goes_on_where_it_stopped(mine: Path, tmp_path: Path, command: Callable[..., Result]) -> None:
    words = long_check(mine, tmp_path, records=200, workers=1)
    record = (tmp_path / "many.jsonl").read_text().splitlines(keepends=True)[0]
    journal = tmp_path / "run/check_data/records.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "video_llama.cli.main", *words], cwd=ROOT)
    wait_for_lines(process, journal, 10)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = journal.read_bytes()
    journal.write_bytes(before + b'{"dataset": "mi')
    found = command(*words)
    assert "mine: 200 of 200 records read, 0 bad" in found.out
    assert journal.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    lines = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert sorted(line["record"] for line in lines) == list(range(200)), "each record is read once"

    with (tmp_path / "many.jsonl").open("a") as file:
        file.write(record)
    changed = command(*words)
    assert changed.code == 1
    assert "is about other data" in changed.err


def test_a_manifest_cannot_be_packed_and_what_can_is_named(
    mine: Path, tmp_path: Path, command: Callable[..., Result]
) -> None:
    found = command("make-shards", "--cfg-path", mine / "mine.yaml", "--dataset", "mine", "--output", tmp_path / "s")
    assert found.code == 1
    packable = "cc_sbu_align, llava_instruct, webvid, webvid_instruct, webvid_instruct_zh"
    assert f"--dataset: mine cannot be packed into shards; {packable} can" in found.err


def test_a_folder_that_cannot_be_made_is_named_with_its_flag(
    mine: Path, tmp_path: Path, command: Callable[..., Result]
) -> None:
    (tmp_path / "file").touch()
    found = command("check-data", "--cfg-path", mine / "mine.yaml", "--output", tmp_path / "file/report")
    assert found.err.splitlines()[-1] == f"error: --output: {tmp_path}/file/report cannot be written: Not a directory"


@pytest.mark.parametrize("flag", ["--sample", "--workers", "--deadline"])
def test_numbers_below_one_are_refused(mine: Path, flag: str, command: Callable[..., Result]) -> None:
    found = command("check-data", "--cfg-path", mine / "mine.yaml", flag, 0)
    assert (found.code, found.err) == (
        1,
        f"error: {flag}: {0.0 if flag == '--deadline' else 0}; expected more than 0\n",
    )


def test_neither_command_needs_weights_but_both_need_the_data(command: Callable[..., Result]) -> None:
    for name in ("check-data", "preview"):
        found = command(name, "--cfg-path", "toy/both_branches_finetune")
        assert found.code == 1
        assert "paths.world (datasets.av_instruct.build_info.anno_dir" in found.err
        assert "stage2" not in found.err
