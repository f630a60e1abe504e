"""Captions, instructions and questions to the segments of a prompt, for any media."""

from __future__ import annotations

from collections.abc import Sequence

from video_llama.common.types import Media
from video_llama.prompts.labels import PLACEHOLDER, Slot, TextSegment, clean, marker, media_segments
from video_llama.prompts.templates import Layout, Span, Template, filled

WITH_AUDIO = "Close your eyes, open your ears and you imagine only based on the sound that: {}. "
WITH_VIDEO = "Close your ears, open your eyes and you see that {}.  "
BOTH = "Now answer my question based on what you have just seen and heard."
GAP = " " * 16
"""Separates the sentences: the original's prompt contains the indentation of its source code."""


def tagged(media: Media, index: int) -> str:
    """Return ``<Video>…</Video> The video contains …`` around the marker of a media item."""
    text = in_tags(media, index)
    return text if _is_still(media) else f"{text} {media.message}"


def in_tags(media: Media, index: int) -> str:
    """Return the marker of a media item in its tags; sound alone has the tags of a clip, as in the original."""
    tag = "Image" if _is_still(media) else "Video"
    return f"<{tag}>{marker(index)}</{tag}>"


def _is_still(media: Media) -> bool:
    return media.kind == "image" or (media.kind == "audio_frames" and media.data.shape[1] == 1)


def audio_and_video(visual: Media, index: int) -> str:
    """Return the original's words around a sound, at ``index``, and its clip or picture, at ``index + 1``."""
    return GAP.join([WITH_AUDIO.format(marker(index)), WITH_VIDEO.format(in_tags(visual, index + 1)), BOTH])


def presented(media: Sequence[Media], index: int = 0) -> str:
    """Return the text before a question about one file, which is one media item, or two: its audio, then its video."""
    if len(media) == 1:
        return tagged(media[0], index)
    return audio_and_video(media[1], index) + " "


def conversation(
    template: Template, layout: Layout, turns: Sequence[tuple[str, str | None]], media: Sequence[Media]
) -> list[TextSegment | Slot]:
    """Render turns whose questions already hold the tags of ``media``."""
    slots = [Slot(k, item.kind) for k, item in enumerate(media)]
    return media_segments(template.render(layout, turns), slots)


def caption(prompt: str, text: str, end_sym: str, *media: Media) -> list[TextSegment | Slot]:
    """Render one caption (Video-LLaMA, section 2.2.1): the prompt around the media, then the caption as a segment.

    Args:
        prompt: template and prompt, with ``<ImageHere>`` at the position of the media.
        text: the caption.
        end_sym: text that ends it.
        media: an image, a clip, its audio, or its audio and the clip.
    """
    before, _, after = prompt.partition(PLACEHOLDER)
    return [
        *_context(before),
        *(Slot(k, item.kind) for k, item in enumerate(media)),
        *_context(after),
        TextSegment((filled("{text}" + end_sym, clean(text), trained=True),)),
    ]


def _context(text: str) -> list[TextSegment | Slot]:
    return [TextSegment((Span(text),))] if text else []
