"""Data sets written into shards: the same samples in the same order, the same bytes however often it is stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset

from tests.unit.datasets.folder import IMAGES, Folder, turns
from tests.unit.datasets.shards.tars import cc_sbu, instruct_wds, webvid_wds
from video_llama.common.errors import BadRecord, DecodeError, OutputError
from video_llama.datasets.base import Dataset
from video_llama.datasets.mixture import BatchPlan, Mixture, RankBatches
from video_llama.datasets.shards.member_index import INDEX
from video_llama.datasets.shards.packing import PLAN, Packing

N = 23


def webvid(folder: Folder) -> Dataset:
    folder.clips(*(f"p/{i}.mp4" for i in range(N) if i != 5), content="Two frames.")
    folder.clips("p/7.mp4", content="broken")
    return folder.webvid(*((str(i), "p", f"clip number {i}" if i != 9 else "...") for i in range(N)))


def images(folder: Folder) -> Dataset:
    for i in range(N):
        folder.file(f"cc/image/{i}.jpg")
    entries: list[Any] = [{"image_id": str(i), "caption": f"image {i}"} for i in range(N)]
    entries[3] = "malformed"
    return folder.cc_sbu_align({"annotations": entries})


def llava(folder: Folder) -> Dataset:
    folder.clips("a.jpg", "COCO_train2014_b.jpg")
    records: list[Any] = [{"image": "b.jpg", "conversations": turns("<image>What?", f"Answer {i}.")} for i in range(N)]
    records[2] = {"conversations": turns("Why?", "So.")}
    records[4] = "malformed"
    records[5] = {"image": "gone.jpg", "conversations": turns("<image>What?", "x")}
    records[6] = {"image": ["a.jpg", "b.jpg"], "conversations": turns("<image>What?", "x")}
    return folder.llava(records)


def videochat(folder: Folder, chinese: bool = False) -> Dataset:
    folder.clips("a.mp4", content="Two frames.")
    records: list[Any] = [
        {"video": "a.mp4", "QA": [{"i": "Be brief.", "q": f"What {i}?", "a": "A cat."}, {"q": "And?", "a": "A dog."}]}
        for i in range(N)
    ]
    records[1]["QA"][1]["q"] = "In <video>, what?"
    records[2] = {"video": "a.mp4", "QA": []}
    records[3] = {"video": "", "QA": records[3]["QA"]}
    return folder.videochat(records, chinese=chinese)


KINDS: dict[str, tuple[Callable[[Folder], Dataset], Callable[..., Dataset], dict[str, Any]]] = {
    "webvid": (webvid, webvid_wds, {}),
    "cc_sbu_align": (images, cc_sbu, {}),
    "llava_instruct": (llava, instruct_wds, {"vis_processor": IMAGES}),
    "webvid_instruct": (videochat, instruct_wds, {}),
    "webvid_instruct_zh": (lambda folder: videochat(folder, chinese=True), instruct_wds, {}),
}


def pack(dataset: Dataset, output: Path, per_shard: int = 4) -> Packing:
    packing = Packing(dataset, output, per_shard)
    packing.write(threads=2)
    return packing


def sample(dataset: Dataset, index: int) -> Any:
    """The content of a sample; of a bad record, that it is one."""
    try:
        found = dataset.sample(index, np.random.default_rng(index))
    except (BadRecord, DecodeError):
        return "bad"
    media = [(item.kind, item.times, item.data.tolist()) for item in found.media]
    return found.id.partition("/")[2], found.input_ids.tolist(), found.labels.tolist(), media


@pytest.mark.parametrize("kind", KINDS)
def test_samples_in_shards_are_those_in_files_bad_records_too(folder: Folder, kind: str) -> None:
    in_files, in_shards, settings = KINDS[kind]
    files = in_files(folder)
    shards = in_shards(folder, pack(files, folder.path / "s").storage, **settings)
    assert len(shards) == len(files) == N
    assert [shards.record_id(i) for i in range(N)] == [files.record_id(i) for i in range(N)]
    found = [sample(files, i) for i in range(N)]
    assert [sample(shards, i) for i in range(N)] == found
    assert 0 < found.count("bad") < N / 2
    whole = [i for i in range(N) if found[i] != "bad"]
    assert [shards.length(i, np.random.default_rng(i)) for i in whole] == [
        files.length(i, np.random.default_rng(i)) for i in whole
    ]


def ids(dataset: Dataset, steps: range) -> list[str]:
    """The ids of a training run on a data set."""
    dataset.name = "d"
    mixture = Mixture([dataset], [1.0], seed=3)
    plan = BatchPlan(batch_size=3, accumulation=1, world_size=1, steps_per_epoch=40)
    return [mixture[ref].id for batch in RankBatches(mixture, plan, 0, steps) for ref in batch]


def test_steps_500_to_600_draw_the_same_sample_ids_from_files_and_from_shards_of_one_window(folder: Folder) -> None:
    files = webvid(folder)
    shards = webvid_wds(folder, pack(files, folder.path / "s").storage)
    assert ids(shards, range(500, 600)) == ids(files, range(500, 600))


def test_with_a_smaller_window_every_pass_has_the_same_sample_ids_in_another_order(folder: Folder) -> None:
    files = webvid(folder)
    shards = webvid_wds(folder, pack(files, folder.path / "s").storage, shuffle_window=2)
    for visit in range(3):
        orders = [[d.record_id(d.shuffled(i, (0, visit))) for i in range(N)] for d in (files, shards)]
        assert sorted(orders[0]) == sorted(orders[1])
        assert orders[0] != orders[1]


def test_webdataset_reads_what_is_written(folder: Folder) -> None:
    packing = pack(webvid(folder), folder.path / "s")
    found = list(webdataset.WebDataset(packing.storage, shardshuffle=False).decode())
    assert [s["__key__"] for s in found] == [f"{i:09d}" for i in range(N)]
    assert found[0]["json"] == {"caption": "clip number 0", "record_id": "p/0.mp4"}
    assert found[0]["mp4"] is not None
    assert "mp4" not in found[5]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_same_records_give_the_same_bytes_with_any_number_of_threads(folder: Folder) -> None:
    data = webvid(folder)
    Packing(data, folder.path / "a", 4).write(threads=1)
    Packing(data, folder.path / "b", 4).write(threads=5)
    assert contents(folder.path / "a") == contents(folder.path / "b")
    assert sorted(contents(folder.path / "a")) == sorted(
        [PLAN, *(f"{i:06d}.tar{end}" for i in range(6) for end in ("", INDEX))]
    )


def test_records_without_their_file_are_listed(folder: Folder) -> None:
    missing = Packing(webvid(folder), folder.path / "s", 4).write(threads=2)
    assert missing == [f"p/5.mp4: no file {folder.media}/p/5.mp4"]


def test_what_is_whole_is_kept_and_the_rest_is_written(folder: Folder) -> None:
    data = webvid(folder)
    whole = contents(pack(data, folder.path / "whole").folder)
    other = pack(data, folder.path / "s").folder
    kept = (other / "000000.tar").stat().st_ino
    (other / "000001.tar").unlink()
    (other / f"000002.tar{INDEX}").unlink()
    (other / ".000003.tar.1234.tmp").write_bytes(b"left by a killed process")
    os.utime(other / f"000004.tar{INDEX}", (0, 0))
    pack(data, other)
    assert contents(other) == whole
    assert (other / "000000.tar").stat().st_ino == kept


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_shard_is_named_at_the_end(folder: Folder, damage: str) -> None:
    data = webvid(folder)
    output = pack(data, folder.path / "s").folder
    shard = output / "000001.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content if damage == "flipped" else content[:2000])
    os.utime(output / f"000001.tar{INDEX}")
    with pytest.raises(
        OutputError, match=rf"{shard}: damaged; remove it and its index, and run the same command again"
    ):
        pack(data, output)


def test_a_folder_with_shards_of_other_records_is_left_alone(folder: Folder) -> None:
    output = pack(webvid(folder), folder.path / "s").folder
    before = contents(output)
    with pytest.raises(OutputError, match=r"the shards there differ in records per shard; name another folder"):
        pack(folder.webvid(), output, per_shard=5)
    with pytest.raises(OutputError, match=r"differ in records, annotations; name another folder"):
        pack(folder.webvid(("1", "p", "one")), output)
    assert contents(output) == before


def test_a_folder_with_tar_files_of_another_origin_is_left_alone(folder: Folder) -> None:
    (folder.path / "s").mkdir()
    (folder.path / "s" / "mine.tar").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"mine\.tar: is there already, and nothing is overwritten"):
        pack(webvid(folder), folder.path / "s")
    assert contents(folder.path / "s") == {"mine.tar": b"precious"}


def test_a_file_without_a_known_suffix_keeps_its_content(folder: Folder) -> None:
    folder.clips("clip", "clip.MP4", content="Two frames.")
    records = [{"video": name, "QA": [{"q": "What?", "a": "A cat."}]} for name in ("clip", "clip.MP4")]
    files = folder.videochat(records)
    shards = instruct_wds(folder, pack(files, folder.path / "s").storage)
    assert [sample(shards, i) for i in range(2)] == [sample(files, i) for i in range(2)]


def test_the_plan_says_what_the_shards_are_of(folder: Folder) -> None:
    output = pack(webvid(folder), folder.path / "s").folder
    plan = json.loads((output / PLAN).read_text())
    assert (plan["data set"], plan["records"], plan["records per shard"]) == ("webvid_wds", N, 4)


def test_a_torch_worker_reads_shards_too(folder: Folder) -> None:
    files = webvid(folder)
    shards = webvid_wds(folder, pack(files, folder.path / "s").storage)
    mixture = Mixture([shards], [1.0], seed=3)
    plan = BatchPlan(batch_size=3, accumulation=1, world_size=1, steps_per_epoch=8)

    def batches(workers: int) -> list[list[str]]:
        loader = torch.utils.data.DataLoader(
            mixture,
            batch_sampler=RankBatches(mixture, plan, 0, range(8)),
            num_workers=workers,
            collate_fn=lambda batch: [s.id for s in batch],
        )
        return list(loader)

    assert batches(2) == batches(0)
