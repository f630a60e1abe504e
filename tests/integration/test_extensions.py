"""The examples of docs/extend.md run as printed, from a package outside of this one."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import video_llama.toy
from tests.integration.conftest import ROOT, losses
from video_llama.checkpoints.io import read_checkpoint
from video_llama.common import registry
from video_llama.common.registry import Registry
from video_llama.config.loader import load_config
from video_llama.models.video_llama import VideoLLaMA
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene

PAGE = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
FILES = {path: text for text, path in re.findall(r"^```\w+\n(\{?# (\S+).*?)^```$", PAGE, re.MULTILINE | re.DOTALL)}
"""The files that the page prints, by the path in their first line."""
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
YAMLS = {
    title: [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    for title, text in SECTIONS.items()
}
"""The changes to a YAML that each section prints."""
ALL = [title for title, changes in YAMLS.items() if changes and title != "Data set"]
SHORT: dict[str, Any] = {
    "run": {
        "max_epoch": 1,
        "iters_per_epoch": 2,
        "batch_size_train": 2,
        "warmup_steps": 0,
        "warmup_lr": -1.0,
        "output_dir": "run",
    }
}
CAPTIONS = "ring.mp4: a red ring\nsquare.mp4: a blue square\n"
RIDDLES = [{"riddle": "What has a neck but no head?", "solution": "A bottle."}]


def merged(one: Any, other: Any) -> Any:
    """Merge the mappings of two YAMLs and join their ``imports``; elsewhere the second one wins."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    both = one | {key: merged(one.get(key), value) for key, value in other.items()}
    if "imports" in one and "imports" in other:
        both["imports"] = one["imports"] + other["imports"]
    return both


