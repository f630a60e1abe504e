"""One YAML to one checked JobConfig."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.config.conftest import (
    MODELS,
    FakeModel,
    Folder,
)
from video_llama.config.loader import JobConfig

MODEL = "model: {arch: video_llama, llama_model: llm}\n"
FULL = """\
paths: {llama: llm, videos: /data/webvid}
model:
  arch: video_llama
  llama_model: ${paths.llama}
  lora: {rank: 4}
  extra: {any: [1, two, null]}
datasets:
  webvid:
    videos_dir: ${paths.videos}/videos
    sample_ratio: 100
    sizes: [1, 2]
    vis_processor:
      train: {name: alpro_video_eval, n_frms: 4}
run:
  runner: runner_base
  max_epoch: 3
  init_lr: 3e-5
"""


# What a good file says


def test_defaults_give_way_to_the_yaml_and_the_yaml_to_options(folder: Folder) -> None:
    text = MODEL + "run: {max_epoch: 3, output_dir: here}\n"
    run = folder.load(text, "run.output_dir=there").run
    assert (run.init_lr, run.max_epoch, run.output_dir) == (1e-4, 3, "there")


def test_a_full_file_becomes_typed_configs(folder: Folder) -> None:
    job = folder.load(FULL)
    assert job.model.llama_model == "llm"
    assert job.model.lora.rank == 4
    assert job.model.extra == {"any": [1, "two", None]}
    assert job.datasets["webvid"].videos_dir == "/data/webvid/videos"
    assert job.datasets["webvid"].sample_ratio == 100.0
    assert job.datasets["webvid"].vis_processor.train.n_frms == 4
    assert job.run.init_lr == 3e-5
    assert job.unset == ()


def test_the_resolved_yaml_loads_as_an_equal_job(folder: Folder) -> None:
    job = folder.load(FULL)
    again = folder.load(job.to_yaml())
    assert again == job
    assert again.to_yaml() == job.to_yaml()
    assert job.as_dict()["datasets"]["webvid"]["vis_processor"]["train"] == {"name": "alpro_video_eval", "n_frms": 4}
    assert job.as_dict()["run"]["betas"] == [0.9, 0.999]
    assert list(job.as_dict()) == ["model", "datasets", "run"]


def test_jobs_that_differ_only_in_a_registered_name_differ(folder: Folder) -> None:
    assert folder.load(FULL) != folder.load(FULL.replace("alpro_video_eval", "alpro_video_train"))


@given(text=st.text(alphabet="${}\\a.:# \n'\"?~é", max_size=12).filter(lambda text: text.strip("?")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
def test_any_text_survives_the_resolved_yaml(folder: Folder, text: str) -> None:
    job = folder.load(MODEL)
    job = dataclasses.replace(job, model=dataclasses.replace(job.model, end_sym=text))
    assert folder.load(job.to_yaml()).model.end_sym == text


def test_an_empty_block_means_its_defaults(folder: Folder) -> None:
    job = folder.load(MODEL + "run:\ndatasets:\n  webvid:\n    videos_dir: v\n    vis_processor:\n")
    assert job.run.max_epoch == 5
    assert job.datasets["webvid"].vis_processor.train.n_frms == 8


def test_a_nested_block_keeps_what_its_default_says(folder: Folder) -> None:
    job = folder.load(MODEL, "model.wide_lora.targets=[o_proj]", "model.lora.targets=[o_proj]")
    assert job.model.wide_lora.rank == 64
    assert job.model.wide_lora.targets == ("o_proj",)
    assert job.model.lora.rank == 8


@pytest.mark.parametrize("written", ["1e-4", "'1e-4'", "0.0001", "1.0e-4", "${paths.lr}"])
def test_a_number_may_be_written_in_any_way(folder: Folder, written: str) -> None:
    job = folder.load(f"paths: {{lr: 1e-4}}\n{MODEL}run:\n  init_lr: {written}\n")
    assert job.run.init_lr == 1e-4


def test_values_come_from_the_environment(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_DIR", "llm")
    assert folder.load(MODEL.replace("llm}", "'${oc.env:LLM_DIR}'}")).model.llama_model == "llm"


def test_a_type_may_be_one_of_several(folder: Folder) -> None:
    assert folder.load(MODEL, "model.device_map={a: 1}").model.device_map == {"a": 1}
    assert folder.load(MODEL, "model.device_map=balanced").model.device_map == "balanced"
    assert folder.load(MODEL, "model.max_frame_pos=null").model.max_frame_pos is None


def test_anchors_and_merge_keys(folder: Folder) -> None:
    text = (
        "paths:\n  base: &base {max_epoch: 2, init_lr: 0.5}\n  more: &more {max_epoch: 9, output_dir: o}\n"
        f"{MODEL}run:\n  <<: [*base, *more]\n  init_lr: 0.25\n"
    )
    run = folder.load(text).run
    assert (run.max_epoch, run.init_lr, run.output_dir) == (2, 0.25, "o")


def test_a_byte_order_mark_is_no_part_of_the_first_key(folder: Folder) -> None:
    assert folder.load("\ufeff" + MODEL).model.llama_model == "llm"
    assert folder.problems("\ufeffmodle: 1\n")[0].startswith("mine.yaml:1  modle: unknown key. Did you mean model?")


def test_a_key_that_yaml_takes_for_a_truth_value_stays_a_word(folder: Folder) -> None:
    assert folder.load(MODEL, "model.device_map={no: 1, 2: 3}").model.device_map == {"no": 1, "2": 3}


def test_only_the_sections_that_are_needed_are_built(folder: Folder) -> None:
    text = MODEL + "datasets: {webvid: {}}\n"
    job = folder.load(text, need=("model",))
    assert job.datasets == {}
    assert job.run is None
    assert folder.problems(text, need=("model", "run")) == ["mine.yaml  run: the section is missing"]


def test_a_job_config_is_given_as_an_object_too(folder: Folder) -> None:
    job = JobConfig(model=FakeModel.Config(llama_model="llm"))
    assert folder.load(job.to_yaml()) == job


def test_imports_bring_names_from_the_users_own_package(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.path / "my_models.py").write_text(
        "from dataclasses import dataclass\nfrom tests.unit.config.conftest import MODELS\n"
        "@MODELS.register('my_model')\nclass Mine:\n    @dataclass(frozen=True, kw_only=True)\n"
        "    class Config:\n        size: int = 1\n"
    )
    monkeypatch.syspath_prepend(folder.path)
    with MODELS.scoped():
        job = folder.load("imports: [my_models]\nmodel: {arch: my_model, size: 2}\n")
        assert job.model.size == 2
        assert job.imports == ("my_models",)
        assert folder.load(job.to_yaml()) == job


# What a bad file is told


def test_three_problems_are_reported_at_once_in_the_order_of_their_lines(folder: Folder) -> None:
    text = """\
