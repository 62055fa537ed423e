"""report.html: the whole report in one file that opens offline."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from models.files import write_text
from offramp import __version__
from offramp.report.glossary import words
from offramp.report.html_content import Arm, Content, content_of
from offramp.report.results import Results
from offramp.stages.layout import REPORT_HTML

_NUMBER = re.compile(r"-|[-+−]?[\d(][\d.,e+−-]*( ± [\d.,]+\)?(e[+-]\d+)?)?( %)?( \(no interval\))?")


def write_html(
    results: Results,
    summary: pd.DataFrame,
    differences: pd.DataFrame,
    captions: dict[str, str],
    folder: Path,
) -> Path:
    """Write the page into ``folder``, beside the figures, and return its path.

    The same results give the same bytes.
    """
    content = content_of(results, summary, differences, captions, folder)
    path = folder / REPORT_HTML
    write_text(path, rendered(content, words(results)))
    return path


def rendered(content: Content, glossary: dict[str, str]) -> str:
    """The page as HTML. Everything that a user named is escaped."""
    environment = Environment(
        loader=PackageLoader("offramp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "anchor": _anchor,
        "by_policy": _by_policy,
        "cell": _cell,
        "code": _code,
        "sentence": _sentence,
        "typeset": _typeset,
    }
    environment.tests["figures"] = _are_figures
    template = environment.get_template("report.html.j2")
    html = template.render(content=content, glossary=glossary, version=__version__)
    # Half of a surrogate pair, which JSON can hold and UTF-8 cannot.
    return html.encode("utf-8", "replace").decode("utf-8")


def _code(text: str) -> Markup:
    """Text in which what stands in backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(_typeset(text)))))


def _sentence(text: str) -> Markup:
    """As ``code``, from a capital letter to a full stop, unless it begins with a key or a file."""
    text = text.strip()
    if re.match(r"[a-z]+[ :,]", text):
        text = text[0].upper() + text[1:]
    return _code(text if text.endswith((".", "!", "?")) else text + ".")


def _typeset(text: str) -> str:
    """Text whose numbers have a minus sign, not a hyphen, and stay in line with their units."""
    text = re.sub(r"(?<![\w.,)-])-(?=\d)", "−", text)
    return re.sub(r"(?<=\d) (?=%|±|ms\b|s\b|points\b)|(?<=±) (?=\d)", "\u00a0", text)


def _cell(text: str) -> Markup:
    """Text of a cell: names, which know no spaces, may break at their joints or when long."""
    joints = r"(?<=[A-Za-z)][_(,=/.:-])(?=[A-Za-z\d])|(?<=\w{24})(?=\w)"
    return Markup("<wbr>").join(re.split(joints, _typeset(text)))


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z]+", "-", title.lower())


def _by_policy(arms: list[Arm]) -> list[tuple[str, list[Arm]]]:
    """Arms of each policy, policies in their order."""
    policies = dict.fromkeys(arm.policy for arm in arms)
    return [(policy, [arm for arm in arms if arm.policy == policy]) for policy in policies]


def _are_figures(cells: list[str]) -> bool:
    """Whether a column holds numbers alone, which are best compared at their right ends."""
    return all(_NUMBER.fullmatch(part) for cell in cells for part in cell.split(" / "))
