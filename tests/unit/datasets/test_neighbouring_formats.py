"""Records in the formats of neighbouring projects are read as they are meant, or refused by name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.datasets.folder import CLIPS, IMAGES, TIMES, Folder, sample_text, target_text, turns
from tests.unit.processors.clips import write_clip
from video_llama.common.errors import BadRecord, DecodeError
from video_llama.datasets.config import ProcessorsConfig
from video_llama.processors.video import AlproVideoEval

CLIP = "<Video>@@@@@@@@</Video> " + TIMES
IMAGE_TAGS = "<Image>@@@@@@@@</Image>"


def reason(data: Any, index: int = 0) -> str:
    """Why a record is bad."""
    with pytest.raises(BadRecord) as caught:
        data.sample(index, np.random.default_rng(0))
    return str(caught.value)


# --- placeholders


@pytest.mark.parametrize(
    "text",
    [
        *("<video>", "<Video>", "<VIDEO>", "<image>", "<ImageHere>", "<VideoHere>", "<|video|>", "<video_pad>"),
        *("<|video_pad|>", "<vid>", "<video_0>", "<video1>", "<clip>", "<vi_placeholder>", "<video_token>", "<video/>"),
        *("<Video><ImageHere></Video>", "<Video></Video>", "<vid><video></vid>", "<im_start><image><im_end>"),
        "<|vision_start|><|video_pad|><|vision_end|>",
    ],
)
def test_a_clip_goes_to_its_placeholder_however_that_is_spelt(folder: Folder, text: str) -> None:
    folder.clips("a/1.mp4", content=TIMES)
    record = {"video": "a/1.mp4", "conversations": turns(f"{text}\nWhat?", "Red.", "Sure?", "Yes.")}
    data = folder.llava([record], vis_processor=CLIPS)
    assert (
        sample_text(data)
        == f"\n\n###Human: {CLIP}\nWhat?\n###Assistant: Red.\n###Human: Sure?\n###Assistant: Yes.\n###"
    )
    assert [m.kind for m in data.sample(0, np.random.default_rng(0)).media] == ["video"]


@pytest.mark.parametrize(
    "text",
    ["<image>", "<Image>", "<img>", "<ImageHere>", "<|image_1|>", "<image_placeholder>", "<IMG_CONTEXT>", "[IMG]"],
)
def test_an_image_goes_to_its_placeholder_however_that_is_spelt(folder: Folder, text: str) -> None:
    folder.clips("COCO_train2014_1.jpg")
    data = folder.llava([{"image": "1.jpg", "conversations": turns(f"{text}\nWhat?", "A cat.")}])
    assert sample_text(data).startswith(f"\n\n###Human: {IMAGE_TAGS}\nWhat?")


@pytest.mark.parametrize(
    "text",
    [
        *("<image>", "<video>", "<Video>", "<ImageHere>", "<audio>", "<Audio>", "<speech>", "<sound>", "<VideoHere>"),
        *("<|image|>", "<|audio_pad|>", "<image_1>", "<start_of_image>", "<image_soft_token>", "<Video></Video>"),
        *("<SpeechHere>", "<frame>", "[IMG]", "<image-placeholder>", "<|vision_start|>"),
    ],
)
def test_a_placeholder_that_no_file_fills_is_never_text(folder: Folder, text: str) -> None:
    folder.clips("COCO_train2014_1.jpg", "1.mp4", "p/1.mp4")
    talk = [{"conversations": turns(f"{text}\nWhat?", "A cat.")}, {"conversations": turns("Hi", f"It is {text}.")}]
    data = folder.llava([*talk, {"image": "1.jpg", "conversations": turns("<image>", f"It is {text}.")}])
    for index in range(3):
        assert f"[{index}]: its" in reason(data, index)
    assert "no file goes there" in reason(folder.videochat([{"video": "1.mp4", "QA": [{"q": "Who?", "a": text}]}]))
    assert "no file goes there" in reason(folder.webvid(("1", "p", f"a cat {text}")))


@pytest.mark.parametrize(
    "text", ["<b>", "a < video > b", "<|im_start|>", "[INST]", "<videogame>", "<imagine>", "<p>image</p>"]
)
def test_other_text_in_angle_brackets_is_text(folder: Folder, text: str) -> None:
    assert text in target_text(folder.llava([{"conversations": turns("Hi", f"It is {text}.")}]))


def test_a_placeholder_in_a_videochat_question_is_the_place_of_the_clip(folder: Folder) -> None:
    folder.clips("1.mp4", content=TIMES)
    record = {"video": "1.mp4", "QA": [{"q": "Hello", "a": "Hi."}, {"q": "<video>What?", "a": "A cat."}]}
    assert f"Hello\n###Assistant: Hi.\n###Human: {CLIP}What?" in sample_text(folder.videochat([record]))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"video": "1.mp4", "conversations": turns("What?", "A.")}, "<video> 0 times, for one video"),
        ({"video": "1.mp4", "conversations": turns("<video><video>?", "A.")}, "<video> 2 times, for one video"),
        ({"video": "1.mp4", "conversations": turns("<video><audio>?", "A.")}, "<video> and <audio> 2 times"),
        ({"video": "1.mp4", "conversations": turns("<audio>?", "A.")}, "<audio> 1 times, for one video"),
        ({"video": ["1.mp4", "2.mp4"], "conversations": turns("<video>", "A.")}, "under 'video', found 2 of them"),
        ({"video": "1.mp4", "image": "1.jpg", "conversations": turns("<video>", "A.")}, "'image' and 'video'"),
        (
            {"image": "1.jpg", "conversations": turns("<image>", "A.")},
            "under 'image', and the vis_processor reads clips",
        ),
        ({"audio": "1.mp4", "conversations": turns("<audio>", "A.")}, "under 'audio'; sound files end in"),
        ({"video_path": "1.mp4", "conversations": turns("What?", "A.")}, "the file '1.mp4' under 'video_path'"),
        ({"media": ["1.mp4"], "conversations": turns("What?", "A.")}, "the file '1.mp4' under 'media'"),
        ({"Video": 1, "conversations": turns("What?", "A.")}, "'Video' is not read: write 'video'"),
    ],
)
def test_a_record_whose_file_has_no_single_place_is_bad_and_named(folder: Folder, record: Any, message: str) -> None:
    folder.clips("1.mp4")
    assert message in reason(folder.llava([record], vis_processor=CLIPS))


def test_a_clip_in_a_set_of_images_is_refused_by_name(folder: Folder) -> None:
    record = {"video": "1.mp4", "conversations": turns("<video>", "A.")}
    assert "'1.mp4' under 'video', and the vis_processor reads images" in reason(
        folder.llava([record], vis_processor=IMAGES)
    )


@pytest.mark.parametrize("key", ["images", "image"])
def test_a_list_of_one_file_is_that_file(folder: Folder, key: str) -> None:
    folder.clips("COCO_train2014_1.jpg")
    assert IMAGE_TAGS in sample_text(folder.llava([{key: ["1.jpg"], "conversations": turns("<image>", "A cat.")}]))


# --- instructions and spans


def test_an_instruction_comes_before_its_question_and_is_not_repeated(folder: Folder) -> None:
    folder.clips("1.mp4", content=TIMES)
    pairs = [{"i": "Be brief.", "q": "What?", "a": "A cat."}, {"i": "Be brief.", "q": "Why?", "a": "So."}]
    more = [{"i": "Now in full.", "q": "", "a": "A cat sits."}, {"i": None, "q": "And?", "a": "No."}]
    assert sample_text(folder.videochat([{"video": "1.mp4", "QA": pairs + more}])) == (
        f"\n\n###Human: {CLIP}Be brief.\nWhat?\n###Assistant: A cat.\n###Human: Why?\n###Assistant: So.\n"
        "###Human: Now in full.\n###Assistant: A cat sits.\n###Human: And?\n###Assistant: No.\n###"
    )


def test_an_instruction_that_is_no_text_is_refused(folder: Folder) -> None:
    record = {"video": "1.mp4", "QA": [{"i": ["Be brief."], "q": "What?", "a": "A cat."}]}
    assert "an instruction under 'i' that is not a text" in reason(folder.videochat([record]))


@pytest.fixture
def ten_seconds(folder: Folder) -> Folder:
    """A clip of 100 frames at 10 per second."""
    write_clip(folder.media / "1.mp4", 100, rate=10)
    return folder.limited(shared_settings={})


REAL = ProcessorsConfig(train=AlproVideoEval.Config(n_frms=4, image_size=16))


@pytest.mark.parametrize(
    "keys",
    [
        {"start": 2, "end": 4},
        {"start": 2.0, "end": 4.0},
        {"start_time": 2, "end_time": 4},
        {"video_start": 2, "video_end": 4},
        {"start_sec": 2, "end": 4},
    ],
)
def test_a_span_is_read_as_if_it_were_the_clip(ten_seconds: Folder, keys: dict[str, float]) -> None:
    record = {"video": "1.mp4", "QA": [{"q": "What?", "a": "A cat."}]}
    data = ten_seconds.videochat([record | keys, record], vis_processor=REAL)
    (part,), (whole,) = (data.sample(i, np.random.default_rng(0)).media for i in (0, 1))
    assert part.times == (0.0, 0.5, 1.0, 1.5)
    assert whole.times == (0.0, 2.5, 5.0, 7.5)
    llava = {"video": "1.mp4", "conversations": turns("<video>", "A cat.")}
    data = ten_seconds.llava([llava | keys], vis_processor=REAL)
    assert data.sample(0, np.random.default_rng(0)).media[0].times == part.times


def test_a_span_without_an_end_goes_to_the_end(ten_seconds: Folder) -> None:
    record = {"video": "1.mp4", "start": 8, "end": None, "QA": [{"q": "What?", "a": "A cat."}]}
    (media,) = ten_seconds.videochat([record], vis_processor=REAL).sample(0, np.random.default_rng(0)).media
    assert media.times == (0.0, 0.5, 1.0, 1.5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"start": 4, "end": 2}, "a span from 4.0 to 2.0 s"),
        ({"start": 2, "end": 2}, "a span from 2.0 to 2.0 s"),
        ({"start": -1}, "expected seconds under 'start', found -1"),
        ({"start": "00:02"}, "expected seconds under 'start', found '00:02'"),
        ({"end": True}, "expected seconds under 'end', found True"),
        ({"end": float("nan")}, "expected seconds under 'end', found nan"),
        ({"start": 1, "start_time": 2}, "both 'start' and 'start_time'"),
        ({"Start": 2}, "'Start' is not read: write 'start'"),
        ({"timestamps": [2, 4]}, "'timestamps' changes what a record means, and is not read: give 'start' and 'end'"),
        ({"start_frame": 20}, "'start_frame' changes what a record means"),
        ({"clip": [2, 4]}, "'clip' changes what a record means"),
        ({"system": "Be brief."}, "'system' changes what a record means, and is not read: put it into the first"),
        ({"instruction": "Be brief."}, "'instruction' changes what a record means"),
    ],
)
def test_a_span_or_a_key_that_cannot_be_honoured_is_refused(ten_seconds: Folder, keys: Any, message: str) -> None:
    record = {"video": "1.mp4", "QA": [{"q": "What?", "a": "A cat."}]}
    assert message in reason(ten_seconds.videochat([record | keys], vis_processor=REAL))


def test_a_span_after_the_end_and_a_span_of_an_image_are_refused(ten_seconds: Folder) -> None:
    late = {"video": "1.mp4", "start": 10, "QA": [{"q": "What?", "a": "A cat."}]}
    with pytest.raises(DecodeError, match=r"1\.mp4: the span starts at 10\.0 s, and the clip ends at 10\.00 s"):
        ten_seconds.videochat([late], vis_processor=REAL).sample(0, np.random.default_rng(0))
    image = {"image": "1.jpg", "end": 2, "conversations": turns("<image>", "A cat.")}
    assert "a span of seconds, and an image under 'image'" in reason(ten_seconds.llava([image], vis_processor=REAL))
    text = {"end": 2, "conversations": turns("Hi", "Hello.")}
    assert "a span of seconds, and no clip" in reason(ten_seconds.llava([text], vis_processor=REAL))


# --- unknown keys


def test_keys_that_are_not_read_are_counted_and_reported_once(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    pair = {"q": "What?", "a": "A cat.", "weight": 0.5}
    records: list[Any] = [{"video": "1.mp4", "QA": [pair, pair]}, {"video": "1.mp4", "cls": "x", "QA": [pair]}, 3]
    with caplog.at_level(logging.WARNING):
        data = folder.videochat(records)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"datasets.webvid_instruct: {folder.path}/instruct.json: keys that are not read: QA[].weight in 2 of 3 records, "
        "first in [0]; cls in 1 of 3 records, first in [1]"
    )
    assert len(data) == 3


@pytest.mark.parametrize("kind", ["llava", "videochat", "cc_sbu_align"])
def test_records_with_known_keys_alone_are_not_reported(
    folder: Folder, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    content: Any = {
        "llava": [{"id": "1", "image": "1.jpg", "conversations": turns("<image>", "A cat.")}],
        "videochat": [{"video": "1.mp4", "start": 1, "QA": [{"i": "", "q": "What?", "a": "A cat."}]}],
        "cc_sbu_align": {"annotations": [{"image_id": "1", "caption": "a cat"}]},
    }
    getattr(folder, kind)(content[kind])
    assert not caplog.records


def test_keys_of_captions_that_are_not_read_are_reported(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.cc_sbu_align({"annotations": [{"image_id": "1", "caption": "a cat", "box": [0, 0, 1, 1]}]})
    assert "filter_cap.json: keys that are not read: box in 1 of 1 records" in caplog.text


# --- empty targets


@pytest.mark.parametrize("answer", ["", " ", "\n", "\t\r\n", "\u00a0", "\u200b", "\ufeff", "\u3000", "\ufdd0"])
def test_an_answer_that_shows_nothing_makes_a_bad_record(folder: Folder, answer: str) -> None:
    folder.clips("1.mp4", "COCO_train2014_1.jpg", "p/1.mp4")
    pairs = [{"q": "Who?", "a": "Me."}, {"q": "What?", "a": answer}]
    for data in (
        folder.videochat([{"video": "1.mp4", "QA": pairs}]),
        folder.llava([{"image": "1.jpg", "conversations": turns("<image>Who?", "Me.", "What?", answer)}]),
    ):
        assert "[0]: the answer to 'What?' is empty" in reason(data)
    assert "is empty after cleaning" in reason(folder.webvid(("1", "p", answer)))


def test_short_answers_are_answers(folder: Folder) -> None:
    data = folder.llava([{"conversations": turns("Hi", answer)} for answer in (".", "0", "🙂", "猫")])
    for index in range(4):
        assert data.sample(index, np.random.default_rng(0))


# --- image_prefix


@pytest.mark.parametrize(
    ("there", "named", "prefix", "message"),
    [
        ("1.jpg", "1.jpg", "COCO_train2014_", "no such file, but there is 1.jpg: set image_prefix: ''"),
        (
            "COCO_train2014_1.jpg",
            "COCO_train2014_1.jpg",
            "COCO_train2014_",
            "there is COCO_train2014_1.jpg: set image_prefix: ''",
        ),
        ("a/1.png", "a/1.png", "COCO_train2014_", "there is 1.png: set image_prefix: ''"),
        ("1.jpg", "1.jpg", "x_", "there is 1.jpg: set image_prefix: ''"),
        ("COCO_train2014_1.jpg", "1.jpg", "", "there is COCO_train2014_1.jpg: set image_prefix: 'COCO_train2014_'"),
    ],
)
def test_a_picture_that_is_there_with_another_prefix_is_named(
    folder: Folder, there: str, named: str, prefix: str, message: str
) -> None:
    folder.clips(there)
    data = folder.llava([{"image": named, "conversations": turns("<image>", "A cat.")}], image_prefix=prefix)
    path = Path(folder.media, named)
    with pytest.raises(DecodeError) as caught:
        data.sample(0, np.random.default_rng(0))
    assert str(caught.value).startswith(f"{path.with_name(prefix + path.name)}: no such file, but")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["9" * 300 + ".jpg", "a/" * 3000 + "1.jpg"])
def test_a_name_that_is_too_long_is_a_bad_record(folder: Folder, name: str) -> None:
    data = folder.llava([{"image": name, "conversations": turns("<image>", "A cat.")}])
    with pytest.raises((BadRecord, DecodeError)):
        data.sample(0, np.random.default_rng(0))
