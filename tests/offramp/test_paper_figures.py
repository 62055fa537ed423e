"""Figures and tables that go into a paper: intervals from the CSV, bold, LaTeX, sweeps."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from pandas.api.types import is_float_dtype
from scipy import stats

import offramp.report.figures
import offramp.report.verdicts
from models.errors import ResultsError
from offramp.report.build import build_report
from offramp.report.figure import (
    MARK_LINE,
    Figure,
    cut_note,
    cut_to_shares,
    label_left,
    panels_for,
    save_figure,
)
from offramp.report.latency_figures import draw_deadlines
from offramp.report.latex import Numbers, Text, escape, table_environment
from offramp.report.paired import compare_arms, compare_groups, compare_pairs
from offramp.report.results import read_results
from offramp.report.style import PNG_DPI, paper_style, policy_looks
from offramp.report.sweep import write_sweep_report
from offramp.report.sweep_figures import figures_against
from offramp.report.sweep_table import read_sweep, setting_text
from offramp.report.tables import Best, best_arm, bold_sentence
from offramp.report.tradeoff import pareto_front
from tests.offramp.latex_papers import needs_latex, paper_of

COUNTS = (5, 10, 20)
LOSSES = (0.0, 1.0)


def a_sweep(folder: Path, *, seeds: int = 4, replications: int = 3, noise: float = 0.01) -> Path:
    """A sweep over two keys, in which curriculum gains 3 points at once and loses at 20 cameras."""
    rng = np.random.default_rng(7)
    rows = []
    for point, (count, loss) in enumerate((count, loss) for count in COUNTS for loss in LOSSES):
        for strategy in ("standard", "curriculum"):
            gain = 0.0 if strategy == "standard" else (0.03 if count < 20 else -0.03)
            for seed in range(seeds):
                for policy in ("full", "confidence(threshold=0.9)"):
                    for replication in range(replications):
                        aud = 0.9 - 0.01 * count - 0.02 * loss + gain
                        aud += noise * rng.standard_normal()
                        rows.append(
                            {
                                "point": point,
                                "devices.cameras.count": count,
                                "links.wifi.uplink.loss_percent": loss,
                                "strategy": strategy,
                                "training_seed": seed,
                                "policy": policy,
                                "replication": replication,
                                "offered": 100 + replication,
                                "answered": 90,
                                "aud": aud,
                                "on_time": 80,
                                "verdict": "OVERLOADED"
                                if policy == "full" and count == 20
                                else "STABLE",
                                "exit_1": 40,
                                "exit_2": 50,
                            }
                        )
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_parquet(folder / "sweep.parquet")
    return folder


def from_csv(row: Any) -> tuple[float, float]:
    """Ends of the interval, from n and the standard deviation alone."""
    half_width = stats.t.ppf(0.975, row.n - 1) * row.sd / np.sqrt(row.n)
    return row.high - half_width, row.low + half_width


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("aud_against_deadline", "aud"),
        ("gain_against_deadline", "gain_points"),
        ("gain_at_each_exit", "gain_points"),
        ("exits_accuracy_and_latency", "accuracy"),
    ],
)
def test_every_interval_can_be_recomputed_from_the_csv(name: str, mean: str, trained: Any) -> None:
    data = pd.read_csv(trained.results / "figures" / f"{name}.csv")
    known = data[data["high"].notna()]
    assert len(known)
    for row in known.itertuples():
        assert from_csv(row) == pytest.approx((getattr(row, mean),) * 2, abs=1e-9)


def test_the_caption_lies_beside_the_figure_and_in_its_environment(trained: Any) -> None:
    folder = trained.results / "figures"
    caption = (folder / "gain_against_deadline.txt").read_text().strip()
    assert "2 training seeds" in caption
    assert "paired" in caption
    assert escape(caption) in (folder / "gain_against_deadline.tex").read_text()


def test_a_policy_looks_the_same_beside_any_other() -> None:
    alone = policy_looks(["confidence(threshold=0.9)"])
    beside = policy_looks(
        ["full", "mine", "confidence(threshold=0.9)", "confidence(threshold=0.5)"]
    )
    assert alone["confidence(threshold=0.9)"] == beside["confidence(threshold=0.9)"]
    looks = list(beside.values())
    assert len({look.colour for look in looks}) == len(looks)
    assert len({(look.dashes, look.marker) for look in looks}) == len(looks)


def test_the_pareto_front_worked_by_hand() -> None:
    cost, gain = [1, 2, 2, 3, 4, np.nan], [0.5, 0.7, 0.6, 0.7, 0.9, 1.0]
    assert list(pareto_front(cost, gain)) == [True, True, False, False, True, False]


def test_many_comparisons_at_once_are_those_one_by_one() -> None:
    rng = np.random.default_rng(1)
    groups = {"a": rng.normal(1, 1, 5), "same": np.full(4, 0.5), "zero": np.zeros(3), "one": [2.0]}
    parts = [pd.Series(values, index=[name] * len(values)) for name, values in groups.items()]
    together = compare_groups(pd.concat(parts).rename_axis("arm"), ["arm"])
    for name, values in groups.items():
        alone, row = compare_pairs(values), together.loc[name]
        assert row["n"] == alone.n
        assert row["high"] - row["mean"] == pytest.approx(alone.half_width, nan_ok=True)
        assert [row["mean"], row["p"]] == pytest.approx([alone.mean, alone.p], nan_ok=True)


def test_a_difference_that_is_not_known_is_no_pair() -> None:
    with pytest.raises(ValueError, match="1 of 3 differences are not numbers"):
        compare_pairs([np.nan, 0.1, 0.2])
    with pytest.raises(ValueError, match="not numbers"):
        compare_pairs([np.nan])
    assert compare_pairs([]).n == 0


# --- tables -------------------------------------------------------------------------------------


class Runs:
    """What :func:`best_arm` reads of results: two strategies, one policy."""

    strategies, policies = ("standard", "curriculum"), ("full",)
    candidates = policies

    def __init__(self, gains: list[float]) -> None:
        rows = [
            (s, seed, 0.8 + (g if s == "curriculum" else 0))
            for seed, g in enumerate(gains)
            for s in self.strategies
        ]
        self.runs = pd.DataFrame(rows, columns=["strategy", "training_seed", "aud"]).assign(
            policy="full", replication=0, offered=100, answered=100
        )


def test_arms_are_paired_by_what_remains() -> None:
    """Seeds differ by far more than strategies: only pairing shows the gain of 1, 2 and 3."""
    index = pd.MultiIndex.from_product(
        [["b", "a"], [3, 1, 2, 4]], names=["strategy", "training_seed"]
    )
    values = pd.Series([300.0, 100.0, 200.0, 7.0, 303.0, 101.0, 202.0, np.nan], index=index)
    found = compare_arms(values, "strategy", "a", "b")
    assert found == compare_pairs([1.0, 2.0, 3.0])
    assert found.p == pytest.approx(stats.ttest_1samp([1.0, 2.0, 3.0], 0.0).pvalue)
    assert compare_arms(values, "strategy", "b", "a").mean == -2.0


def test_the_best_is_bold_only_where_the_difference_is_significant() -> None:
    sure = best_arm(Runs([0.03, 0.031, 0.029, 0.03]))  # type: ignore[arg-type]
    unsure = best_arm(Runs([0.03, -0.03, 0.05, -0.04]))  # type: ignore[arg-type]
    alone = best_arm(Runs([0.03]))  # type: ignore[arg-type]
    assert sure
    assert sure.arm == ("curriculum", "full")
    assert sure.is_significant
    assert unsure
    assert not unsure.is_significant
    assert alone
    assert np.isnan(alone.p)
    assert not alone.is_significant


def test_numbers_that_are_not_finite_are_dashes() -> None:
    column = Numbers("AUD (%)", [50.0, float("nan"), float("inf")], 1, [1.0, 2.0, float("nan")])
    assert column.rows() == [r"50.0 & $\pm$\,1.0", "{--} & ", "{--} & "]


# --- what must not be relied on -----------------------------------------------------------------


def test_a_mark_stands_below_the_drawing_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    def drawn(name: str, mark: str) -> np.ndarray:
        figure, axes = plt.subplots(figsize=(3.5, 2))
        axes.set(xlabel="load", ylabel="AUD")
        save_figure(Figure(figure, pd.DataFrame(), "A caption.", mark), tmp_path, name)
        return np.asarray(plt.imread(tmp_path / f"{name}.png"))

    with paper_style():
        plain, marked = drawn("plain", ""), drawn("marked", "INVALID")
    rows = marked.shape[0] - plain.shape[0]
    assert rows == pytest.approx(MARK_LINE * PNG_DPI, abs=1)
    assert marked.shape[1] == plain.shape[1]
    assert np.abs(marked[:-rows] - plain).mean() < 1e-3
    red = marked[-rows:, :, 0] - marked[-rows:, :, 1]
    assert (red > 0.3).any(), "it is there, and whole"
    assert not (red[[0, -1]] > 0.3).any()
    with paper_style():
        long = drawn("long", "a long name, another long name and one more are INVALID: see below")
    rows = long.shape[0] - plain.shape[0]
    assert rows == pytest.approx(2 * MARK_LINE * PNG_DPI, abs=1)
    assert np.abs(long[:-rows] - plain).mean() < 1e-3
    assert not (long[[-rows, -1], :, 0] - long[[-rows, -1], :, 1] > 0.3).any()


def test_figures_and_tables_of_an_invalid_run_say_so(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained.results, tmp_path / "run"))
    nodes = pd.read_csv(run / "nodes.csv")
    nodes.assign(work=2.0, bounded=False).to_csv(run / "nodes.csv", index=False)
    marks = {}

    def kept(figure: Figure, folder: Path, name: str) -> None:
        marks[name] = figure.mark
        save_figure(figure, folder, name)

    monkeypatch.setattr(offramp.report.figures, "save_figure", kept)
    build_report(run)
    of_networks = {"gain_at_each_exit", "exits_accuracy_and_latency"}
    assert {name for name, mark in marks.items() if not mark} == of_networks & marks.keys()
    for folder, suffix in (("figures", "txt"), ("figures", "tex"), ("tables", "tex")):
        said = {path.stem: path.read_text() for path in (run / folder).glob(f"*.{suffix}")}
        marked = {name for name, text in said.items() if "INVALID: " in text}
        assert all("overloaded under" in said[name] for name in marked)
        assert marked == said.keys() - of_networks - {"exits"}


def test_reasons_in_a_caption_are_few(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    results = read_results(trained.results)
    many = [f"reason {number}" for number in range(5)]
    monkeypatch.setattr(offramp.report.verdicts, "doubts", lambda *args, **more: many)
    said = "INVALID: reason 0; reason 1; reason 2; and 2 further reasons."
    assert offramp.report.verdicts.invalid_note(results) == said
    monkeypatch.setattr(offramp.report.verdicts, "doubts", lambda *args, **more: [])
    assert offramp.report.verdicts.invalid_note(results) == ""


# --- sweeps -------------------------------------------------------------------------------------


def test_a_sweep_gives_figures_against_each_key_and_maps_of_both(tmp_path: Path) -> None:
    page = write_sweep_report(a_sweep(tmp_path / "sweep"))
    figures = {path.stem for path in (tmp_path / "sweep" / "figures").glob("*.pdf")}
    count, loss = "devices_cameras_count", "links_wifi_uplink_loss_percent"
    assert figures == {
        *(f"{kind}_against_{key}" for kind in ("aud", "gain", "exits") for key in (count, loss)),
        f"aud_map_{count}_{loss}",
        f"gain_map_{count}_{loss}",
    }
    assert "better at 8, worse at 4, no difference shown at 0" in page.read_text()
    assert "The sweep is not over" in page.read_text()


def with_null(folder: Path) -> Path:
    """The sweep, where the least of the cameras' numbers is null."""
    path = folder / "sweep.parquet"
    table = pd.read_parquet(path)
    key = table["devices.cameras.count"].astype("Int64")
    table["devices.cameras.count"] = key.where(key != COUNTS[0])
    table.to_parquet(path)
    return folder


