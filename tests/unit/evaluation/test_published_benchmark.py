"""Published annotation files become the right questions; files that are damaged, or of another benchmark, are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.conftest import FIXTURES
from tests.unit.evaluation.benchmarks import add, build
from video_llama.common.errors import ConfigError, DataError
from video_llama.common.registry import BENCHMARKS
from video_llama.evaluation.benchmark import BenchmarkResult
from video_llama.evaluation.published_benchmark import PublishedBenchmark
from video_llama.evaluation.recorded_media import recorded_file
from video_llama.evaluation.results import benchmark_record
from video_llama.inference.job import Outcomes

SAMPLES = FIXTURES / "benchmarks"
NAMES = [
    name
    for name in BENCHMARKS.names()
    if BENCHMARKS._builtin[name].config != "video_llama.evaluation.config:ExactMatchConfig"
]
FOLDERS = {name: "vcgbench" for name in NAMES if name.startswith("vcgbench")} | {"manifest": ""}


def sample(name: str, tmp_path: Path, **settings: Any) -> PublishedBenchmark:
    """The benchmark of a published layout's sample, with an empty media folder."""
    return build(name, SAMPLES / FOLDERS.get(name, name), tmp_path, **settings)


# For each layout: clips as published, ids with their references, and the types of the last question.
LAYOUTS = {
    "msvd_qa": (
        ["vid1301.avi", "YouTubeClips/abcDEF_1234_120_131.avi"],
        {"90001": ["kettle"], "90002": ["robot"], "90003": ["two"]},
        {"first word": "how"},
    ),
    "msrvtt_qa": (["video7010.mp4"], {"990001": ["paint"], "990002": ["puppet"]}, {"first word": "who"}),
    "tgif_frame_qa": (
        ["gifs/tumblr_zz0madeupo1_400.gif", "tumblr_zz1madeupo1_500.mp4"],
        {"FRAMEQA900001": ["kite"], "FRAMEQA900002": ["two"], "FRAMEQA900003": ["red"], "FRAMEQA900004": ["bakery"]},
        {"type": "location"},
    ),
    "activitynet_qa": (
        ["v_MadeUpId_00.mkv"],
        {"v_MadeUpId_00_1": ["racing"], "v_MadeUpId_00_2": ["yes"], "v_MadeUpId_00_3": ["stretching"]},
        {"type": "temporal", "group": "temporal"},
    ),
    "music_avqa": (
        ["00000901.mp4", "MUSIC-AVQA-videos-Synthetic/va00000902.mp4", "esa00000903.mp4"],
        {"80001": ["two"], "80002": ["no"], "80004": ["right"], "80003": ["electric_bass"]},
        {"sense": "Visual", "type": "Visual Location"},
    ),
    "nextqa_mc": (
        ["9901/9900000001.mp4", "9900000002.mp4"],
        {"9900000001_5": ["C"], "9900000001_6": ["A"], "9900000002_1": ["E"]},
        {"group": "temporal", "type": "TN"},
    ),
    "nextqa_oe": (
        ["9900000001.mp4"],
        {"9900000001_5": ["finish its song", "song is over"], "9900000001_7": ["yes"]},
        {"group": "descriptive", "type": "DB"},
    ),
    "videomme": (
        ["data/MadeUpVideo.mp4"],
        {"901-1": ["C"], "901-2": ["A"]},
        {
            "duration": "short", "domain": "Knowledge", "sub_category": "Humanity & History",
            "task_type": "Information Synopsis",
        },
    ),
    "egoschema": (
        ["00000000-made-4up0-8abc-000000000001.mp4"],
        {"00000000-made-4up0-8abc-000000000001": ["A"]},
        {},
    ),
    "avsd": (["Charades_v1_480/ZZ9AB.mp4"], {"ZZ9AB": []}, {}),
    "vcgbench_generic": (
        ["Test_Videos/v_MadeUpId_00.mp4"],
        {"0": ["A baker in a green apron kneads dough, then rings a bell."]},
        {},
    ),
    "vcgbench_temporal": (["v_MadeUpId_00.mp4"], {"0": ["The baker rings a bell."]}, {}),
    "vcgbench_consistency": (["v_MadeUpId_00.mp4"], {"0_Q1": ["A green apron."], "0_Q2": ["A green apron."]}, {}),
    "msrvtt_caption": (
        ["video7010.mp4"],
        {"video7010": ["a puppet spills paint on a rug", "a toy knocks over a paint can"]},
        {},
    ),
    "msvd_caption": (
        ["YouTubeClips/Made_Up-Id0_5_15.avi", "abcDEF_1234_120_131.avi"],
        {
            "Made_Up-Id0_5_15": ["a robot is filling a kettle", "a machine pours water"],
            "abcDEF_1234_120_131": ["two otters are juggling"],
        },
        {},
    ),
    "vatex": (
        ["abcDEF_1234_000120_000130.mp4"],
        {"abcDEF_1234_000120_000130": [f"Two otters juggle shells, caption {n}." for n in range(1, 11)]},
        {},
    ),
    "audiocaps": (
        ["Made_Up-Id0_30.wav"],
        {
            "Made_Up-Id0_30": [
                "A kettle whistles, then a spoon rings",
                "Water boils as metal clinks",
                "A high whistle followed by a clink",
                "Steam hisses while a spoon taps a cup",
                "A whistle rises and a bell-like sound follows",
            ]
        },
        {},
    ),
    "clotho": (
        ["Made Up Kettle 01.wav"],
        {
            "Made Up Kettle 01.wav": [
                "A kettle whistles while rain falls outside.",
                "Rain falls as a kettle whistles.",
                "Something whistles above steady rain.",
                "A whistle grows louder, and rain keeps on falling.",
                "Steady rain and a shrill whistle.",
            ]
        },
        {},
    ),
    "mvbench": (
        ["star/Charades_v1_480/MADE1.mp4", "video/perception/videos/video_99999.mp4"],
        {"action_count_0": ["B"], "action_sequence_0": ["B"], "episodic_reasoning_0": ["C"]},
        {"task": "episodic_reasoning"},
    ),
}  # fmt: skip


