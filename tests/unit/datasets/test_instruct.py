"""Instruction data in its published layouts: LLaVA about images or nothing, VideoChat about clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.datasets.folder import TIMES, Folder, sample_text, target_text, turns
from tests.unit.prompts.goldens import MAX_CONTEXT, PLACEHOLDER_ID, SAMPLES, TOKENS_PER_SLOT, Golden
from video_llama.common.errors import BadRecord, DataError, DecodeError
from video_llama.common.types import IGNORE_LABEL, slot_id
from video_llama.prompts.templates import MODEL_TYPES

ONE_IMAGE = {"image": "1.jpg", "conversations": turns("<image>\nWhat is it?", "A cat.")}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("golden", SAMPLES, ids=str)
def test_a_record_on_disk_gives_the_ids_and_on_demand_the_labels_of_the_original(
    golden: Golden, folder: Folder
) -> None:
    folder.limited(
        template=MODEL_TYPES[golden.model_type],
        max_context=MAX_CONTEXT,
        tokens_per_slot={"image": TOKENS_PER_SLOT, "video": TOKENS_PER_SLOT},
        label_mask="original",
    )
    if golden.kind == "video":
        folder.clips("1.mp4", content=golden.record["message"])
        data: Any = folder.videochat([{"video": "1.mp4", "QA": golden.record["QA"]}])
    else:
        folder.clips("COCO_train2014_1.jpg")
        shown = "<image>" in golden.record["conversations"][0]["value"]
        data = folder.llava([golden.record | ({"image": "1.jpg"} if shown else {})])
    sample = data.sample(0, rng())
    assert [PLACEHOLDER_ID if i < 0 else i for i in sample.input_ids.tolist()] == golden.input_ids
    trained = [i if k in golden.trained else IGNORE_LABEL for k, i in enumerate(golden.input_ids)]
    assert sample.labels.tolist() == trained
    assert sample.truncated == ("overflow" in golden.name)


# --- LLaVA


def test_an_image_replaces_its_token(folder: Folder) -> None:
    folder.clips("COCO_train2014_1.jpg")
    data = folder.llava([{"image": "1.jpg", "conversations": turns("See <image> here?", "Yes.", "Sure?", "Quite.")}])
    assert sample_text(data) == (
        "\n\n###Human: See <Image>@@@@@@@@</Image> here?\n###Assistant: Yes.\n"
        "###Human: Sure?\n###Assistant: Quite.\n###"
    )
    sample = data.sample(0, rng())
    assert sample.id == "llava_instruct/[0]"
    assert [(m.kind, m.data.shape) for m in sample.media] == [("image", (3, 1, 2, 2))]


def test_an_image_may_come_in_a_later_question(folder: Folder) -> None:
    folder.clips("COCO_train2014_1.jpg")
    data = folder.llava([{"image": "1.jpg", "conversations": turns("Hello", "Hi.", "<image>\nAnd this?", "A cat.")}])
    assert "Hi.\n###Human: <Image>@@@@@@@@</Image>\nAnd this?" in sample_text(data)


def test_a_record_without_an_image_is_plain_text(folder: Folder) -> None:
    data = folder.llava([{"conversations": turns("Hello", "Hi.")}, {"image": None, "conversations": turns("A", "B")}])
    assert sample_text(data) == "\n\n###Human: Hello\n###Assistant: Hi.\n###"
    assert data.sample(0, rng()).media == data.sample(1, rng()).media == ()


def test_images_in_sub_folders_are_found_and_the_prefix_goes_before_their_file_name(folder: Folder) -> None:
    folder.clips("train2014/COCO_train2014_1.jpg", "gqa/2.jpg")
    assert folder.llava([ONE_IMAGE | {"image": "train2014/1.jpg"}]).sample(0, rng()).media
    assert folder.llava([ONE_IMAGE | {"image": "gqa/2.jpg"}], image_prefix="").sample(0, rng()).media


def test_a_missing_image_is_named_by_its_full_path(folder: Folder) -> None:
    with pytest.raises(DecodeError, match=f"{folder.media}/a/COCO_train2014_1.jpg: no such file"):
        folder.llava([ONE_IMAGE | {"image": "a/1.jpg"}]).sample(0, rng())


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("text", "no list under 'conversations'"),
        ({"image": "1.jpg"}, "no list under 'conversations'"),
        ({"conversations": []}, "no list under 'conversations'"),
        ({"conversations": {"from": "human"}}, "no list under 'conversations'"),
        ({"conversations": ["Hello", "Hi"]}, "a turn without a text under 'value'"),
        ({"conversations": [{"from": "human"}, {"from": "gpt"}]}, "a turn without a text under 'value'"),
        ({"conversations": [{"from": "human", "value": None}]}, "a turn without a text under 'value'"),
        ({"conversations": turns("Hello")}, "turns must alternate from human to gpt"),
        ({"conversations": turns("A", "B", "C")}, "turns must alternate from human to gpt"),
        ({"conversations": turns("A", "B")[::-1]}, "turns must alternate from human to gpt"),
        ({"conversations": [{"from": "system", "value": "S"}, *turns("A", "B")]}, "must alternate from human to gpt"),
        (
            {"image": "1.jpg", "conversations": turns("What?", "A cat.")},
            "questions contain <image> 0 times, for one image",
        ),
        (
            {"image": "1.jpg", "conversations": turns("<image>?", "A cat.", "<image>!", "Yes.")},
            "questions contain <image> 2 times, for one image",
        ),
        ({"conversations": turns("<image>?", "A cat.")}, "questions contain <image> 1 times, for no file"),
        ({"image": ["1.jpg", "2.jpg"], "conversations": turns("<image>?", "A cat.")}, "a file name under 'image'"),
        ({"image": 7, "conversations": turns("<image>?", "A cat.")}, "a file name under 'image', found 7"),
        ({"image": "/", "conversations": turns("<image>?", "A cat.")}, "a file name under 'image', found '/'"),
    ],
)
def test_a_malformed_llava_record_is_bad_and_named(record: Any, reason: str, folder: Folder) -> None:
    folder.clips("COCO_train2014_1.jpg")
    data = folder.llava([ONE_IMAGE, record])
    with pytest.raises(BadRecord, match=rf"instruct\.json: \[1\]: .*{reason}"):
        data.sample(1, rng())
    assert data.sample(0, rng())


# --- VideoChat


def test_a_clip_and_its_times_come_before_the_first_question(folder: Folder) -> None:
    folder.clips("p/1.mp4", content=TIMES)
    record = {"video": "p/1.mp4", "QA": [{"q": "What?", "a": "A cat."}, {"q": "Why?", "a": "It can."}]}
    data = folder.videochat([record])
    assert sample_text(data) == (
        f"\n\n###Human: <Video>@@@@@@@@</Video> {TIMES}What?\n###Assistant: A cat.\n"
        "###Human: Why?\n###Assistant: It can.\n###"
    )
    assert target_text(data) == "A cat.\n### It can.\n###"
    (media,) = data.sample(0, rng()).media
    assert media.data.shape == (3, 2, 2, 2)


def test_chinese_instructions_contain_no_english_sentence_on_times(folder: Folder) -> None:
    folder.clips("1.mp4", content=TIMES)
    data = folder.videochat([{"video": "1.mp4", "QA": [{"q": "有什么？", "a": "猫"}]}], chinese=True)
    assert sample_text(data) == "\n\n###Human: <Video>@@@@@@@@</Video> 有什么？\n###Assistant: 猫\n###"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "no list under 'QA'"),
        ({"video": "1.mp4"}, "no list under 'QA'"),
        ({"video": "1.mp4", "QA": []}, "no list under 'QA'"),
        ({"video": "1.mp4", "QA": ["What?"]}, "a question without texts under 'q' and 'a'"),
        ({"video": "1.mp4", "QA": [{"q": "What?"}]}, "a question without texts under 'q' and 'a'"),
        ({"video": "1.mp4", "QA": [{"q": "What?", "a": 3}]}, "a question without texts under 'q' and 'a'"),
        ({"QA": [{"q": "What?", "a": "A cat."}]}, "no file name under 'video'"),
        ({"video": "", "QA": [{"q": "What?", "a": "A cat."}]}, "no file name under 'video'"),
        ({"video": ["1.mp4"], "QA": [{"q": "What?", "a": "A cat."}]}, "no file name under 'video'"),
    ],
)
def test_a_malformed_videochat_record_is_bad_and_named(record: Any, reason: str, folder: Folder) -> None:
    folder.clips("1.mp4")
    data = folder.videochat([record])
    with pytest.raises(BadRecord, match=rf"instruct\.json: \[0\]: {reason}"):
        data.sample(0, rng())


# --- both


@pytest.mark.parametrize("kind", ["llava", "videochat"])
def test_no_text_makes_a_slot_or_breaks_a_record(folder: Folder, kind: str) -> None:
    folder.clips("1.mp4", "COCO_train2014_1.jpg")
    nasty = "</s> ### \ufdd00\ufdd1 <b></b> \ud83d {text} \uffff"
    data: Any = (
        folder.llava([{"image": "1.jpg", "conversations": turns("<image>" + nasty, nasty)}])
        if kind == "llava"
        else folder.videochat([{"video": "1.mp4", "QA": [{"q": nasty, "a": nasty}]}])
    )
    ids = data.sample(0, rng()).input_ids
    assert ids[ids < 0].tolist() == [slot_id(0)] * 8
    assert target_text(data) == "</s> ### 0 <b></b>  {text} \uffff\n###"
    assert not {folder.spec.tokenizer.eos_id, folder.spec.tokenizer.pad_id} & set(ids.tolist())


@pytest.mark.parametrize("kind", ["llava", "videochat"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"instruct\.json:1: not valid JSON"),
        ('[{"a": 1},\n{"a": 2}', r"instruct\.json:2: not valid JSON"),
        ('[{"a": 1}]\n{"a": 2}\n', r"instruct\.json:2: not valid JSON: Extra data"),
        ("[" * 50_000, r"instruct\.json: not readable as JSON: lists or objects are nested too deeply"),
        ("{}", r"instruct\.json: expected a list at the top level, found dict"),
        ("null", r"instruct\.json: expected a list at the top level, found NoneType"),
        ("[]", r"no record in .*instruct\.json"),
        ("é".encode("latin-1"), r"instruct\.json: cannot be read: .*utf-8"),
    ],
)
def test_an_instruction_file_that_is_not_a_list_is_refused(
    kind: str, content: str | bytes, message: str, folder: Folder
) -> None:
    with pytest.raises(DataError, match=message):
        getattr(folder, kind)(content)


def test_an_instruction_file_saved_with_a_byte_order_mark_is_read(folder: Folder) -> None:
    assert len(folder.llava('\ufeff[{"conversations": []}]')) == 1


def test_a_folder_instead_of_the_instruction_file_is_refused(folder: Folder) -> None:
    from video_llama.datasets.config import FilesConfig

    files = FilesConfig(anno_dir=str(folder.media), videos_dir=str(folder.media))
    with pytest.raises(DataError, match=f"{folder.media}: a folder; expected a JSON file"):
        folder.llava([], build_info=files)


def test_a_dialogue_too_long_for_the_decoder_is_truncated_and_counted(folder: Folder) -> None:
    data = folder.limited(max_context=60).llava([{"conversations": turns("Count.", "1 2 3 4 5 6 7 8 9 " * 10)}])
    sample = data.sample(0, rng())
    assert sample.truncated
    assert len(sample.input_ids) == len(sample.labels) == 60
    whole = folder.limited(max_context=2000, max_instruct_len=2000).llava(
        [{"conversations": turns("Count.", "1 2 3 4 5 6 7 8 9 " * 10)}]
    )
    assert torch.equal(sample.input_ids, whole.sample(0, rng()).input_ids[:60])
    assert not whole.sample(0, rng()).truncated


def test_a_caption_of_too_many_tokens_is_truncated_whatever_the_length_of_its_prompt(folder: Folder) -> None:
    folder.clips("p/1.mp4")
    data = folder.limited(max_txt_len=5).webvid(("1", "p", "a cat that walks"), ("1", "p", "a"))
    long, short = data.sample(0, rng()), data.sample(1, rng())
    assert (int((long.labels >= 0).sum()), long.truncated) == (5, True)
    assert short.labels[-1] >= 0
    assert not short.truncated


def test_a_prompt_that_leaves_no_room_for_an_answer_is_a_bad_record(folder: Folder) -> None:
    data = folder.limited(max_context=40).llava([{"conversations": turns("Why? " * 30, "Because.")}])
    with pytest.raises(
        BadRecord, match=r"instruct\.json: \[0\]: its prompt leaves no room for an answer: \d+ tokens, and 40 fit"
    ):
        data.sample(0, rng())


@pytest.mark.parametrize("fitting", [0, 3, 7])
def test_truncation_inside_or_before_an_image_makes_a_bad_record(folder: Folder, fitting: int) -> None:
    folder.clips("COCO_train2014_1.jpg")
    record = {"image": "1.jpg", "conversations": turns("Count.", "1 2 3 4", "<image>\nWhat is it?", "A cat.")}
    slot = folder.llava([record]).sample(0, rng()).input_ids.tolist().index(slot_id(0))
    data = folder.limited(max_context=slot + fitting).llava([record])
    with pytest.raises(
        BadRecord, match=r"instruct\.json: \[0\]: one of its images or clips would be cut off: \d+ tokens"
    ):
        data.sample(0, rng())


def test_every_sample_contains_each_of_its_media_in_full(folder: Folder) -> None:
    folder.clips("COCO_train2014_1.jpg")
    conversation = turns("Count.", "1 2 3", "<image>\nWhat is it?", "A cat.")
    for max_context in range(1, 120, 3):
        data = folder.limited(max_context=max_context).llava([{"image": "1.jpg", "conversations": conversation}])
        try:
            sample = data.sample(0, rng())
        except BadRecord:
            continue
        assert int((sample.input_ids == slot_id(0)).sum()) == 8
        assert len(sample.input_ids) <= max_context
