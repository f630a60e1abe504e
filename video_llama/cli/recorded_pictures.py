"""Pictures of the files of recorded questions, as few and as small as a page has room for."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from tqdm import tqdm

from video_llama.cli.media_strip import NAMES, media_strip
from video_llama.common.errors import VideoLlamaError, first_line
from video_llama.evaluation.recorded_media import recorded_file, recorded_reader
from video_llama.processors.media import MediaReader
from video_llama.processors.media_pictures import Encoding

SMALL = Encoding("WEBP", quality=60, max_side=112, most=8)
MOST_BYTES = 3_500_000
"""Of all pictures of a page. With its texts, it stays below 5 MB."""


class RecordedPictures:
    """Shows what a model got of the files of an evaluation. What cannot be shown is replaced by the reason.

    Args:
        model: what ``results.json`` has under that name.
        total: files that will be shown.
    """

    def __init__(self, model: Mapping[str, Any], total: int) -> None:
        self._reader: MediaReader | str
        try:
            self._reader = recorded_reader(model)
        except (VideoLlamaError, LookupError, TypeError) as error:
            self._reader = f"No pictures: how the model read files is not known here ({first_line(error)})."
        self._left = MOST_BYTES
        self._progress = tqdm(total=total, desc="page", unit="clip", disable=None, leave=False)

    def html(self, item: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
        """Return the pictures of the file of a question, or why there are none.

        Args:
            item: of a benchmark in ``results.json``.
            settings: of that benchmark.
        """
        self._progress.update()
        if isinstance(self._reader, str):
            return _note(self._reader)
        if "file" not in item or "media" not in item:
            return _note("No pictures: the results do not say which file this question is about.")
        if self._left <= 0:
            return _note("No pictures: this page is large enough.")
        try:
            shown = self._shown(recorded_file(item, settings), self._reader)
        except Exception as error:  # a processor of one's own may raise anything
            return _note(f"No pictures: {first_line(error)}")
        self._left -= len(shown)
        return shown

    def _shown(self, file: Any, reader: MediaReader) -> str:
        content = file.read(reader)
        strips = "".join(media_strip(NAMES[media.kind], media, SMALL) for media in reversed(content.media))
        state = content.audio_status
        said = f"Sound: {state}." if file.kind == "video" and state.state in ("failed", "no track") else ""
        damage = f"Damaged file: {content.damage}." if content.damage else ""
        notes = " ".join(text for text in (said, damage) if text)
        return f'<div class="items">{strips}</div>{_note(notes) if notes else ""}'


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