def test_every_benchmark_has_a_sample_of_its_layout():
    assert {*LAYOUTS, "manifest", "questions", "toy"} == set(NAMES)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_gives_its_questions_references_types_and_files(name, tmp_path):
    files, references, types = LAYOUTS[name]
    add(tmp_path, *files, *(["tvqa/frames_fps3_hq/madeup_s01e01_seg02_clip_00/00001.jpg"] if name == "mvbench" else []))
    benchmark = sample(name, tmp_path)
    assert {record.id: list(record.references) for record in benchmark.records} == references
    assert dict(benchmark.records[-1].types) == types
    assert {path.relative_to(tmp_path).as_posix() for path in benchmark.paths.values() if path.is_file()} == set(files)
    assert benchmark.missing == []
    items = benchmark.items()
    assert [item.id for item in items] == list(references)
    assert [str(item.asked.file.path) for item in items] == [str(benchmark.paths[id]) for id in references]
    kind = "audio" if name in ("audiocaps", "clotho") else "video"
    assert {item.asked.file.kind for item in items} == {kind}
    assert benchmark.score({}).keys() >= (benchmark.metrics({}).keys())
    assert benchmark.version is None  # a part of the published file


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_files_of_the_questions_follow_from_the_results(name, tmp_path):
    files = LAYOUTS[name][0]
    add(tmp_path, *files, *(["tvqa/frames_fps3_hq/madeup_s01e01_seg02_clip_00/00001.jpg"] if name == "mvbench" else []))
    benchmark = sample(name, tmp_path, use_audio=False)
    record = json.loads(json.dumps(benchmark_record(benchmark, BenchmarkResult({}, Outcomes({}, [])))))
    found = [recorded_file(item, record["settings"]) for item in record["items"]]
    assert found == [item.asked.file for item in benchmark.items()]


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_reference_itself_is_right(name, tmp_path):
    add(tmp_path, *LAYOUTS[name][0])
    benchmark = sample(name, tmp_path)
    metrics = benchmark.metrics({q.id: q.references[0] for q in benchmark.records if q.references})
    if name == "avsd":
        assert metrics == {}  # the sample's only answer is kept back
    elif "accuracy" in metrics:
        assert metrics["accuracy"].value == 1
    else:
        assert metrics["ROUGE-L"].value == pytest.approx(1)


