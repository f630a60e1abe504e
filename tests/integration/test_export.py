"""``video-llama export``, and models that are loaded from what it wrote, here and on a small hub on this machine."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModel, AutoProcessor

import video_llama.conversation.auto_classes
import video_llama.toy
from tests.decoders import write_decoder
from tests.hub_server import Hub, folder_files, hub_serving, use
from tests.integration.conftest import ROOT, Result
from tests.integration.test_decoders import SHORT, STAGE_1, logits
from video_llama.common.errors import DownloadError
from video_llama.conversation.chat import Chat

TOY = Path(video_llama.toy.__file__).parent
CLIP = TOY / "hello.mp4"
QUESTIONS = ("What colour is the shape?", "How does it move?", "What sound does it make?")


def answers(chat: Chat) -> list[str]:
    chat.upload(video=CLIP)
    return [chat.ask(question) for question in QUESTIONS]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the toy decoder, and this user's token for it."""
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path / "home"))
    with hub_serving(Hub()) as running:
        running.push("org/toy-decoder", folder_files(TOY / "weights/decoder"))
        use(running, tmp_path / "hub", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", running.token)
        yield running


def test_both_layouts_answer_as_the_model_that_was_exported(command: Callable[..., Result], tmp_path):
    expected = answers(Chat.from_config("toy", device="cpu"))
    assert all(expected)
    for layout in ("bundle", "full"):
        result = command("export", "--cfg-path", "toy", "--output", tmp_path / layout, "--layout", layout)
        assert result.code == 0, result.err
        assert f"video-llama chat --cfg-path {tmp_path / layout}" in result.out
        assert answers(Chat.from_pretrained(tmp_path / layout, device="cpu")) == expected
    asked = ["--video", CLIP, "--question", QUESTIONS[0]]
    for path in (tmp_path / "full", tmp_path / "bundle" / "config.yaml"):
        assert f"\n{expected[0]}\n" in command("chat", "--cfg-path", path, *asked).out


def test_a_model_is_uploaded_and_answers_the_same_when_it_is_loaded_by_its_id(hub, command, tmp_path):
    words = ["export", "--cfg-path", "toy", "--options", "model.llama_model=org/toy-decoder"]
    words += ["--output", tmp_path / "toy", "--push-to-hub", "me/toy", "--private"]
    result = command(*words)
    assert result.code == 0, result.err
    commit = hub.branches["me/toy", "main"]
    assert f"uploaded to me/toy@{commit}" in result.out
    assert hub.private == {"me/toy"}
    assert '\nchat = Chat.from_pretrained("me/toy")  #' in (tmp_path / "toy/README.md").read_text()
    assert hub.commits["me/toy"][commit] == folder_files(tmp_path / "toy")
    decoder = hub.branches["org/toy-decoder", "main"]
    config = yaml.safe_load((tmp_path / "toy/config.yaml").read_text())
    assert config["model"]["llama_model"] == f"org/toy-decoder@{decoder}"

    hub.push("org/toy-decoder", {"config.json": b"another decoder"})
    expected = answers(Chat.from_config("toy", device="cpu"))
    assert answers(Chat.from_pretrained("me/toy", device="cpu")) == expected
    assert answers(Chat.from_pretrained(f"me/toy@{commit}", device="cpu")) == expected


def test_a_full_model_on_the_hub_needs_no_other_repository(hub, command, tmp_path):
    words = ["export", "--cfg-path", "toy", "--layout", "full", "--output", tmp_path / "toy", "--push-to-hub", "me/toy"]
    assert command(*words).code == 0
    hub.requests.clear()
    chat = Chat.from_pretrained("me/toy", device="cpu")
    assert all("me/toy" in request for request in hub.requests)
    assert "/snapshots/" in str(chat.engine.model.config.llama_model)
    model, processor = AutoModel.from_pretrained("me/toy", device="cpu"), AutoProcessor.from_pretrained("me/toy")
    asked = [{"type": "video", "path": str(CLIP)}, {"type": "text", "text": QUESTIONS[0]}]
    ids = model.generate(**processor.apply_chat_template([{"role": "user", "content": asked}]))
    assert processor.decode(ids[0]) == answers(chat)[0]


def test_a_repository_that_is_no_export_is_not_downloaded(hub):
    with pytest.raises(DownloadError, match=r"org/toy-decoder.*the repository has no file weights.json"):
        Chat.from_pretrained("org/toy-decoder")
    assert hub.downloads("model.safetensors") == 0


def test_an_upload_that_fails_keeps_the_folder_and_says_what_to_do(hub, command, tmp_path, monkeypatch):
    words = ["export", "--cfg-path", "toy", "--output", tmp_path / "toy", "--push-to-hub"]
    monkeypatch.setenv("HF_TOKEN", "wrong")
    refused = command(*words, "me/toy")
    assert refused.code == 1
    assert "me/toy: not uploaded: " in refused.err
    assert "Log in with hf auth login or HF_TOKEN" in refused.err
    assert "Traceback" not in refused.err
    assert (tmp_path / "toy/weights.json").is_file()
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert command(*words, "me/toy").code == 0
    use(hub, tmp_path / "hub", monkeypatch, offline=True)
    assert "HF_HUB_OFFLINE is set, so nothing is uploaded" in command(*words, "me/toy").err
    assert "--push-to-hub toy: expected a repository, ORG/NAME" in command(*words, "toy").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--parent", "llama_model"], "--parent llama_model: expected KEY=SOURCE"),
        (["--private"], "--private says how a repository is created: it needs --push-to-hub"),
        (["--options", "model.ckpt=null"], "model.ckpt is not set: the branch would answer at random"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(command, tmp_path, words, message):
    result = command("export", "--cfg-path", "toy", "--output", tmp_path / "out", *words)
    assert result.code == 1
    assert message in result.err
    assert not (tmp_path / "out").exists()


def test_a_run_with_adapters_keeps_them_in_a_bundle_and_merges_them_in_a_full_export(train, command, world, tmp_path):
    decoder = write_decoder(tmp_path / "decoder", "gpt_neox")
    options = [f"paths.world={world}", f"run.output_dir={tmp_path / 'run'}", f"model.llama_model={decoder}"]
    assert train(STAGE_1, *options, "model.lora={r: 4}", "run.init_lr=0.01", *SHORT).code == 0
    checkpoint = f"model.ckpt={tmp_path / 'run/checkpoint_step000002.pth'}"
    words = ["export", "--cfg-path", tmp_path / "run/config.yaml", "--options", checkpoint, "--output"]
    result = command(*words, tmp_path / "bundle")
    assert result.code == 0, result.err
    assert command(*words, tmp_path / "full", "--layout", "full").code == 0
    assert "| webvid | webvid | " in (tmp_path / "bundle/README.md").read_text()
    assert yaml.safe_load((tmp_path / "full/config.yaml").read_text())["model"]["lora"] is None

    source = Chat.from_config(tmp_path / "run/config.yaml", [checkpoint], "cpu")
    bundle = Chat.from_pretrained(tmp_path / "bundle", [f"model.llama_model={decoder}"], "cpu")
    full = Chat.from_pretrained(tmp_path / "full", device="cpu")
    media = source.upload(video=sorted((world / "heldout/videos").glob("*.mp4"))[0]).frames
    expected, adapted, merged = (logits(chat.engine.model, source, media) for chat in (source, bundle, full))
    assert torch.equal(adapted, expected)
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)


def test_the_card_has_the_validation_of_the_exported_step(train, command, world, tmp_path):
    data = yaml.safe_load((ROOT / STAGE_1).read_text())
    data["datasets"]["heldout"] = {**data["datasets"]["webvid"], "name": "webvid", "split": "val"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    options = [f"paths.world={world}", f"run.output_dir={tmp_path / 'run'}", "run.valid_splits=[val]"]
    result = train(tmp_path / "mine.yaml", *options, *SHORT)
    assert result.code == 0, result.err
    (last,) = [json.loads(line) for line in (tmp_path / "run/validation.jsonl").read_text().splitlines()][-1:]
    words = ["export", "--cfg-path", tmp_path / "run/config.yaml", "--output", tmp_path / "out", "--options"]
    assert command(*words, f"model.ckpt={tmp_path / 'run/checkpoint_step000002.pth'}").code == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "After 2 steps, on data held out from training:" in card
    assert f"| val/loss | {last['val/loss']:.4g} |" in card
    assert "| cc_sbu_align | cc_sbu_align | 8 |" in card
    assert "| heldout |" not in card


def test_the_commands_and_the_python_of_the_guide_run_as_printed(command, tmp_path, monkeypatch, capfd):
    guide = (ROOT / "docs/sharing.md").read_text()
    commands = [line.strip() for line in guide.splitlines() if line.startswith("    video-llama ")]
    monkeypatch.chdir(tmp_path)
    shutil.copy(CLIP, "clip.mp4")
    for line in commands:
        if "--push-to-hub" not in line:
            result = command(*shlex.split(line)[1:])
            assert result.code == 0, result.err
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 2
    capfd.readouterr()
    for block in blocks:
        exec(compile(block, "docs/sharing.md", "exec"), {})
    assert capfd.readouterr().out.startswith("It is ")