@pytest.fixture
def registries() -> Iterator[None]:
    """Forget what the package registers."""
    with contextlib.ExitStack() as stack:
        for value in vars(registry).values():
            if isinstance(value, Registry):
                stack.enter_context(value.scoped())
        yield
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.fixture
def mine(tmp_path: Path, registries: None, root: Path, command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: the files of the page, a copy of a shipped YAML, two clips, some riddles, and a decoder."""
    shutil.copytree(Path(video_llama.toy.__file__).parent / "weights/decoder", tmp_path / "my-decoder")
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/clips.txt").write_text(CAPTIONS)
    (tmp_path / "data/riddles.json").write_text(json.dumps(RIDDLES))
    write_clip(tmp_path / "data/ring.mp4", Scene("ring", "red", "left", "large", 0))
    write_clip(tmp_path / "data/square.mp4", Scene("square", "blue", "up", "small", 0))
    monkeypatch.chdir(tmp_path)
    assert command("configs", "copy", "toy/stage1_pretrain", "mine.yaml").code == 0
    return tmp_path


@pytest.fixture
def on_path(mine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, on PYTHONPATH."""
    monkeypatch.syspath_prepend(str(mine))
    return mine


@pytest.fixture
def installed(mine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, with the package installed elsewhere."""
    words = [sys.executable, "-m", "pip", "install", "-q", "--target", str(mine / "site"), "--no-deps", "--no-index"]
    subprocess.run([*words, "--no-build-isolation", "--disable-pip-version-check", str(mine)], check=True)
    shutil.rmtree(mine / "my_package")
    monkeypatch.syspath_prepend(str(mine / "site"))
    return mine


def write_yaml(*sections: str) -> None:
    """Change ``mine.yaml`` as the section on data sets and others say; its own data sets are dropped."""
    content = yaml.safe_load(Path("mine.yaml").read_text()) | {"datasets": {}}
    for change in [change for title in ("Data set", *sections) for change in YAMLS[title]]:
        content = merged(content, change)
    Path("mine.yaml").write_text(yaml.safe_dump(merged(content, SHORT)))


def example(section: str) -> tuple[str, str]:
    """Return the shell line that a section prints, and the output below it."""
    ((line, output),) = re.findall(r"^    \$ (.*)\n((?:    .*\n)+)", SECTIONS[section], re.MULTILINE)
    return line, textwrap.dedent(output)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def check_run_of_all_examples(run: Path) -> None:
    """Check what each example leaves in a run of all of them."""
    steps, checkpoint = metrics(run), read_checkpoint(run / "checkpoint_step000002.pth")
    first, second = losses(run)
    assert [step["lr"] for step in steps] == [1e-3, 5e-4]
    assert [step["smoothed_loss"] for step in steps] == pytest.approx([first, (first + second) / 2])
    assert checkpoint["callbacks"]["smoothed_loss"] == {"average": steps[-1]["smoothed_loss"]}
    weights = checkpoint["model"]
    assert 0 < abs(weights["video_branch.to_decoder.1.factor"].item() - 0.5) < 0.01
    assert any(name.startswith("audio_branch.") and 32 in tensor.shape for name, tensor in weights.items())
    assert [step["replaced"] for step in steps] == [0, 0]
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    assert [(int(row[0]), float(row[1])) for row in rows] == list(enumerate(losses(run)))


def test_the_page_has_an_example_for_each_kind_of_extension():
    kinds = {name for name, value in vars(registry).items() if isinstance(value, Registry)}
    assert set(re.findall(r"^@(\w+)\.register", PAGE, re.MULTILINE)) == kinds - {"RUNNERS", "VIDEO_BACKENDS"}
    assert {path for path in FILES if path.startswith("my_package/")} == {
        f"{module.replace('.', '/')}.py" for module in re.findall(r"= \"(my_package\.\w+)\"", FILES["pyproject.toml"])
    }


@pytest.mark.parametrize("section", ["Data set", *ALL])
def test_the_yaml_of_a_section_is_valid_by_itself(on_path, command, section):
    write_yaml(*{section} - {"Data set"})
    assert command("check-config", "mine.yaml") == (0, "mine.yaml: ok for training\n", "")


def test_the_examples_train_together(on_path, train):
    write_yaml(*ALL)
    code, _, err = train("mine.yaml")
    assert code == 0, err
    assert "smoothed_loss=" in err
    check_run_of_all_examples(on_path / "run")


def test_an_installed_package_needs_no_imports_and_adds_its_command(installed, train, command):
    write_yaml(*ALL)
    content = yaml.safe_load(Path("mine.yaml").read_text())
    assert "my_package.gated_model" in content.pop("imports")
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    code, _, err = train("mine.yaml")
    assert code == 0, err
    check_run_of_all_examples(installed / "run")
    line, printed = example("Command")
    assert command(*line.split()[1:]) == (0, printed, "")


def test_a_processor_changes_what_the_model_is_given(on_path, train):
    write_yaml("Processor")
    runs = {}
    for strength in (0, 1):
        option = f"datasets.clip_list.vis_processor.train.strength={strength}"
        assert train("mine.yaml", option, f"run.output_dir=strength_{strength}").code == 0
        runs[strength] = losses(on_path / f"strength_{strength}")
    assert runs[0] != runs[1]


def test_a_decoder_folder_brings_its_conversation_template(on_path):
    write_yaml("Decoder and conversation template")
    template = VideoLLaMA.sample_spec(load_config("mine.yaml").model).template
    assert [span.text for span in template.render(template.chat, [("What is it?", "A ring.")])] == [
        "Question: What is it?\nAnswer:", " A ring.</s>",
    ]  # fmt: skip


def test_a_benchmark_scores_a_model_and_resumes(on_path, command):
    line, printed = example("Benchmark")
    for built in (True, False):
        code, out, err = command(*line.split()[1:])
        assert (code, out) == (0, printed), err
        assert ("2 of 2 questions are answered already" in err) is not built


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["naming", "clips=missing.txt"], "--benchmark  clips: no such file: missing.txt"),
        (["naming", "clips=my #2.txt"], "--benchmark  clips: no such file: my #2.txt"),
        (["naming", "clip=data/clips.txt"], "--benchmark  clip: unknown key. Did you mean clips?"),
        (["naming", "clips"], "--benchmark: 'clips' is not a registered benchmark. Known: "),
        (["naming", "naming", "clips=data/clips.txt"], "--benchmark: naming is named twice"),
        (["namin"], "Did you mean naming? A setting is KEY=VALUE, after the name."),
    ],
)
def test_the_settings_of_a_benchmark_are_checked(on_path, command, settings, message):
    words = ["evaluate", "--cfg-path", "toy", "--imports", "my_package.naming", "--output", "results"]
    code, out, err = command(*words, "--benchmark", *settings)
    assert (code, out) == (1, "")
    assert message in err


def test_text_alone_trains(on_path, train):
    write_yaml()
    code, _, err = train("mine.yaml", "datasets.clip_list.sample_ratio=0")
    assert code == 0, err
    assert [step["grad_norm"] for step in metrics(on_path / "run")] == [0.0, 0.0]


def test_a_callback_goes_on_from_its_state_when_its_run_resumes(on_path, train):
    write_yaml("Callback with a metric logged each step")
    assert train("mine.yaml", "run.max_epoch=2").code == 0
    resume = ["run.resume_ckpt_path=run/checkpoint_step000002.pth", "run.output_dir=resumed"]
    assert train("run/config.yaml", *resume).code == 0
    smoothed = [[step["smoothed_loss"] for step in metrics(on_path / run)] for run in ("run", "resumed")]
    assert smoothed[1] == smoothed[0][2:]


def test_an_error_in_a_callback_stops_the_run_with_its_name(on_path, train):
    write_yaml("Callback with a metric logged each step")
    code, _, err = train("mine.yaml", "run.callbacks=[{name: smoothed_loss, limit: 0}]")
    assert code == 1
    message = err.splitlines()[-1]
    assert message.startswith("error: run.callbacks: 'smoothed_loss' failed in after_step: the smoothed loss is ")
    assert "my_package/smoothed_loss.py:" in message


def test_a_model_from_outside_answers_questions(on_path, train, command):
    write_yaml("Model")
    assert train("mine.yaml").code == 0
    words = ["chat", "--cfg-path", "mine.yaml", "--video", "data/ring.mp4", "--question", "What is it?", "--json"]
    code, out, err = command(*words, "--max-new-tokens", 4, "--options", "model.ckpt=run/checkpoint_step000002.pth")
    assert code == 0, err
    assert len(json.loads(out)["answers"]) == 1


def test_settings_from_outside_are_checked_like_built_in_ones(on_path, train):
    write_yaml("Model", "Learning-rate schedule", "Callback with a metric logged each step")
    code, _, err = train(
        "mine.yaml",
        "model.gate=-1",
        "model.gat=1",
        "datasets.clip_list.build_info.anno_dir=/none",
        "datasets.more={name: clip_list, build_info: {}}",
        "run.callbacks=[{name: smoothed_loss, decay: much}, {name: smoothed_los}]",
        "run.lr_sched={name: halving_lr, evry: 2}",
    )
    assert code == 1
    assert "model.gate: must be at least 0" in err
    assert "model.gat: unknown key. Did you mean model.gate?" in err
    assert "datasets.clip_list.build_info.anno_dir: no such directory or file: /none" in err
    assert "datasets.more.build_info.anno_dir: missing" in err
    assert "run.callbacks[0].decay: expected a number" in err
    assert "run.callbacks[1].name: 'smoothed_los' is not a registered callback" in err
    assert "Did you mean smoothed_loss?" in err
    assert "run.lr_sched.evry: unknown key. Did you mean run.lr_sched.every?" in err


def test_a_module_that_cannot_be_imported_is_named_with_its_line(on_path, train):
    write_yaml()
    file = Path("mine.yaml")
    file.write_text(file.read_text().replace("my_package.riddles", "my_pakage.riddles"))
    line = 1 + file.read_text().splitlines().index("- my_pakage.riddles")
    code, _, err = train(file)
    assert code == 1
    assert f"mine.yaml:{line}" in err
    assert "cannot import my_pakage.riddles" in err
    assert "PYTHONPATH" in err
