"""Self-contained web pages: one file with its style and pictures inside, no scripts, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from video_llama import __version__
from video_llama.common.errors import OutputError
from video_llama.common.files import replacing

_HERE = Path(__file__).parent


def page(title: str, body: str, *styles: str) -> str:
    """Return a page.

    Args:
        title: its title, as text.
        body: its content, as HTML.
        styles: style sheets beside this module, after ``page.css``.
    """
    style = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", *styles))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
<footer>video_llama {escape(__version__)}</footer>
</main>
</body>
</html>
"""


def write_page(path: Path, html: str) -> None:
    """Write a page; the file is replaced whole.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            # a file name may hold bytes that are not UTF-8
            temporary.write_text(html, encoding="utf-8", errors="replace")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def figures(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Return a row of figures: label, value, and a unit or a remark beside the value. A label that starts with ! is bad news."""
    cells = [
        f"<div{' class=bad' if label.startswith('!') else ''}><dt>{escape(label.lstrip('!'))}</dt>"
        f"<dd>{escape(value)}{f' <small>{escape(remark)}</small>' if remark else ''}</dd></div>"
        for label, value, remark in pairs
    ]
    return f'<dl class="figures">{"".join(cells)}</dl>'


class Html(str):
    """A cell of a table that is HTML, not text."""


COLUMNS = {"#": "n", "*": "wide", "|": "plot"}
"""Classes of columns, by the last character of their names."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str = "None.") -> str:
    """Return a table in a card.

    Args:
        header: names of the columns. Those of numbers end with ``#``, those of long texts with ``*``, those of plots with
            ``|``; none of these is shown.
        rows: their cells, as text or as ``Html``.
        empty: shown if there are no rows.
    """
    kinds = [COLUMNS.get(name[-1:], "") for name in header]

    def row(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{f' class={kind}' if kind else ''}>{cell if isinstance(cell, Html) else escape(cell)}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )

    body = "".join(f"<tr>{row('td', cells)}</tr>" for cells in rows)
    if not body:
        return f'<div class="card empty">{escape(empty)}</div>'
    head = row("th", [name.rstrip("".join(COLUMNS)) for name in header])
    return f'<div class="card scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