def test_null_is_a_value_of_a_swept_key_like_any_other(tmp_path: Path) -> None:
    """Such as a queue without a limit, beside some with one."""
    plain, null = a_sweep(tmp_path / "plain"), with_null(a_sweep(tmp_path / "null"))
    write_sweep_report(plain)
    page = write_sweep_report(null).read_text()
    assert "- `devices.cameras.count`: null, 10, 20" in page
    assert "better at 8, worse at 4, no difference shown at 0" in page
    names = {path.stem for path in (plain / "figures").glob("*.csv")}
    assert {path.stem for path in (null / "figures").glob("*.csv")} == names
    for name in names:
        known, found = (
            pd.read_csv(it / "figures" / f"{name}.csv", keep_default_na=False)
            for it in (plain, null)
        )
        if "devices.cameras.count" in known:
            counts = known["devices.cameras.count"].astype(str).replace("5", "null")
            known["devices.cameras.count"] = counts
            found["devices.cameras.count"] = found["devices.cameras.count"].astype(str)
        by = [name for name in known if "loss" in name or not is_float_dtype(known[name])]
        pd.testing.assert_frame_equal(
            known.sort_values(by, ignore_index=True), found.sort_values(by, ignore_index=True)
        )


def test_strategies_that_meet_no_baseline_have_no_gain(tmp_path: Path) -> None:
    """As where `training.strategies` is swept, one at a time."""
    folder = a_sweep(tmp_path / "sweep")
    path = folder / "sweep.parquet"
    table = pd.read_parquet(path)
    alone = table["strategy"].eq("standard") == (table["devices.cameras.count"] == COUNTS[0])
    table[alone].to_parquet(path)
    page = write_sweep_report(folder).read_text()
    names = {path.stem for path in (folder / "figures").glob("*.csv")}
    assert "aud_against_devices_cameras_count" in names
    assert not [name for name in names if name.startswith("gain_")]
    assert "mean gain" not in page


