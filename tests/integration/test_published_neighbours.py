"""Published YAMLs with the small differences that people have in theirs: accepted or refused by rule, with file and line."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.published_run import DOWNLOADS, YAMLS, write_folder

STAGE_1 = "visionbranch_stage1_pretrain.yaml"
STAGE_2 = "visionbranch_stage2_finetune.yaml"
AUDIO = "audiobranch_stage2_finetune.yaml"
VISION_CHAT = "video_llama_eval_only_vl.yaml"
AUDIO_CHAT = "video_llama_eval_withaudio.yaml"

Change = Callable[[bytes], bytes]


def swap(old: str, new: str) -> Change:
    """Replace a text that the file has once."""

    def changed(content: bytes) -> bytes:
        assert content.count(old.encode()) == 1, old
        return content.replace(old.encode(), new.encode())

    return changed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """A working directory with every file that the YAMLs name."""
    return write_folder(tmp_path_factory.mktemp("neighbours"), world)


@pytest.fixture
def check(folder: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``check-config`` on a changed YAML, called mine.yaml."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MODELS", "ckpt")

    def run(name: str, change: Change, *options: str) -> Any:
        Path("mine.yaml").write_bytes(change((YAMLS / name).read_bytes()))
        options += () if name.startswith("audiobranch") else DOWNLOADS
        return command("check-config", "mine.yaml", "--options", *options)

    return run


LLAMA = 'llama_model: "ckpt/vicuna-7b/"\n  imagebind'
OK_TO_TRAIN = "mine.yaml: ok for training"
OK_TO_USE = "mine.yaml: ok for use"


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        # encodings and line ends
        (STAGE_1, lambda text: text.replace(b"\n", b"\r\n"), OK_TO_TRAIN),
        (STAGE_1, lambda text: text.replace(b"\n", b"\r"), OK_TO_TRAIN),
        (STAGE_1, lambda text: codecs.BOM_UTF8 + text, OK_TO_TRAIN),
        (VISION_CHAT, lambda text: codecs.BOM_UTF8 + text.replace(b"\n", b"\r\n"), OK_TO_USE),
        # empty paths are none, as in the original
        (STAGE_2, swap("'path/pretrained_visual_branch_ckpt'", "''"), OK_TO_TRAIN),
        (STAGE_2, swap("'path/pretrained_visual_branch_ckpt'", ""), OK_TO_TRAIN),
        (STAGE_1, swap('"ckpt/imagebind_path/"', '""'), OK_TO_TRAIN),
        (STAGE_1, swap("resume_ckpt_path: null", 'resume_ckpt_path: ""'), OK_TO_TRAIN),
        (STAGE_1, swap("  end_sym", "  llama_proj_model: ''\n  end_sym"), OK_TO_TRAIN),
        (AUDIO_CHAT, swap("path/audio_branch_ckpt", "''"), OK_TO_USE),
        (AUDIO_CHAT, swap("  ckpt_2: path/audio_branch_ckpt\n", ""), OK_TO_USE),
        # paths
        (STAGE_1, swap('"ckpt/imagebind_path/"', "not/there"), OK_TO_TRAIN),
        (STAGE_2, swap("'path/pretrained_visual_branch_ckpt'", "path//visual_branch_ckpt"), OK_TO_TRAIN),
        (AUDIO, swap('imagebind_ckpt_path: "ckpt', 'imagebind_ckpt_path: "${oc.env:MODELS}'), OK_TO_TRAIN),
        # truth values and numbers
        (STAGE_1, swap("amp: True", "amp: yes"), OK_TO_TRAIN),
        (STAGE_1, swap("evaluate: False", "evaluate: off"), OK_TO_TRAIN),
        (STAGE_1, swap("init_lr: 1e-4", 'init_lr: "1e-4"'), OK_TO_TRAIN),
        # a run that trains nothing
        (VISION_CHAT, swap("run:\n  task: video_text_pretrain\n", ""), OK_TO_USE),
        (VISION_CHAT, swap("  task: video_text_pretrain\n", ""), OK_TO_USE),
        (VISION_CHAT, swap("  task: video_text_pretrain\n", "  seed: 3\n"), OK_TO_USE),
        (VISION_CHAT, swap("pretrain_vicuna", "pretrain_llama_v2"), OK_TO_USE),
    ],
)
def test_what_means_the_same_is_accepted(check, name, change, expected):
    code, out, err = check(name, change)
    assert (code, err) == (0, "")
    assert out.startswith(expected)
    assert "warning" not in out


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        (STAGE_1, lambda text: text.decode().encode("utf-16"), "mine.yaml: not UTF-8 text (byte 0)"),
        # what made the published files unreadable
        (
            STAGE_1,
            swap("  arch", "\tarch"),
            "mine.yaml:3  not valid YAML: found character '\\t' that cannot start any token",
        ),
        (STAGE_1, swap("  arch", "\tarch"), "; indent with spaces, not tabs"),
        (STAGE_1, swap("arch: ", "arch:\t\t"), "mine.yaml:3  not valid YAML: found character '\\t'"),
        (STAGE_1, swap(LLAMA, LLAMA.replace("\n", ' or "ckpt/b/"\n')), "mine.yaml:8  not valid YAML: "),
        (STAGE_1, swap(LLAMA, LLAMA.replace("\n", ' or "b"\n')), "; nothing may follow the closing quote of a value"),
        (STAGE_1, swap("  freeze_qformer", "   freeze_qformer"), "mine.yaml:6  not valid YAML: "),
        (STAGE_1, swap("  freeze_qformer", "   freeze_qformer"), "; indent this key like the others of its block"),
        (STAGE_1, swap("  freeze_qformer", " freeze_qformer"), "; indent this key like the others of its block"),
        # paths
        (AUDIO, swap('"ckpt/imagebind_path/"', "''"), "model.imagebind_ckpt_path: left out, so imagebind_huge is used"),
        (
            AUDIO,
            swap('"ckpt/imagebind_path/"', "not/there"),
            "model.imagebind_ckpt_path: no such directory or file: not/there",
        ),
        (STAGE_1, swap("path/cc_sbu_align/", "''"), "storage: empty; it needs the path of a directory"),
        (
            VISION_CHAT,
            swap("path/visual_branch_ckpt", "''"),
            "mine.yaml  model.ckpt is not set: the branch would answer at random",
        ),
        (
            STAGE_2,
            swap("'path/pretrained_visual_branch_ckpt'", "~/visual"),
            "model.ckpt: no such file: ~/visual (~ is not expanded here; ${oc.env:HOME} is)",
        ),
        (
            STAGE_2,
            swap("'path/pretrained_visual_branch_ckpt'", "$MODELS/visual"),
            "model.ckpt: no such file: $MODELS/visual ($MODELS is not expanded here; ${oc.env:MODELS} is)",
        ),
        (
            STAGE_2,
            swap("'path/pretrained_visual_branch_ckpt'", "'%MODELS%\\visual'"),
            "(%MODELS% is not expanded here; ${oc.env:MODELS} is)",
        ),
        (
            STAGE_2,
            swap("'path/pretrained_visual_branch_ckpt'", "${MODELS}/visual"),
            "model.ckpt: cannot resolve ${MODELS}/visual: there is no key MODELS. The environment variable is "
            "${oc.env:MODELS}.",
        ),
        # truth values and numbers
        (
            STAGE_1,
            swap("amp: True", "amp: 'True'"),
            "run.amp: expected true or false, got the string 'True'. Write it without quotes.",
        ),
        (STAGE_1, swap("max_epoch: 5", "max_epoch: '5'"), "run.max_epoch: expected an integer, got the string '5'"),
        # what is wrong stays wrong
        (STAGE_1, swap("freeze_vit", "freze_vit"), "model.freze_vit: unknown key. Did you mean model.freeze_vit?"),
        (
            STAGE_1,
            swap('end_sym: "###"', 'end_sym: "</s>"'),
            "model.end_sym: '</s>' contradicts model_type pretrain_vicuna",
        ),
        (
            STAGE_1,
            swap("pretrain_vicuna", "pretrain_llama_v2"),
            "model.end_sym: '###' contradicts model_type pretrain_llama_v2",
        ),
        (STAGE_1, swap("  max_epoch: 5\n", ""), "run.max_epoch: missing; it has no default"),
        (
            STAGE_1,
            swap("evaluate: False", "evaluate: True"),
            "run.evaluate: true, but there is nothing to evaluate",
        ),
        (
            STAGE_2,
            swap('model_type: "vicuna"\n\n  webvid', 'model_type: "llama_v2"\n\n  webvid'),
            "datasets.llava_instruct.model_type",
        ),
        (VISION_CHAT, swap("task: video_text", "task: image_text"), "run.task: expected one of video_text_pretrain"),
        (VISION_CHAT, swap("task", "taks"), "run.taks: unknown key. Did you mean run.task?"),
        (VISION_CHAT, swap("n_frms: 8", "n_frms: 33"), "n_frms: 33 frames, but model.max_frame_pos is 32"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(check, name, change, problem):
    code, out, err = check(name, change)
    assert (code, out) == (1, "")
    assert err.startswith("mine.yaml")
    assert problem in err
