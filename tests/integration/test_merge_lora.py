"""``video-llama merge-lora`` on what ``train.py`` wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.decoders import write_decoder
from tests.integration.test_decoders import SHORT, STAGE_1, logits
from tests.integration.test_vllm_bridge import answer
from tests.vllm_stand_in import StandIn, serving
from video_llama.common.errors import ConfigError
from video_llama.conversation.chat import Chat
from video_llama.conversation.file import File
from video_llama.conversation.session import ShownTurn
from video_llama.conversation.vllm_bridge import bridge
from video_llama.conversation.vllm_server import VllmServer
from video_llama.conversation.worker import Worker


@pytest.fixture
def run(world, tmp_path, train) -> Path:
    """A run of two steps with adapters in the decoder."""
    decoder = write_decoder(tmp_path / "decoder", "gpt_neox")
    options = [f"paths.world={world}", f"run.output_dir={tmp_path / 'run'}", f"model.llama_model={decoder}"]
    assert train(STAGE_1, *options, "model.lora={r: 4, dropout: 0.1}", "run.init_lr=0.01", *SHORT).code == 0
    return tmp_path / "run"


def test_the_merged_decoder_gives_the_answers_of_the_one_with_adapters(run, world, tmp_path, command):
    ckpt = f"model.ckpt={run / 'checkpoint_step000002.pth'}"
    words = ["merge-lora", "--cfg-path", run / "config.yaml", "--options", ckpt, "--output", tmp_path / "merged"]
    code, out, err = command(*words)
    assert code == 0, err
    assert f"model.llama_model={tmp_path / 'merged'} model.ckpt={tmp_path / 'merged/branch.pth'}" in out
    with_adapters = Chat.from_config(run / "config.yaml", [ckpt], "cpu")
    merged = Chat.from_config(run / "config.yaml", out.splitlines()[1].split(), "cpu")
    media = merged.upload(video=sorted((world / "heldout/videos").glob("*.mp4"))[0]).frames
    expected, found = (logits(chat.engine.model, merged, media) for chat in (with_adapters, merged))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert len({file.stat().st_mode for file in (tmp_path / "merged").iterdir()}) == 1, "vLLM may be another user"
    question = [ShownTurn("What is it?", [File("video", sorted((world / "heldout/videos").glob("*.mp4"))[0])])]
    with Worker(with_adapters.engine) as own:
        answered = answer(own, question)
    with serving(StandIn(tmp_path / "merged")) as vllm:
        options = out.splitlines()[1].split()
        with Worker(*bridge(VllmServer(vllm.url), run / "config.yaml", options, "cpu")) as worker:
            assert answer(worker, question) == answered
        with pytest.raises(ConfigError, match=r"model.lora: .*video-llama merge-lora"):
            bridge(VllmServer(vllm.url), run / "config.yaml", [ckpt], "cpu")
    unadapted = Chat.from_config(run / "config.yaml", [f"model.ckpt={tmp_path / 'merged/branch.pth'}"], "cpu")
    assert not torch.allclose(logits(unadapted.engine.model, merged, media), expected, atol=1e-3)

    code, out, err = command(*words)
    assert (code, out) == (1, "")
    assert f"{tmp_path / 'merged'}: is not empty, and nothing is overwritten" in err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.lora=null", "model.lora: is not set; it says what kind of adapters to merge"),
        ("model.ckpt=null", "model.ckpt: is not set; it says which adapters to merge"),
        ("model.lora.r=8", "made with lora.r: 4; the model section has 8"),
    ],
)
def test_a_failed_merge_is_explained_and_leaves_no_files(run, tmp_path, command, option, message):
    options = [f"model.ckpt={run / 'checkpoint_step000002.pth'}", option]
    before = sorted(tmp_path.iterdir())
    words = ["merge-lora", "--cfg-path", run / "config.yaml", "--options", *options, "--output", tmp_path / "merged"]
    code, out, err = command(*words)
    assert (code, out) == (1, "")
    assert message in err
    assert "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before
