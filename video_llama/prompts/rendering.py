"""Captions, instructions and questions to prompt pieces, for any media."""

from __future__ import annotations

from collections.abc import Sequence

from video_llama.common.types import Media
from video_llama.prompts.labels import PLACEHOLDER, Slot, TextSegment, clean, marker, media_pieces
from video_llama.prompts.templates import Layout, Span, Template

HEARD = "Close your eyes, open your ears and you imagine only based on the sound that: {}. "
SEEN = "Close your ears, open your eyes and you see that {}.  "
BOTH = "Now answer my question based on what you have just seen and heard."
GAP = " " * 16
"""Between the sentences: the original's prompt has the indentation of its source in it."""


def tagged(media: Media, index: int) -> str:
    """Return ``<Video>…</Video> The video contains …`` around the marker of a media item."""
    text = in_tags(media, index)
    return text if _is_still(media) else f"{text} {media.message}"


def in_tags(media: Media, index: int) -> str:
    """Return the marker of a media item in its tags; sound alone stands where a clip would, as in the original."""
    tag = "Image" if _is_still(media) else "Video"
    return f"<{tag}>{marker(index)}</{tag}>"


def _is_still(media: Media) -> bool:
    return media.kind == "image" or (media.kind == "audio_frames" and media.frames.shape[1] == 1)


def heard_and_seen(seen: Media, index: int) -> str:
    """Return the original's words around sound, at ``index``, and what is seen with it, at ``index + 1``."""
    return GAP.join([HEARD.format(marker(index)), SEEN.format(in_tags(seen, index + 1)), BOTH])


def presented(media: Sequence[Media], index: int = 0) -> str:
    """Return what stands before a question for one file: a medium, or its sound and its sight."""
    if len(media) == 1:
        return tagged(media[0], index)
    return heard_and_seen(media[1], index) + " "


def conversation(
    template: Template, layout: Layout, turns: Sequence[tuple[str, str | None]], media: Sequence[Media]
) -> list[TextSegment | Slot]:
    """Render turns whose questions already hold the tags of ``media``."""
    slots = [Slot(k, item.kind) for k, item in enumerate(media)]
    return media_pieces(template.render(layout, turns), slots)


def caption(prompt: str, text: str, end_sym: str, *media: Media) -> list[TextSegment | Slot]:
    """Render one caption (Video-LLaMA, section 2.2.1): the prompt around the media, then the caption as its own stretch.

    Args:
        prompt: template and prompt, with ``<ImageHere>`` where the media goes.
        text: the caption.
        end_sym: what ends it.
        media: what goes there: an image, a clip, its sound, or its sound and what is seen.
    """
    before, _, after = prompt.partition(PLACEHOLDER)
    return [
        *_context(before),
        *(Slot(k, item.kind) for k, item in enumerate(media)),
        *_context(after),
        TextSegment((Span(clean(text) + end_sym, trained=True),)),
    ]


def _context(text: str) -> list[TextSegment | Slot]:
    return [TextSegment((Span(text),))] if text else []
