"""``video-llama check-config``, and what the command line does with errors."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.unit.config.conftest import MODELS, FakeModel, Folder
from video_llama.cli import check_config
from video_llama.cli import main as cli
from video_llama.cli.main import main
from video_llama.common.errors import ConfigError, VideoLlamaError, WeightsError

GOOD = "model: {arch: video_llama, llama_model: llm}\n"


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with nothing wrong in its decoder folder."""
    monkeypatch.setattr(check_config, "MODELS", MODELS)
    for name in ("sample_spec", "skeleton"):
        monkeypatch.setattr(FakeModel, name, lambda config: None, raising=False)
    monkeypatch.setattr(FakeModel.Config, "for_inference", lambda config: config, raising=False)


def run(*argv: str) -> int:
    return main(["check-config", *argv])


def test_a_good_file_is_ok(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.path / "a.yaml").write_text(GOOD)
    assert run("a.yaml") == 0
    assert capsys.readouterr().out == "a.yaml: ok for use\n"


def test_what_the_user_has_still_to_set_is_listed_and_is_no_error(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.path / "a.yaml").write_text(
        "paths: {llama: '???', unused: '???'}\nmodel: {arch: video_llama, llama_model: '${paths.llama}', prompt_path: '???'}"
    )
    assert run("a.yaml") == 0
    out = capsys.readouterr().out
    assert out == "a.yaml: ok for use\n  still to set: paths.llama (model.llama_model), model.prompt_path\n"


def test_the_kind_of_model_may_still_be_unset(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.path / "a.yaml").write_text("model: {arch: '???'}\n")
    assert run("a.yaml") == 0
    assert capsys.readouterr().out == "a.yaml: ok for use\n  still to set: model.arch\n"


def test_every_problem_of_every_file_is_printed(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.path / "good.yaml").write_text(GOOD)
    (folder.path / "bad.yaml").write_text("model: {arch: video_llama, llama_model: gone}\nrun: {max_epcoh: 3}\n")
    assert run("bad.yaml", "good.yaml", "none.yaml") == 1
    out, err = capsys.readouterr()
    assert out == "good.yaml: ok for use\n"
    assert err.splitlines() == [
        "bad.yaml:1  model.llama_model: no such directory or file: gone",
        "bad.yaml:2  run.max_epcoh: unknown key. Did you mean run.max_epoch?",
        "none.yaml: no such file",
    ]


@pytest.mark.parametrize(
    "error", [WeightsError("model.llama_model: llm: truncated"), ConfigError(["model.end_sym: of another template"])]
)
def test_what_the_model_cannot_use_is_a_problem(
    folder: Folder, error: VideoLlamaError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sample_spec(config: object) -> None:
        raise error

    monkeypatch.setattr(FakeModel, "sample_spec", sample_spec)
    (folder.path / "a.yaml").write_text(GOOD)
    assert run("a.yaml") == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"a.yaml  {error}\n")
    (folder.path / "a.yaml").write_text(GOOD.replace("llm", "'???'"))
    assert run("a.yaml") == 0


def test_options_are_checked_with_the_file(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.path / "a.yaml").write_text(GOOD + "run: {}\n")
    assert run("a.yaml", "--options", "run.max_epoch=3", "run.max_epcoh=3") == 1
    assert capsys.readouterr().err == (
        "option --options run.max_epcoh=3  run.max_epcoh: unknown key. Did you mean run.max_epoch?\n"
    )


@pytest.mark.parametrize("argv", [[], ["check-config"], ["chekc-config"]])
def test_wrong_usage_exits_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2


def test_help_lists_the_commands_without_importing_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert {"check-config", "chat"} <= set(capsys.readouterr().out.split())


def test_an_interrupted_command_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    command = types.SimpleNamespace(add_arguments=lambda parser: None, run=interrupted)
    monkeypatch.setitem(sys.modules, "interrupted_command", command)
    monkeypatch.setitem(cli.COMMANDS, "wait", cli.Command("interrupted_command", "wait"))
    assert main(["wait"]) == 130


