"""`offramp report RUN... --compare`: what is refused, and differences recomputed from the runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import offramp.comparison.figures
from offramp import Pipeline, load_scenario
from offramp.comparison.build import compare_runs
from offramp.comparison.differences import run_differences
from offramp.comparison.page import answer
from offramp.comparison.runs import (
    read_runs,
    same_networks,
    same_requests,
    scenario_differences,
)
from offramp.report.figure import FIGURE_SUFFIXES, Figure, save_figure
from offramp.store import Store
from tests.offramp.latex_papers import needs_latex, paper_of

Change = dict[str, Any]
Simulate = Callable[..., Path]


@pytest.fixture
def simulate(store: Path, scenario: Callable[..., Path], tmp_path: Path) -> Simulate:
    """Simulates the tiny scenario, changed, into a folder of a name; trains what is missing."""

    def run(name: str, changes: Change) -> Path:
        path = scenario({"name": name, **changes}, f"{name}.yaml")
        pipeline = Pipeline(load_scenario(str(path)), Store(store))
        pipeline.train()
        pipeline.simulate(tmp_path / name, 1)
        return tmp_path / name

    return run


@pytest.fixture
def near(simulate: Simulate, fixed_service: Change) -> Path:
    return simulate("near", fixed_service)


@pytest.fixture
def far(simulate: Simulate, fixed_service: Change) -> Path:
    return simulate("far", {**fixed_service, "links.wifi.downlink.latency_ms": 12})


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a run whose manifest says something else."""
    copy = Path(shutil.copytree(folder, folder.with_name(folder.name + "-edited")))
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def by_replication(folder: Path, strategy: str, policy: str, metric: str) -> pd.Series:
    runs = pd.read_csv(folder / "runs.csv")
    arm = runs[(runs["strategy"] == strategy) & (runs["policy"] == policy)]
    return arm.groupby("replication")[metric].mean()


