"""Pages in Markdown, and beside each the same in one HTML file that opens offline."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from models.files import write_text
from offramp.report.html import filled, template
from offramp.report.html_text import anchor, are_figures, breakable, cell, drawing


def write_pages(path: Path, kind: str, parts: Iterable[str]) -> None:
    """Write a page as Markdown, and as HTML beside it.

    Args:
        path: of the Markdown; the HTML has the suffix ``.html``.
        kind: what the page is, such as ``a sweep``, for its head.
        parts: paragraphs, tables, headings; the first is the title. Figures lie beside the page.

    Raises:
        OSError: one cannot be written.
    """
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_text(path, text)
    write_text(path.with_suffix(".html"), as_html(text, kind, path.parent))


def as_html(text: str, kind: str, folder: Path) -> str:
    """A page in Markdown as HTML that holds its figures.

    What is HTML in the Markdown, such as in a name that a user gave, is shown as text.

    Args:
        folder: where figures are found.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    parts: Any = template("parts.html.j2").module

    def image(
        renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any
    ) -> str | Markup:
        token = tokens[index]
        try:
            shown = drawing(folder / str(token.attrs["src"]))
        except OSError:
            return escape(token.content)
        return Markup(parts.drawing(shown, Path(str(token.attrs["src"])).stem, token.content))

    markdown.add_render_rule("image", image)
    markdown.add_render_rule("text", _text)
    markdown.add_render_rule("code_inline", _code)
    markdown.add_render_rule("table_open", _table_open)
    markdown.add_render_rule("table_close", _table_close)
    tokens = markdown.parse(text)
    title = tokens[1].content if tokens and tokens[0].tag == "h1" else ""
    body = tokens[3:] if title else tokens
    sections = list(_sections(body))
    _set_figures(body)
    _set_links(body, folder)
    for first, last in _tables(body):
        _set_columns(body[first:last])
    return filled(
        "page.html.j2",
        title=title,
        kind=kind,
        sections=sections,
        body=Markup(markdown.renderer.render(body, markdown.options, {})),
    )


# --- what is told of tokens before they are written ----------------------------------------------


def _sections(tokens: Sequence[Token]) -> Iterator[tuple[str, str]]:
    """Give headings an id; return ids and texts of those of the first level."""
    taken: set[str] = set()
    for token, inline in itertools.pairwise(tokens):
        if token.type != "heading_open":
            continue
        name = anchor(inline.content)
        while name in taken:
            name += "-"
        taken.add(name)
        token.attrSet("id", name)
        if token.tag == "h2":
            yield name, inline.content


def _set_figures(tokens: Sequence[Token]) -> None:
    """Make a figure of a paragraph that is an image, and its caption of the next one."""
    for index, token in enumerate(tokens):
        children = token.children or []
        if token.type == "inline" and [child.type for child in children] == ["image"]:
            tokens[index - 1].tag = tokens[index + 1].tag = "figure"
            following = tokens[index + 2 : index + 3]
            if following and following[0].type == "paragraph_open":
                following[0].attrSet("class", "note")


def _set_links(tokens: Sequence[Token], folder: Path) -> None:
    """Lead to other pages as HTML, where there is some."""
    for token in (child for it in tokens for child in it.children or ()):
        place = str(token.attrs.get("href", ""))
        html = place.removesuffix(".md") + ".html"
        if place.endswith(".md") and (folder / html).is_file():
            token.attrSet("href", html)


def _tables(tokens: Sequence[Token]) -> Iterator[tuple[int, int]]:
    first = 0
    for index, token in enumerate(tokens):
        if token.type == "table_open":
            first = index
        elif token.type == "table_close":
            yield first, index


def _set_columns(tokens: Sequence[Token]) -> None:
    """Set numbers of a table to the right, and make the first column name the rows."""
    cells: list[tuple[int, int]] = []
    column = 0
    for index, token in enumerate(tokens):
        if token.type == "tr_open":
            column = 0
        elif token.type in ("th_open", "td_open"):
            cells.append((column, index))
            column += 1
    for column in dict.fromkeys(number for number, _ in cells):
        here = [index for number, index in cells if number == column]
        body = [index for index in here if tokens[index].type == "td_open"]
        texts = [tokens[index + 1].content.replace("\\", "").strip("* ") for index in body]
        figures = column > 0 and are_figures(texts)
        for index in here:
            if figures:
                tokens[index].attrSet("class", "figure")
            if tokens[index].type == "th_open":
                tokens[index].attrSet("scope", "col")
            elif column == 0:
                tokens[index].attrSet("scope", "row")
                tokens[index].tag = tokens[index + 2].tag = "th"


# --- how tokens are written ----------------------------------------------------------------------


def _text(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return str(cell(tokens[index].content))


def _code(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    # As it is, to be copied.
    return f"<code>{breakable(tokens[index].content)}</code>"


def _table_open(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return '<div class="scroll" role="region" tabindex="0" aria-label="table">\n<table>\n'


def _table_close(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return "</table>\n</div>\n"
