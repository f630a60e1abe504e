"""``--model video_llama`` of lmms-eval, on a stand-in for its base class. With lmms-eval itself: benchmarks/lmms_eval_plugin.py."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import yaml

from tests.conftest import FIXTURES
from tests.unit.evaluation.models import engine as build
from video_llama.common.errors import ConfigError, DataError
from video_llama.common.registry import BENCHMARKS
from video_llama.conversation.batching import File, FileQuestion, answer_batches
from video_llama.conversation.choosing import ChoiceQuestion, choice_batches
from video_llama.conversation.engine import Engine
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation import lmms_eval_plugin, lmms_tasks

TASKS = Path(lmms_tasks.__file__).parent


class StandIn:
    """What our class uses of lmms-eval's base class."""

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}
        self.cache_hook = SimpleNamespace(add_partial=lambda *args: None)


class Manifest(NamedTuple):
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the class, imported with stand-ins for lmms-eval's modules."""
    contents: dict[str, dict[str, Any]] = {
        "lmms_eval": {}, "lmms_eval.api": {}, "lmms_eval.api.model": {"lmms": StandIn}, "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": Manifest},
    }  # fmt: skip
    for name, content in contents.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "video_llama.evaluation.lmms_eval_model", raising=False)
    yield importlib.import_module("video_llama.evaluation.lmms_eval_model")
    sys.modules.pop("video_llama.evaluation.lmms_eval_model")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = build(tmp_path / "decoder")
    monkeypatch.setattr(Engine, "from_config", lambda *args: engine)
    return engine


@pytest.fixture
def model(plugin: ModuleType, engine: Engine) -> Any:
    return plugin.VideoLLaMAModel(pretrained="toy", batch_size="2", device="cpu")


def request(doc: dict[str, Any], **given: Any) -> SimpleNamespace:
    """A request of lmms-eval, whose document is ``doc``."""
    given = {"max_new_tokens": 6, "until": [], **given}
    return SimpleNamespace(args=("context", messages, given, doc["number"], "task", "test"), doc=doc)


def messages(doc: dict[str, Any]) -> list[dict[str, Any]]:
    content = [{"type": doc.get("type", "video"), "url": doc["path"]}, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]


def answers(model: Any, *requests: SimpleNamespace) -> list[str]:
    model.task_dict = {"task": {"test": {one.doc["number"]: one.doc for one in requests}}}
    return model.generate_until(list(requests))


def doc(number: int, path: Any = "a.mp4", question: str = "What is it?", **more: Any) -> dict[str, Any]:
    return {"number": number, "path": path, "question": question, **more}


def test_the_manifest_names_a_class_that_exists_and_is_a_chat_model(plugin, engine):
    (manifest,) = lmms_eval_plugin.manifests()
    module, _, name = manifest.chat_class_path.rpartition(".")
    assert (manifest.model_id, manifest.simple_class_path) == ("video_llama", None)
    assert getattr(importlib.import_module(module), name).is_simple is False
    project = (TASKS.parents[2] / "pyproject.toml").read_text()
    assert 'video_llama = "video_llama.evaluation.lmms_eval_plugin:manifests"' in project
    for point in entry_points(group="lmms_eval.models", name="video_llama"):  # if this checkout is the installed one
        assert point.value == "video_llama.evaluation.lmms_eval_plugin:manifests"


def test_answers_are_those_of_our_own_jobs_in_the_order_of_the_requests(model, engine):
    docs = [doc(0, "b.mp4"), doc(1), doc(2, "b.mp4", "How does it move?"), doc(3, "short.mp4")]
    asked = [FileQuestion(File("video", d["path"]), d["question"]) for d in docs]
    expected = [one.text for _, one in sorted(answer_batches(engine, [asked], GenerationSettings(max_new_tokens=6)))]
    assert answers(model, *map(request, docs)) == expected
    assert len(set(expected)) > 1


