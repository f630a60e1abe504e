"""Caption data in its published layouts: WebVid tables with clips, CC3M and MiniGPT-4 lists with images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.datasets.folder import Folder, sample_text, target_text
from video_llama.common.errors import BadRecord, ConfigError, DataError, DecodeError
from video_llama.datasets.config import ProcessorsConfig, TextProcessorConfig
from video_llama.processors.config import CaptionConfig
from video_llama.processors.image import Blip2ImageTrain
from video_llama.processors.video import AlproVideoEval
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import SIDE, Scene

COLUMNS = ("videoid", "page_dir", "name")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- WebVid


def test_a_clip_becomes_a_prompt_around_it_and_its_cleaned_caption(folder: Folder) -> None:
    folder.clips("p/1.mp4")
    webvid = folder.webvid(("1", "p", "A cat, *walking*!"))
    # a caption is tokenised by itself, as in the original: its own space follows the prompt's
    assert sample_text(webvid) == "###Human: <Image>@@@@@@@@</Image> Describe it. ###Assistant:  a cat, walking###"
    assert target_text(webvid) == "a cat, walking###"
    sample = webvid.sample(0, rng())
    assert sample.id == "webvid/p/1.mp4"
    assert [m.kind for m in sample.media] == ["video"]
    assert not sample.truncated


def test_a_special_token_in_a_caption_is_text(folder: Folder) -> None:
    folder.clips("p/1.mp4")
    webvid = folder.webvid(("1", "p", "the tag </s> and <s>"))
    ids = webvid.sample(0, rng()).input_ids.tolist()
    tokenizer = webvid.spec.tokenizer
    assert target_text(webvid) == "the tag </s> and <s>###"
    assert (ids.count(tokenizer.bos_id), ids.count(tokenizer.eos_id)) == (1, 0)


def test_every_csv_and_tsv_file_of_a_folder_is_read_in_the_order_of_their_names(folder: Folder) -> None:
    folder.table("2.csv", [("4", "p", "four")], COLUMNS)
    folder.file("annotations/0.tsv", 'videoid\tpage_dir\tname\n1\tp\tone\n2\tp\ttwo of "them"\n')
    folder.table("1.csv", [("3", "p", "three")], COLUMNS)
    folder.file("annotations/readme.txt", "not a table")
    records = folder.webvid().records
    assert [(r.path, r.caption) for r in records] == [
        ("p/1.mp4", "one"),
        ("p/2.mp4", 'two of "them"'),
        ("p/3.mp4", "three"),
        ("p/4.mp4", "four"),
    ]


def test_a_record_knows_the_file_and_line_it_was_read_from(folder: Folder) -> None:
    path = folder.table("0.csv", [("1", "p", "two\nlines"), ("2", "p", "one line")], COLUMNS)
    assert [r.location for r in folder.webvid().records] == [f"{path}:3", f"{path}:4"]


def test_columns_may_come_in_any_order_among_others(folder: Folder) -> None:
    rows = [("9.5", "a dog, barking", "https://example.org", "7", "p")]
    folder.table("0.csv", rows, ("duration", "name", "contentUrl", "videoid", "page_dir"))
    (record,) = folder.webvid().records
    assert (record.path, record.caption) == ("p/7.mp4", "a dog, barking")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_table_saved_by_a_spreadsheet_is_read(folder: Folder, ending: str) -> None:
    folder.file("annotations/0.csv", "\ufeff" + ending.join(["videoid,page_dir,name", '1,p,"café, Paris"', ""]))
    (record,) = folder.webvid().records
    assert (record.path, record.caption) == ("p/1.mp4", "café, Paris")


def test_clips_may_be_in_one_flat_folder(folder: Folder) -> None:
    folder.clips("1.mp4")
    webvid = folder.webvid(("1", "", "a cat"))
    assert target_text(webvid) == "a cat###"
    assert webvid.sample(0, rng()).id == "webvid/1.mp4"


def test_the_annotation_folder_may_be_one_file(folder: Folder) -> None:
    from video_llama.datasets.config import FilesConfig

    path = folder.table("mine.tsv", [("1", "p", "a cat")], COLUMNS)
    webvid = folder.webvid(build_info=FilesConfig(anno_dir=str(path), videos_dir=str(folder.media)))
    assert len(webvid) == 1


@pytest.mark.parametrize("caption", ["", " ", "...", '"*"', "\n"])
def test_a_caption_without_words_is_a_bad_record(folder: Folder, caption: str) -> None:
    folder.clips("p/1.mp4")
    webvid = folder.webvid(("1", "p", caption))
    with pytest.raises(BadRecord, match=r"annotations/0\.csv:\d: the caption .* is empty after cleaning"):
        webvid.sample(0, rng())


def test_a_caption_without_words_is_a_bad_record_even_with_a_prompt_before_it(folder: Folder) -> None:
    folder.clips("p/1.mp4")
    captions = TextProcessorConfig(train=CaptionConfig(prompt="a clip of "))
    webvid = folder.webvid(("1", "p", "..."), ("1", "p", "a cat"), text_processor=captions)
    assert target_text(webvid, 1) == "a clip of a cat###"
    with pytest.raises(BadRecord, match="is empty after cleaning"):
        webvid.sample(0, rng())


def test_a_caption_that_a_custom_text_processor_empties_is_a_bad_record(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.clips("p/1.mp4")
    webvid = folder.webvid(("1", "p", "ein Hund"), text_processor=TextProcessorConfig(train=CaptionConfig(prompt="a ")))
    monkeypatch.setattr(webvid, "text_processor", lambda text, rng: "")
    with pytest.raises(BadRecord, match="'ein Hund' is empty after cleaning"):
        webvid.sample(0, rng())


def test_a_row_that_ends_early_is_bad(folder: Folder) -> None:
    folder.file("annotations/0.csv", "videoid,page_dir,name\n1,p\n2,p,a dog\n")
    folder.clips("p/1.mp4", "p/2.mp4")
    webvid = folder.webvid()
    assert target_text(webvid, 1) == "a dog###"
    with pytest.raises(BadRecord, match=r"0\.csv:2: 2 values under 3 columns"):
        webvid.sample(0, rng())


def test_a_caption_with_an_unquoted_comma_is_bad_instead_of_losing_its_end(folder: Folder) -> None:
    folder.file("annotations/0.csv", "videoid,page_dir,name\n1,p,a cat\n2,p,a dog, barking\n")
    with pytest.raises(BadRecord, match=r"annotations/0\.csv:3: 4 values under 3 columns.*double quotes"):
        folder.webvid().sample(1, np.random.default_rng(0))


def test_an_unclosed_quote_is_refused_instead_of_swallowing_the_rest(folder: Folder) -> None:
    folder.file("annotations/0.csv", 'videoid,page_dir,name\n1,p,"a cat\n2,p,a dog\n')
    with pytest.raises(
        DataError, match=r"annotations/0\.csv:2: a quote that is not closed .*write a double quote twice"
    ):
        folder.webvid()


def test_a_missing_column_is_named_with_the_existing_ones(folder: Folder) -> None:
    folder.table("0.csv", [("1", "a cat")], ("id", "caption"))
    message = r"annotations/0\.csv:1: no column videoid, page_dir, name; the first line names id, caption"
    with pytest.raises(DataError, match=message):
        folder.webvid()


def test_a_table_with_the_other_delimiter_is_refused(folder: Folder) -> None:
    folder.file("annotations/0.csv", "videoid\tpage_dir\tname\n1\tp\ta cat\n")
    with pytest.raises(DataError, match=r"0\.csv:1: no column"):
        folder.webvid()


def test_an_empty_table_is_refused(folder: Folder) -> None:
    folder.file("annotations/0.csv", "")
    with pytest.raises(DataError, match=r"0\.csv:1: no column .*the file is empty"):
        folder.webvid()


def test_a_table_in_another_encoding_is_refused(folder: Folder) -> None:
    folder.file("annotations/0.csv", "videoid,page_dir,name\n1,p,café\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"0\.csv:2: its text is not UTF-8"):
        folder.webvid()


def test_a_table_without_rows_is_refused(folder: Folder) -> None:
    folder.table("0.csv", [], COLUMNS)
    with pytest.raises(DataError, match=f"datasets.webvid: no record in {folder.path}/annotations"):
        folder.webvid()


def test_a_folder_without_tables_is_refused(folder: Folder) -> None:
    folder.file("annotations/0.json", "[]")
    message = rf"datasets\.webvid\.build_info\.anno_dir: no \.csv or \.tsv file in {folder.path}/annotations"
    with pytest.raises(DataError, match=message):
        folder.webvid()


def test_a_missing_clip_is_named(folder: Folder) -> None:
    with pytest.raises(DecodeError, match=f"{folder.media}/p/1.mp4: no such file"):
        folder.webvid(("1", "p", "a cat")).sample(0, rng())


def test_real_clips_are_read_by_the_real_processor(folder: Folder) -> None:
    (folder.media / "p").mkdir()
    write_clip(folder.media / "p" / "1.mp4", Scene("circle", "red", "left", "small", 0))
    clips = ProcessorsConfig(train=AlproVideoEval.Config(n_frms=3, image_size=32))
    webvid = folder.limited(shared_settings={"max_frame_pos": 4}).webvid(
        ("1", "p", "a red circle"), vis_processor=clips
    )
    (media,) = webvid.sample(0, rng()).media
    assert media.data.shape == (3, 3, 32, 32)
    assert media.times == (0.0, 0.625, 1.25)


def test_captions_need_a_text_processor(folder: Folder) -> None:
    with pytest.raises(ConfigError, match=r"datasets\.webvid\.text_processor: needed for captions"):
        folder.webvid(("1", "p", "a cat"), text_processor=None)


def test_each_prompt_is_drawn_by_the_seed_alone(folder: Folder) -> None:
    folder.clips("p/1.mp4")
    webvid = folder.limited(caption_prompts=tuple(f"{i} <ImageHere> " for i in range(4))).webvid(("1", "p", "a cat"))
    ids = [tuple(webvid.sample(0, np.random.default_rng(seed)).input_ids.tolist()) for seed in range(40)]
    assert len(set(ids)) == 4
    assert ids == [tuple(webvid.sample(0, np.random.default_rng(seed)).input_ids.tolist()) for seed in range(40)]


# --- CC3M, LLaVA's and MiniGPT-4's pairs


def test_an_image_becomes_a_prompt_around_it_and_its_caption(folder: Folder) -> None:
    data = folder.cc_sbu_align(
        {"annotations": [{"image_id": "0001", "caption": "A cat."}, {"image_id": 2, "caption": "Dog"}]}
    )
    folder.file("cc/image/0001.jpg")
    folder.file("cc/image/2.jpg")
    assert sample_text(data) == "###Human: <Image>@@@@@@@@</Image> Describe it. ###Assistant:  a cat###"
    assert data.sample(0, rng()).id == "cc_sbu_align/0001.jpg"
    assert data.sample(1, rng()).media[0].data.shape == (3, 1, 2, 2)


def test_real_images_are_read_by_the_real_processor(folder: Folder) -> None:
    images = ProcessorsConfig(train=Blip2ImageTrain.Config(image_size=32))
    data = folder.limited(shared_settings={}).cc_sbu_align(
        {"annotations": [{"image_id": "1", "caption": "grey"}]}, vis_processor=images
    )
    Image.new("RGB", (SIDE, SIDE), (128, 128, 128)).save(folder.path / "cc" / "image" / "1.jpg")
    (media,) = data.sample(0, rng()).media
    assert (media.kind, media.message) == ("image", "")
    assert media.data.shape == (3, 1, 32, 32)
    assert bool((media.data == 128).all())


@pytest.mark.parametrize(
    "entry",
    [
        "a cat",
        {"caption": "a cat"},
        {"image_id": "1"},
        {"image_id": "1", "caption": None},
        {"image_id": None, "caption": "x"},
    ],
    ids=str,
)
def test_an_entry_without_image_id_or_text_is_named_by_its_index(folder: Folder, entry: object) -> None:
    message = r"filter_cap\.json: annotations\[1\]: expected an object with image_id and a text caption, found"
    data = folder.cc_sbu_align({"annotations": [{"image_id": "1", "caption": "ok"}, entry]})
    assert data.record_id(1) == "[1]"
    with pytest.raises(BadRecord, match=message):
        data.sample(1, rng())


@pytest.mark.parametrize("content", [{}, {"annotations": {}}, {"images": []}], ids=str)
def test_a_file_without_a_list_of_annotations_is_refused(folder: Folder, content: object) -> None:
    with pytest.raises(DataError, match=r"filter_cap\.json: no list under 'annotations'"):
        folder.cc_sbu_align(content)


def test_an_empty_list_of_annotations_is_refused(folder: Folder) -> None:
    with pytest.raises(DataError, match=r"datasets\.cc_sbu_align: no record in .*filter_cap\.json"):
        folder.cc_sbu_align({"annotations": []})


def test_a_list_instead_of_an_object_is_refused(folder: Folder) -> None:
    with pytest.raises(DataError, match=r"filter_cap\.json: expected an object at the top level, found list"):
        folder.cc_sbu_align([{"image_id": "1", "caption": "a cat"}])


def test_broken_json_is_refused_with_its_line(folder: Folder) -> None:
    with pytest.raises(DataError, match=r"filter_cap\.json:3: not valid JSON"):
        folder.cc_sbu_align('{"annotations":\n[{"image_id": "1", "caption": "x"},\n]}')


def test_a_missing_annotation_file_is_named(folder: Folder, tmp_path: Path) -> None:
    from video_llama.datasets.config import StorageConfig

    with pytest.raises(DataError, match=rf"{tmp_path}/filter_cap\.json: cannot be read: .*No such file"):
        folder.cc_sbu_align({}, build_info=StorageConfig(storage=str(tmp_path)))


# --- long captions


def test_a_long_caption_is_trained_whole(folder: Folder) -> None:
    folder.clips("p/1.mp4")
    text = " ".join(["red"] * 120)
    webvid = folder.limited(max_txt_len=1000, max_context=2000).webvid(("1", "p", text))
    assert target_text(webvid) == f"{text}###"
    assert not webvid.sample(0, rng()).truncated


def test_a_caption_that_max_words_shortens_counts_as_truncated(folder: Folder) -> None:
    folder.clips("p/1.mp4")
    captions = TextProcessorConfig(train=CaptionConfig(max_words=2))
    webvid = folder.webvid(("1", "p", "one two three"), ("1", "p", "one two."), text_processor=captions)
    assert target_text(webvid) == target_text(webvid, 1) == "one two###"
    assert [webvid.sample(i, rng()).truncated for i in (0, 1)] == [True, False]
