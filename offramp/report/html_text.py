"""Text, numbers and pictures as HTML shows them, for all pages that open offline."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from offramp.report.style import DOUBLE_COLUMN, PNG_DPI
from offramp.words import capitalised

_NUMBER = re.compile(
    r"-|[-+−]?[\d(][\d.,e+−-]*( ± [\d.,]+\)?(e[+-]\d+)?)?( %)?( points)?( \(no interval\))?"
)

#: CSS pixels of an inch, and how much larger than in print a figure is shown: a paper's 8 points
#: are small.
_PIXELS = 96
_ENLARGED = 1.25


def code(text: str) -> Markup:
    """Text in which what stands in backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(typeset(text)))))


def sentence(text: str) -> Markup:
    """As :func:`code`, from a capital letter to a full stop, unless it begins with a key."""
    text = text.strip()
    if re.match(r"[a-z]+[ :,]", text):
        text = capitalised(text)
    return code(text if text.endswith((".", "!", "?")) else text + ".")


def typeset(text: str) -> str:
    """Text whose numbers have a minus sign, not a hyphen, and stay in line with their units."""
    text = re.sub(r"(?<![\w.,)-])-(?=\d)", "−", text)
    return re.sub(r"(?<=\d) (?=%|±|ms\b|s\b|points\b)|(?<=±) (?=\d)", "\u00a0", text)


def cell(text: str) -> Markup:
    """Text of a cell, typeset; names, which know no spaces, may break."""
    return breakable(typeset(text))


def breakable(text: str) -> Markup:
    """Text whose names may break at their joints, or when they are long."""
    joints = r"(?<=[A-Za-z)][_(,=/.:-])(?=[A-Za-z\d])|(?<=\w{24})(?=\w)"
    return Markup("<wbr>").join(re.split(joints, text))


def anchor(title: str) -> str:
    """An id for what has this title."""
    return re.sub(r"[^a-z]+", "-", title.lower())


def are_figures(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers alone, which are best compared at their right ends."""
    return all(_NUMBER.fullmatch(part) for text in cells for part in text.split(" / "))


@dataclass(frozen=True)
class Drawing:
    """A figure, as a page holds it.

    Attributes:
        data: the PNG, in base64.
        width, height: as shown, in CSS pixels.
        wide: it spans two columns in print: on a narrow screen it is better scrolled than shrunk.
    """

    data: str
    width: int
    height: int
    wide: bool


def drawing(png: Path) -> Drawing:
    """A figure from its file.

    Raises:
        OSError: it cannot be read.
    """
    content = png.read_bytes()
    inches = [pixels / PNG_DPI for pixels in struct.unpack(">II", content[16:24])]
    width, height = (round(_PIXELS * _ENLARGED * length) for length in inches)
    data = base64.b64encode(content).decode("ascii")
    return Drawing(data, width, height, inches[0] > 0.7 * DOUBLE_COLUMN)
