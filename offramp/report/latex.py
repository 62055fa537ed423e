"""What goes straight into a LaTeX document: escaped text, figure environments, tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Packages that the files need; they are in every TeX distribution.
PACKAGES = ("graphicx", "booktabs", "siunitx")

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_\allowbreak{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": r"$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "ρ": r"$\rho$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    '"': "''",
    "\N{NO-BREAK SPACE}": "~",
}

#: A share or a number and its unit are not parted at the end of a line.
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:\\%|ms|s|Hz|Mbit/s|requests/s)(?![A-Za-z]))")


def escape(text: str) -> str:
    """Plain text as LaTeX of any engine; what T1 fonts do not have becomes a question mark."""
    escaped = "".join(_SPECIAL.get(letter, letter) for letter in text)
    latin = escaped.encode("latin-1", "replace").decode("latin-1")
    return _BEFORE_UNIT.sub("~", latin)


def label_of(name: str) -> str:
    """A label of letters, digits, hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")


def figure_environment(name: str, caption: str, wide: bool) -> str:
    """A figure with its caption, of one column of a paper or of both.

    The drawing is named without its folder: a document has a graphicspath to it.
    """
    star, width = ("*", r"\textwidth") if wide else ("", r"\columnwidth")
    return (
        f"% Needs graphicx, and \\graphicspath{{{{the folder of this file/}}}}.\n"
        f"\\begin{{figure{star}}}[tb]\n"
        "  \\centering\n"
        f"  \\includegraphics[width={width}]{{{name}.pdf}}\n"
        f"  \\caption{{{escape(caption)}}}\n"
        f"  \\label{{fig:{label_of(name)}}}\n"
        f"\\end{{figure{star}}}\n"
    )


@dataclass(frozen=True)
class Text:
    """A column of text."""

    head: str
    cells: Sequence[str]

    def spec(self) -> str:
        """Its part of the table's preamble."""
        return "l"

    def header(self) -> str:
        """Its head."""
        return escape(self.head)

    def rows(self) -> list[str]:
        """Its cells."""
        return [escape(cell) for cell in self.cells]


@dataclass(frozen=True)
class Numbers:
    """A column of numbers, aligned at the decimal point.

    Attributes:
        values: one that is not finite becomes a dash.
        decimals: of values and half widths.
        half_widths: of the intervals of each; NaN where there is none.
        bold: which cells are bold.
        signed: positive numbers get a plus.
    """

    head: str
    values: Sequence[float]
    decimals: int = 1
    half_widths: Sequence[float] | None = None
    bold: Sequence[bool] | None = None
    signed: bool = False

    def spec(self) -> str:
        """Its part of the table's preamble; half widths are a column of their own."""
        shown = [value for value in self.values if math.isfinite(value)]
        whole = max((len(f"{abs(value):.0f}") for value in shown), default=1)
        sign = "+" if self.signed else "-" if any(value < 0 for value in shown) else ""
        form = f"{sign}{whole}.{self.decimals}"
        spec = f"S[table-format={form}]"
        return spec + ("@{\\,}l" if self._halves() else "")

    def header(self) -> str:
        """Its head, which siunitx must not read as a number."""
        if self._halves():
            return f"\\multicolumn{{2}}{{c}}{{{escape(self.head)}}}"
        return f"{{{escape(self.head)}}}"

    def rows(self) -> list[str]:
        """Its cells."""
        bold = self.bold or [False] * len(self.values)
        cells = [self._cell(*pair) for pair in zip(self.values, bold, strict=True)]
        halves = self._halves()
        if not halves:
            return cells
        longest = max(map(len, halves))
        shown = []
        for half in halves:
            room = longest - len(half)
            padding = f"\\phantom{{{'0' * room}}}" if room else ""
            shown.append(f"$\\pm$\\,{padding}{half}" if half else "")
        return [f"{cell} & {half}" for cell, half in zip(cells, shown, strict=True)]

    def _cell(self, value: float, bold: bool) -> str:
        if not math.isfinite(value):
            return "{--}"
        sign = "+" if self.signed and value >= 0 else ""
        text = f"{sign}{value:.{self.decimals}f}"
        return rf"\bfseries {text}" if bold else text

    def _halves(self) -> list[str]:
        """Half widths as text, empty where there is none; no list if there is none at all."""
        if self.half_widths is None or not any(map(math.isfinite, self.half_widths)):
            return []
        return [
            f"{half:.{self.decimals}f}" if math.isfinite(half) and math.isfinite(value) else ""
            for value, half in zip(self.values, self.half_widths, strict=True)
        ]


def table_environment(
    name: str, columns: Sequence[Text | Numbers], caption: str, groups: Sequence[int] = ()
) -> str:
    """A booktabs table, as wide as its columns ask for: over one column of a paper or both.

    Args:
        groups: rows before which a thin rule stands.
    """
    wide = _letters(columns) > _LETTERS_OF_A_COLUMN
    star, width = ("*", r"\textwidth") if wide else ("", r"\columnwidth")
    lines = [
        " & ".join(cells) + r" \\" for cells in zip(*(it.rows() for it in columns), strict=True)
    ]
    for row in sorted(groups, reverse=True):
        lines.insert(row, r"\midrule")
    body = "\n".join(f"    {line}" for line in lines)
    return (
        "% Needs booktabs, siunitx and graphicx.\n"
        f"\\begin{{table{star}}}[tb]\n"
        "  \\centering\n"
        f"  \\caption{{{escape(caption)}}}\n"
        f"  \\label{{tab:{label_of(name)}}}\n"
        "  \\smallskip\n"
        "  \\footnotesize\n"
        "  \\setlength{\\tabcolsep}{4pt}\n"
        "  \\sisetup{detect-weight=true, retain-explicit-plus=true}\n"
        "  \\sbox0{%\n"
        f"  \\begin{{tabular}}{{@{{}}{' '.join(it.spec() for it in columns)}@{{}}}}\n"
        "    \\toprule\n"
        f"    {' & '.join(it.header() for it in columns)} \\\\\n"
        "    \\midrule\n"
        f"{body}\n"
        "    \\bottomrule\n"
        "  \\end{tabular}}%\n"
        f"  \\ifdim\\wd0>{width}\\resizebox{{{width}}}{{!}}{{\\usebox0}}\\else\\usebox0\\fi\n"
        f"\\end{{table{star}}}\n"
    )


#: About so many letters of a table fit into one column of a paper.
_LETTERS_OF_A_COLUMN = 64


def _letters(columns: Sequence[Text | Numbers]) -> int:
    """How wide a table is, in letters."""
    return sum(
        3 + max(len(re.sub(r"\\\w+|[{}$]", "", cell)) for cell in [it.head, *it.rows()])
        for it in columns
    )
