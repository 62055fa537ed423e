"""Pages in Markdown as one HTML file: what it holds, and what it never does."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from offramp.report.offline_page import as_html, write_pages

PAGE = """# runs of `one` & <two>

**Less, by -3.1 ± 0.4 points.**

## Differences

| run | AUD | verdict |
| --- | --- | --- |
| <script>alert(1)</script> | -3.10 ± 0.40 \\* | moved |
| b\\|c | 1.25 (no interval) | - |

## Figures

![A caption of `aud`](figures/aud.png)

*A caption of `aud`* ([PDF](figures/aud.pdf))

![gone](figures/gone.png)

## Differences

Set `--set x=-5` to 10 ms.

See [live](live/report.md), [more](more.md) and [that](javascript:alert(2)).
"""


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "figures").mkdir()
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "report.html").touch()
    figure, _ = plt.subplots(figsize=(7, 2))
    figure.savefig(tmp_path / "figures" / "aud.png", dpi=300)
    plt.close(figure)
    return tmp_path


def test_both_pages_are_written(folder: Path) -> None:
    write_pages(folder / "page.md", "a page", ["# title", "", "text"])
    assert (folder / "page.md").read_text() == "# title\n\ntext\n"
    assert "<p>text</p>" in (folder / "page.html").read_text()


def test_figures_are_in_the_file_and_a_lost_one_is_told(folder: Path) -> None:
    html = as_html(PAGE, "a page", folder)
    (image,) = Elements(html).all("img")
    drawn = base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,"))
    assert drawn == (folder / "figures" / "aud.png").read_bytes()
    assert (image["width"], image["alt"]) == ("840", "A caption of `aud`")
    assert html.count("<figure>") == html.count("</figure>") == 2
    assert re.search(r"<figure>gone</figure>", html)
    assert '<p class="note"><em>A caption' in html


def test_what_users_named_is_text(folder: Path) -> None:
    html = as_html(PAGE, "a page", folder)
    assert not Elements(html).all("script")
    assert "&lt;script&gt;" in html
    assert "<h1><bdi>runs of `one` &amp; &lt;two&gt;</bdi></h1>" in html
    assert not [it for it in Elements(html).all("a") if "script" in str(it["href"])]


def test_numbers_of_a_table_stand_to_the_right_and_its_names_are_heads(folder: Path) -> None:
    elements = Elements(as_html(PAGE, "a page", folder))
    assert [it.get("class") for it in elements.all("td")] == ["figure", None] * 2
    heads = [(it.get("scope"), it.get("class")) for it in elements.all("th")]
    assert heads == [("col", None), ("col", "figure"), ("col", None), ("row", None), ("row", None)]


def test_headings_have_names_of_their_own_and_are_listed(folder: Path) -> None:
    elements = Elements(as_html(PAGE, "a page", folder))
    names = [it["id"] for it in elements.all("h2")]
    assert len(names) == len({*names}) == 3
    assert [it["href"] for it in elements.all("a")][:3] == [f"#{name}" for name in names]


def test_code_can_be_copied_and_text_is_typeset(folder: Path) -> None:
    html = as_html(PAGE, "a page", folder)
    assert "<code>--set x=-5</code>" in html
    assert "10\u00a0ms" in html
    assert "\u22123.1\u00a0±\u00a00.4" in html


def test_links_lead_to_pages_that_a_browser_shows(folder: Path) -> None:
    links = [it["href"] for it in Elements(as_html(PAGE, "a page", folder)).all("a")]
    assert links[3:] == ["figures/aud.pdf", "live/report.html", "more.md"]


def test_text_that_is_no_utf_8_is_shown_as_far_as_it_is(folder: Path) -> None:
    assert "a?b" in as_html("# t\n\na\udc80b", "a page", folder)