def test_what_is_not_there_is_named_and_left_out_of_the_scores(tmp_path, caplog):
    add(tmp_path, "vid1301.avi")
    benchmark = sample("msvd_qa", tmp_path)
    benchmark.warn("msvd_qa")
    assert [item.id for item in benchmark.items()] == ["90001", "90002"]
    assert benchmark.missing == ["1302"]
    assert vars(benchmark.counts) == {"found": 3, "missing": 1, "asked": 2, "scored": 2}
    assert "1 of 3 questions are left out: 1 clips are not in" in caplog.text
    assert "such as 1302" in caplog.text
    assert "msvd_qa: 3 questions; the published files have 13,157 (test), 6,415 (val)" in caplog.text
    assert benchmark.score({"90001": "kettle"})["accuracy"] == 0.5


def test_without_any_clip_the_paths_that_were_tried_are_named(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}: none of the 1 clips is here; for the first, tried video7010"):
        sample("msrvtt_qa", tmp_path).items()


def test_a_limit_keeps_the_first_questions_whose_clips_are_there(tmp_path):
    add(tmp_path, "tumblr_zz1madeupo1_500.gif")
    assert [q.id for q in sample("tgif_frame_qa", tmp_path, limit=1).records] == ["FRAMEQA900003"]


def test_scores_are_given_by_type(tmp_path):
    add(tmp_path, "v_MadeUpId_00.mp4")
    scores = sample("activitynet_qa", tmp_path).score({"v_MadeUpId_00_1": "racing", "v_MadeUpId_00_2": "no"})
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert (scores["accuracy/group/motion"], scores["accuracy/group/free"], scores["accuracy/type/yes\u002fno"]) == (
        1,
        0,
        0,
    )


def test_a_prompt_of_ones_own_replaces_the_benchmarks(tmp_path):
    add(tmp_path, "9900000001.mp4", "9900000002.mp4")
    asked = [q.prompt for q in sample("nextqa_mc", tmp_path, prompt="<options>\n<question> {x}").records]
    assert (
        asked[0]
        == "A. hungry\nB. asleep\nC. finish its song\nD. windy\nE. lost\nwhy did the parrot bow at the end? {x}"
    )
    with pytest.raises(ConfigError, match="has no <question>"):
        sample("nextqa_mc", tmp_path, prompt="What?")


def test_the_places_of_a_template_are_filled_from_left_to_right(tmp_path):
    expected = json.loads((SAMPLES / "music_avqa/expected_questions.json").read_text(encoding="utf-8"))
    asked = {q.id: q.prompt for q in sample("music_avqa", tmp_path, prompt="<question>").all_records}
    assert {id: asked[id] for id in expected} == expected


def test_tasks_about_a_part_of_a_clip_have_its_seconds(tmp_path):
    spans = {q.id: (q.span, q.fps) for q in sample("mvbench", tmp_path).all_records}
    assert spans == {
        "action_sequence_0": ((3.2, 11.9), None), "episodic_reasoning_0": ((0, 8.5), 3), "action_count_0": (None, None)
    }  # fmt: skip


def test_the_score_of_mvbench_is_the_mean_over_tasks(tmp_path):
    rows = json.loads((SAMPLES / "mvbench/action_count.json").read_text())
    (tmp_path / "action_count.json").write_text(json.dumps(rows * 3))
    shutil.copy(SAMPLES / "mvbench/action_sequence.json", tmp_path)
    add(tmp_path, "perception/videos/video_99999.mp4", "star/Charades_v1_480/MADE1.mp4")
    metrics = build("mvbench", tmp_path, tmp_path).metrics({"action_sequence_0": "(B)", "action_count_0": "A"})
    assert (metrics["accuracy"].value, metrics["mean_over_tasks"].value) == (0.25, 0.5)


