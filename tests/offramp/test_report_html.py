"""report.html: what it says, that it is one file that asks nobody, and that names stay names."""

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from offramp import Pipeline
from offramp.report.answer import answer
from offramp.report.html import write_html
from offramp.report.notices import notices
from offramp.report.results import Results, differences, read_results, summary

#: Elements that have no end tag.
VOID = {"meta", "link", "img", "wbr", "br", "hr"}

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title><h1>& mine",
    "{{ 7 * 7 }}{% raw %}",
    "été “名前” \u202eabc 🚦",
    "x" * 300,
)


class Page(HTMLParser):
    """A page taken apart: elements with their attributes and text; refuses what does not nest."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} comes twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def attributes(self, name: str) -> list[str]:
        return [str(them[name]) for _, them in self.elements if name in them]

    @property
    def text(self) -> str:
        """What is read, with plain spaces and hyphens in place of the page's."""
        words = "".join(text for tag, text in self.texts if tag != "style")
        return " ".join(words.replace("−", "-").split())


@pytest.fixture(scope="module")
def page(trained: Any) -> Page:
    return Page(trained.results / "report.html")


def page_of(folder: Path) -> Page:
    """The page of results, written anew around figures that were drawn before, if they were."""
    results = read_results(folder)
    before = folder / "report.md"
    markdown = before.read_text() if before.exists() else ""
    captions = re.findall(r"!\[(.*?)\]\(figures/(\w+)\.png\)", markdown)
    by_name = {name: caption for caption, name in captions}
    return Page(write_html(results, summary(results), differences(results), by_name, folder))


