"""A question of an evaluation as HTML: its file, what is right, and what was answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from video_llama.cli.interval_plots import Scale
from video_llama.evaluation.option_letters import letters_of

MOST_CHARACTERS = 1500
"""Of a text. Prompts may hold the subtitles of an hour."""
MOST_REFERENCES = 10

FILTER = """<div class="legend filter">
<label><input type="checkbox" class="show-right" checked>Right answers</label>
<label><input type="checkbox" class="show-wrong" checked>Wrong answers</label>
</div>"""
"""Hides cards of a ``gallery``, without a script."""


class Given(NamedTuple):
    """An answer to a question."""

    label: str
    """Who gave it, or under which condition."""
    text: str | None
    """None: there is none."""
    error: str
    """Why there is none."""
    score: float | None
    note: str = ""
    """What else is to be said of it."""


def given(label: str, record: Mapping[str, Any], metric: str | None, note: str = "") -> Given:
    """Return an answer as it is recorded.

    Args:
        label: see ``Given``.
        record: an item of a benchmark, or what it has under a condition.
        metric: its score that is shown.
        note: see ``Given``.
    """
    score = (record.get("scores") or {}).get(metric)
    return Given(label, record.get("answer"), str(record.get("error", "no answer")), score, note)


def question_card(
    item: Mapping[str, Any], answers: Sequence[Given], scale: Scale, pictures: str, more: str = ""
) -> str:
    """Return a card that shows a question.

    Args:
        item: of a benchmark in ``results.json``.
        answers: of which the first decides whether the question counts as right.
        scale: of their scores.
        pictures: of its file, as HTML.
        more: HTML below the answers.
    """
    types = " · ".join(f"{kind}: {value}" for kind, value in (item.get("types") or {}).items())
    clip = str(item.get("clip") or item.get("file") or "")
    told = " · ".join(text for text in (clip, types) if text and text != str(item["id"]))
    return f"""<article class="card sample {verdict(answers[0].score)}">
<header><span class="set mono">{escape(cut(str(item["id"]), 200))}</span><span class="id">{escape(cut(told, 300))}</span></header>
{pictures}
<dl class="asked"><dt>Question</dt><dd dir="auto">{escape(cut(str(item.get("prompt", ""))))}</dd>
{_references(item)}</dl>
{_answers(answers, scale)}{more}
</article>"""


def verdict(score: float | None) -> str:
    """Return what a score says of an answer: right, wrong, between, or unscored."""
    return "unscored" if score is None else {0.0: "wrong", 1.0: "right"}.get(float(score), "between")


def cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text; of a longer one, its beginning and its end, where questions and options stand after subtitles."""
    if len(text) <= most:
        return text
    head = most // 3
    return f"{text[:head]} … ({len(text) - most:,} characters) … {text[head - most :]}"


def _references(item: Mapping[str, Any]) -> str:
    references, options = item.get("references") or [], item.get("options") or []
    texts = dict(zip(letters_of(options), options, strict=False))
    shown = [f"{reference}. {texts[reference]}" if reference in texts else reference for reference in references]
    if not shown:
        return ""
    listed = "".join(f"<li>{escape(cut(text, 400))}</li>" for text in shown[:MOST_REFERENCES])
    if len(shown) > MOST_REFERENCES:
        listed += f"<li>and {len(shown) - MOST_REFERENCES} more</li>"
    return f'<dt>Reference{"s" if len(shown) > 1 else ""}</dt><dd dir="auto"><ul>{listed}</ul></dd>'


def _answers(answers: Sequence[Given], scale: Scale) -> str:
    return f'<div class="scroll"><table class="answers"><tbody>{"".join(_answer(one, scale) for one in answers)}</tbody></table></div>'


def _answer(one: Given, scale: Scale) -> str:
    text = (
        f'<span dir="auto">{escape(cut(one.text)) or "<i>empty</i>"}</span>'
        if one.text is not None
        else f'<span class="bad">{escape(cut(one.error, 400))}</span>'
    )
    note = f" <small>{escape(one.note)}</small>" if one.note else ""
    found = verdict(one.score)
    said = found if found in ("right", "wrong") else "" if one.score is None else scale.text(one.score)
    return f'<tr><th scope="row">{escape(one.label)}</th><td class="wide">{text}{note}</td><td class="n {found}">{said}</td></tr>'
