"""report.html: the whole report in one file that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from models.files import write_text
from offramp import __version__
from offramp.report.glossary import words
from offramp.report.html_content import Arm, Content, content_of
from offramp.report.html_text import anchor, are_figures, cell, code, sentence, typeset
from offramp.report.results import Results
from offramp.stages.layout import REPORT_HTML


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


def template(name: str) -> Template:
    """A template of this package."""
    environment = Environment(
        loader=PackageLoader("offramp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "anchor": anchor,
        "by_policy": _by_policy,
        "cell": cell,
        "code": code,
        "sentence": sentence,
        "typeset": typeset,
    }
    environment.tests["figures"] = are_figures
    return environment.get_template(name)


def filled(name: str, **values: Any) -> str:
    """A page: the template of that name with these values, as text that UTF-8 can hold."""
    html = template(name).render(**values, version=__version__)
    # Half of a surrogate pair, which JSON can hold and UTF-8 cannot.
    return html.encode("utf-8", "replace").decode("utf-8")


def rendered(content: Content, glossary: dict[str, str]) -> str:
    """The page as HTML. Everything that a user named is escaped."""
    return filled("report.html.j2", content=content, glossary=glossary)


def _by_policy(arms: list[Arm]) -> list[tuple[str, list[Arm]]]:
    """Arms of each policy, policies in their order."""
    policies = dict.fromkeys(arm.policy for arm in arms)
    return [(policy, [arm for arm in arms if arm.policy == policy]) for policy in policies]
