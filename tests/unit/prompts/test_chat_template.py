"""Chat templates as data equal the text of the tokenizer's program, or are refused with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.conftest import FIXTURES
from tests.unit.prompts.fast_tokenizer import write_fast_tokenizer
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.common.types import IGNORE_LABEL
from video_llama.prompts.chat_template import chat_template
from video_llama.prompts.labels import Encoded, encode
from video_llama.prompts.rendering import conversation
from video_llama.prompts.templates import Template
from video_llama.prompts.tokenizer import load_tokenizer

Turns = Sequence[tuple[str, str | None]]

EACH = "{% for m in messages %}"
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    + EACH
    + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (
    EACH + "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ALWAYS_THINKING = THINKING.replace("{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}", "<think>\n")
HEADERS = (
    "{{ bos_token }}" + EACH + "<|start|>{{ m.role }}<|header|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|header|>\n\n{% endif %}"
)
BRACKETS = (
    EACH
    + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must take turns') }}{% endif %}"
    "{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content.strip() }} [/INST]"
    "{% else %} {{ m.content.strip() }} {{ eos_token }}{% endif %}{% endfor %}"
)
MARKED_AT_THE_END = (
    EACH + "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
PLAIN = EACH + "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"

IM = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
BOS = {"bos_token": "<|bos|>", "eos_token": "<|eos|>"}
S = {"bos_token": "<s>", "eos_token": "</s>"}
PROGRAMS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "chatml": (CHATML, ("<|im_start|>",), IM),
    "thinking": (THINKING, ("<|im_start|>",), IM),
    "always thinking": (ALWAYS_THINKING, ("<|im_start|>",), IM),
    "headers": (HEADERS, ("<|start|>", "<|header|>", "<|eot|>"), BOS | {"starts": True}),
    "brackets": (BRACKETS, (), S | {"starts": True}),
    "end": (MARKED_AT_THE_END, ("<|end|>", "<|user|>", "<|assistant|>"), {"eos_token": "<|eos|>"}),
    "plain": (PLAIN, (), {"eos_token": "<|eos|>"}),
}
WRITES_WHAT_WE_DO = ["chatml", "headers", "brackets", "end"]
ODD = "猫 {text} <b>&amp;</b> 'é' {{ x }}\n\n- {system}"
ASKED = [("Q", "A\n\nB"), (ODD, "C"), ("R", None)]


def folder_of(name: str, folder: Path) -> Path:
    chat, others, special = PROGRAMS[name]
    return write_fast_tokenizer(folder, *others, chat=chat, **special)


def template_of(folder: Path) -> Template:
    return chat_template(folder, load_tokenizer(folder))


def encoded(folder: Path, turns: Turns) -> Encoded:
    template = template_of(folder)
    return encode(conversation(template, template.training, turns, []), load_tokenizer(folder), {})


def text(folder: Path, turns: Turns) -> str:
    template = template_of(folder)
    return "".join(span.text for span in template.render(template.chat, turns))


def library_ids(folder: Path, turns: Turns) -> list[int]:
    said = [(who, what) for q, a in turns for who, what in (("user", q), ("assistant", a)) if what is not None]
    return AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": who, "content": what} for who, what in said],
        add_generation_prompt=turns[-1][1] is None,
        return_dict=False,
    )


@pytest.mark.parametrize("name", WRITES_WHAT_WE_DO)
@pytest.mark.parametrize("turns", [[(ODD, None)], [(ODD, ODD)], ASKED, [*ASKED[:2], ("R", "S")]], ids=str)
def test_a_dialogue_has_the_ids_that_the_tokenizers_own_program_gives(name: str, turns: Turns, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    ours, own = encoded(folder, turns).input_ids, library_ids(folder, turns)
    assert ours == (own if turns[-1][1] is None else own[: len(ours)])


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_answers_and_their_ends_carry_loss_and_nothing_else(name: str, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    template, found = template_of(folder), encoded(folder, [(ODD, " A. "), ("Q", "B.")])
    trained = [label for label in found.labels if label != IGNORE_LABEL]
    answer, end = template.training.answer, template.end_sym
    assert load_tokenizer(folder).decode(trained) == "".join(answer.replace("{text}", a) for a in ("A.", "B."))
    assert answer.endswith("{text}" + end) or name == "brackets"
    assert [t.id for t in load_tokenizer(folder).encode(end)] == trained[-1:], "one token ends an answer"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_prompt_is_the_start_of_the_dialogue_that_follows_from_it(name: str, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    whole = encoded(folder, [("Q", "A."), ("R", "B."), ("S", "C.")]).input_ids
    for turns in ([("Q", None)], [("Q", "A."), ("R", None)], [("Q", "A."), ("R", "B."), ("S", None)]):
        prompt = encoded(folder, turns).input_ids
        assert whole[: len(prompt)] == prompt


@pytest.mark.parametrize("name", PROGRAMS)
def test_questions_and_answers_are_stripped(name: str, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    assert text(folder, [(" Q\n", "\n A "), ("  R", None)]) == text(folder, [("Q", "A"), ("R", None)])


@pytest.mark.parametrize("name", ["headers", "brackets"])
def test_there_is_one_start_token_whoever_writes_it(name: str, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    start = load_tokenizer(folder).bos_id
    assert [i == start for i in encoded(folder, [("Q", None)]).input_ids[:2]] == [True, False]


def test_a_start_token_that_only_the_program_writes_is_kept(tmp_path: Path) -> None:
    folder = write_fast_tokenizer(tmp_path, "<|start|>", "<|header|>", "<|eot|>", chat=HEADERS, **BOS)
    ids = encoded(folder, [("Q", None)]).input_ids
    assert ids == library_ids(folder, [("Q", None)])
    assert load_tokenizer(folder).encode("<|bos|>")[0].id == ids[0]


def test_an_empty_thought_stays_when_the_dialogue_continues(tmp_path: Path) -> None:
    assert text(folder_of("thinking", tmp_path), [("Q", "A"), ("R", None)]) == (
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nA<|im_end|>\n"
        "<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_all_text_of_the_program_before_an_answer_is_context_even_if_its_own_prompt_is_shorter(tmp_path: Path) -> None:
    layout = template_of(folder_of("always thinking", tmp_path)).training
    assert layout.first.endswith("assistant\n<think>\n\n</think>\n\n")
    assert layout.answer == "{text}<|im_end|>"


def test_a_program_that_knows_no_prompt_for_an_answer_gets_one(tmp_path: Path) -> None:
    chat = CHATML[: CHATML.rindex("{% if add_generation_prompt")]
    folder = write_fast_tokenizer(tmp_path, "<|im_start|>", chat=chat, **IM)
    assert text(folder, [("Q", None)]).endswith("<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n")


def test_a_program_that_takes_a_date_always_gets_the_same_one(tmp_path: Path) -> None:
    dated = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    folder = write_fast_tokenizer(tmp_path, "<|im_start|>", chat=dated + "Date: {{ date_string }}\n" + CHATML, **IM)
    assert text(folder, [("Q", None)]).startswith("Date: 26 Jul 2024\n")


def test_without_a_special_token_after_it_an_answer_ends_with_the_end_token(tmp_path: Path) -> None:
    folder = folder_of("plain", tmp_path)
    assert text(folder, [("Q", "A"), ("R", None)]) == "user: Q\nassistant: A<|eos|>\nuser: R\nassistant: "


def test_a_caption_prompt_has_the_position_of_a_question(tmp_path: Path) -> None:
    template = template_of(folder_of("chatml", tmp_path))
    (opened,) = template.render(template.chat, [("Describe.", None)])
    assert (template.caption.replace("{}", "Describe."), template.end_sym) == (opened.text, "<|im_end|>")


# --- System messages of the user's


@pytest.mark.parametrize("name", ["chatml", "headers", "end"])
@pytest.mark.parametrize("system", ["Be brief.", ODD])
def test_a_system_message_is_where_the_program_writes_it(name: str, system: str, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    template = template_of(folder)
    own = template.with_system(system)
    assert own is not None
    assert own.training == template.training
    turns: Turns = [("Q", "A"), ("R", None)]
    ids = encode(conversation(own, own.chat, turns, []), load_tokenizer(folder), {}).input_ids
    said = [("system", system), ("user", "Q"), ("assistant", "A"), ("user", "R")]
    library = AutoTokenizer.from_pretrained(folder)
    theirs = library.apply_chat_template(
        [{"role": who, "content": what} for who, what in said], add_generation_prompt=True, return_dict=False
    )
    assert ids == theirs


REFUSES = BRACKETS  # roles must take turns
DROPS = HEADERS.replace(EACH, EACH + "{% if m.role != 'system' %}").replace("{% endfor %}", "{% endif %}{% endfor %}")
CHANGES = CHATML.replace("{{ m.content }}", "{{ m.content | upper if m.role == 'system' else m.content }}")


@pytest.mark.parametrize("chat", [REFUSES, DROPS, CHANGES], ids=["refuses", "drops", "changes"])
def test_a_program_without_a_place_for_a_system_message_takes_none(chat: str, tmp_path: Path) -> None:
    others, special = ("<|im_start|>", "<|start|>", "<|header|>", "<|eot|>"), BOS | IM
    template = template_of(write_fast_tokenizer(tmp_path, *others, chat=chat, **special))
    assert template.with_system("Be brief.") is None
    assert template.with_system("") == template


# --- LLaMA-1 and 2


def llama(folder: Path, chat: str | None, **settings: Any) -> Path:
    shutil.copy(FIXTURES / "reference/text/tokenizer/tokenizer.model", folder)
    content = {"tokenizer_class": "LlamaTokenizer", **settings} | ({"chat_template": chat} if chat else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_a_llama_tokenizer_may_have_a_program_too(tmp_path: Path) -> None:
    folder = llama(tmp_path, BRACKETS)
    template = template_of(folder)
    assert (template.training.first, template.training.next) == ("[INST] {text} [/INST]", "<s>[INST] {text} [/INST]")
    assert (template.training.answer, template.end_sym) == (" {text} </s>", "</s>")


def test_a_program_may_be_in_its_own_file(tmp_path: Path) -> None:
    folder = llama(tmp_path, None)
    (folder / "chat_template.jinja").write_text(BRACKETS, encoding="utf-8")
    assert template_of(folder).training.answer == " {text} </s>"


def test_a_program_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    folder = llama(tmp_path, None)
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe{{")
    with pytest.raises(WeightsError, match=r"chat_template\.jinja: not UTF-8"):
        template_of(folder)


def test_special_tokens_without_an_id_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"writes '<\|im_end\|>', which is not one token"):
        template_of(llama(tmp_path, CHATML, additional_special_tokens=["<|im_end|>"]))


# --- Programs that cannot be used


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('needs tools') }}", "it fails (needs tools)"),
        ("{% for %}", "it fails ("),
        ("{{ messages[0].content.parts.x }}", "it fails ("),
        (EACH + "{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", "every question and answer once"),
        (EACH + "{{ m.content }}{{ m.content }}{% endfor %}", "every question and answer once"),
        ("{% for m in messages | reverse %}{{ m.content }}|{% endfor %}", "every question and answer once"),
        (EACH + "{{ m.content | tojson(ensure_ascii=true) }}|{% endfor %}", "every question and answer once"),
        (EACH + "{{ m.content | upper }}|{% endfor %}", "it changes what people write"),
        (EACH + "{{ m.content | replace('\n', ' ') }}|{% endfor %}", "it changes what people write"),
        (EACH + "{{ loop.index }}: {{ m.content }}<|eos|>{% endfor %}", "in different ways"),
        (EACH + "{% if loop.last %}last {% endif %}{{ m.content }}<|eos|>{% endfor %}", "with the prompt that asks"),
        (CHATML.replace("assistant\n{% endif %}", "assistant<think>{% endif %}"), "with the prompt that asks"),
        (
            EACH + "{{ m.role }}{{ m.content }}{% if m.role < 'b' and loop.last %}<|eos|>{% endif %}{% endfor %}",
            "do not always end in the same way",
        ),
        (EACH + "{{ m.content }} {} <|eos|>{% endfor %}", "writes {} itself"),
        (EACH + "{text}{{ m.content }}<|eos|>{% endfor %}", "it changes what people write"),
        ("{{ strftime_now('%d') }}" + CHATML, "it writes today's date"),
    ],
)
def test_a_program_that_cannot_be_used_is_refused_with_the_reason_and_what_to_do(
    chat: str | None, reason: str, tmp_path: Path
) -> None:
    folder = write_fast_tokenizer(tmp_path, chat=chat, eos_token="<|eos|>")
    with pytest.raises(ConfigError) as caught:
        template_of(folder)
    (problem,) = caught.value.problems
    assert problem.startswith("model.model_type: auto")
    assert str(folder) in problem
    assert reason in problem
    assert problem.endswith("Choose vicuna|llama_v2|ziya|billa.")


def test_an_end_token_that_decodes_to_nothing_is_refused(tmp_path: Path) -> None:
    folder = write_fast_tokenizer(tmp_path, "<|im_start|>", chat=CHATML, eos_token="<|eos|>", pad_token="<|im_end|>")
    with pytest.raises(ConfigError, match=r"end with '<\|im_end\|>', which is the start or padding token"):
        template_of(folder)