def test_points_that_are_overloaded_are_counted_and_marked(tmp_path: Path) -> None:
    folder = a_sweep(tmp_path / "sweep")
    page = write_sweep_report(folder).read_text()
    assert "- **2 of 6 points are OVERLOADED: " in page
    assert "(under `full`)" in page
    count, loss = "devices.cameras.count", "links.wifi.uplink.loss_percent"
    stem = f"{count}_{loss}".replace(".", "_")
    for name, said in (
        ("aud_against_devices_cameras_count", "Hollow markers: a node or a link was OVERLOADED"),
        (f"aud_map_{stem}", "Hatched: a node or a link was OVERLOADED"),
        (f"gain_map_{stem}", "Hatched: a node or a link was OVERLOADED"),
        ("exits_against_devices_cameras_count", "At 20, a node or a link was OVERLOADED"),
    ):
        assert said in (folder / "figures" / f"{name}.txt").read_text()
        if "exits" not in name:
            data = pd.read_csv(folder / "figures" / f"{name}.csv")
            expected = (data["policy"] == "full") & (data[count] == 20)
            assert (data["overloaded"] == expected).all()
    table = pd.read_parquet(folder / "sweep.parquet")
    table.assign(verdict="STABLE").to_parquet(folder / "sweep.parquet")
    write_sweep_report(folder)
    told = "".join(path.read_text() for path in (folder / "figures").glob("*.txt"))
    assert "OVERLOADED" not in told + (folder / "report.md").read_text()


