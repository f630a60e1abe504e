"""Templates: the bytes around what people and the model say."""

from __future__ import annotations

import pytest

from video_llama.prompts.templates import LLAMA_2, MODEL_TYPES, VICUNA, Layout, Span, Template

TEMPLATES = pytest.mark.parametrize("template", [VICUNA, LLAMA_2], ids=lambda t: t.name)


def text(spans: list[Span]) -> str:
    return "".join(span.text for span in spans)


@TEMPLATES
@pytest.mark.parametrize("kind", ["training", "chat"])
def test_only_answers_are_the_models_words(template: Template, kind: str) -> None:
    layout: Layout = getattr(template, kind)
    spans = template.render(layout, [("Q1", "A1"), ("Q2", "A2")])
    assert [span.trained for span in spans] == [False, True, False, True]
    assert ["A1" in spans[1].text, "A2" in spans[3].text] == [True, True]


@TEMPLATES
def test_every_answer_ends_with_the_symbol_that_stops_generation(template: Template) -> None:
    for layout in (template.training, template.chat):
        (_, answer) = template.render(layout, [("Q", "A")])
        assert answer.text.endswith(template.end_sym)


@TEMPLATES
def test_a_prompt_that_waits_for_the_model_is_the_start_of_the_answered_one(template: Template) -> None:
    waiting = text(template.render(template.chat, [("Q1", "A1"), ("Q2", None)]))
    answered = text(template.render(template.chat, [("Q1", "A1"), ("Q2", "A2")]))
    assert answered.startswith(waiting)
    assert answered.removeprefix(waiting).startswith(" A2")


@TEMPLATES
def test_words_that_look_like_the_templates_own_are_left_alone(template: Template) -> None:
    question, answer = "{system} {text} {}", "{text} {system}"
    rendered = text(template.render(template.chat, [(question, answer)]))
    assert rendered.count(question) == rendered.count(answer) == 1


def test_training_texts_are_the_originals() -> None:
    turns = [("Q1", "A1"), ("Q2", "A2")]
    assert text(VICUNA.render(VICUNA.training, turns)) == (
        "\n\n###Human: Q1\n###Assistant: A1\n###Human: Q2\n###Assistant: A2\n###"
    )
    assert text(LLAMA_2.render(LLAMA_2.training, turns)) == (
        "[INST] <<SYS>>\n \n<</SYS>>\n\nQ1 [/INST] A1 </s><s>[INST] Q2 [/INST] A2 </s>"
    )


def test_the_published_model_types_name_the_templates() -> None:
    assert {name: template.name for name, template in MODEL_TYPES.items()} == {
        "pretrain_vicuna": "vicuna",
        "vicuna": "vicuna",
        "pretrain_llama_v2": "llama_2",
        "llama_v2": "llama_2",
    }


def test_caption_templates_are_the_published_ones() -> None:
    assert (VICUNA.caption, VICUNA.end_sym) == ("###Human: {} ###Assistant: ", "###")
    assert (LLAMA_2.caption, LLAMA_2.end_sym) == ("[INST] <<SYS>>\n \n<</SYS>>\n\n{} [/INST] ", "</s>")