# an experiment
paths: {llama: /data/vicuna-7b}

run:
  max_epcoh: 3
model:
  arch: video_lama
  llama_model: ${paths.llama}
"""
    assert folder.problems(text) == [
        "mine.yaml:5  run.max_epcoh: unknown key. Did you mean run.max_epoch?",
        "mine.yaml:7  model.arch: 'video_lama' is not a registered model. Known: video_llama. Did you mean video_llama?",
        "mine.yaml:8  model.llama_model: no such directory or file: /data/vicuna-7b (from paths.llama)",
    ]


def edits(word: str) -> st.SearchStrategy[str]:
    """Return words one edit away: a letter dropped, put in, changed, or swapped with the next."""
    letter = st.sampled_from("abcdefghijklmnopqrstuvwxyz_")
    at = st.integers(0, len(word) - 1)
    return st.one_of(
        at.map(lambda i: word[:i] + word[i + 1 :]),
        st.tuples(at, letter).map(lambda edit: word[: edit[0]] + edit[1] + word[edit[0] :]),
        st.tuples(at, letter).map(lambda edit: word[: edit[0]] + edit[1] + word[edit[0] + 1 :]),
        at.map(lambda i: word[:i] + word[i + 1 : i + 2] + word[i] + word[i + 2 :]),
    ).filter(lambda edited: edited not in ("", word))


def key_paths(data: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return every key of a configuration that some Config declares."""
    if not isinstance(data, dict) or path[-1:] in (("paths",), ("extra",)):
        return []
    return [found for key in data for found in [(*path, key), *key_paths(data[key], (*path, key))]]


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_any_one_misspelt_key_is_reported_with_what_was_meant(folder: Folder, data: st.DataObject) -> None:
    job = yaml.safe_load(FULL)
    path = data.draw(st.sampled_from(key_paths(job)))
    holder = job
    for key in path[:-1]:
        holder = holder[key]
    edited = data.draw(edits(path[-1]))
    if path == ("paths",):
        return  # its references break, which has a test of its own
    holder[edited] = holder.pop(path[-1])
    problems = folder.problems(yaml.safe_dump(job), need=("model", "datasets", "run"))
    meant = path[-1] if path == ("datasets", "webvid") else ".".join(path)
    assert len(problems) == 1
    assert ".".join((*path[:-1], edited)) in problems[0]
    assert problems[0].endswith(f"Did you mean {meant}?")


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ("run: {max_epoch: three}", "run.max_epoch: expected an integer, got the string 'three'"),
        ("run: {max_epoch: true}", "run.max_epoch: expected an integer, got true"),
        ("run: {max_epoch: 3.0}", "run.max_epoch: expected an integer, got the number 3.0"),
        ("run: {max_epoch: null}", "run.max_epoch: expected an integer, got null"),
        ("run: {max_epoch: [1]}", "run.max_epoch: expected an integer, got a list"),
        ("run: {max_epoch: 0}", "run.max_epoch: must be at least 1, got 0"),
        ("run: {init_lr: small}", "run.init_lr: expected a number, got the string 'small'"),
        ("run: {init_lr: false}", "run.init_lr: expected a number, got false"),
        ("run: {output_dir: 7}", "run.output_dir: expected a string, got the integer 7"),
        ("run: {betas: [1, 2, 3]}", "run.betas: expected a list of 2 values, got 3"),
        ("run: {betas: [0.9, high]}", "run.betas[1]: expected a number, got the string 'high'"),
        ("run: {betas: 0.9}", "run.betas: expected a list, got the number 0.9"),
        ("run: [1]", "run: expected a mapping, got a list"),
        (
            "run: {lr_sched: constant}",
            "run.lr_sched: 'constant' is not a registered lr scheduler. Known: constant_lr. Did you mean constant_lr?",
        ),
        (
            "run: {runner: runner_bas}",
            "run.runner: 'runner_bas' is not a registered runner. Known: runner_base. Did you mean runner_base?",
        ),
        (
            "datasets: {webvd: {videos_dir: v}}",
            "datasets.webvd: 'webvd' is not a registered dataset. Known: webvid. Did you mean webvid?",
        ),
        (
            "datasets: {mine: {name: webvd, videos_dir: v}}",
            "datasets.mine.name: 'webvd' is not a registered dataset. Known: webvid. Did you mean webvid?",
        ),
        ("datasets: {webvid: {}}", "datasets.webvid.videos_dir: missing; it has no default"),
        ("datasets: {}", "datasets: expected at least one dataset. Known: webvid."),
        (
            "datasets: {webvid: {videos_dir: v, eval_processor: {n_frms: 3}}}",
            "datasets.webvid.eval_processor.name: missing; it names the processor. "
            "Known: alpro_video_eval, alpro_video_train.",
        ),
        (
            "datasets: {webvid: {videos_dir: v, vis_processor: {train: {n_frms: 0}}}}",
            "datasets.webvid.vis_processor.train.n_frms: must be at least 1, got 0",
        ),
        ("rnu: {}", "rnu: unknown key. Did you mean run?"),
        ("imports: my_pkg", "imports: expected a list, got the string 'my_pkg'"),
        (
            "imports: [no_such_pkg.data]",
            "imports[0]: cannot import no_such_pkg.data: ModuleNotFoundError: No module named 'no_such_pkg' "
            "(is its folder on PYTHONPATH?)",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_line(folder: Folder, block: str, problem: str) -> None:
    assert folder.problems(f"{MODEL}{block}\n") == [f"mine.yaml:2  {problem}"]


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("model.freeze_vit=1", "model.freeze_vit: expected true or false, got the integer 1"),
        ("model.drop_path_rate=2", "model.drop_path_rate: must be between 0 and 1, got 2.0"),
        (
            "model.precision=bf61",
            "model.precision: expected one of bf16, fp16, got the string 'bf61'. Did you mean bf16?",
        ),
        ("model.device_map=3", "model.device_map: expected a mapping or a string, got the integer 3"),
        ("model.device_map={a: b}", "model.device_map.a: expected an integer, got the string 'b'"),
        ("model.prompt_path=llm", "model.prompt_path: not a file: llm"),
        ("model.prompt_path=p.txt", "model.prompt_path: no such file: p.txt"),
        (
            "model.prompt_path=~/p.txt",
            "model.prompt_path: no such file: ~/p.txt (~ is not expanded here; ${oc.env:HOME} is)",
        ),
        ("model.lora.rnak=4", "model.lora.rnak: unknown key. Did you mean model.lora.rank?"),
        ("model.arch.x=4", "model.arch: has no keys; it is set to 'video_llama'"),
        ("run.max_epoch", "expected key=value, such as run.max_epoch=3"),
        ("=3", "expected key=value, such as run.max_epoch=3"),
        ("paths.lama=/x", "paths.lama: unknown key."),
        ("model.end_sym=${x", "model.end_sym: cannot resolve ${x: no viable alternative at input '${x'"),
    ],
)
def test_an_option_that_does_not_fit_is_named_as_it_was_typed(folder: Folder, option: str, problem: str) -> None:
    assert folder.problems(MODEL, option) == [f"option --options {option}  {problem}"]