@pytest.fixture
def changed(trained: Any, tmp_path: Path) -> Callable[..., Page]:
    """The page of the session's results with another manifest."""

    def change(edit: Callable[[dict[str, Any]], Any]) -> Page:
        folder = Path(shutil.copytree(trained.results, tmp_path / "changed"))
        manifest = json.loads((folder / "manifest.json").read_text())
        edit(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return page_of(folder)

    return change


# --- one file -----------------------------------------------------------------------------------


def test_the_page_needs_nothing_but_itself_and_links_only_to_what_lies_beside_it(
    page: Page, trained: Any
) -> None:
    assert page.all("script") == []
    assert not any(name.startswith("on") for _, them in page.elements for name in them)
    assert not {"iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.elements}
    for source in page.attributes("src"):
        assert source.startswith("data:image/png;base64,")
    ids = page.attributes("id")
    for link in page.attributes("href"):
        if link.startswith("#"):
            assert link[1:] in ids
        elif link != "data:,":
            assert (trained.results / link).is_file(), link
    assert "://" not in page.source.replace(page.text, "")
    assert "url(" not in page.source
    [policy] = [
        them["content"]
        for them in page.all("meta")
        if them.get("http-equiv") == "Content-Security-Policy"
    ]
    assert str(policy).startswith("default-src 'none'")


def test_the_figures_are_inside_with_their_captions_as_alternative_text(
    page: Page, trained: Any
) -> None:
    markdown = (trained.results / "report.md").read_text()
    captions = re.findall(r"!\[(.*?)\]\(figures/(\w+)\.png\)", markdown)
    assert len(captions) >= 4
    assert [them["alt"] for them in page.all("img")] == [caption for caption, _ in captions]
    for them, (_, name) in zip(page.all("img"), captions, strict=True):
        _, _, data = str(them["src"]).partition(",")
        assert base64.b64decode(data) == (trained.results / f"figures/{name}.png").read_bytes()


def test_the_same_results_give_the_same_bytes_here_and_elsewhere(
    trained: Any, tmp_path: Path
) -> None:
    page = (trained.results / "report.html").read_bytes()
    again = Path(shutil.copytree(trained.results, tmp_path / "again"))
    (again / "report.html").unlink()
    page_of(again)
    assert (again / "report.html").read_bytes() == page


def test_a_page_elsewhere_links_to_nothing_that_is_not_there(trained: Any, tmp_path: Path) -> None:
    shutil.copy(trained.results / "summary.csv", tmp_path)
    results = read_results(trained.results)
    page = Page(write_html(results, summary(results), differences(results), {}, tmp_path))
    relative = [it for it in page.attributes("href") if not it.startswith(("#", "data:"))]
    assert relative == ["summary.csv"]


def test_templates_are_shipped() -> None:
    import tomllib

    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    shipped = project["tool"]["setuptools"]["package-data"]["offramp.report"]
    assert shipped == ["templates/*"]
    names = {path.name for path in files("offramp.report").joinpath("templates").iterdir()}
    assert names == {
        "report.html.j2",
        "page.html.j2",
        "head.html.j2",
        "parts.html.j2",
        "report.css",
    }


# --- for everybody ------------------------------------------------------------------------------


def test_headings_are_in_order_and_tables_have_heads(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.all("th")
    assert all(them["scope"] in ("col", "row", "rowgroup") for them in page.all("th"))
    for them in page.all("svg"):
        assert them.get("aria-label") or them.get("aria-hidden") or them == {}
    assert page.all("html") == [{"lang": "en"}]
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert set(page.attributes("aria-labelledby")) <= set(ids)


def colours(css: str) -> Iterator[dict[str, tuple[float, ...]]]:
    """Colours of the light, the dark and the printed page, by name; 0 to 1 each."""
    for block in re.findall(r":root \{(.*?)\}", css, re.S):
        yield {
            name: tuple(int(code[at : at + 2], 16) / 255 for at in (0, 2, 4))
            for name, code in re.findall(r"--(\w+): #([0-9a-f]{6})", block)
        }


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.2's contrast ratio."""

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [it / 12.92 if it <= 0.04045 else ((it + 0.055) / 1.055) ** 2.4 for it in colour]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_measure_of_contrast_is_the_standards() -> None:
    assert contrast((1, 1, 1), (0, 0, 0)) == pytest.approx(21)
    assert contrast((1, 1, 1), (0x77 / 255,) * 3) == pytest.approx(4.48, abs=0.01)


def test_text_has_enough_contrast_in_light_and_in_dark() -> None:
    css = files("offramp.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    light, dark, _ = colours(css)
    for scheme, paper in product((light, dark), ("paper", "fill")):
        for ink in ("ink", "soft", "link", "good", "bad"):
            assert contrast(scheme[ink], scheme[paper]) >= 4.5, (ink, paper)
        neighbours = ("correct", "wrong", "late", "dropped", "lost")
        assert all(contrast(scheme[name], scheme["ink"]) > 1.5 for name in neighbours)
        assert contrast(scheme["correct"], scheme["paper"]) >= 3
        assert contrast(scheme["correct"], scheme["wrong"]) >= 3


# --- what it says -------------------------------------------------------------------------------


def test_the_page_says_what_was_asked_what_came_out_and_how_far_to_trust_it(
    page: Page, trained: Any
) -> None:
    told = json.loads((trained.results / "summary.json").read_text())
    assert page.text.startswith("tiny – Offramp report Offramp report, simulated tiny Five cameras")
    assert "Does curriculum training make more correct answers arrive" in page.text
    assert "paired over 2 training seeds" in page.text
    assert f"{told['verdict']}: " in page.text
    for reason in told["reasons"]:
        assert reason in page.text or reason[0].upper() + reason[1:] in page.text
    assert "2 training seeds: intervals over them are wide" in page.text
    for row in told["arms"]:
        aud = f"{100 * row['aud']:.1f} ± {100 * row['aud_half_width']:.1f} %"
        assert page.text.count(aud) >= 2, "in the bars and in the table"
    for row in told["differences"]:
        half = row["half_width"]  # none where all pairs differ alike, as two of few requests may
        half_text = "(no interval)" if half is None else f"± {100 * half:.2f}"
        gain = f"{100 * row['aud_difference']:+.2f} {half_text}"
        assert gain in page.text
    assert "Dropped and lost requests stay in the denominator" in page.text
    assert f"offramp run {trained.scenario}" in page.text
    assert "offramp reproduce . -o ../again" in page.text


def test_bars_show_all_requests_and_say_so_in_words(page: Page, trained: Any) -> None:
    bars = [them for them in page.all("svg") if them.get("class") == "bar"]
    runs = pd.read_csv(trained.results / "runs.csv")
    arms = runs.groupby(["policy", "strategy"], sort=False)
    assert len(bars) == len(arms) == 4
    widths = [
        float(str(them["width"]).rstrip("%"))
        for them in page.all("rect")
        if them["width"] != "100%" or "x" in them
    ]
    assert sum(widths) == pytest.approx(400, abs=0.1)
    late = [of_arm["late"].sum() / of_arm["offered"].sum() for _, of_arm in arms]
    told = [re.search(r"[0-9.]+ % late", str(bar["aria-label"])) for bar in bars]
    assert sorted(it[0] for it in told if it) == sorted(f"{100 * it:.1f} % late" for it in late)


def test_the_scenario_on_the_page_is_the_manifests(page: Page, trained: Any) -> None:
    from ruamel.yaml import YAML

    manifest = json.loads((trained.results / "manifest.json").read_text())
    [text] = re.findall(r"<pre [^>]*><code>(.*?)</code></pre>", page.source, re.S)
    assert YAML(typ="safe").load(text) == manifest["scenario"]


# --- names that want out ------------------------------------------------------------------------


def renamed(results: Results, policies: tuple[str, str], node: str) -> Results:
    """Results as a folder from somebody else may hold them: a scenario checks its names."""
    names = dict(zip(results.policies, policies, strict=True))
    changes = {
        table: getattr(results, table).assign(policy=getattr(results, table)["policy"].map(names))
        for table in ("runs", "nodes", "sweep")
    }
    changes["nodes"]["node"] = node
    others = {
        name: table.assign(policy=table["policy"].map(names)) if "policy" in table else table
        for name, table in results.others.items()
    }
    of_another = replace(results, others=others, **changes)
    of_another.__dict__["answers"] = {
        (strategy, names[policy]): them for (strategy, policy), them in results.answers.items()
    }
    return of_another


@pytest.mark.parametrize(("name", "other"), list(product(HOSTILE[:3], HOSTILE[3:])))
def test_a_name_stays_a_name(name: str, other: str, trained: Any, tmp_path: Path) -> None:
    results = renamed(read_results(trained.results), (name, other), other)
    arms, gaps = summary(results), differences(results)
    page = Page(write_html(results, arms, gaps, {}, tmp_path))
    assert page.all("script") == page.all("img") == []
    assert len(page.all("h1")) == len(page.all("style")) == len(page.all("title")) == 1
    assert not any(key.startswith("on") for _, them in page.elements for key in them)
    text = page.text
    for given in (name, other):
        # Bars, and at least one row for each of the strategies in two tables.
        assert text.count(" ".join(given.split())) >= 5


def test_what_a_manifest_says_stays_text_too(changed: Callable[..., Page]) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["scenario"]["name"] = HOSTILE[0]
        manifest["scenario"]["description"] = "half of a pair: \udc80"
        manifest["source"] = "my scenario.yaml; rm -rf ~"
        manifest["overrides"] = ["devices.cameras.count=5 && true"]
        manifest["versions"] = {HOSTILE[1]: HOSTILE[2]}
        manifest["warnings"] = [f"links.wifi: {HOSTILE[1]}"]

    page = changed(edit)
    assert page.all("script") == []
    assert all(str(them["src"]).startswith("data:") for them in page.all("img"))
    assert "offramp run 'my scenario.yaml; rm -rf ~' --set 'devices.cameras.count=5" in page.text
    assert HOSTILE[1] in page.text


# --- what a reader has to know ------------------------------------------------------------------


def test_results_of_an_older_version_are_shown_as_far_as_they_go(
    changed: Callable[..., Page],
) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        for key in set(manifest) - {"scenario"}:
            del manifest[key]

    page = changed(edit)
    assert "does not say which Offramp made these results" in page.text
    assert "offramp run scenario.yaml" in page.text
    assert "offramp reproduce" not in page.text
    assert "SHA-256" not in page.text


def test_another_version_and_another_host_are_named(changed: Callable[..., Page]) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["versions"]["offramp"] = "0.0.1"
        manifest["host"]["board"] = "Raspberry Pi 5"
        manifest["scenario"]["nodes"]["edge"]["profile"] = "pi.parquet"
        manifest["profiles"] = {"nodes.edge.profile": {"board": "Raspberry Pi 4", "cores": 4}}

    page = changed(edit)
    assert "Offramp 0.0.1 made these results" in page.text
    assert "the simulation ran on Raspberry Pi 5" in page.text
    assert (
        "Latencies of nodes.edge come from the profile pi.parquet, measured on Raspberry Pi 4"
        in (page.text)
    )


def test_a_profile_of_this_very_host_is_not_said_to_be_of_another(
    changed: Callable[..., Page],
) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["scenario"]["nodes"]["edge"]["profile"] = "mine.parquet"
        manifest["profiles"] = {"nodes.edge.profile": manifest["host"]}

    assert "mine.parquet, measured" not in changed(edit).text


def test_this_host_is_not_another_host(trained: Any) -> None:
    assert not [text for text in notices(read_results(trained.results)) if "another host" in text]


def test_a_live_run_says_so(changed: Callable[..., Page]) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["world"] = "live"
        manifest["live"] = {
            "broker": "embedded",
            "host": {"processor": "a chip"},
            "joined": ["pi"],
            "lag_ms": {"p50": 0.1},
            "warnings": ["links are not emulated (wifi)"],
        }

    page = changed(edit)
    assert "Offramp report, measured live" in page.text
    assert "Links are not emulated (wifi)." in page.text
    assert "host: processor a chip" in re.sub(r"\s+", " ", page.text)
    assert "offramp live run " in page.text
    assert "offramp reproduce" not in page.text


def test_one_replication_and_one_seed_have_no_interval_and_say_so(
    simulated: Callable[..., tuple[Pipeline, Path]], fixed_service: dict[str, Any]
) -> None:
    _, results = simulated(
        {**fixed_service, "training.seeds": 1, "simulation.replications": 1, "policies": ["full"]}
    )
    page = page_of(results)
    assert "That cannot be said: " in page.text
    assert "there is no interval" in page.text
    assert "INVALID: do not rely on these numbers yet." in page.text
    assert "Too few replications: 1 gives no interval" in page.text
    assert "±" not in page.text.split("Words accuracy under deadline")[0]
    assert not re.search(r"\bnan\b", page.source)
    assert not [them for them in page.all("line") if them.get("class") == "interval"]


def test_a_run_whose_requests_were_all_dropped_is_shown(
    simulated: Callable[..., tuple[Pipeline, Path]], fixed_service: dict[str, Any]
) -> None:
    _, results = simulated(
        {
            **fixed_service,
            "nodes.edge": {"service_ms": 500},
            "policies": [{"policy": "deadline_aware", "when_none_fits": "drop"}],
        }
    )
    page = page_of(results)
    assert not re.search(r"\bnan\b", page.source)
    assert "- / - / -" in page.text
    assert "INVALID" in page.text
    assert "That cannot be said: no request was answered in time under any policy" in page.text
    for bar in [them for them in page.all("svg") if them.get("class") == "bar"]:
        assert "100.0 % dropped" in str(bar["aria-label"])
    rects = [them for them in page.all("rect") if "x" in them]
    assert [(them["class"], them["width"]) for them in rects] == [("dropped", "100.0%")] * 2


# --- question and answer ------------------------------------------------------------------------


def results_of(aud: dict[tuple[str, str], list[list[float]]]) -> Results:
    """Results whose AUD is given by strategy and policy: a list for each seed, of replications."""
    rows = [
        {
            "strategy": strategy,
            "policy": policy,
            "training_seed": seed,
            "replication": replication,
            "offered": 0 if np.isnan(value) else 1000,
            "aud": value,
            "hit_ratio": value,
            "accuracy": value,
            "on_time": round(0 if np.isnan(value) else 1000 * value),
            "late": 0,
            "dropped": 0,
            "lost": 0,
        }
        for (strategy, policy), seeds in aud.items()
        for seed, values in enumerate(seeds)
        for replication, value in enumerate(values)
    ]
    policies = [{"policy": policy} for policy in dict.fromkeys(policy for _, policy in aud)]
    manifest = {
        "scenario": {
            "simulation": {"records": "full"},
            "policies": policies,
            "training": {"checkpoints": {"standard": "given"}},
        }
    }
    empty = pd.DataFrame()
    return Results(Path(), pd.DataFrame(rows), empty, empty, empty, {}, None, manifest)


def answered(aud: dict[tuple[str, str], list[list[float]]]) -> tuple[str, str, list[str]]:
    results = results_of(aud)
    gaps = differences(results)
    arms = pd.DataFrame(
        {"aud": [0.8], "aud_half_width": [0.01 if results.replications > 1 else np.nan]}
    )
    found = answer(results, arms, gaps)
    return found.question, found.sentence, found.remarks


STANDARD = [[0.50, 0.52], [0.51, 0.53], [0.49, 0.51]]


def shifted(*gains: float) -> list[list[float]]:
    return [[value + gain for value in row] for row, gain in zip(STANDARD, gains, strict=True)]


def test_a_gain_beyond_doubt_is_a_yes_with_its_interval() -> None:
    question, sentence, _ = answered(
        {("standard", "p"): STANDARD, ("curriculum", "p"): shifted(0.02, 0.021, 0.019)}
    )
    assert question.startswith("Does curriculum training make more correct answers arrive")
    # 4.303 is Student's t of 2 degrees of freedom: 4.303 · 0.1 / √3 = 0.25.
    assert sentence == (
        "Yes, in this scenario: +2.00 ± 0.25 points under `p` of accuracy under deadline "
        "(95 % interval, paired over 3 training seeds)."
    )


def test_a_loss_is_reported_like_a_gain() -> None:
    _, sentence, _ = answered(
        {("standard", "p"): STANDARD, ("curriculum", "p"): shifted(-0.02, -0.021, -0.019)}
    )
    assert sentence.startswith("No, fewer, in this scenario: -2.00 ± 0.25 points under `p`")


def test_an_interval_with_zero_in_it_is_no_difference_beyond_doubt() -> None:
    _, sentence, _ = answered(
        {("standard", "p"): STANDARD, ("curriculum", "p"): shifted(0.02, -0.01, 0.005)}
    )
    assert sentence.startswith("No difference beyond doubt: under `p`, curriculum − standard is")
    assert sentence.endswith("and the interval contains 0.")


def test_what_is_said_of_several_policies_is_corrected_for_their_number() -> None:
    """A gain whose own interval is beside zero, and p = 0.03: two of them are no evidence."""
    gains = (0.02, 0.03, 0.04)
    assert 0.025 < float(stats.ttest_1samp(gains, 0).pvalue) < 0.05
    alone = {("standard", "a"): STANDARD, ("curriculum", "a"): shifted(*gains)}
    assert answered(alone)[1].startswith("Yes, in this scenario: +3.00 ± 2.48 points under `a`")
    both = alone | {("standard", "b"): STANDARD, ("curriculum", "b"): shifted(0.02, -0.01, 0.005)}
    _, sentence, _ = answered(both)
    assert sentence.startswith("No difference beyond doubt under any of the 2 policies: the widest")
    assert sentence.endswith("paired t-tests, p ≥ 0.05 after Holm's correction).")


def test_pairs_that_are_all_alike_claim_no_more_than_their_number_can() -> None:
    _, sentence, _ = answered(
        {("standard", "p"): STANDARD, ("curriculum", "p"): shifted(0.02, 0.02, 0.02)}
    )
    assert sentence.startswith("No difference beyond doubt: under `p`, curriculum − standard is")
    assert sentence.endswith("alike in too few pairs to be more than chance.")
    _, sentence, _ = answered({("standard", "p"): STANDARD, ("curriculum", "p"): STANDARD})
    assert sentence.endswith("and the interval contains 0.")


def test_where_nothing_is_in_time_nothing_is_compared() -> None:
    nothing = [[0.0, 0.0]] * 3
    said = "That cannot be said: no request was answered in time under any policy"
    for arms in (
        {("standard", "p"): nothing, ("curriculum", "p"): nothing},
        {("standard", "p"): nothing, ("standard", "q"): nothing},
        {("standard", "p"): nothing},
    ):
        assert answered(arms)[1].startswith(said)
    _, sentence, remarks = answered(
        {
            ("standard", "p"): nothing,
            ("curriculum", "p"): nothing,
            ("standard", "q"): STANDARD,
            ("curriculum", "q"): shifted(0.02, 0.021, 0.019),
        }
    )
    assert sentence.startswith("Yes, in this scenario: +2.00 ± 0.25 points under `q`")
    assert "No request was answered in time under `p`." in remarks


def test_policies_that_disagree_are_told_apart() -> None:
    _, sentence, remarks = answered(
        {
            ("standard", "a"): STANDARD,
            ("curriculum", "a"): shifted(0.02, 0.021, 0.019),
            ("standard", "b"): STANDARD,
            ("curriculum", "b"): shifted(0.02, -0.01, 0.005),
            ("standard", "c"): STANDARD,
            ("curriculum", "c"): shifted(-0.02, -0.021, -0.019),
        }
    )
    assert sentence == (
        "That depends on the policy: more under `a` (+2.00 ± 0.25 points); fewer under `c` "
        "(-2.00 ± 0.25 points); no difference beyond doubt under `b`; in points of accuracy under "
        "deadline (95 % intervals, paired over 3 training seeds; paired t-tests, p < 0.05 after "
        "Holm's correction)."
    )
    assert "Intervals are not corrected for the 3 comparisons of strategies." in remarks


@pytest.mark.parametrize(("gain", "begin"), [(0.02, "In part: more"), (-0.02, "No: fewer")])
def test_a_difference_under_one_policy_of_two_is_no_plain_yes(gain: float, begin: str) -> None:
    _, sentence, _ = answered(
        {
            ("standard", "a"): STANDARD,
            ("curriculum", "a"): shifted(gain, gain + 0.001, gain - 0.001),
            ("standard", "b"): STANDARD,
            ("curriculum", "b"): shifted(0.02, -0.01, 0.005),
        }
    )
    assert sentence.startswith(f"{begin} under `a`")
    assert "; no difference beyond doubt under `b`; in points of" in sentence


def test_an_interval_without_zero_is_not_said_to_contain_it() -> None:
    """With p corrected over what else the report compares, it may be in doubt all the same."""
    gains = (0.005, 0.016, 0.010, 0.014)
    sentence = answered(
        {
            ("standard", "p"): [[0.8, 0.8]] * 4,
            ("curriculum", "p"): [[0.8 + gain, 0.8 + gain] for gain in gains],
            ("random_curriculum", "p"): [[0.81, 0.79], [0.78, 0.8], [0.8, 0.8], [0.81, 0.8]],
            ("anti_curriculum", "p"): [[0.81, 0.79], [0.78, 0.8], [0.8, 0.8], [0.81, 0.8]],
        }
    )[1]
    assert sentence.startswith("No difference beyond doubt: under `p`, curriculum − standard is")
    assert "contains 0" not in sentence
    assert "p ≥ 0.05 after Holm's correction, of all that the report compares" in sentence


def test_one_seed_answers_nothing() -> None:
    _, sentence, _ = answered(
        {("standard", "p"): STANDARD[:1], ("curriculum", "p"): [[0.52, 0.54]]}
    )
    assert sentence.startswith("That cannot be said: curriculum − standard was +2.00 points")
    assert "With one training seed there is no interval" in sentence


def test_with_one_strategy_policies_are_compared_over_replications() -> None:
    question, sentence, remarks = answered(
        {("standard", "a"): STANDARD, ("standard", "b"): shifted(0.02, 0.02, 0.02)}
    )
    assert question.endswith("before their deadline than `a`?")
    assert "paired over 2 replications, of 3 trainings of standard" in sentence
    assert "Replications say nothing of another training." in remarks


def test_the_oracle_is_no_candidate() -> None:
    _, sentence, _ = answered(
        {
            ("standard", "a"): STANDARD,
            ("standard", "b"): shifted(0.02, 0.02, 0.02),
            ("standard", "oracle"): shifted(0.3, 0.3, 0.3),
        }
    )
    assert "`b`" in sentence
    assert "`oracle`" not in sentence


def test_one_arm_alone_is_a_share_with_what_its_interval_is_over() -> None:
    question, sentence, _ = answered({("standard", "p"): STANDARD[:1]})
    assert question == "How often does a correct answer arrive before its deadline?"
    assert sentence == (
        "For 80.0 ± 1.0 % of all requests offered (95 % interval over 2 replications of one "
        "training)."
    )
    _, sentence, _ = answered({("standard", "p"): [[0.8]]})
    assert sentence.startswith("For 80.0 % of all requests offered, in 1 replication of one")
    assert sentence.endswith("which gives no interval.")


def test_numbers_that_are_none_answer_nothing() -> None:
    _, sentence, _ = answered(
        {("standard", "p"): [[np.nan] * 2] * 2, ("curriculum", "p"): [[np.nan] * 2] * 2}
    )
    assert sentence == "That is not known: no request was offered."


def test_answers_agree_with_the_tables_of_real_results(trained: Any, page: Page) -> None:
    results = read_results(trained.results)
    found = answer(results, summary(results), differences(results))
    assert found.sentence.replace("`", "").replace("−", "-") in page.text
