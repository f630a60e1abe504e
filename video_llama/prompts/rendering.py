"""Captions, instructions and questions to prompt pieces, for any media."""

from __future__ import annotations

from collections.abc import Sequence

from video_llama.common.contracts import Media
from video_llama.prompts.labels import PLACEHOLDER, Slot, Stretch, clean, marker, media_pieces
from video_llama.prompts.templates import Layout, Span, Template

TAGS = {"image": "Image", "video": "Video"}


def tagged(media: Media, index: int) -> str:
    """Return ``<Video>…</Video> The video contains …`` around the marker of a media item."""
    tag = TAGS[media.kind]
    text = f"<{tag}>{marker(index)}</{tag}>"
    return f"{text} {media.message}" if media.kind == "video" else text


def conversation(
    template: Template, layout: Layout, turns: Sequence[tuple[str, str | None]], media: Sequence[Media]
) -> list[Stretch | Slot]:
    """Render turns whose questions already hold the tags of ``media``."""
    slots = [Slot(k, item.kind) for k, item in enumerate(media)]
    return media_pieces(template.render(layout, turns), slots)


def caption(prompt: str, text: str, end_sym: str, media: Media) -> list[Stretch | Slot]:
    """Render one caption (Video-LLaMA, section 2.2.1): the prompt around the media, then the caption as its own stretch.

    Args:
        prompt: template and prompt, with ``<ImageHere>`` where the media goes.
        text: the caption.
        end_sym: what ends it.
        media: the image or clip.
    """
    before, _, after = prompt.partition(PLACEHOLDER)
    return [
        *_context(before),
        Slot(0, media.kind),
        *_context(after),
        Stretch((Span(clean(text) + end_sym, trained=True),)),
    ]


def _context(text: str) -> list[Stretch | Slot]:
    return [Stretch((Span(text),))] if text else []