def test_a_reader_that_goes_away_is_no_traceback(folder: Folder) -> None:
    (folder.path / "a.yaml").write_text("[]")
    code = (
        "import sys, types; from video_llama.cli import main as cli\n"
        "command = types.SimpleNamespace(add_arguments=lambda p: None, run=lambda a: print('x' * 1000000) or 0)\n"
        "sys.modules['many_lines'] = command\n"
        "cli.COMMANDS['talk'] = cli.Command('many_lines', 'talk')\n"
        "sys.exit(cli.main(['talk']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "transformers", "timm"}


def check_shipped(file: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run check-config with the real registries; exit with 9 if it imports anything heavy."""
    code = (
        "import sys; from video_llama.cli.main import main\n"
        f"code = main(sys.argv[1:]); sys.exit(9 if {HEAVY} & set(sys.modules) else code)"
    )
    command = [sys.executable, "-c", code, "check-config", file, "--options", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_mistake_is_found_without_importing_anything_heavy() -> None:
    result = check_shipped(
        "train_configs/toy/stage1_pretrain.yaml",
        *("run.max_epcoh=3", "model.lora.rank=8", "datasets.webvid.vis_processor.train.n_frms=many"),
    )
    assert result.returncode == 1
    assert [line.split("  ")[1].split(":")[0] for line in result.stderr.splitlines()] == [
        "model.lora.rank",
        "datasets.webvid.vis_processor.train.n_frms",
        "run.max_epcoh",
    ]


def test_a_published_key_without_effect_is_a_note() -> None:
    result = check_shipped(
        "train_configs/video_llama_stage2_finetune.yaml",
        *("run.batch_size_eval=4", "datasets.llava_instruct.text_processor.train.name=blip_caption"),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.removeprefix("  note: ") for line in result.stdout.splitlines()[1:3]] == [
        "option --options datasets.llava_instruct.text_processor.train.name=blip_caption  "
        "datasets.llava_instruct.text_processor: has no effect on conversations, which are not cleaned",
        "option --options run.batch_size_eval=4  run.batch_size_eval: has no effect: the run does not validate, as valid_splits is not set",
    ]


def test_notes_and_warnings_have_the_line_of_their_key(tmp_path: Path) -> None:
    shipped = (ROOT / "train_configs/video_llama_stage2_finetune.yaml").read_text()
    settings = {
        "warmup_steps": "3000",
        "prompt_path": "null",
        "sample_ratio": "0",
    }
    for key, value in settings.items():
        shipped = re.sub(rf"(?m)^( +{key}:) .*", rf"\1 {value}", shipped, count=1)
    text = shipped.replace("name: blip2_image_train", "name: alpro_video_train\n        n_frms: 3", 1)
    (tmp_path / "mine.yaml").write_text(text)
    result = check_shipped(str(tmp_path / "mine.yaml"), "run.warmup_lr=1e-6")
    assert result.stderr == ""
    lines = text.splitlines()
    found = {}
    for remark in result.stdout.splitlines()[1:-1]:
        kind, place, message = re.fullmatch(r"  (note|warning): (\S+)  (.*)", remark).groups()
        line = lines[int(place.rpartition(":")[2]) - 1]
        key = message.split(": ")[0]
        assert line.strip().startswith(key.rpartition(".")[2])
        found[kind, key] = message
    assert set(found) == {
        ("note", "model.prompt_template"),
        ("note", "datasets.cc_sbu_align.vis_processor.train.n_frms"),
        ("warning", "datasets.cc_sbu_align.sample_ratio"),
        ("warning", "run.warmup_steps"),
    }
    assert found["warning", "run.warmup_steps"].endswith(
        "3000, but the run has 3000 steps: it never leaves its warm-up"
    )


@pytest.mark.parametrize("name", ["cc_sbu_align", "llava_instruct", "webvid_instruct"])
def test_shares_that_are_all_zero_are_refused_with_the_line_of_each(name: str) -> None:
    zero = [f"datasets.{n}.sample_ratio=0" for n in ("cc_sbu_align", "llava_instruct", "webvid_instruct")]
    result = check_shipped("train_configs/video_llama_stage2_finetune.yaml", *zero)
    assert result.returncode == 1
    assert f"datasets.{name}.sample_ratio=0  datasets.{name}.sample_ratio: 0, as in every data set" in result.stderr


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("run.iters_per_epoch=0", "run.iters_per_epoch: must be at least 1, got 0"),
        ("run.min_lr=1", "run.min_lr: 1.0 is above init_lr"),
        ("run.init_lr=.nan", "run.init_lr: "),
        ("datasets.llava_instruct.sample_ratio=.inf", "datasets.llava_instruct.sample_ratio: must be finite, got inf"),
        ("run.evaluate=True", "run.evaluate: true, but there is nothing to evaluate: set valid_splits"),
        ("run.task=captioning", "run.task: expected one of video_text_pretrain"),
        ("run.dist_url=tcp://host", "run.dist_url: expected one of env://"),
        (
            "datasets.llava_instruct.text_processor.train={name: blip_caption, max_words: 9}",
            "datasets.llava_instruct.text_processor.train: has no effect on conversations",
        ),
        (
            "datasets.cc_sbu_align.text_processor.eval=blip_caption",
            "datasets.cc_sbu_align.text_processor.eval: unknown key.",
        ),
    ],
)
def test_a_value_that_would_be_ignored_is_refused(option: str, problem: str) -> None:
    result = check_shipped("train_configs/video_llama_stage2_finetune.yaml", option)
    assert result.returncode == 1
    assert problem in result.stderr


WHISPER = "model.audio_encoder={name: whisper, model: '???'}"
AUDIO_STAGE = "train_configs/audiobranch_stage1_pretrain.yaml"
NOT_SET = "model.audio_source: not set: the audio branch trains on frames, as in the original."


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        (["model.audio_source=null"], True),
        (["model.audio_source=null", "model.frozen_llama_proj=False", "model.freeze_vit=True"], True),
        (["model.audio_source=null", "model.frozen_audio_Qformer=True"], False),
        (["model.audio_source=null", WHISPER, "model.imagebind_ckpt_path=null"], False),
        (["model.audio_source=frames"], False),
        (["model.audio_source=sound"], False),
        (["model.audio_source=both"], False),
    ],
)
def test_an_audio_branch_without_audio_source_means_frames_and_says_so(options: list[str], warned: bool) -> None:
    encoders = ["model.vit_ckpt=???", "model.q_former_model=???"]
    result = check_shipped(AUDIO_STAGE, *encoders, *options)
    assert (result.returncode, result.stderr) == (0, "")
    assert (NOT_SET in result.stdout) == warned


def test_files_of_an_annotation_folder_that_are_not_read_are_named(tmp_path: Path) -> None:
    for name in ("a.csv", "b.CSV", "more/c.csv", "d.csv.gz", "e.json", "f.csv.zip"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    result = check_shipped(AUDIO_STAGE, f"datasets.webvid.build_info.anno_dir={tmp_path}")
    assert (result.returncode, result.stderr) == (0, "")
    (line,) = [line for line in result.stdout.splitlines() if "anno_dir" in line and "warning" in line]
    assert "datasets.webvid.build_info.anno_dir: not read" in line
    assert line.endswith(": e.json, f.csv.zip")
