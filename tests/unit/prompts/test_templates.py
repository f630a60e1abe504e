"""Templates: the bytes around questions and answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from video_llama.common.modalities import MediaKind
from video_llama.prompts.templates import (
    BILLA,
    LLAMA_2,
    MODEL_TYPES,
    VICUNA,
    ZIYA,
    Layout,
    Span,
    Template,
    foreign_text,
)

TEMPLATES = pytest.mark.parametrize("template", [VICUNA, LLAMA_2, ZIYA, BILLA], ids=lambda t: t.name)


def text(spans: list[Span]) -> str:
    return "".join(span.text for span in spans)


@TEMPLATES
@pytest.mark.parametrize("kind", ["training", "chat"])
def test_only_answers_are_trained(template: Template, kind: str) -> None:
    layout: Layout = getattr(template, kind)
    spans = template.render(layout, [("Q1", "A1"), ("Q2", "A2")])
    trained = [span.text for span in spans if span.trained]
    assert len(trained) == 2
    assert ["A1" in trained[0], "A2" in trained[1]] == [True, True]
    assert not any("A1" in span.text or "A2" in span.text for span in spans if not span.trained)


@TEMPLATES
def test_every_answer_ends_with_the_symbol_that_stops_generation(template: Template) -> None:
    for layout in (template.training, template.chat):
        *_, answer = template.render(layout, [("Q", "A")])
        assert answer.text.endswith(template.end_sym)


@TEMPLATES
def test_a_prompt_that_waits_for_the_model_is_the_start_of_the_answered_one(template: Template) -> None:
    waiting = text(template.render(template.chat, [("Q1", "A1"), ("Q2", None)]))
    answered = text(template.render(template.chat, [("Q1", "A1"), ("Q2", "A2")]))
    assert answered.startswith(waiting)
    assert answered.removeprefix(waiting).lstrip().startswith("A2")


@TEMPLATES
def test_words_that_look_like_the_templates_own_are_unchanged(template: Template) -> None:
    question, answer = "{system} {text} {}", "{text} {system}"
    rendered = text(template.render(template.chat, [(question, answer)]))
    assert rendered.count(question) == rendered.count(answer) == 1


@pytest.mark.parametrize("template", [VICUNA, LLAMA_2], ids=lambda t: t.name)
@pytest.mark.parametrize("system", ["Be brief.", "{text} {system} {}", "</s> é猫\n", ""])
def test_a_system_message_is_written_once_as_it_is(template: Template, system: str) -> None:
    own = template.with_system(system)
    assert own is not None
    without = template.with_system("")
    assert without is not None
    rendered = text(own.render(own.chat, [("Q1", "A1"), ("Q2", None)]))
    at = rendered.index(system)
    assert rendered[:at] + rendered[at + len(system) :] == text(
        without.render(without.chat, [("Q1", "A1"), ("Q2", None)])
    )
    assert {own.system_message(kinds, branch) for kinds in ([], ["image"]) for branch in (True, False)} == {system}
    assert text(own.render(own.training, [("Q", "A")])) == text(template.render(template.training, [("Q", "A")]))
    (literal,) = [
        s.text[slice(*s.literal)] for s in own.render(own.chat, [("", None)]) if s.literal[1] > s.literal[0]
    ] or [""]
    assert literal == system


@pytest.mark.parametrize("template", [ZIYA, BILLA], ids=lambda t: t.name)
def test_a_format_without_a_system_message_takes_none(template: Template) -> None:
    assert template.with_system("Be brief.") is None
    assert template.with_system("") == template


NO_FILE = "You are a helpful language and vision assistant."


@pytest.mark.parametrize(
    ("kinds", "with_branch", "without_branch"),
    [
        (["audio", "video"], "", ""),
        (["audio"], "", ""),
        (["video"], "", "You are able"),
        (["image"], "You are able", "You are able"),
        (["image", "video"], "", "You are able"),
        (["image", "audio"], "", ""),
        ([], NO_FILE, NO_FILE),
    ],
)
def test_the_system_message_follows_from_the_media_and_the_audio_branch(
    kinds: list[MediaKind], with_branch: str, without_branch: str
) -> None:
    for branch, expected in ((True, with_branch), (False, without_branch)):
        for shown in (kinds, kinds[::-1]):
            found = LLAMA_2.system_message(shown, branch)
            assert found.startswith(expected)
            assert bool(found) == bool(expected)
            if kinds:
                assert VICUNA.system_message(shown, branch) == found
    assert VICUNA.system_message([], True) == ""


def test_training_texts_are_the_originals() -> None:
    turns = [("Q1", "A1"), ("Q2", "A2")]
    assert text(VICUNA.render(VICUNA.training, turns)) == (
        "\n\n###Human: Q1\n###Assistant: A1\n###Human: Q2\n###Assistant: A2\n###"
    )
    assert text(LLAMA_2.render(LLAMA_2.training, turns)) == (
        "[INST] <<SYS>>\n \n<</SYS>>\n\nQ1 [/INST] A1 </s><s>[INST] Q2 [/INST] A2 </s>"
    )


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (ZIYA, "<human>:Q1\n<bot>:A1</s><human>:Q2\n<bot>:A2</s>"),
        (BILLA, "Human: Q1\nAssistant: A1</s>Human: Q2\nAssistant: A2</s>"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_chinese_decoders_have_the_prompts_of_their_model_cards(template: Template, written: str) -> None:
    turns = [("Q1", "A1"), ("Q2", "A2")]
    assert text(template.render(template.training, turns)) == text(template.render(template.chat, turns)) == written
    assert written.startswith(text(template.render(template.chat, [("Q1", None)])))


@pytest.mark.parametrize(
    ("template", "layout", "written"),
    [
        (VICUNA, VICUNA.training, "\n\n###Human: Q\n###Assistant: \n###Human: R\n###Assistant:"),
        (VICUNA, VICUNA.chat, "###Human: Q###Assistant:Human: R###Assistant:"),
        (LLAMA_2, LLAMA_2.training, "[INST] <<SYS>>\n \n<</SYS>>\n\nQ [/INST]<s>[INST] R [/INST]"),
        (ZIYA, ZIYA.chat, "<human>:Q\n<bot>:</s><human>:R\n<bot>:"),
    ],
    ids=["vicuna-training", "vicuna-chat", "llama_2-training", "ziya"],
)
def test_an_empty_answer_is_written_as_the_original_wrote_it(template: Template, layout: Layout, written: str) -> None:
    assert text(template.render(layout, [("Q", ""), ("R", None)])) == written


def test_a_template_may_strip_questions_and_answers() -> None:
    turns = [(" Q\n", "\tA "), ("  ", None)]
    assert text(replace(ZIYA, trims=True).render(ZIYA.chat, turns)) == "<human>:Q\n<bot>:A</s><human>:\n<bot>:"
    assert text(ZIYA.render(ZIYA.chat, turns)) == "<human>: Q\n\n<bot>:\tA </s><human>:  \n<bot>:"


def test_the_model_types_name_the_templates() -> None:
    assert {name: template.name for name, template in MODEL_TYPES.items()} == {
        "pretrain_vicuna": "vicuna",
        "vicuna": "vicuna",
        "pretrain_llama_v2": "llama_2",
        "llama_v2": "llama_2",
        "ziya": "ziya",
        "billa": "billa",
    }


@pytest.mark.parametrize("owner", [VICUNA, LLAMA_2, ZIYA, BILLA], ids=lambda t: t.name)
@TEMPLATES
def test_the_caption_text_of_one_template_is_reported_under_every_other(template: Template, owner: Template) -> None:
    problem = foreign_text(owner.caption, template)
    if owner == template:
        assert problem is None
    else:
        assert problem is not None
        (model_type,) = (name for name in ("vicuna", "llama_v2", "ziya", "billa") if f"model_type {name}." in problem)
        assert MODEL_TYPES[model_type] == owner


@TEMPLATES
def test_a_custom_caption_text_is_accepted_under_every_template(template: Template) -> None:
    assert foreign_text("Describe: {} Answer: ", template) is None


def test_caption_templates_are_the_published_ones() -> None:
    assert (VICUNA.caption, VICUNA.end_sym) == ("###Human: {} ###Assistant: ", "###")
    assert (LLAMA_2.caption, LLAMA_2.end_sym) == ("[INST] <<SYS>>\n \n<</SYS>>\n\n{} [/INST] ", "</s>")