def test_the_settings_of_a_task_are_used(model, engine, caplog):
    whole, cut, sampled, again = answers(
        model,
        request(doc(0), temperature=0, do_sample=False, top_p=None, num_beams=1),
        request(doc(1), max_gen_toks=6, max_new_tokens=None, image_aspect_ratio="original"),
        request(doc(2), do_sample=True, temperature=5.0),
        request(doc(3), do_sample=True, temperature=5.0),
    )
    assert whole == cut
    assert sampled == again != whole
    (stopped,) = answers(model, request(doc(0), until=whole[3]))
    assert stopped == whole[:3].split(whole[3])[0]
    assert "no effect on this model: image_aspect_ratio" in caplog.text


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ("options", {"options": ["ring", "star", "It is"]}),
        ("options", {"options": ["A. ring", "B. star", "C. It is"]}),
        ("options", {"options": ["(A) ring", "(B) star", "(C) It is"]}),
        ("a0 a1 a2", {"a0": "ring", "a1": "star", "a2": "It is"}),
    ],
)
def test_options_are_chosen_by_likelihood_and_named_by_letter(model, engine, fields, more):
    asked = ChoiceQuestion(File("video", "a.mp4"), "What is it?", ("ring", "star", "It is"))
    ((_, chosen),) = choice_batches(engine, [[asked]])
    (found,) = answers(model, request(doc(0, **more), options_from=fields))
    assert found == "ABC"[asked.options.index(chosen.text)]


def test_a_question_that_fails_has_an_empty_answer_and_a_warning(model, engine, caplog):
    found = answers(model, request(doc(0, question="word " * 300)), request(doc(1)))
    assert found[0] == "" != found[1]
    assert "a.mp4: no answer, which counts as wrong" in caplog.text


def test_a_webm_is_a_clip_and_a_picture_in_memory_is_a_file(model, plugin, engine, monkeypatch):
    from PIL import Image

    seen: list[FileQuestion] = []
    original = plugin.answers_and_choices

    def spy(engine, batches, settings):
        seen.extend(question for batch in batches for question in batch)
        assert all(Path(q.file.path).is_file() for q in seen if q.file.kind == "image")
        return original(engine, batches, settings)

    monkeypatch.setattr(plugin, "answers_and_choices", spy)
    answers(model, request(doc(0, "a.webm", type="audio")), request(doc(1, Image.new("L", (8, 8)), type="image")))
    assert {question.file.kind for question in seen} == {"video", "image"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "text", "text": "What?"}], "task task, document 0: 0 files; expected a question on one video"),
        ([{"type": "video", "url": "a.mp4"}, {"type": "video", "url": "b.mp4"}], "2 files"),
        ([{"type": "audio", "url": {"array": []}}, {"type": "text", "text": "What?"}], "its audio is a dict; expected"),
    ],
)
def test_messages_that_cannot_be_asked_are_refused_with_task_and_document(model, content, message):
    one = request(doc(0))
    one.args = ("context", lambda doc: [{"role": "user", "content": content}], *one.args[2:])
    with pytest.raises(DataError, match=message):
        answers(model, one)


def test_a_missing_field_of_options_is_named(model):
    with pytest.raises(DataError, match="document 0: options_from: the document has no 'choices'; it has number, path"):
        answers(model, request(doc(0), options_from="choices"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_frms": 8}, "--model_args: n_frms: expected pretrained, options or seed"),
        ({"batch_size": "auto"}, "--batch_size: 'auto'"),
    ],
)
def test_settings_that_do_not_exist_are_refused(plugin, engine, settings, message):
    with pytest.raises(ConfigError, match=message):
        plugin.VideoLLaMAModel(pretrained="toy", **settings)