def test_video_mme_is_read_from_parquet_and_with_subtitles(tmp_path):
    rows = json.loads((SAMPLES / "videomme/videomme.json").read_text())
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "test-00000-of-00001.parquet")
    add(tmp_path, "MadeUpVideo.mp4")
    benchmark = build("videomme", tmp_path, tmp_path, subtitles_dir=str(SAMPLES / "videomme/subtitle"))
    assert benchmark.records[0].prompt.startswith(
        "This video's subtitles are listed below:\nnine lanterns tonight\nand the fair begins\nSelect the best answer"
    )
    assert benchmark.records[0].prompt.endswith("A. One.\nB. Two.\nC. Nine.\nD. None.\nThe best answer is:")


def test_the_layout_of_video_chatgpt_is_matched_by_id_not_by_order(tmp_path):
    shutil.copytree(SAMPLES / "zero_shot", tmp_path, dirs_exist_ok=True)
    answers = json.loads((tmp_path / "test_a.json").read_text())
    (tmp_path / "test_a.json").write_text(json.dumps(answers[::-1]))
    for name in ("msvd_qa", "msrvtt_qa", "tgif_frame_qa"):
        found = {q.clip: q.references for q in build(name, tmp_path, tmp_path).all_records}
        assert found == {"Made_Up-Id0_5_15": ("kettle",), "abcDEF_1234_120_131": ("two",)}


@pytest.mark.parametrize(
    ("name", "file"),
    [("music_avqa", "videollama2_AVQA_music_test.json"), ("avsd", "videollama2_instruction_val.json")],
)
def test_the_layout_of_videollama_2_is_read(name, file, tmp_path):
    (record,) = build(name, SAMPLES / name / file, tmp_path, prompt="<question>").all_records
    assert (record.prompt, record.references) in {
        ("How many musical instruments were heard throughout the video?", ("two",)),
        ("does the boat sink ?", ("no , it floats .",)),
    }


def test_the_turns_before_the_last_question_of_a_dialog_are_told(tmp_path):
    file = SAMPLES / "avsd/valid_set4DSTC7-AVSD.json"
    (record,) = build("avsd", file, tmp_path, prompt="<question>").all_records
    assert record.prompt.count("Question: ") == 10
    assert record.prompt.endswith("Answer: made-up answer 9 .\nQuestion: how does it end ?")
    assert record.references == ("the umbrella is shut .",)


def test_a_table_of_1k_clips_beside_the_captions_selects_them(tmp_path):
    shutil.copytree(SAMPLES / "msrvtt_caption", tmp_path, dirs_exist_ok=True)
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text("key,vid_key,video_id,sentence\nret0,msr1,video1,x\n")
    with pytest.raises(DataError, match="no questions"):
        build("msrvtt_caption", tmp_path, tmp_path)


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


