"""A training sample as HTML: its media, its tokens, and which of them carry loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from video_llama.cli.media_strip import NAMES, media_strip
from video_llama.common.types import IGNORE_LABEL, Sample
from video_llama.processors.media_pictures import Encoding
from video_llama.prompts.token_texts import token_texts
from video_llama.prompts.tokenizer import Tokenizer

PICTURES = Encoding("WEBP")

LEGEND = """<div class="legend">
<span><span class="t loss">with loss</span></span>
<span><span class="t">context</span></span>
<span><span class="slot">Clip 1 · 32</span>&ensp;media, and the tokens they take</span>
<label><input type="checkbox" id="boundaries" checked>Token boundaries</label>
</div>"""


def sample_html(number: int, sample: Sample, tokenizer: Tokenizer, longest: int) -> str:
    """Return a card that shows a sample.

    Args:
        number: its place among the draws, from 1.
        sample: what a data set made.
        tokenizer: the decoder's.
        longest: tokens of the longest sample of the page, which fills the width of the bar.
    """
    name, _, record = sample.id.partition("/")
    n, media, trained = counts(sample)
    notes = [
        f"Replaces {bad.sample_id}: " + (f"{bad.path}: " if bad.path else "") + bad.reason for bad in sample.replaced
    ]
    if sample.truncated:
        notes.append("Truncated: its text is longer than the limit, and was cut at the end.")
    bar = "".join(
        f'<i class="{kind}" style="width:{100 * part / longest:.2f}%"></i>'
        for kind, part in (("media", media), ("context", n - media - trained), ("loss", trained))
    )
    said = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f"""<article class="card sample">
<header><span class="no">{number}</span><span class="set">{escape(name)}</span><span class="id mono">{escape(record)}</span>
<span class="count"><b>{n}</b> tokens · <b>{media}</b> media · <b>{trained}</b> with loss</span></header>
<div class="measure">{bar}</div>{said}
<div class="items">{"".join(media_strip(f"{NAMES[item.kind]} {k}", item, PICTURES) for k, item in enumerate(sample.media, 1))}</div>
<div class="text">{"".join(_text(sample, tokenizer))}</div>
</article>"""


def counts(sample: Sample) -> tuple[int, int, int]:
    """Return the tokens of a sample: all, those that its media take, and those with loss."""
    return len(sample.input_ids), sample.n_media_tokens, sample.n_target_tokens


def _text(sample: Sample, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the tokens of a sample, each in an element of its own, and its media, each in one."""
    ids, labels = sample.input_ids.tolist(), sample.labels.tolist()
    for slot, places in groupby(range(len(ids)), key=lambda i: min(ids[i], 0)):
        at = list(places)
        if slot < 0:
            kind = NAMES[sample.media[-1 - slot].kind].split()[0]
            yield f'<span class="slot">{kind} {-slot} · {len(at)}</span>'
        else:
            texts = token_texts([ids[i] for i in at], tokenizer)
            for i, text in zip(at, texts, strict=True):
                yield _token(ids[i], text, labels[i], tokenizer.bos_id)


def _token(token: int, text: str, label: int, start: int | None) -> str:
    css_class = "t" if label == IGNORE_LABEL else "t loss"
    if not text:
        shown, css_class = ("start", f"{css_class} start") if token == start else ("·", f"{css_class} byte")
    else:
        shown = escape(text).replace("\n", '<span class="newline">↵</span>\n')
    return f'<span class="{css_class}" title="{token}">{shown}</span>'


def summary(samples: Sequence[Sample]) -> list[tuple[str, str, str]]:
    """Return the figures at the head of a page of samples; see ``page.figures``."""
    sizes = [counts(sample) for sample in samples]
    total = sum(n for n, _, _ in sizes)
    of_media, of_loss = sum(media for _, media, _ in sizes), sum(loss for _, _, loss in sizes)
    return [
        ("Mean length", f"{total / len(sizes):.0f}", "tokens"),
        ("Longest", str(max(n for n, _, _ in sizes)), "tokens"),
        ("Media", f"{100 * of_media / total:.0f} %", "of tokens"),
        ("With loss", f"{100 * of_loss / total:.0f} %", "of tokens"),
        ("Truncated", str(sum(sample.truncated for sample in samples)), "samples"),
        ("Replaced", str(sum(bool(sample.replaced) for sample in samples)), "samples"),
    ]