def test_an_option_that_is_no_yaml_is_reported(folder: Folder) -> None:
    (problem,) = folder.problems(MODEL, "model.end_sym=[1")
    assert problem.startswith("option --options model.end_sym=[1  model.end_sym:1  not valid YAML: ")


def test_options_reach_into_lists_and_the_free_block(folder: Folder) -> None:
    text = FULL.replace("llama: llm", "llama: gone")
    job = folder.load(text, "paths.llama=llm", "datasets.webvid.sizes[1]=7")
    assert job.model.llama_model == "llm"
    assert job.datasets["webvid"].sizes == [1, 7]
    assert folder.problems(FULL, "datasets.webvid.sizes.2=7") == [
        "option --options datasets.webvid.sizes.2=7  datasets.webvid.sizes: a list of 2 has no item '2'"
    ]


def test_an_option_may_set_a_path_that_the_file_only_refers_to(folder: Folder) -> None:
    text = MODEL.replace("llm}", "'${paths.llama}'}")
    assert folder.load(text, "paths.llama=llm").model.llama_model == "llm"
    assert "Did you mean paths.llama?" in folder.problems(FULL, "paths.lama=llm")[0]


def test_an_option_for_a_section_that_is_not_read_is_refused(folder: Folder) -> None:
    assert folder.problems(MODEL + "run: {}\n", "run.max_epoch=3", need=("model",)) == [
        "option --options run.max_epoch=3  run.max_epoch: not used here, where only model is read"
    ]