def test_overrides_are_separated_by_spaces(plugin, monkeypatch):
    given: list[Any] = []
    monkeypatch.setattr(Engine, "from_config", lambda *args: given.append(args))
    plugin.VideoLLaMAModel(pretrained="mine.yaml", options='"inference.video.n_frms=8 model.audio_scale=1"')
    assert given == [("mine.yaml", ["inference.video.n_frms=8", "model.audio_scale=1"], "auto")]


class _Loader(yaml.SafeLoader):
    """Reads ``!function`` as the object that it names, as lmms-eval does."""


def _function(loader: yaml.SafeLoader, node: Any) -> Any:
    module, _, name = loader.construct_scalar(node).rpartition(".")
    return getattr(importlib.import_module(module), name)


_Loader.add_constructor("!function", _function)


def task(path: Path) -> dict[str, Any]:
    """A task's settings with those that it includes."""
    own = yaml.load(path.read_text(), _Loader)
    return {**task(TASKS / own["include"]), **own} if "include" in own else own


@pytest.mark.parametrize("name", ["msvd_qa", "msrvtt_qa", "music_avqa", "avsd", "audiocaps"])
def test_a_task_asks_what_evaluate_asks_and_its_scores_are_those_of_our_scorers(monkeypatch, tmp_path, name):
    datasets = ModuleType("datasets")
    datasets.Dataset = SimpleNamespace(from_list=lambda docs: docs)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    annotations, media = tmp_path / "annotations", tmp_path / "media"
    shutil.copytree(FIXTURES / "benchmarks" / name, annotations / name, ignore=shutil.ignore_patterns("test_set4DSTC*"))
    media.mkdir()
    config = BENCHMARKS.config(name)
    ours = BENCHMARKS.get(name)(config(annotations=str(annotations / name), media_dir=str(media)))
    for record in ours.all_records:
        clip = Path(record.names[0] if Path(record.names[0]).suffix else f"{record.names[0]}.mp4")
        (media / clip).parent.mkdir(parents=True, exist_ok=True)
        (media / clip).touch()
    monkeypatch.setenv("VIDEO_LLAMA_ANNOTATIONS", str(annotations))
    monkeypatch.setenv("VIDEO_LLAMA_MEDIA", str(media))
    functions = importlib.import_module("video_llama.evaluation.lmms_tasks.task_functions")
    functions.benchmark.cache_clear()
    functions._records.cache_clear()
    settings = task(TASKS / f"video_llama_{name}.yaml")
    docs = settings["process_docs"]([])
    assert {d["id"]: (d["path"], d["prompt"]) for d in docs} == {
        item.id: (item.asked.file.path, item.asked.question) for item in ours.items()
    }
    assert settings["doc_to_messages"](docs[0])[0]["content"] == [
        {"type": docs[0]["kind"], "url": docs[0]["path"]},
        {"type": "text", "text": docs[0]["prompt"]},
    ]
    given = {d["id"]: d["references"][0] if n % 2 else "yes" for n, d in enumerate(docs)}
    found = [settings["process_results"](d, [given[d["id"]]]) for d in docs]
    expected = ours.metrics(given)
    assert expected.keys() == {metric["metric"] for metric in settings["metric_list"]}
    for metric in settings["metric_list"]:
        values = [one[metric["metric"]] for one in found]
        assert metric["aggregation"](values) == expected[metric["metric"]].value
        json.dumps(values)
    assert settings["test_split"] in settings["dataset_kwargs"]["data_files"]
    assert (TASKS / settings["dataset_kwargs"]["data_files"]["test"]).is_file()


def test_folders_that_are_not_named_are_an_error_with_the_variable(monkeypatch, tmp_path):
    functions = importlib.import_module("video_llama.evaluation.lmms_tasks.task_functions")
    functions.benchmark.cache_clear()
    monkeypatch.delenv("VIDEO_LLAMA_ANNOTATIONS", raising=False)
    with pytest.raises(ConfigError, match=r"VIDEO_LLAMA_ANNOTATIONS: '\.' is no folder"):
        functions.benchmark("msvd_qa")
