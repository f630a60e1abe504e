"""People's own data: one line of JSON for each sample, over files of a few bytes."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.unit.datasets.folder import TIMES, Folder, sample_text, target_text, turns
from video_llama.common.errors import BadRecord, ConfigError, DataError, DecodeError
from video_llama.config.loader import load_config
from video_llama.datasets.held_out import HeldOut
from video_llama.datasets.mixture import Mixture
from video_llama.processors.config import ImageConfig, ImageTrainConfig, VideoTrainConfig

QUESTION = turns("What is shown?", "A river.")
CLIP = {"video": "a.mp4", "conversations": QUESTION}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _files(folder: Folder) -> None:
    folder.clips("a.mp4", "b.mp4", content=TIMES)
    folder.clips("1.jpg", "2.jpg", "sub/3.jpg")


def problem(folder: Folder, *records: Any, **settings: Any) -> str:
    """Why the last of some records is bad, without the path of the manifest."""
    data = folder.manifest(*records, **settings)
    with pytest.raises((BadRecord, DecodeError)) as found:
        data.sample(len(data) - 1, rng())
    return str(found.value).removeprefix(str(folder.path) + "/")


# --- What a record may be


def test_a_caption_of_a_clip(folder: Folder) -> None:
    data = folder.manifest({"video": "a.mp4", "caption": "A River, at dawn."})
    assert sample_text(data) == "###Human: <Image>@@@@@@@@</Image> Describe it. ###Assistant:  A River, at dawn.###"
    assert target_text(data) == "A River, at dawn.###"
    assert data.sample(0, rng()).id == "mine/line 1"


def test_a_clip_without_a_placeholder_comes_before_the_first_question(folder: Folder) -> None:
    assert f"###Human: <Video>@@@@@@@@</Video> {TIMES}What is shown?\n" in sample_text(folder.manifest(CLIP))


def test_several_files_fill_the_placeholders_in_the_order_of_their_lists(folder: Folder) -> None:
    record = {
        "video": ["a.mp4", "b.mp4"],
        "image": ["1.jpg", "2.jpg"],
        "conversations": turns("<image> or <video>?", "The first.", "And <video> beside <image>", "The second."),
    }
    data = folder.manifest(record)
    text = sample_text(data)
    assert text.count("@@@@@@@@") == 4
    assert "###Human: <Image>@@@@@@@@</Image> or <Video>@@@@@@@@</Video>" in text
    assert [media.kind for media in data.sample(0, rng()).media] == ["image", "video", "video", "image"]
    slots = [i for i in data.sample(0, rng()).input_ids.tolist() if i < 0]
    assert slots == [-1] * 8 + [-2] * 8 + [-3] * 8 + [-4] * 8


def test_a_conversation_may_have_no_file(folder: Folder) -> None:
    assert sample_text(folder.manifest({"conversations": QUESTION})) == (
        "\n\n###Human: What is shown?\n###Assistant: A river.\n###"
    )


def test_the_json_of_llava_video_is_taken_as_it_is(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    record = {
        "id": "7",
        "data_source": "youtube",
        "video": "a.mp4",
        "conversations": turns("<image>\nWhat is shown?", "A river."),
    }
    data = folder.manifest(json.dumps([record, record]), name="llava_video.json")
    assert "<Video>@@@@@@@@</Video>" in sample_text(data, 1)
    assert data.record_id(1) == "[1]"
    assert "data_source in 2 of 2 records" in caplog.text
    assert "1 records repeat the id of another, such as 0 and 1" in caplog.text


def test_paths_start_at_the_manifest_unless_there_is_a_media_dir(folder: Folder) -> None:
    data = folder.manifest(
        {"image": "media/sub/3.jpg", "caption": "A cat."}, {"image": "./media/../media/1.jpg", "caption": "A dog."},
        files={"media_dir": None},
    )  # fmt: skip
    assert [len(data.sample(i, rng()).media) for i in range(2)] == [1, 1]


def test_a_held_out_split_reads_every_record_once(folder: Folder) -> None:
    data = folder.manifest({**CLIP, "weight": 3}, CLIP, split="val")
    held_out = HeldOut(data)
    assert sorted(held_out[i].id for i in range(len(held_out))) == ["mine/line 1", "mine/line 2"]


def test_images_are_read_as_frames_are_unless_they_have_a_processor(folder: Folder) -> None:
    cropped = VideoTrainConfig(n_frms=2, image_size=224, min_scale=0.3)
    from video_llama.datasets.config import ProcessorsConfig

    data = folder.manifest(CLIP, vis_processor=ProcessorsConfig(train=cropped), image_processor=None)
    assert data.image_processor.config == ImageTrainConfig(image_size=224, min_scale=0.3)
    whole = folder.manifest(CLIP, image_processor=None)
    assert whole.image_processor.config == ImageConfig(image_size=224)


def test_a_large_manifest_is_read_once_and_kept(folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("video_llama.datasets.record_table.SMALL", 0)
    records = [{**CLIP, "id": i, "weight": 1 + i % 3} for i in range(50)]
    first = folder.manifest(*records)
    assert len(list((tmp_path / "home/records").glob("*.arrow"))) == 1
    monkeypatch.setattr("video_llama.datasets.manifest_rows._read", None)  # else it would be read again
    again = type(first)(first.config, folder.spec, "mine")
    assert (len(again), again.pass_length, again.digest()) == (50, first.pass_length, first.digest())
    drawn = [[data.drawn(draw, (0,)) for draw in range(200)] for data in (first, again)]
    assert drawn[0] == drawn[1]
    assert again.sample(7, rng()).id == first.sample(7, rng()).id == "mine/line 8"


# --- Weights


def test_a_record_comes_as_often_as_its_weight_says(folder: Folder) -> None:
    data = folder.manifest({**CLIP, "weight": 3}, CLIP, {**CLIP, "weight": 0.5}, {**CLIP, "weight": 0.5})
    assert (len(data), data.pass_length) == (4, 5)
    mixture = Mixture([data], [1], seed=0)
    assert len(mixture) == 5
    refs = [ref for epoch in range(20) for ref in mixture.draws(epoch, 5, range(5))]
    counts = Counter(ref.record for ref in refs)
    assert counts == {0: 60, 1: 20, 2: counts[2], 3: 20 - counts[2]}
    assert 8 <= counts[2] <= 12
    assert len({(ref.record, ref.visit) for ref in refs}) == len(refs), "each draw crops and samples frames anew"


def test_a_record_of_weight_0_is_left_out(folder: Folder) -> None:
    data = folder.manifest({**CLIP, "weight": 0}, CLIP)
    assert (len(data), data.record_id(0)) == (1, "line 2")
    with pytest.raises(DataError, match="no record"):
        folder.manifest({**CLIP, "weight": 0})


def test_weights_of_1_change_nothing(folder: Folder) -> None:
    plain, weighted = folder.manifest(CLIP, CLIP, CLIP), folder.manifest(CLIP, {**CLIP, "weight": 1.0}, CLIP)
    drawn = [Mixture([data], [1], seed=0).draws(1, 3, range(3)) for data in (plain, weighted)]
    assert drawn[0] == drawn[1]


# --- Bad files and records


def test_a_broken_line_is_a_bad_record_and_the_others_are_used(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ("", '{"video": "a.mp4", "capt', "[1, 2]", '{"video": "\udcff"}'.encode("utf-8", "surrogateescape"), CLIP)
    data = folder.manifest(*lines)
    problems = []
    for index in range(3):
        with pytest.raises(BadRecord) as found:
            data.sample(index, rng())
        problems.append(str(found.value).removeprefix(f"{folder.path}/"))
    assert problems == [
        "mine.jsonl:2: not valid JSON: Unterminated string starting at",
        "mine.jsonl:3: expected an object on each line, found list",
        "mine.jsonl:4: its text is not UTF-8",
    ]
    assert data.sample(3, rng()).id == "mine/line 5"
    assert "3 of 4 lines are broken, and count as bad records; the first: " in caplog.text
    with pytest.raises(DataError, match=r"mine\.jsonl:1: not valid JSON"):
        folder.manifest("{", "[")


def test_a_byte_order_mark_and_windows_line_ends_are_read(folder: Folder) -> None:
    text = b"\xef\xbb\xbf" + json.dumps(CLIP).encode() + b"\r\n" + json.dumps(CLIP).encode() + b"\r"
    data = folder.manifest(text)
    assert [data.sample(i, rng()).id for i in range(2)] == ["mine/line 1", "mine/line 2"]


def test_a_compressed_manifest_is_read_and_a_torn_one_is_refused(folder: Folder) -> None:
    packed = gzip.compress((json.dumps(CLIP) + "\n").encode())
    path = folder.file("mine.jsonl.gz", packed)
    data = folder.manifest(CLIP)
    files = type(data.config.build_info)(manifest=str(path), media_dir=str(folder.media))
    config = type(data.config)(build_info=files, vis_processor=data.config.vis_processor)
    assert len(type(data)(config, folder.spec, "mine")) == 1
    path.write_bytes(packed[:-10])
    with pytest.raises(DataError, match=r"mine\.jsonl\.gz: cannot be read"):
        type(data)(config, folder.spec, "mine")


IMAGE = {"image": "1.jpg"}
FRAMES = {"frames": "frames", "conversations": QUESTION}
BAD = {
    "neither caption nor conversations": (IMAGE, "neither 'caption' nor 'conversations'; give one of them"),
    "both": ({**CLIP, "caption": "x"}, "both 'caption' and 'conversations'; give one of them"),
    "empty caption": ({**IMAGE, "caption": " "}, "expected a text under 'caption', found ' '"),
    "caption is no text": ({**IMAGE, "caption": 3}, "expected a text under 'caption', found 3"),
    "caption without a file": ({"caption": "x"}, "a caption of 0 files; it describes one. Use 'conversations' for several"),
    "a misspelt key": ({**CLIP, "weigth": 2}, "unknown key 'weigth'. Did you mean 'weight'?"),
    "a key in capitals": ({**CLIP, "Video": "a.mp4"}, "unknown key 'Video'. Did you mean 'video'?"),
    "a key that changes the meaning": ({**CLIP, "system": "Be brief."}, "'system' changes what a record means"),
    "a file under an unknown key": (
        {"path": "a.mp4", "conversations": QUESTION},
        "the file 'a.mp4' under 'path', which is not read",
    ),
    "two keys of one kind": ({**CLIP, "videos": ["b.mp4"]}, "files under both 'video' and 'videos'"),
    "two files and no placeholder": (
        {**CLIP, **IMAGE},
        "2 files under 'image' and 'video', and no placeholder says where they go: put <image> <video> into the questions",
    ),
    "too few files": (
        {"video": "a.mp4", "conversations": turns("<video> <video>", "x")},
        "its questions contain <video> 2 times, for 1 under 'video'",
    ),
    "too many files": (
        {"video": ["a.mp4", "b.mp4"], "conversations": turns("<video>", "x")},
        "its questions contain <video> 1 times, for 2 under 'video'",
    ),
    "a placeholder of another kind": (
        {"video": "a.mp4", "conversations": turns("<audio>", "x")},
        "its questions contain <audio> 1 times, for 1 under 'video'",
    ),
    "a placeholder in an answer": (
        {"video": "a.mp4", "conversations": turns("What?", "<video>")},
        "its text contains <video>, and no file goes there",
    ),
    "a name that is no text": ({"video": 7, "conversations": QUESTION}, "under 'video', found 7"),
    "sound that is no sound file": (
        {**CLIP, "audio": "always"},
        "expected use, ignore, require, or files that end in .wav",
    ),
    "a policy without a clip": ({**IMAGE, "audio": "use", "caption": "x"}, "the record has none under 'video'"),
    "a policy for frames": ({**FRAMES, "fps": 2, "audio": "require"}, "the record has none under 'video'"),
    "a span of an image": ({**IMAGE, "caption": "x", "start": 1}, "a span of seconds, and no clip or sound"),
    "a span of two clips": (
        {"video": ["a.mp4", "b.mp4"], "start": 1, "conversations": turns("<video> <video>", "x")},
        "a span of seconds, and 2 clips and sounds; it is of one",
    ),
    "an end before the start": ({**CLIP, "start": 3, "end": 2}, "a span from 3.0 to 2.0 s"),
    "no clock": (FRAMES, "neither 'fps' nor 'times' for a folder under 'frames'; give one of them"),
    "two clocks": ({**FRAMES, "fps": 1, "times": [0]}, "both 'fps' and 'times' for a folder under 'frames'"),
    "fps 0": ({**FRAMES, "fps": 0}, "expected from 0.001 to 1000 frames per second under 'fps', found 0"),
    "fps nan": ({**FRAMES, "fps": float("nan")}, "frames per second under 'fps', found nan"),
    "fps beyond all floats": ({**FRAMES, "fps": 10**400}, "frames per second under 'fps', found 1000"),
    "fps near 0": ({**FRAMES, "fps": 1e-310}, "frames per second under 'fps', found 1e-310"),
    "times beyond all floats": ({**FRAMES, "times": [0, 10**400]}, "expected a list of seconds under 'times'"),
    "a start beyond all floats": ({**CLIP, "start": 10**400}, "expected seconds under 'start', found 1000"),
    "a weight beyond all floats": ({**CLIP, "weight": 10**400}, "under 'weight', found 1000"),
    "a name of half a pair": ({**CLIP, "video": "\udcff.mp4"}, "under 'video', found '\\udcff.mp4'"),
    "a name with a null character": ({**CLIP, "video": "a\0.mp4"}, "under 'video', found 'a\\x00.mp4'"),
    "times that go back": ({**FRAMES, "times": [0, 2, 1]}, "'times' do not increase: 2 is followed by 1"),
    "times that stand still": ({**FRAMES, "times": [0, 0]}, "'times' do not increase: 0 is followed by 0"),
    "negative times": ({**FRAMES, "times": [-1, 0]}, "expected a list of seconds under 'times'"),
    "fps of a clip": ({**CLIP, "fps": 2}, "'fps' is about a folder under 'frames', and the record has none"),
    "a negative weight": ({**CLIP, "weight": -1}, "under 'weight', found -1"),
    "a weight of nan": ({**CLIP, "weight": float("nan")}, "under 'weight', found nan"),
    "a weight as text": ({**CLIP, "weight": "2"}, "under 'weight', found '2'"),
    "a path that leaves the folder": ({**CLIP, "video": "../x.mp4"}, "'../x.mp4' is not below "),
    "an absolute path": ({**CLIP, "video": "/etc/x.mp4"}, "'/etc/x.mp4' is not below "),
    "an address": ({**CLIP, "video": "https://example.org/a.mp4"}, "is an address; download the file"),
    "turns that do not alternate": (
        {"conversations": [{"from": "human", "value": "a"}] * 2},
        "turns must alternate from human to gpt, found human, human",
    ),
    "an empty answer": ({"conversations": turns("a", " ")}, "the answer to 'a' is empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_named_by_file_and_line_with_the_reason(name: str, folder: Folder) -> None:
    record, reason = BAD[name]
    found = problem(folder, CLIP, record)
    assert found.startswith("mine.jsonl:2: ")
    assert reason in found


def test_a_missing_file_is_named(folder: Folder) -> None:
    assert problem(folder, {**CLIP, "video": "none.mp4"}) == "media/none.mp4: no such file"


def test_paths_may_leave_the_folder_if_that_is_allowed(folder: Folder) -> None:
    outside = folder.file("outside.mp4", TIMES)
    records = ({**CLIP, "video": "../outside.mp4"}, {**CLIP, "video": str(outside)})
    data = folder.manifest(*records, files={"allow_outside": True})
    assert [len(data.sample(i, rng()).media) for i in range(2)] == [1, 1]


def test_an_absolute_path_within_the_folder_is_not_outside(folder: Folder) -> None:
    data = folder.manifest({**CLIP, "video": str(folder.media / "a.mp4")})
    assert data.sample(0, rng()).media


def test_an_image_processor_that_reads_clips_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "mine.yaml"
    (tmp_path / "mine.jsonl").write_text("{}\n")
    path.write_text(
        "model: {arch: video_llama, llama_model: video_llama/toy/weights/decoder}\n"
        "datasets:\n"
        "  mine:\n"
        "    name: manifest\n"
        f"    build_info: {{manifest: {tmp_path}/mine.jsonl}}\n"
        "    vis_processor: {train: {name: alpro_video_eval}}\n"
        "    image_processor: {train: {name: alpro_video_eval}}\n"
    )
    with pytest.raises(ConfigError, match=r"image_processor\.train: this processor reads clips, not images"):
        load_config(path, need=("datasets",))