def test_a_contradiction_is_reported_at_the_field_that_it_concerns(folder: Folder) -> None:
    text = "model:\n  arch: video_llama\n  llama_model: ???\n  train_audio: true\n  frozen_video_Qformer: true\n"
    assert folder.problems(text, allow_unset=True) == [
        "mine.yaml:4  model.train_audio: cannot be true while frozen_video_Qformer is"
    ]


def test_a_misspelt_name_does_not_hide_problems_elsewhere(folder: Folder) -> None:
    text = "model: {arch: resnet}\ndatasets:\n  webvd: {videos_dir: 3}\nrun:\n  max_epoch: no\n"
    assert [problem.split("  ")[0] for problem in folder.problems(text)] == [f"mine.yaml:{n}" for n in (1, 3, 3, 5)]


def test_a_value_that_is_still_to_be_set_stops_a_run_but_not_a_check(folder: Folder) -> None:
    text = "paths:\n  root: ???\n  llama: ${paths.root}/vicuna\nmodel:\n  arch: video_llama\n  llama_model: ${paths.llama}\n"
    assert folder.problems(text) == ["mine.yaml:2  paths.root: is ???: set it before use; model.llama_model needs it"]
    job = folder.load(text, allow_unset=True)
    assert job.unset == ("paths.root (model.llama_model)",)
    assert folder.load(job.to_yaml(), allow_unset=True) == job
    assert folder.load(text, "paths.llama=llm").unset == ()


def test_values_of_any_type_may_be_unset(folder: Folder) -> None:
    sections = MODEL + "datasets: {webvid: {videos_dir: clips}}\n"
    job = folder.load(sections + "run: {max_epoch: '???', runner: '???'}\n", allow_unset=True)
    assert job.unset == ("run.runner",)
    assert folder.load(sections + "run: {max_epoch: '???'}\n", allow_unset=True).unset == ("run.max_epoch",)


def test_an_unknown_data_set_is_refused_even_if_it_is_still_to_be_set(folder: Folder) -> None:
    assert folder.problems(MODEL + "datasets: {webvd: '???'}\n", allow_unset=True) == [
        "mine.yaml:2  datasets.webvd: 'webvd' is not a registered dataset. Known: webvid. Did you mean webvid?"
    ]


def test_a_class_without_settings_cannot_be_configured(folder: Folder) -> None:
    with MODELS.scoped():
        MODELS.register("plain")(type("Plain", (), {}))
        assert folder.problems("model: {arch: plain}\n") == [
            "mine.yaml:1  model.arch: the model 'plain' has no dataclass named Config"
        ]