def test_differences_with_the_same_networks_are_paired_over_replications(
    near: Path, far: Path, tmp_path: Path
) -> None:
    made = compare_runs([near, far], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert len(table) == len(made.differences) == 2 * 2 * 6 + 2
    assert set(table["run"]) == {"far"}
    table = table[table["metric"] != "aud_gain"]
    for row in table.itertuples():
        arm = (row.strategy, row.policy, row.metric)
        gaps = by_replication(far, *arm) - by_replication(near, *arm)
        assert row.difference == pytest.approx(gaps.mean(), abs=1e-12)
        assert (row.n, row.over) == (2, "replications")
        half = stats.t.ppf(0.975, 1) * np.std(gaps, ddof=1) / 2**0.5
        if np.ptp(gaps) > 1e-9:
            assert row.half_width == pytest.approx(half, rel=1e-9)
    latency = table[(table["metric"] == "latency_p50_s") & (table["policy"] != "deadline_aware")]
    assert latency["difference"].to_numpy() == pytest.approx(0.009, abs=2e-3)


def test_what_a_strategy_gains_in_one_run_and_not_in_the_other_is_over_training_seeds(
    near: Path, far: Path, tmp_path: Path
) -> None:
    compare_runs([near, far], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    gains = table[table["metric"] == "aud_gain"]
    assert len(gains) == 2
    assert set(gains["strategy"]) == {"curriculum"}
    assert set(gains["over"]) == {"training seeds"}, "though both runs have the same networks"
    for row in gains.itertuples():
        of_run = []
        for folder in (near, far):
            runs = pd.read_csv(folder / "runs.csv")
            runs = runs[runs["policy"] == row.policy]
            by_seed = runs.groupby(["strategy", "training_seed"])["aud"].mean()
            of_run.append(by_seed["curriculum"] - by_seed["standard"])
        gaps = of_run[1] - of_run[0]
        assert row.difference == pytest.approx(gaps.mean(), abs=1e-12)
        assert (row.before, row.n) == (pytest.approx(of_run[0].mean(), abs=1e-12), 2)
        if np.ptp(gaps) > 1e-9:
            half = stats.t.ppf(0.975, 1) * np.std(gaps, ddof=1) / 2**0.5
            assert row.half_width == pytest.approx(half, rel=1e-9)
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "What strategies gain in **far**, less what they gain in near: " in page


def test_gains_are_over_one_strategy_in_whatever_order_runs_have_theirs(
    simulate: Simulate, fixed_service: Change
) -> None:
    first = {**fixed_service, "training.strategies": ["curriculum", "random_curriculum"]}
    other = {**fixed_service, "training.strategies": ["random_curriculum", "curriculum"]}
    table = run_differences(read_runs([simulate("one", first), simulate("other", other)]))
    gains = table[table["metric"] == "aud_gain"]
    assert set(gains["strategy"]) == {"random_curriculum"}
    assert set(gains["difference"]) == {0.0}, "networks and requests are the same"


def test_runs_of_other_scales_have_logarithmic_axes_and_an_invalid_one_is_named(
    simulate: Simulate,
    near: Path,
    far: Path,
    fixed_service: Change,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = simulate("slow", {**fixed_service, "nodes.edge.service_ms.median": 2000})
    drawn = {}

    def kept(figure: Figure, folder: Path, name: str) -> None:
        drawn[name] = (figure.mark, {axes.get_xscale() for axes in figure.drawing.axes})
        save_figure(figure, folder, name)

    monkeypatch.setattr(offramp.comparison.figures, "save_figure", kept)
    for name, others, are_log in (("alike", [near, far], False), ("apart", [near, slow], True)):
        compare_runs(others, tmp_path / name)
        assert drawn["latency_ecdf"][1] == {"log" if are_log else "linear"}
        assert ("slow INVALID" in drawn["latency_ecdf"][0]) == are_log
        caption = (tmp_path / name / "figures" / "latency_ecdf.txt").read_text()
        assert ("Axes are logarithmic" in caption) == are_log
    page = (tmp_path / "apart" / "comparison.md").read_text()
    assert "- slow is INVALID: " in page
    assert "overloaded" in page
    for place in ("figures/aud_by_run.txt", "tables/comparison.tex"):
        assert "slow is INVALID: " in (tmp_path / "apart" / place).read_text()


def test_networks_trained_in_another_way_differ_over_training_seeds(
    simulate: Simulate, near: Path, fixed_service: Change
) -> None:
    longer = simulate("longer", {**fixed_service, "training.steps": 6})
    table = run_differences(read_runs([near, longer]))
    assert set(table["over"]) == {"training seeds"}
    for row in table[table["metric"] == "aud"].itertuples():
        gaps = []
        for seed in (1, 2):
            of_seed = []
            for folder in (near, longer):
                runs = pd.read_csv(folder / "runs.csv")
                arm = (runs["strategy"] == row.strategy) & (runs["policy"] == row.policy)
                seeds = sorted(runs["training_seed"].unique())
                of_seed.append(runs[arm & (runs["training_seed"] == seeds[seed - 1])]["aud"].mean())
            gaps.append(of_seed[1] - of_seed[0])
        assert row.difference == pytest.approx(np.mean(gaps), abs=1e-12)


def test_what_runs_share_is_found_in_records_and_manifests(
    simulate: Simulate, near: Path, far: Path, fixed_service: Change
) -> None:
    asked_else = simulate("asked_else", {**fixed_service, "devices.cameras.deadline_ms": 41})
    compared = read_runs([near, far, asked_else])
    one, other, third = compared.runs
    assert same_networks(one, other)
    assert same_requests(one, other)
    assert not same_requests(one, third)


def test_without_records_the_scenarios_say_whether_requests_are_the_same(
    simulate: Simulate, far: Path, fixed_service: Change
) -> None:
    short = simulate("short", {**fixed_service, "simulation.records": "summary"})
    more = simulate("more", {**fixed_service, "devices.cameras.count": 6})
    runs = read_runs([short, far, more]).runs
    assert same_requests(runs[0], runs[1])
    assert not same_requests(runs[0], runs[2])


def test_the_page_says_what_differs_and_by_how_much(near: Path, far: Path, tmp_path: Path) -> None:
    made = compare_runs([near, far], tmp_path / "out")
    page = made.page.read_text(encoding="utf-8")
    assert page.startswith("# far against near\n")
    assert "| `links.wifi.downlink.latency_ms` | 3.0 | 12.0 |" in page
    assert page.count("| `") == 2 + 1, "two runs' folders and one key"
    aud = made.differences[
        (made.differences["metric"] == "aud")
        & (made.differences["policy"] == "fixed_exit(exit=2)")
        & (made.differences["strategy"] == "standard")
    ].iloc[0]
    assert f"{100 * aud['difference']:+.2f}" in page
    tex = (tmp_path / "out" / "tables" / "comparison.tex").read_text(encoding="utf-8")
    assert r"\toprule" in tex


def test_what_differs_is_readable_where_entries_are_blocks(
    simulate: Simulate, near: Path, fixed_service: Change
) -> None:
    crash = [{"kind": "node_crash", "node": "edge", "at_s": 1, "for_s": 1}]
    first = {"policy": "fixed_exit", "exit": 1}
    other = simulate(
        "other", {**fixed_service, "faults": crash, "policies": ["deadline_aware", first]}
    )
    rows = scenario_differences(read_runs([near, other])).set_index("key")
    assert list(rows.index) == ["policies.1", "faults.0"]
    assert rows.loc["faults.0", "near"] == "-"
    assert rows.loc["faults.0", "other"] == (
        "{at_s: 1.0, for_s: 1.0, kind: node_crash, node: edge}"
    )
    assert "None" not in rows.to_string()
    assert "exit: 2" in str(rows.loc["policies.1", "near"])


@needs_latex
def test_figures_and_table_of_a_comparison_go_into_a_paper(
    near: Path, far: Path, tmp_path: Path
) -> None:
    compare_runs([near, far], tmp_path / "out")
    parts = (tmp_path / "out" / "figures", tmp_path / "out" / "tables")
    assert len(paper_of(tmp_path, *parts)) == 4 + 1


def test_every_figure_has_all_its_files_and_every_run(
    near: Path, far: Path, tmp_path: Path
) -> None:
    compare_runs([near, far], tmp_path / "out")
    folder = tmp_path / "out" / "figures"
    names = ("aud_by_run", "aud_against_deadline", "latency_ecdf", "exits_taken")
    expected = {f"{name}{suffix}" for name in names for suffix in FIGURE_SUFFIXES}
    assert {path.name for path in folder.iterdir()} == expected
    for name in names:
        assert set(pd.read_csv(folder / f"{name}.csv")["run"]) == {"near", "far"}
    shares = pd.read_csv(folder / "exits_taken.csv").groupby(["run", "policy", "strategy"])["share"]
    assert shares.sum().to_numpy() == pytest.approx(1.0)


def test_runs_without_a_common_arm_stand_side_by_side(
    simulate: Simulate, near: Path, fixed_service: Change, tmp_path: Path
) -> None:
    first = {"policy": "fixed_exit", "exit": 1}
    other = simulate("other", {**fixed_service, "policies": [first]})
    made = compare_runs([near, other], tmp_path / "out")
    assert not len(made.differences)
    assert "no differences" in made.page.read_text(encoding="utf-8")
    data = pd.read_csv(tmp_path / "out" / "figures" / "aud_by_run.csv")
    assert set(data["policy"]) == {"deadline_aware", "fixed_exit(exit=2)", "fixed_exit(exit=1)"}


def test_one_replication_of_the_same_networks_cannot_be_tested(
    simulate: Simulate, fixed_service: Change
) -> None:
    once = {**fixed_service, "simulation.replications": 1}
    slower = {**once, "links.wifi.downlink.latency_ms": 30}
    compared = read_runs([simulate("a", once), simulate("b", slower)])
    table = run_differences(compared)
    moved = table[(table["difference"].abs() > 1e-9) & (table["metric"] != "aud_gain")]
    assert {"aud", "latency_p50_s"} <= set(moved["metric"])
    assert set(moved["verdict"]) == {"untested"}
    assert "with too few repetitions to tell" in answer(compared, table)


def test_other_requests_and_more_replications_are_all_compared_unpaired(
    simulate: Simulate, near: Path, fixed_service: Change, tmp_path: Path
) -> None:
    other = simulate("other", {**fixed_service, "seed": 99, "simulation.replications": 4})
    made = compare_runs([near, other], tmp_path / "out")
    of_gains = made.differences["metric"] == "aud_gain"
    assert set(made.differences.loc[of_gains, "test"]) == {"paired t-test, crossed"}
    table = made.differences[~of_gains]
    assert set(table["test"]) == {"Welch's t-test, unpaired"}
    assert (table["n_before"] == 2).all()
    assert (table["n_after"] == 4).all()
    row = table[table["metric"] == "latency_p50_s"].iloc[0]
    arm = (row["strategy"], row["policy"], "latency_p50_s")
    expected = stats.ttest_ind(
        by_replication(other, *arm), by_replication(near, *arm), equal_var=False
    )
    assert row["p"] == pytest.approx(expected.pvalue, rel=1e-6)
    assert "](tables/comparison.tex)" in made.page.read_text(encoding="utf-8")
    said = "Welch's t-test, unpaired, n = 2 and 4 replications"
    assert said in made.page.read_text(encoding="utf-8")
    html = made.page.with_suffix(".html").read_text(encoding="utf-8")
    assert said in html.replace("<wbr>", "").replace("&#39;", "'")
    tex = (tmp_path / "out" / "tables" / "comparison.tex").read_text(encoding="utf-8")
    assert "2 and 4 replications, unpaired" in tex


def test_a_run_that_answered_nothing_is_compared(
    simulate: Simulate, near: Path, fixed_service: Change, tmp_path: Path
) -> None:
    crash = [{"kind": "node_crash", "node": "edge", "at_s": 0, "for_s": 60}]
    down = simulate("down", {**fixed_service, "faults": crash})
    made = compare_runs([near, down], tmp_path / "out")
    aud = made.differences[made.differences["metric"] == "aud"]
    assert (aud["after"] == 0).all()
    answered = made.differences[made.differences["after"].notna()]
    assert "latency_p50_s" not in set(answered["metric"])


# --- refused -------------------------------------------------------------------------------------


def test_another_dataset_is_refused_by_the_name_of_the_field(near: Path) -> None:
    other = edited(near, lambda manifest: manifest["scenario"]["data"].update(dataset="cifar10"))
    with pytest.raises(Exception, match=r"data\.dataset is 'digits' .* 'cifar10' in the second"):
        read_runs([near, other])


def test_runs_of_other_rules_of_simulation_are_refused(near: Path) -> None:
    other = edited(near, lambda manifest: manifest["stages"].update(simulation=1))
    with pytest.raises(Exception, match=r"stages\.simulation are \d+ and 1"):
        read_runs([near, other])


def test_the_command_line_refuses_in_one_line(
    near: Path, far: Path, offramp: Callable[..., Any], tmp_path: Path
) -> None:
    for arguments, message in (
        ([near, "--compare"], "needs two runs or more"),
        ([near, near, "--compare"], "is named twice"),
        ([near, tmp_path / "nothing", "--compare"], "not a results folder of a finished run"),
        ([near, far, "--compare", "-o", near], "holds the results of something else"),
        ([near, far, "-o", tmp_path / "one"], "--compare makes one report of"),
    ):
        ran = offramp("report", *arguments)
        assert ran.status == 2
        assert message in ran.err.replace("\n", " ")
        assert "Traceback" not in ran.err


def test_the_command_line_shows_differences_and_where_the_page_is(
    near: Path, far: Path, offramp: Callable[..., Any], tmp_path: Path
) -> None:
    ran = offramp("report", near, far, "--compare")
    assert ran.status == 0, ran.err
    assert "far" in ran.out
    assert (tmp_path / "results" / "near-and-far" / "comparison.md").exists()


def test_several_runs_without_compare_are_reported_each(
    near: Path, far: Path, offramp: Callable[..., Any]
) -> None:
    assert offramp("report", near, far).out.count("report: ") == 2
    assert (near / "report.md").exists()
    assert (far / "report.md").exists()
