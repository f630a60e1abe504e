"""A vLLM that does not fit the model is refused before anybody asks it anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.vllm_stand_in import StandIn, serving
from video_llama.common.errors import DecoderUnavailable, VideoLlamaError
from video_llama.conversation.vllm_server import API_KEY, VllmServer

IDS = [1, 40, 50, 60]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    with serving(StandIn(tiny.write_decoder(tmp_path_factory.mktemp("served")))) as stand_in:
        yield stand_in


@pytest.fixture
def vllm(served: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A stand-in whose fields are restored afterwards."""
    for name in ("takes_embeds", "max_model_len", "name", "api_key", "version", "returns_ids"):
        monkeypatch.setattr(served, name, getattr(served, name))
    monkeypatch.delenv(API_KEY, raising=False)
    return served


def embeds(folder: Path) -> torch.Tensor:
    """The prompt by the token embedding of a folder."""
    return StandIn(folder).lm.get_input_embeddings()(torch.tensor(IDS)).detach()


def test_a_vllm_says_what_it_serves(vllm):
    vllm.name, vllm.max_model_len = "decoder", 200
    server = VllmServer(vllm.url + "/v1/")
    server.check_version()
    server.check_embeddings(IDS, embeds(vllm.folder))
    assert (server.url, server.model, server.folder, server.max_context) == (vllm.url, "decoder", str(vllm.folder), 200)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_embeddings_of_another_number_format_are_taken(vllm, dtype):
    vllm.lm.to(dtype).float()
    VllmServer(vllm.url).check_embeddings(IDS, embeds(vllm.folder).to(dtype))


def test_the_embeddings_of_another_decoder_are_refused_by_their_width(vllm, tmp_path):
    wider = tiny.write_decoder(tmp_path, width=32)
    with pytest.raises(
        DecoderUnavailable, match=r"another width than model.llama_model: .*hidden_size 32 .*hidden_size 16"
    ):
        VllmServer(vllm.url).check_embeddings(IDS, embeds(wider))


def test_the_embeddings_of_another_decoder_of_the_same_width_are_refused(vllm):
    torch.manual_seed(0)
    with pytest.raises(
        DecoderUnavailable, match=f"serves {vllm.folder}, which takes the embeddings .* for other tokens"
    ):
        VllmServer(vllm.url).check_embeddings(IDS, torch.randn(4, 16))
    with pytest.raises(DecoderUnavailable, match="for other tokens"):  # of another scale
        VllmServer(vllm.url).check_embeddings(IDS, 4 * embeds(vllm.folder) + 0.1)


def test_a_vllm_without_embeddings_is_refused_with_the_flag_it_lacks(vllm):
    vllm.takes_embeds = False
    with pytest.raises(DecoderUnavailable, match=r"takes no embeddings. Start vLLM with --enable-prompt-embeds"):
        VllmServer(vllm.url).check_embeddings(IDS, embeds(vllm.folder))


def test_a_vllm_that_returns_no_token_ids_is_refused(vllm):
    vllm.returns_ids = False
    with pytest.raises(DecoderUnavailable, match="returns no token ids"):
        VllmServer(vllm.url).check_embeddings(IDS, embeds(vllm.folder))


def test_an_old_vllm_is_refused_and_one_of_unknown_version_is_not(vllm, caplog):
    vllm.version = "0.11.2"
    with pytest.raises(DecoderUnavailable, match=r"vLLM 0.11.2 is too old: 0.22 or later is needed"):
        VllmServer(vllm.url).check_version()
    vllm.version = "dev"
    VllmServer(vllm.url).check_version()
    assert "version 'dev'" in caplog.text
    for good in ("0.22.0", "0.33.1+cu130", "1.0.0rc1"):
        vllm.version = good
        VllmServer(vllm.url).check_version()


def test_the_key_of_a_vllm_comes_from_the_environment(vllm, monkeypatch):
    vllm.api_key = "secret"
    with pytest.raises(DecoderUnavailable, match=f"wants a key: .*{API_KEY}") as caught:
        _ = VllmServer(vllm.url).model
    monkeypatch.setenv(API_KEY, "wrong")
    with pytest.raises(DecoderUnavailable, match="wants a key"):
        _ = VllmServer(vllm.url).model
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv(API_KEY, "secret")
    assert VllmServer(vllm.url).model == vllm.name


def test_a_proxy_of_the_environment_gets_no_prompts(vllm, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert VllmServer(vllm.url).model == vllm.name


def test_a_vllm_that_does_not_answer_is_an_error_that_says_so():
    with pytest.raises(DecoderUnavailable, match=r"http://127.0.0.1:9: vLLM cannot be reached .*Is it running"):
        VllmServer("http://127.0.0.1:9").check_version()


@pytest.mark.parametrize("found", [{"data": []}, {"data": [{"id": "x"}]}, [], {"detail": "Not Found"}])
def test_another_server_is_not_taken_for_a_vllm(vllm, monkeypatch, found):
    monkeypatch.setattr(StandIn, "card", lambda _: found)
    with pytest.raises(DecoderUnavailable, match="is this a vLLM, or another server"):
        _ = VllmServer(vllm.url).model


def test_adapters_that_a_vllm_serves_beside_its_model_are_not_its_model(vllm, monkeypatch):
    card = StandIn.card

    def with_adapter(stand_in: StandIn) -> dict:
        found = card(stand_in)
        found["data"].insert(0, {"id": "adapter", "parent": stand_in.name, "max_model_len": 5})
        return found

    monkeypatch.setattr(StandIn, "card", with_adapter)
    assert VllmServer(vllm.url).model == vllm.name


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8001", "ftp://host", "http://", "http://host?x=1", "http:host", "", "http://[bad", "http://host:x"],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(VideoLlamaError, match="expected the address of a vLLM, such as http"):
        VllmServer(url)


def test_an_address_may_hold_no_password():
    with pytest.raises(VideoLlamaError, match=f"holds a password: put its key in {API_KEY}") as caught:
        VllmServer("http://user:secret@host:8001")
    assert "secret" not in str(caught.value)
