"""``video-llama chat`` and ``Chat`` with the toy model that ships with the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.integration.conftest import ROOT
from video_llama.checkpoints.io import write_weights
from video_llama.common.errors import DecodeError, PromptTooLong, VideoLlamaError
from video_llama.conversation.chat import Chat
from video_llama.toy.ask import VISION_ONLY

TOY = "eval_configs/toy.yaml"
COLOUR, MOTION = "What colour is the shape?", "How does it move?"


@pytest.fixture(scope="module")
def heldout(world: Path) -> list[dict[str, str]]:
    """Questions on clips with combinations from no training clip, with their answers and paths."""
    questions = json.loads((world / "heldout/questions.json").read_text())
    return [{**q, "video": str(world / "heldout/videos" / q["video"])} for q in questions]


@pytest.fixture(scope="module")
def clip(heldout) -> str:
    return heldout[0]["video"]


@pytest.fixture(scope="module")
def loaded() -> Chat:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return Chat.from_config(TOY)


@pytest.fixture
def chat(loaded: Chat) -> Chat:
    loaded.reset()
    return loaded


# The command


def test_the_json_output_has_answers_frame_times_and_audio_status(command, clip):
    words = ["chat", "--cfg-path", TOY, "--video", clip, "--question", COLOUR, "--question", MOTION, "--json"]
    code, out, err = command(*words)
    assert code == 0, err
    printed = json.loads(out)
    assert printed.keys() == {"answers", "frame_times", "sound"}
    assert len(printed["answers"]) == 2
    assert printed["frame_times"] == [0.0, 0.5, 1.0, 1.5]
    assert printed["sound"] == "used"


def test_a_dialogue_is_printed_as_it_proceeds(command, heldout):
    clip, answer, size = heldout[0]["video"], heldout[0]["answer"], "How large is it?"
    code, out, _ = command("chat", "--cfg-path", TOY, "--video", clip, "--question", COLOUR, "--question", size)
    assert code == 0
    assert out.startswith(f"> {COLOUR}\n{answer}\n> {size}\nIt is ")


def test_a_picture_has_no_frame_times(command, world):
    picture = sorted((world / "cc3m/image").glob("*.jpg"))[0]
    code, out, err = command("chat", "--cfg-path", TOY, "--image", picture, "--question", COLOUR, "--json")
    assert code == 0, err
    assert json.loads(out)["frame_times"] == []


def test_the_other_video_backend_gives_the_same_answer(command, clip):
    words = ["chat", "--cfg-path", TOY, "--video", clip, "--question", COLOUR, "--json"]
    decord = command(*words, "--options", "inference.video.video_backend=decord")
    assert decord.code == 0, decord.err
    assert json.loads(decord.out) == json.loads(command(*words).out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--question", ""], "the question is empty"),
        (["--question", "word " * 500], "exceed the decoder's context of 512 tokens"),
        (["--question", COLOUR, "--max-new-tokens", "0"], "at least 1"),
        (["--question", COLOUR, "--options", "model.ckpt=/none.pth"], "model.ckpt: no such file: /none.pth"),
        (
            ["--question", COLOUR, "--options", "model.fusion_head_layers=3"],
            "video_branch.qformer is filled only in part",
        ),
        (
            ["--question", COLOUR, "--options", "model.ckpt=${paths.weights}/vision.safetensors"],
            "holds nothing of a trained branch",
        ),
        (["--question", COLOUR, "--options", "model.max_frame_pos=16"], "branch.safetensors does not fit the model"),
        (
            ["--question", COLOUR, "--options", "model.ckpt=null"],
            "model.ckpt is not set: the branch would answer at ran",
        ),
        (
            ["--question", COLOUR, "--options", "inference.video.image_size=224"],
            "inference.video.image_size: 224, but model.image_size is 64",
        ),
        (
            ["--question", COLOUR, "--options", "model.freeze_vit=false", "model.vit_ckpt=null"],
            "vision is in no file: it would answer at random. To fix this, name its file, model.vit_ckpt",
        ),
        (
            ["--question", COLOUR, "--options", "inference.video=blip_caption", "inference.image=imagebind_audio"],
            "inference.video: this processor reads captions, not clips",
        ),
        (["--question", COLOUR, "--device", "cuda"], "device cuda: torch sees no GPU"),
        (["--question", COLOUR, "--device", "gpu"], "device 'gpu': expected cpu, cuda"),
        (["--question", COLOUR, "--device", "cpu:7"], "device 'cpu:7': expected cpu, cuda"),
    ],
)
def test_an_impossible_request_is_explained_in_one_line(command, clip, monkeypatch, words, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, err = command("chat", "--cfg-path", TOY, "--video", clip, *words)
    assert (code, out) == (1, "")
    assert message in err
    assert "Traceback" not in err


def test_an_incomplete_branch_is_refused(command, clip, tmp_path):
    whole = load_file(ROOT / "video_llama/toy/weights/branch.safetensors")
    write_weights(tmp_path / "half.safetensors", {n: t for n, t in whole.items() if "to_decoder" in n})
    words = ["--options", f"model.ckpt={tmp_path / 'half.safetensors'}"]
    code, out, err = command("chat", "--cfg-path", TOY, "--video", clip, "--question", COLOUR, *words)
    assert (code, out) == (1, "")
    assert "is frozen, and in no file: it would answer at random" in err


def test_a_missing_audio_branch_is_reported_with_how_to_chat_without_it(command, clip, tmp_path):
    whole = load_file(ROOT / "video_llama/toy/weights/branch.safetensors")
    branch = tmp_path / "video_branch.safetensors"
    write_weights(branch, {n: t for n, t in whole.items() if n.startswith("video_branch.")})
    words = ["chat", "--cfg-path", TOY, "--video", clip, "--question", COLOUR, "--options", f"model.ckpt={branch}"]
    code, _, err = command(*words)
    assert code == 1
    assert "audio_branch.segment_position is frozen, and in no file" in err
    assert "name its file, model.ckpt_2; or do without sound: equip_audio_branch: false" in err
    assert command(*words, *VISION_ONLY).out.startswith(f"> {COLOUR}\nIt is ")


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_file_that_is_not_media_is_named_with_the_reason(command, tmp_path, kind, backend):
    file = tmp_path / "broken.mp4"
    file.write_bytes(b"this is not a video" * 100)
    words = ["chat", "--cfg-path", TOY, f"--{kind}", file, "--question", COLOUR, "--json"]
    code, out, err = command(*words, "--options", f"inference.video.video_backend={backend}")
    assert (code, out) == (1, "")
    assert f"{file}: cannot " in err
    assert "Traceback" not in err


def test_without_an_inference_section_a_clip_has_8_frames(command, clip, tmp_path, root):
    config = yaml.safe_load((root / TOY).read_text())
    del config["inference"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    words = ["chat", "--cfg-path", tmp_path / "mine.yaml", "--video", clip, "--question", COLOUR, "--json"]
    code, out, err = command(*words)
    assert code == 0, err
    assert len(json.loads(out)["frame_times"]) == 8


def test_the_console_script_prints_only_json_on_stdout(clip):
    words = ["chat", "--cfg-path", TOY, "--video", clip, "--question", COLOUR, "--json"]
    script = Path(sys.executable).with_name("video-llama")
    result = subprocess.run([script, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["sound"] == "used"


# Answers


def test_the_toy_model_names_the_colours_of_unseen_clips(chat, heldout):
    asked = [q for q in heldout if q["kind"] == "colour"]
    assert len(asked) == 12
    right = 0
    for q in asked:
        chat.reset()
        chat.upload(video=q["video"])
        right += chat.ask(q["question"]) == q["answer"]
    assert right >= 11


def test_the_toy_model_names_the_colours_of_pictures(chat, world):
    captions = json.loads((world / "cc3m/filter_cap.json").read_text())["annotations"]
    right = 0
    for record in captions:
        chat.reset()
        chat.upload(image=world / "cc3m/image" / f"{record['image_id']}.jpg")
        right += chat.ask(COLOUR).removeprefix("It is ").removesuffix(".") in record["caption"].split()
    assert right >= len(captions) - 1 == 7


# Robustness


@pytest.mark.parametrize("typed", ["<ImageHere>", "</s>", "<s>", "<Video>", "###", "\ufdd00\ufdd1", "\x00", "🦆"])
def test_any_text_that_a_user_types_gets_an_answer(chat, clip, typed):
    chat.upload(video=clip)
    assert isinstance(chat.ask(f"{typed} {COLOUR}"), str)
    assert isinstance(chat.ask(f"{COLOUR} {typed}"), str)


def test_a_dialogue_continues_after_an_error(chat, clip, tmp_path):
    chat.upload(video=clip)
    first = chat.ask(COLOUR)
    with pytest.raises(PromptTooLong, match="512"):
        chat.ask("word " * 500)
    with pytest.raises(VideoLlamaError, match="empty"):
        chat.ask("")
    with pytest.raises(DecodeError, match="no such file"):
        chat.upload(video=tmp_path / "none.mp4")
    after = chat.ask(MOTION)
    chat.reset()
    chat.upload(video=clip)
    assert [chat.ask(COLOUR), chat.ask(MOTION)] == [first, after]


def test_a_second_question_does_not_encode_the_clip_again(chat, clip):
    chat.upload(video=clip)
    calls: list[int] = []
    hook = chat.engine.model.vision.register_forward_pre_hook(lambda *_: calls.append(1))
    chat.ask(COLOUR)
    chat.ask(MOTION)
    hook.remove()
    assert calls == []