@pytest.fixture
def words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep's page without its figures, where they do not matter: they take seconds."""
    monkeypatch.setattr("offramp.report.sweep.sweep_figures", lambda sweep: iter(()))


@pytest.mark.usefixtures("words_only")
def test_short_runs_and_short_warm_ups_of_a_sweep_are_counted(tmp_path: Path) -> None:
    folder = a_sweep(tmp_path / "sweep")
    table = pd.read_parquet(folder / "sweep.parquet")
    table["planned_changes"] = False
    table["rest_s"] = 0.01 + 1e-4 * table["replication"]
    late = (table["point"] == 2) & (table["policy"] == "full") & (table["strategy"] == "standard")
    table["first_quarter_s"] = table["rest_s"] * (1 + 0.3 * late)
    table.loc[table["point"] == 4, "offered"] = 99

    def page() -> str:
        table.to_parquet(folder / "sweep.parquet")
        return write_sweep_report(folder).read_text()

    said = page()
    assert "At 1 of 6 points, a run measured fewer than 100 requests" in said
    assert "At 1 of 6 points, the warm-up had not settled" in said
    # Latency that follows a curve says nothing of the warm-up.
    table["planned_changes"] = table["point"] >= 2
    said = page()
    assert "settled" not in said
    assert "was not judged at 4 of 6 points: there the world changes at planned times" in said
    table["planned_changes"] = table["point"] > 2
    assert "At 1 of 6 points, the warm-up had not settled" in page()
    table["planned_changes"] = False
    table["first_quarter_s"] = table["rest_s"]
    table["offered"] = 100
    said = page()
    assert "settled" not in said
    assert "not judged" not in said
    assert "fewer than" not in said
    table = table.drop(columns="planned_changes")
    assert "was not judged: that takes a table of this version" in page()
    table = table[table["replication"] == 0]
    assert "was not judged: that takes two replications" in page()


