"""Records in shards become the samples that they are in files; what is wrong with one is named with its shard."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.datasets.folder import IMAGES, Folder, sample_text, target_text, turns
from tests.unit.datasets.shards.tars import cc_sbu, clip, instruct_wds, webvid_wds, write_members, write_shard
from video_llama.common.errors import BadRecord, DataError, DecodeError
from video_llama.datasets.base import Dataset
from video_llama.datasets.config import ProcessorsConfig
from video_llama.datasets.shards.member_index import INDEX
from video_llama.processors.image import Blip2ImageTrain
from video_llama.processors.video import AlproVideoEval
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import SIDE, Scene


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def refused(dataset: Dataset, index: int = 0) -> str:
    with pytest.raises((BadRecord, DecodeError)) as error:
        dataset.sample(index, rng())
    return str(error.value)


# --- captions


def test_a_clip_in_a_shard_becomes_a_prompt_around_it_and_its_caption(folder: Folder) -> None:
    write_shard(folder.path / "s/0.tar", [clip("1", "A cat, *walking*!")])
    data = webvid_wds(folder, folder.path / "s")
    assert sample_text(data) == "###Human: <Image>@@@@@@@@</Image> Describe it. ###Assistant:  a cat, walking###"
    assert data.sample(0, rng()).id == "webvid/0/1"


def test_records_follow_the_order_of_shards_and_members(folder: Folder) -> None:
    for shard in range(3):
        write_shard(folder.path / f"s/{shard:03d}.tar", [clip(f"{i}", f"{shard} {i}") for i in (2, 0, 1)])
    data = webvid_wds(folder, f"{folder.path}/s/{{000..002}}.tar")
    assert [record.caption for record in data.records] == [f"{shard} {i}" for shard in range(3) for i in (2, 0, 1)]
    assert [data.record_id(i) for i in (0, 8)] == ["000/2", "002/1"]
    assert data.records[-1].caption == "2 1"


def test_an_id_in_the_json_is_the_id_of_the_record(folder: Folder) -> None:
    write_shard(folder.path / "s/0.tar", [clip("000000000", record_id="p/1.mp4")])
    assert webvid_wds(folder, folder.path / "s").sample(0, rng()).id == "webvid/p/1.mp4"


def test_shards_of_one_name_in_two_folders_have_ids_of_their_own(folder: Folder) -> None:
    for name in ("a/0.tar", "b/0.tar"):
        write_shard(folder.path / name, [clip("1")])
    data = webvid_wds(folder, f"{folder.path}/{{a,b}}/0.tar")
    assert len({data.record_id(i) for i in range(2)}) == 2


def test_captions_of_images_come_from_json_or_text(folder: Folder) -> None:
    pictures = [
        {"__key__": "1", "jpg": b"", "json": {"caption": "of json"}, "txt": "of text"},
        {"__key__": "2", "png": b"", "json": {"url": "..."}, "txt": "of text\n"},
        {"__key__": "3", "webp": b"", "txt": "alone"},
    ]
    write_shard(folder.path / "s/0.tar", pictures)
    data = cc_sbu(folder, folder.path / "s")
    assert [target_text(data, i) for i in range(3)] == ["of json###", "of text###", "alone###"]


def test_real_clips_and_images_are_read_by_the_real_processors(folder: Folder) -> None:
    write_clip(folder.path / "1.mp4", Scene("circle", "red", "left", "small", 0))
    Image.new("RGB", (SIDE, SIDE), (128, 128, 128)).save(folder.path / "1.jpg")
    write_shard(folder.path / "v/0.tar", [clip("1", "red") | {"mp4": (folder.path / "1.mp4").read_bytes()}])
    write_shard(folder.path / "i/0.tar", [{"__key__": "1", "jpg": (folder.path / "1.jpg").read_bytes(), "txt": "grey"}])
    folder = folder.limited(shared_settings={"max_frame_pos": 4})
    clips = ProcessorsConfig(train=AlproVideoEval.Config(n_frms=3, image_size=32))
    images = ProcessorsConfig(train=Blip2ImageTrain.Config(image_size=32))
    (video,) = webvid_wds(folder, folder.path / "v", vis_processor=clips).sample(0, rng()).media
    (image,) = cc_sbu(folder, folder.path / "i", vis_processor=images).sample(0, rng()).media
    assert video.times == (0.0, 0.625, 1.25)
    assert bool((image.data == 128).all())


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ((("1.json", b'{"caption": "a"}'),), r"0\.tar: 1: no image or clip among its files \(json\)"),
        ((("1.mp4", b""),), r"0\.tar: 1: no caption: neither a text under 'caption' .* \(mp4\)"),
        ((("1.mp4", b""), ("1.json", b'{"caption": 3}')), "no caption"),
        ((("1.mp4", b""), ("1.json", b"[]")), "no caption"),
        ((("1.mp4", b""), ("1.json", b'{"caption": "..."}')), r"0\.tar: 1: the caption '\.\.\.' is empty"),
        ((("1.mp4", b""), ("1.webm", b""), ("1.txt", b"a")), "1: several media files: mp4, webm"),
        ((("1.mp4", b"broken"), ("1.txt", b"a")), r"s/0\.tar:512:6:1\.mp4: moov atom not found"),
        ((("1.mp4", b""), ("1.json", b"{")), r"0\.tar: 1: its JSON is not valid"),
        ((("../1.mp4", b""), ("../1.txt", b"a")), "has a path outside the shard"),
    ],
    ids=lambda value: None if isinstance(value, tuple) else re.sub(r"\W+", " ", value)[:40],
)
def test_a_record_that_is_not_whole_is_bad_and_the_others_are_read(
    folder: Folder, members: tuple[tuple[str, bytes], ...], problem: str
) -> None:
    write_members(folder.path / "s/0.tar", *members, ("2.mp4", b""), ("2.txt", b"fine"))
    data = webvid_wds(folder, folder.path / "s")
    assert re.search(problem, refused(data))
    assert target_text(data, 1) == "fine###"


def test_sound_beside_a_clip_does_not_make_it_ambiguous(folder: Folder) -> None:
    write_members(folder.path / "s/0.tar", ("1.m4a", b""), ("1.mp4", b"clip"), ("1.txt", b"a"))
    assert webvid_wds(folder, folder.path / "s").sample(0, rng()).media[0].message == "clip"


# --- whole shards


def test_all_records_of_a_shard_that_is_cut_are_bad_and_those_of_others_are_read(folder: Folder) -> None:
    shards = [write_shard(folder.path / f"s/{i}.tar", [clip(str(k), f"{i} {k}") for k in range(4)]) for i in range(2)]
    cut = shards[0].stat().st_size // 3
    shards[0].write_bytes(shards[0].read_bytes()[:cut])
    data = webvid_wds(folder, folder.path / "s")
    found = [data.sample(i, rng()).id for i in range(len(data)) if "1/" in data.record_id(i)]
    assert found == [f"webvid/1/{k}" for k in range(4)]
    assert len(data) > 4
    for i in range(len(data) - 4):
        assert re.match(rf"{shards[0]}: .*: cut short or damaged at byte \d+", refused(data, i))


def test_a_shard_that_is_no_tar_is_at_least_one_bad_record(folder: Folder) -> None:
    folder.file("s/0.tar", "<html>")
    write_shard(folder.path / "s/1.tar", [clip("1")])
    data = webvid_wds(folder, folder.path / "s")
    assert len(data) == 2
    assert re.search(r"s/0\.tar: .*not a tar file", refused(data))


def test_problems_of_shards_and_indexes_are_reported_at_every_start(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.file("s/0.tar", "<html>")
    shard = write_shard(folder.path / "s/1.tar", [clip("1")])
    Path(f"{shard}{INDEX}").write_text("torn")
    for _ in range(2):
        caplog.clear()
        webvid_wds(folder, folder.path / "s")
        assert f"{folder.path}/s/0.tar: not a tar file" in caplog.text
        assert f"{shard}{INDEX}: incomplete, or of another version; it is rebuilt" in caplog.text


def test_a_stale_index_is_not_used(folder: Folder) -> None:
    shard = write_shard(folder.path / "s/0.tar", [clip("1", "old")])
    webvid_wds(folder, folder.path / "s")
    write_shard(shard, [clip("1", "new"), clip("2", "more")])
    os.utime(shard, ns=(0, 1))
    assert [record.caption for record in webvid_wds(folder, folder.path / "s").records] == ["new", "more"]


def test_a_shard_that_is_rewritten_under_a_run_gives_no_other_records_bytes(folder: Folder) -> None:
    shard = write_members(folder.path / "s/0.tar", ("1.mp4", b"one"), ("1.txt", b"a"))
    data = webvid_wds(folder, folder.path / "s")
    write_members(shard, ("0.mp4", bytes(2000)), ("1.mp4", b"one"), ("1.txt", b"a"))
    assert "0.tar:512:3:1.mp4: no file of 3 bytes is there any more: its shard has changed" in refused(data)


def test_the_second_start_reads_no_shard(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        write_shard(folder.path / f"s/{i}.tar", [clip("1", str(i))])
    first = webvid_wds(folder, folder.path / "s")
    monkeypatch.setattr("video_llama.datasets.shards.shard_table.scan", lambda shard: pytest.fail("scanned again"))
    again = webvid_wds(folder, folder.path / "s")
    assert list(again.records) == list(first.records)


def test_a_cache_folder_that_cannot_be_written_costs_a_notice_and_no_more(
    folder: Folder, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shard(folder.path / "s/0.tar", [clip("1")])
    cache.write_text("a file where the folder would be")
    assert webvid_wds(folder, folder.path / "s").sample(0, rng()).id == "webvid/0/1"
    assert "indexes of shards cannot be kept there" in caplog.text


@pytest.mark.parametrize("content", [b"", b"ARROW1 is not all"])
def test_a_damaged_cache_of_indexes_is_made_again(folder: Folder, cache: Path, content: bytes) -> None:
    write_shard(folder.path / "s/0.tar", [clip("1")])
    first = webvid_wds(folder, folder.path / "s")
    (kept,) = (cache / "records").glob("shards-*.arrow")
    kept.unlink()  # it is mapped
    kept.write_bytes(content)
    assert list(webvid_wds(folder, folder.path / "s").records) == list(first.records)


def test_shards_named_from_two_folders_share_their_index(
    folder: Folder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(folder.path / "s/0.tar", [clip("1")])
    for at, name in ((folder.path, "s/0.tar"), (folder.path / "s", "0.tar")):
        monkeypatch.chdir(at)
        webvid_wds(folder, name)
    assert len(list((cache / "records").glob("shards-*.arrow"))) == 1


def test_a_data_set_goes_to_another_process(folder: Folder) -> None:
    write_shard(folder.path / "s/0.tar", [clip("1", "a cat")])
    data = webvid_wds(folder, folder.path / "s")
    table = pickle.loads(pickle.dumps(data.table))
    assert table[0] == data.table[0]


def test_a_shard_that_is_gone_is_named_at_the_start_and_in_training(folder: Folder) -> None:
    shard = write_shard(folder.path / "s/0.tar", [clip("1")])
    data = webvid_wds(folder, shard)
    shard.unlink()
    assert re.search(rf"{shard}:\d+:0:1\.mp4: cannot be read: No such file", refused(data))
    with pytest.raises(DataError, match=rf"{shard}: cannot be read: No such file"):
        webvid_wds(folder, shard)


# --- conversations


def conversation(key: str, question: str, answer: str, **files: bytes) -> dict[str, object]:
    return {"__key__": key, "json": {"conversations": turns(question, answer)}, **files}


def test_a_conversation_about_a_clip(folder: Folder) -> None:
    write_shard(folder.path / "s/0.tar", [conversation("1", "<video>\nWhat?", "A cat.", mp4=b"Two frames.")])
    text = sample_text(instruct_wds(folder, folder.path / "s"))
    assert text.split() == [
        "###Human:",
        "<Video>@@@@@@@@</Video>",
        "Two",
        "frames.",
        "What?",
        "###Assistant:",
        "A",
        "cat.",
        "###",
    ]


def test_a_conversation_about_an_image_and_one_without(folder: Folder) -> None:
    samples = [conversation("1", "<image>\nWhat?", "A cat.", jpg=b""), conversation("2", "Why?", "So.")]
    write_shard(folder.path / "s/0.tar", samples)
    data = instruct_wds(folder, folder.path / "s", vis_processor=IMAGES)
    assert [len(data.sample(i, rng()).media) for i in range(2)] == [1, 0]


def test_the_sentence_with_the_times_of_frames_may_be_left_out(folder: Folder) -> None:
    record = {"conversations": turns("<video>What?", "A cat."), "frame_times": False}
    write_shard(folder.path / "s/0.tar", [{"__key__": "1", "json": record, "mp4": b"Two frames."}])
    assert "Two frames" not in sample_text(instruct_wds(folder, folder.path / "s"))


@pytest.mark.parametrize(
    ("record", "files", "problem"),
    [
        (
            {"video": "a.mp4", "conversations": turns("<video>q", "a")},
            {},
            "no media file among json, and it names 'a.mp4'",
        ),
        ({"conversations": turns("q", "a")}, {"mp4": b""}, "questions contain <video> 0 times"),
        ({"conversations": turns("<video>q", "a")}, {"mp4": b"", "webm": b""}, "several media files: mp4, webm"),
        ({"QA": []}, {"mp4": b""}, "no list under 'conversations'"),
        (
            {"system": "s", "conversations": turns("<video>q", "a")},
            {"mp4": b""},
            "'system' changes what a record means",
        ),
    ],
    ids=["no file", "no placeholder", "two files", "no conversation", "unread key"],
)
def test_a_conversation_that_is_not_whole_is_bad(
    folder: Folder, record: dict[str, object], files: dict[str, bytes], problem: str
) -> None:
    write_members(
        folder.path / "s/0.tar",
        ("1.json", json.dumps(record).encode()),
        *((f"1.{extension}", content) for extension, content in files.items()),
    )
    assert problem in refused(instruct_wds(folder, folder.path / "s"))
