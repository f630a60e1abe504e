"""Judges: endpoints that fail now and then, models in a folder, and replies that are read or refused."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.file_server import serving
from tests.judge_server import JudgeServer, write_random_judge
from tests.unit.conversation.tokenizers import write_byte_fallback_tokenizer
from video_llama.common.errors import ConfigError, DataError
from video_llama.evaluation import judges
from video_llama.evaluation.judge_prompts import AXES
from video_llama.evaluation.judges import ATTEMPTS, KEY_VARIABLE, MOST_FAILURES, NoReply, Reply, judge_of

ASKED = [[{"role": "user", "content": f"number {n}"}] for n in range(12)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    """An endpoint that repeats what it is asked, and retries without pauses."""
    monkeypatch.setattr(judges, "PAUSE_S", 0.0)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with serving(JudgeServer(lambda text: f"re {text}")) as running:
        yield running


def test_an_endpoint_is_asked_once_for_each_conversation_with_its_key(server, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    found = dict(judge_of(server.spec).replies(ASKED))
    assert found == {n: Reply(f"re number {n}", "a-judge-2026") for n in range(12)}
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    assert {(request["model"], request["temperature"]) for request in server.requests} == {("a-judge", 0)}
    assert set(server.keys) == {"Bearer secret"}


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_what_passes_is_tried_again(server, status):
    server.statuses = [status] * (ATTEMPTS - 1)
    server.headers = {"Retry-After": "0"}
    assert dict(judge_of(server.spec).replies(ASKED[:1])) == {0: Reply("re number 0", "a-judge-2026")}
    assert len(server.requests) == ATTEMPTS


def test_the_pause_grows_and_heeds_the_server(server, monkeypatch):
    pauses: list[float] = []
    judge = judge_of(server.spec)
    monkeypatch.setattr(judges, "PAUSE_S", 1.0)
    monkeypatch.setattr(judge._given_up, "wait", lambda s: pauses.append(s))  # type: ignore[attr-defined]
    server.statuses = [500, 429, 500]
    server.headers = {"Retry-After": "7"}
    dict(judge.replies(ASKED[:1]))
    assert pauses == [0, 7, 7, 7]
    server.statuses, server.headers, pauses[:] = [500, 500, 500, 500], {"Retry-After": "tomorrow"}, []
    dict(judge.replies(ASKED[:1]))
    assert pauses == [0, 1, 2, 4, 8]


def test_a_refusal_is_not_tried_again_and_has_the_server_s_words(server):
    server.statuses = [401]
    ((_, found),) = judge_of(server.spec).replies(ASKED[:1])
    assert isinstance(found, NoReply)
    assert "/v1/chat/completions: status 401" in str(found)
    assert "not now" in str(found)


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b"[]"]
)
def test_what_is_no_chat_completion_is_no_reply(server, body):
    server.body = body
    ((_, found),) = judge_of(server.spec).replies(ASKED[:1])
    assert isinstance(found, NoReply)
    assert "no chat completion" in str(found)


def test_a_judge_that_is_down_is_given_up(monkeypatch):
    monkeypatch.setattr(judges, "PAUSE_S", 0.0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        spec = f"openai:http://127.0.0.1:{unused.getsockname()[1]}#m"
    found = dict(judge_of(spec).replies(ASKED * 10))
    assert len(found) == 120
    assert all(isinstance(one, NoReply) for one in found.values())
    assert "ConnectError" in str(found[0])
    assert f"not asked, after {MOST_FAILURES} requests in a row" in str(found[119])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gpt", "expected local:FOLDER, or openai:URL#MODEL"),
        ("openai:http://localhost", "expected local:FOLDER"),
        ("openai:localhost#m", "expected local:FOLDER"),
        ("local:nowhere", "nowhere: no config.json here"),
    ],
)
def test_what_is_no_judge_is_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        judge_of(spec)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_judge(tmp_path_factory.mktemp("judge"))


def test_a_local_judge_replies_greedily_whatever_the_batch(folder, monkeypatch):
    monkeypatch.setattr(judges, "MAX_NEW_TOKENS", 12)
    asked = [[{"role": "user", "content": "why? " * n}] for n in (5, 1, 3)]
    judge = judge_of(f"local:{folder}", "cpu")
    found = {n: reply.text for n, reply in judge.replies(asked) if isinstance(reply, Reply)}
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    for n, one in enumerate(asked):
        ids = tokenizer.apply_chat_template(one, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert found[n] == tokenizer.decode(out, skip_special_tokens=True)
    assert len(set(found.values())) > 1
    assert {one["file"] for one in judge.identity()["weights"]} >= {"config.json", "model.safetensors"}


def test_a_local_judge_without_a_chat_template_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    write_byte_fallback_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="its tokenizer has no chat template"):
        judge_of(f"local:{tmp_path}", "cpu")


@pytest.mark.parametrize(
    ("reply", "values"),
    [
        ('{"pred": "yes", "score": 4}', (4, 1)),
        ("{'pred': 'No', 'score': 0}", (0, 0)),
        ("{'pred': 'yes', 'score': 4.8}", (4, 1)),
        ('{"pred": "yes", "score": "5"}', (5, 1)),
        ("```python\n{'pred': 'no', 'score': 1}\n```", (1, 0)),
        ("The reference says {ring}. So: {'pred': 'yes', 'score': 5}", (5, 1)),
    ],
)
def test_a_reply_is_read_wherever_it_stands(reply, values):
    assert AXES["answer"].values(reply) == {"judge_score": values[0], "judge_accuracy": values[1]}


@pytest.mark.parametrize(
    "reply",
    [
        "", "yes, 4", "{}", "{'pred': 'yes'}", "{'score': 4}", "{'pred': 'maybe', 'score': 4}", "{'pred': 'yes', 'score': 6}",
        "{'pred': 'yes', 'score': -1}", "{'pred': 'yes', 'score': True}", "{'pred': 'yes', 'score': 'high'}", "{'pred': 'yes', 'score': nan}",
        '{"pred": "yes", "score": NaN}', "{''score': 4.8}", "[1]", "{'pred': 'yes', 'score': 4", "{" * 5000,
    ],
)  # fmt: skip
def test_nonsense_is_no_judgement(reply):
    with pytest.raises(DataError, match="in the reply"):
        AXES["answer"].values(reply)


@pytest.mark.parametrize("axis", AXES)
def test_a_prompt_holds_all_texts_and_says_what_to_reply(axis):
    texts = {place: f"<{place} {{answer}}>" for place in ("question", "question_2", "reference", "answer", "answer_2")}
    system, user = AXES[axis].messages(texts)
    assert (system["role"], user["role"]) == ("system", "user")
    needed = [p for p in texts if AXES[axis].n_questions == 2 or not p.endswith("_2")]
    assert all(user["content"].count(texts[place]) == 1 for place in needed)
    assert '"score"' in user["content"]
    assert ('"pred"' in user["content"]) == (axis == "answer")