def test_a_sweep_in_which_nothing_is_in_time_says_nothing_else(tmp_path: Path) -> None:
    folder = a_sweep(tmp_path / "sweep")
    table = pd.read_parquet(folder / "sweep.parquet")
    table.assign(on_time=table["on_time"].where(table["point"] > 0, 0)).to_parquet(
        folder / "sweep.parquet"
    )
    assert "At 1 of 6 points, no request was answered in time" in write_sweep_report(
        folder
    ).read_text(encoding="utf-8")
    table.assign(on_time=0).to_parquet(folder / "sweep.parquet")
    page = write_sweep_report(folder).read_text()
    assert "No request was answered in time under any policy: nothing can be said" in page
    assert "ranges over the points" not in page


def test_the_gain_of_a_sweep_recomputed_from_its_table(tmp_path: Path) -> None:
    folder = a_sweep(tmp_path / "sweep")
    write_sweep_report(folder)
    table = pd.read_parquet(folder / "sweep.parquet")
    data = pd.read_csv(folder / "figures" / "gain_against_devices_cameras_count.csv")
    assert len(data) == 3 * 2 * 2
    arm = ["strategy", "training_seed"]
    for row in data.itertuples():
        rows = table[(table["devices.cameras.count"] == row[1]) & (table["policy"] == row.policy)]
        rows = rows[rows["links.wifi.uplink.loss_percent"] == row[2]]
        hits = (rows["aud"] * rows["offered"]).groupby([rows[key] for key in arm]).sum()
        aud = hits / rows.groupby(arm)["offered"].sum()
        gains = 100 * (aud["curriculum"] - aud["standard"])
        assert row.gain_points == pytest.approx(gains.mean())
        assert (row.sd, row.n) == (pytest.approx(gains.std()), 4)


def test_one_seed_and_replication_have_no_interval_and_the_caption_says_so(tmp_path: Path) -> None:
    folder = a_sweep(tmp_path / "sweep", seeds=1, replications=1)
    write_sweep_report(folder)
    name = folder / "figures" / "gain_against_devices_cameras_count"
    assert "No intervals: 1 training seed" in name.with_suffix(".txt").read_text()
    assert pd.read_csv(name.with_suffix(".csv"))["low"].isna().all()


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "infinite", "foreign"])
def test_a_sweep_that_cannot_be_read_is_one_message(damage: str, tmp_path: Path) -> None:
    folder = a_sweep(tmp_path / "sweep")
    path = folder / "sweep.parquet"
    table = pd.read_parquet(path)
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:100])
        case "empty":
            table.iloc[:0].to_parquet(path)
        case "infinite":
            table.assign(aud=np.inf).to_parquet(path)
        case "foreign":
            table.drop(columns=["aud"]).to_parquet(path)
    with pytest.raises(ResultsError, match=r"sweep\.parquet"):
        write_sweep_report(folder)


# --- LaTeX --------------------------------------------------------------------------------------


