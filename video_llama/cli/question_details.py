"""Likelihoods of the options of a question, and verdicts of a judge, as HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from video_llama.cli.interval_plots import Scale, bar

Item = Mapping[str, Any]
"""A question of a benchmark in ``results.json``."""

SHARES = Scale(0.0, 1.0, True)


def likelihoods_html(item: Item) -> str:
    """Return the options of a question with their log-likelihoods; nothing if they were not computed."""
    options, found = item.get("options") or [], item.get("log_likelihoods") or []
    if not found or len(found) != len(options):
        return ""
    tokens = item.get("n_tokens") or [None] * len(options)
    rows = "".join(
        f'<tr><td class="wide" dir="auto">{escape(option)}</td><td class="plot">{bar(share, None, SHARES)}</td>'
        f'<td class="n">{SHARES.text(share)}</td><td class="n">{_number(value)}</td><td class="n">{"–" if n is None else n}</td></tr>'
        for option, share, value, n in zip(options, _shares(found), found, tokens, strict=False)
    )
    head = (
        "<th>Option</th><th class=plot>Likelihood</th><th class=n>Share</th><th class=n>log</th><th class=n>Tokens</th>"
    )
    return (
        f'<div class="scroll"><table class="options"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _number(log_likelihood: float) -> str:
    return f"{log_likelihood:.3f}".replace("-", "−")


def _shares(log_likelihoods: Sequence[float]) -> list[float]:
    """Return what each option has of the likelihood of all."""
    most = max(log_likelihoods)
    weights = [math.exp(value - most) for value in log_likelihoods]
    return [weight / sum(weights) for weight in weights]


def judged_html(item: Item) -> str:
    """Return what a judge said of an answer; nothing if there was none."""
    said = []
    for axis, found in (item.get("judge") or {}).items():
        if "error" in found:
            said.append(f'{escape(axis)}: <span class="bad">{escape(str(found["error"])[:300])}</span>')
        else:
            yes = {True: ", yes", False: ", no"}.get(found.get("yes"), "")
            said.append(f"{escape(axis)}: <b>{escape(str(found.get('score')))}</b> of 5{yes}")
    return f'<p class="judged">Judge: {" · ".join(said)}</p>' if said else ""