BAD_FILES = [
    ("msvd_qa", "test_qa.json", "[", "not JSON"),
    ("msvd_qa", "test_qa.json", [], "expected a list of objects with id, video_id, question, answer"),
    ("msvd_qa", "test_qa.json", [{"id": 1, "question": "x?", "answer": "y", "gif_name": "z"}], "no 'video_id'; is this another"),
    ("msvd_qa", "test_qa.json", [{"id": 1, "video_id": 1, "question": "x?", "answer": "y"}] * 2, "1 ids are those of several"),
    ("msvd_qa", "test_qa.json", [{"id": 1, "video_id": 1, "question": " ", "answer": "y"}], "'question' is ' '"),
    ("msvd_qa", "test_qa.json", [{"id": 1, "video_id": 1, "question": "x?", "answer": ""}], "'answer' is ''"),
    ("msvd_qa", "test_qa.json", [{"id": 1, "video_id": "a", "question": "x?", "answer": "y"}], "'video_id' is 'a'; expected a whole"),
    ("msrvtt_qa", "other.json", [], "no annotations here; expected test_qa.json or val_qa.json"),
    ("tgif_frame_qa", "Test_frameqa_question.csv", "gif_name,question\na,b\n", "row 1: no 'gif_name'; is this another benchmark"),
    ("activitynet_qa", "test_q.json", [{"question_id": 1, "question": "x", "video_name": "v"}], "no annotations here; expected test_a"),
    ("music_avqa", "avqa-test.json", [{"video_id": "1", "question_id": 2, "type": "[]", "question_content": "x", "templ_values": "[]", "anser": "y"}], "'type' is '\\[\\]'; expected a list of 2 texts"),
    ("music_avqa", "avqa-test.json", [{"video_id": "1", "question_id": 2, "type": '["Audio", "Counting"]', "question_content": "<A> <B>?", "templ_values": '["x"]', "anser": "y"}], "1 values for 2 places"),
    ("nextqa_mc", "test.csv", "video,question,answer,qid,type\n1,x,y,2,CW\n", "row 1: no 'a0'"),
    ("nextqa_mc", "test.csv", "video,question,answer,qid,type,a0,a1,a2,a3,a4\n1,x,5,2,CW,a,b,c,d,e\n", "'answer' is '5'; expected a whole number below 5"),
    ("nextqa_mc", "test.csv", "video,question,answer,qid,type,a0,a1,a2,a3,a4\n1,x,0,2,XX,a,b,c,d,e\n", "'type' is 'XX'"),
    ("nextqa_oe", "test.csv", "video,question,answer,qid,type,a0\n1,x,y,2,CW,a\n", "use nextqa_mc"),
    ("mvbench", "action_cont.json", [], "no file of a task here"),
    ("mvbench", "action_count.json", [{"video": "x", "question": "y", "candidates": ["1"], "answer": "2"}], "the answer '2' is not one of 1"),
    ("mvbench", "action_sequence.json", [{"video": "x", "question": "y", "candidates": ["1"], "answer": "1"}], "start None and end None"),
    ("videomme", "videomme.json", [{"videoID": "v", "question_id": "1", "duration": "s", "domain": "d", "sub_category": "c", "task_type": "t", "question": "q", "options": ["x"], "answer": "A"}], "does not start with 'A. '"),
    ("egoschema", "questions.json", [{"q_uid": "u", "question": "q"}], "no 'option 0'"),
    ("avsd", "test_set4DSTC10-AVSD.json", {"dialog": []}, "expected an object with 'dialogs'"),
    ("vcgbench_generic", "generic_qa.json", [{"Q1": "a", "Q2": "b", "A": "c", "video_name": "v"}], "no 'Q'; is this another benchmark"),
    ("msrvtt_caption", "test_videodatainfo.json", {"videos": []}, "expected an object with 'videos' and 'sentences'"),
    ("msvd_caption", "AllVideoDescriptions.txt", "a b\n", "no youtube_mapping.txt"),
    ("vatex", "vatex_validation_v1.0.json", [{"videoID": "v", "enCap": "x"}], "'enCap' of v is 'x'; expected a list"),
    ("audiocaps", "test.csv", "audiocap_id,youtube_id,start_time,caption\n1,a,2,\n", "'caption' is ''; expected a text"),
    ("clotho", "clotho_captions_evaluation.csv", "file_name,caption_1\na,b\n", "no 'caption_2'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "content", "problem"), BAD_FILES)
def test_a_file_that_does_not_fit_is_refused_with_its_place(name, file, content, problem, tmp_path):
    write(tmp_path, file, content)
    with pytest.raises(DataError, match=problem) as error:
        build(name, tmp_path, tmp_path)
    assert str(tmp_path) in str(error.value) or file in str(error.value)


def test_answers_without_questions_and_questions_without_answers_are_refused(tmp_path):
    shutil.copytree(SAMPLES / "activitynet_qa", tmp_path, dirs_exist_ok=True)
    for file in ("test_q.json", "test_a.json"):
        rows = json.loads((SAMPLES / "activitynet_qa" / file).read_text())
        (tmp_path / file).write_text(json.dumps(rows[:-1]))
        with pytest.raises(DataError, match=r"no answer to 'v_MadeUpId_00_3'|3 answers, and test_q.json has 2"):
            build("activitynet_qa", tmp_path, tmp_path)
        (tmp_path / file).write_text(json.dumps(rows))