@needs_latex
def test_a_two_column_paper_with_every_figure_and_table_compiles(
    trained: Any, tmp_path: Path
) -> None:
    sweep, hostile = a_sweep(tmp_path / "sweep"), tmp_path / "hostile"
    write_sweep_report(sweep)
    hostile.mkdir()
    cells = ["~^{}$#<|>é ≥ ≤ ± ×"]
    (hostile / "hostile.tex").write_text(
        table_environment("x", [Text("a_b & 100 %", cells)], "50 % of a_b ± 1"), encoding="utf-8"
    )
    results = trained.results
    files = paper_of(tmp_path, results / "figures", results / "tables", sweep / "figures", hostile)
    assert len(files) == 7 + 3 + 8 + 1


def test_a_letter_that_latex_has_not_is_a_question_mark() -> None:
    assert escape("é ж ≥") == r"é ? $\geq$"


# --- how figures are drawn ------------------------------------------------------------------------


def test_a_caption_speaks_of_bold_only_where_some_is() -> None:
    best = Best(("curriculum", "a"), ("standard", "a"), 0.01, "training seeds", 3)
    assert bold_sentence(best).startswith("Bold: the highest AUD, which differs from the next")
    even = replace(best, p=0.5)
    assert bold_sentence(even).startswith("No AUD is bold: the highest does not differ")
    assert "p = 0.50 after Holm's correction over 3 pairs" in bold_sentence(even)


def test_a_share_is_drawn_between_0_and_100_percent() -> None:
    with paper_style():
        figure, axes = plt.subplots()
        axes.errorbar([1, 2], [0.1, 0.9], yerr=[0.5, 0.5])
        cut_to_shares(axes)
        low, high = axes.get_ylim()
        plt.close(figure)
    assert low == 0
    assert 1 < high <= 1.04
    assert cut_note(pd.Series([0.1, -0.4]), pd.Series([0.2, 0.6])) != ""
    assert cut_note(pd.Series([0.1, np.nan]), pd.Series([0.2, np.nan])) == ""


def test_a_deadline_at_the_end_of_a_panel_has_its_name_inside() -> None:
    with paper_style():
        figure, axes = plt.subplots()
        axes.set_xlim(0, 105)
        draw_deadlines(axes, {"early": 40.0, "late": 100.0})
        sides = {text.get_text(): text.get_horizontalalignment() for text in axes.texts}
        plt.close(figure)
    assert sides == {"early": "left", "late": "right"}


def test_rows_of_panels_have_one_label() -> None:
    with paper_style():
        for count, own in ((3, ["gain\n(points)", "", ""]), (6, [""] * 6)):
            figure, panels = panels_for([str(number) for number in range(count)])
            label_left(panels, "gain\n(points)")
            assert [axes.get_ylabel() for axes in panels] == own
            assert figure.get_supylabel() == ("" if any(own) else "gain (points)")
            plt.close(figure)


def test_integers_have_ticks_where_they_were_run_as_far_as_they_fit(tmp_path: Path) -> None:
    sweep = read_sweep(a_sweep(tmp_path / "sweep"))
    with paper_style():
        name, figure = next(figures_against(sweep, "devices.cameras.count"))
        assert name == "aud_against_devices_cameras_count"
        figure.drawing.draw_without_rendering()
        ticks = figure.drawing.axes[0].get_xticks()
        titles = [axes.get_title() for axes in figure.drawing.axes[:2]]
        plt.close(figure.drawing)
    assert list(ticks) == list(COUNTS)
    assert titles == ["wifi uplink loss = 0 %", "wifi uplink loss = 1 %"]
    assert setting_text("devices.cameras.count", 5) == "number of cameras = 5"


def test_captions_of_a_sweep_say_how_long_a_replication_is(tmp_path: Path) -> None:
    sweep = read_sweep(a_sweep(tmp_path / "sweep"))
    assert sweep.repetitions == "4 training seeds and 3 replications at each point"
    known = replace(sweep, manifest={"scenario": {"simulation": {"duration_s": 30.0}}})
    assert known.repetitions == "4 training seeds and 3 replications of 30 s at each point"
