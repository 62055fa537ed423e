"""Summary, figures and page: they show what the runs gave, and say what it rests on."""

import json
import re
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy import stats

from models.artifacts import read_profile
from offramp import OfframpError, load_scenario
from offramp.report.build import build_report
from offramp.report.figure import FIGURE_SUFFIXES
from offramp.report.tables import TABLE_NAMES

Change = dict[str, Any]

FIGURES = (
    "aud_against_deadline",
    "gain_against_deadline",
    "gain_at_each_exit",
    "accuracy_against_latency",
    "exits_accuracy_and_latency",
    "exits_taken",
    "latency_ecdf",
)


@pytest.fixture
def reported(
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    fixed_service: Change,
    tmp_path: Path,
) -> Callable[..., tuple[Path, Any]]:
    """Simulates a world with fixed service times, and reports; warnings are errors."""

    def report(changes: Change) -> tuple[Path, Any]:
        path = scenario({**fixed_service, **changes})
        results = tmp_path / "results"
        ran = offramp("simulate", path, "--store", store, "-o", results, "-j", 1)
        assert ran.status == 0, ran.err
        return results, ran

    return report


def t_interval(values: pd.Series) -> tuple[float, float]:
    half_width = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(values.mean() - half_width), float(values.mean() + half_width)


# --- figures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_pdf_a_png_and_a_csv(name: str, trained: Any) -> None:
    folder = trained.results / "figures"
    assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
    png = (folder / f"{name}.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width >= 3.4 * 300, "a column of a paper at 300 dots per inch"
    assert height >= 1 * 300
    assert len(pd.read_csv(folder / f"{name}.csv")) > 0


def test_there_is_no_other_figure_and_nothing_half_written(trained: Any) -> None:
    names = {f"{name}{suffix}" for name in FIGURES for suffix in FIGURE_SUFFIXES}
    assert {path.name for path in (trained.results / "figures").iterdir()} == names
    assert not [path for path in trained.results.rglob("*") if "partial" in path.name]


@pytest.mark.parametrize("name", FIGURES)
def test_fonts_are_of_type_42_as_publishers_ask(name: str, trained: Any) -> None:
    pdf = (trained.results / "figures" / f"{name}.pdf").read_bytes()
    assert b"/Type3" not in pdf
    assert b"/FontFile2" in pdf, "fonts are embedded as TrueType"


def test_the_check_for_type_42_can_fail(tmp_path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0.5, 0.5, "type 3")
    with mpl.rc_context({"pdf.fonttype": 3}):
        figure.savefig(tmp_path / "type3.pdf")
    assert b"/Type3" in (tmp_path / "type3.pdf").read_bytes()


def test_aud_against_deadline_recomputed_from_the_sweep(trained: Any) -> None:
    sweep = pd.read_csv(trained.results / "deadline_sweep.csv")
    data = pd.read_csv(trained.results / "figures" / "aud_against_deadline.csv")
    assert sorted(data["deadline_ms"].unique()) == [20.0, 40.0]
    assert len(data) == 2 * 2 * 2
    for row in data.itertuples():
        runs = sweep[
            (sweep["policy"] == row.policy)
            & (sweep["strategy"] == row.strategy)
            & (sweep["deadline_scale"] == row.deadline_ms / 40)
        ]
        assert len(runs) == 4
        hits = (runs["aud"] * runs["offered"]).groupby(runs["training_seed"]).sum()
        seeds = hits / runs["offered"].groupby(runs["training_seed"]).sum()
        assert row.aud == pytest.approx(seeds.mean(), abs=1e-12)
        assert (row.low, row.high) == pytest.approx(t_interval(seeds), abs=1e-9)
        assert row.training_seeds == 2


def test_the_sweep_at_scale_1_is_the_run_itself(trained: Any) -> None:
    arm = ["strategy", "training_seed", "policy", "replication"]
    sweep = pd.read_csv(trained.results / "deadline_sweep.csv")
    runs = pd.read_csv(trained.results / "runs.csv").set_index(arm)
    at_1 = sweep[sweep["deadline_scale"] == 1].set_index(arm)[["offered", "aud", "hit_ratio"]]
    pd.testing.assert_frame_equal(at_1, runs[at_1.columns].loc[at_1.index])


def test_exits_accuracy_recomputed_from_the_test_accuracies_and_the_profile(trained: Any) -> None:
    accuracy = pd.read_csv(trained.results / "exit_accuracy.csv")
    times_ms = 1e3 * read_profile(trained.results / "profile.parquet").seconds[1]["exit"]
    data = pd.read_csv(trained.results / "figures" / "exits_accuracy_and_latency.csv")
    assert len(data) == 2 * 2
    for row in data.itertuples():
        seeds = accuracy[(accuracy["strategy"] == row.strategy) & (accuracy["exit"] == row.exit)]
        assert row.accuracy == pytest.approx(seeds["accuracy"].mean(), abs=1e-12)
        assert (row.low, row.high) == pytest.approx(t_interval(seeds["accuracy"]), abs=1e-9)
        for percent in (5, 25, 50, 75, 95):
            expected = np.percentile(times_ms[:, row.exit - 1], percent)
            assert getattr(row, f"latency_p{percent}_ms") == pytest.approx(expected, rel=1e-9)


def test_exits_taken_recomputed_from_the_records(trained: Any) -> None:
    records = pq.read_table(trained.results / "records.parquet").to_pandas()
    data = pd.read_csv(trained.results / "figures" / "exits_taken.csv")
    records["exit"] = records["exit"].fillna(0).astype(int)
    arm = ["policy", "strategy"]
    shares = records.groupby(arm, observed=True)["exit"].value_counts(normalize=True)
    shares = shares[shares > 0]
    assert len(data) == len(shares)
    for row in data.itertuples():
        assert row.share == pytest.approx(shares[row.policy, row.strategy, row.exit], abs=1e-12)
    assert data.groupby(arm)["share"].sum().to_numpy() == pytest.approx(1)


def test_latency_curves_recomputed_from_the_records(trained: Any) -> None:
    records = pq.read_table(trained.results / "records.parquet").to_pandas()
    data = pd.read_csv(trained.results / "figures" / "latency_ecdf.csv")
    curves = data.groupby(["policy", "strategy"])
    assert len(curves) == 4
    for (policy, strategy), curve in curves:
        arm = records[(records["policy"] == policy) & (records["strategy"] == strategy)]
        latency_ms = np.sort(1e3 * (arm["received_s"] - arm["created_s"]).dropna())
        assert curve["latency_ms"].is_monotonic_increasing
        assert curve["latency_ms"].iloc[-1] == pytest.approx(latency_ms[-1])
        assert curve["share"].iloc[-1] == pytest.approx(len(latency_ms) / len(arm))
        # Of all requests, this share was answered by then, and no more had been before.
        points = curve["latency_ms"].to_numpy()
        by_then = np.searchsorted(latency_ms, points * (1 + 1e-12), side="right") / len(arm)
        before = np.searchsorted(latency_ms, points * (1 - 1e-12), side="left") / len(arm)
        assert (before <= curve["share"] + 1e-9).all()
        assert (by_then >= curve["share"] - 1e-9).all()


# --- page ---------------------------------------------------------------------------------------


def test_the_page_says_verdict_seeds_replications_interval_and_what_came_out(trained: Any) -> None:
    page = (trained.results / "report.md").read_text()
    summary = json.loads((trained.results / "summary.json").read_text())
    assert page.startswith("# tiny\n")
    assert "Five cameras, one edge board." in page
    assert f"Verdict: **{summary['verdict']}**" in page
    for reason in summary["reasons"]:
        assert f"- {reason}" in page
    assert "Student's t, over 2 training seeds" in page
    assert "2 replications of 3 s after 0.5 s of warm-up" in page
    assert "percentiles (ms) are over answered requests" in page
    for row in summary["arms"]:
        aud = f"{100 * row['aud']:.1f} ± {100 * row['aud_half_width']:.1f} %"
        assert f"| {row['strategy']} | {row['policy']} | {aud} |" in page
    for row in summary["differences"]:
        half = row["half_width"]  # none where all pairs differ alike, as two of few requests may
        half_text = "(no interval)" if half is None else f"± {100 * half:.2f}"
        gain = f"{100 * row['aud_difference']:+.2f} {half_text}"
        assert f"| {row['of']} − {row['less']} | {row['given']} | {gain} |" in page
    for node in summary["nodes"]:
        assert node["strategy"] in ("standard", "curriculum")
        assert f"| {node['policy']} | {node['node']} |" in page
        assert f"| {node['verdict']} |" in page


def test_every_caption_says_how_many_seeds_and_replications(trained: Any) -> None:
    page = (trained.results / "report.md").read_text()
    captions = re.findall(r"!\[(.*?)\]\(figures/(\w+)\.png\)", page)
    assert [name for _, name in captions] == list(FIGURES)
    for caption, name in captions:
        assert "2 training seeds" in caption
        if name not in ("exits_accuracy_and_latency", "gain_at_each_exit"):  # of no simulation
            assert "2 replications" in caption


def test_every_link_of_the_page_leads_to_a_file(trained: Any) -> None:
    page = (trained.results / "report.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) == 3 * len(FIGURES)
    for link in links:
        assert (trained.results / link).is_file()


def test_the_scenario_on_the_page_loads_to_the_same_scenario(trained: Any, tmp_path: Path) -> None:
    page = (trained.results / "report.md").read_text()
    [text] = re.findall(r"```yaml\n(.*?)```", page, re.S)
    (tmp_path / "page.yaml").write_text(text)
    again = load_scenario(str(tmp_path / "page.yaml")).scenario
    assert again == load_scenario(str(trained.scenario)).scenario


# --- made anew ----------------------------------------------------------------------------------


def test_a_report_made_anew_has_the_same_bytes_and_can_go_elsewhere(
    trained: Any,
    offramp: Callable[..., Any],
    snapshot: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    before = snapshot(trained.results)
    elsewhere = tmp_path / "elsewhere"
    ran = offramp("report", trained.results, "-o", elsewhere)
    assert ran.status == 0
    assert f"report: {elsewhere / 'report.md'}" in ran.out
    assert snapshot(trained.results) == before
    written = snapshot(elsewhere)
    assert {str(path.relative_to(elsewhere)) for path in map(Path, written)} == {
        "summary.csv",
        "summary.json",
        "differences.csv",
        "report.md",
        "report.html",
        *(f"figures/{name}{suffix}" for name in FIGURES for suffix in FIGURE_SUFFIXES),
        *(f"tables/{name}.tex" for name in TABLE_NAMES),
    }
    del written[str(elsewhere / "report.html")]  # links to what lies beside it
    for path, content in written.items():
        assert content == before[str(trained.results / Path(path).relative_to(elsewhere))], path


def test_a_report_warns_of_nothing(trained: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_report(trained.results, tmp_path / "elsewhere")


# --- worlds at the edge -------------------------------------------------------------------------


def test_one_seed_and_one_replication_give_no_interval_and_say_so(
    reported: Callable[..., tuple[Path, Any]],
) -> None:
    results, ran = reported({"training.seeds": 1, "simulation.replications": 1})
    summary = json.loads((results / "summary.json").read_text())
    assert summary["verdict"] == "INVALID"
    assert any("too few replications: 1" in reason for reason in summary["reasons"])
    assert any("too few training seeds: 1" in reason for reason in summary["reasons"])
    assert all(row["aud_half_width"] is None for row in summary["arms"])
    assert all(row["half_width"] is None for row in summary["differences"])
    page = (results / "report.md").read_text()
    assert "Verdict: **INVALID**" in page
    assert "no interval" in page
    assert "One training seed and one replication of 3 s: no band" in page
    assert "±" not in page.split("## Nodes")[0]
    assert "INVALID" in ran.out
    assert "no interval" in ran.out
    assert not re.search(r"\bnan\b", page + ran.out)


def test_a_result_that_may_be_relied_on_is_valid_and_gives_no_reasons(
    reported: Callable[..., tuple[Path, Any]],
) -> None:
    results, ran = reported({})
    summary = json.loads((results / "summary.json").read_text())
    assert (summary["verdict"], summary["reasons"]) == ("VALID", [])
    assert "Verdict: **VALID**." in (results / "report.md").read_text()
    assert "\nVALID\n" in ran.out
    assert {node["verdict"] for node in summary["nodes"]} == {"STABLE"}
    assert "Host of the profile" not in (results / "report.md").read_text()


def test_one_strategy_alone_is_reported(reported: Callable[..., tuple[Path, Any]]) -> None:
    results, _ = reported({"training.strategies": ["standard"], "policies": ["confidence"]})
    summary = json.loads((results / "summary.json").read_text())
    assert [row["strategy"] for row in summary["arms"]] == ["standard"]
    assert summary["differences"] == []
    assert "## Differences" not in (results / "report.md").read_text()


def test_a_run_whose_requests_were_all_dropped_is_reported(
    reported: Callable[..., tuple[Path, Any]],
) -> None:
    results, ran = reported(
        {
            "nodes.edge": {"service_ms": 500},
            "policies": [{"policy": "deadline_aware", "when_none_fits": "drop"}],
        }
    )
    summary = json.loads((results / "summary.json").read_text())
    for row in summary["arms"]:
        assert (row["aud"], row["hit_ratio"], row["dropped"]) == (0, 0, 1)
        assert row["latency_p50_s"] is None
        assert row["accuracy"] is None
    assert "- / - / -" in ran.out
    assert not re.search(r"\bnan\b", (results / "report.md").read_text() + ran.out)
    taken = pd.read_csv(results / "figures" / "exits_taken.csv")
    assert set(taken["exit"]) == {0}


def test_an_overloaded_node_is_invalid_and_named(
    reported: Callable[..., tuple[Path, Any]],
) -> None:
    results, ran = reported(
        {
            "nodes.edge": {"service_ms": 100},
            "policies": [{"policy": "fixed_exit", "exit": 1, "label": "first"}],
        }
    )
    assert "node edge cannot keep up even at its first exit" in ran.out
    assert "node edge, first, standard and curriculum: OVERLOADED" in ran.out
    summary = json.loads((results / "summary.json").read_text())
    assert summary["verdict"] == "INVALID"
    [reason] = [reason for reason in summary["reasons"] if "overloaded" in reason]
    assert "'edge' is overloaded under first with standard, curriculum: " in reason
    assert "| first | edge | standard and curriculum |" in (results / "report.md").read_text()


def test_deadlines_that_differ_are_shown_as_multiples(
    reported: Callable[..., tuple[Path, Any]],
) -> None:
    results, _ = reported(
        {
            "devices.cameras.deadline_ms": {"distribution": "uniform", "low": 20, "high": 60},
            "nodes.idle": {"service_ms": 5},
            "simulation.deadline_scales": [2, 0.5],
        }
    )
    data = pd.read_csv(results / "figures" / "aud_against_deadline.csv")
    assert "deadline_ms" not in data
    assert sorted(data["deadline_scale"].unique()) == [0.5, 1.0, 2.0]
    deadlines_s = pq.read_table(results / "records.parquet")["deadline_s"].to_numpy()
    assert deadlines_s.min() >= 0.020
    assert deadlines_s.max() <= 0.060
    assert len(np.unique(deadlines_s)) > 100
    assert "| idle |" in (results / "report.md").read_text()


@pytest.mark.parametrize("labels", [("1", "2"), ("NA", "null")])
def test_names_that_look_like_numbers_or_nothing_stay_names(
    labels: tuple[str, str], reported: Callable[..., tuple[Path, Any]]
) -> None:
    results, _ = reported(
        {
            "policies": [
                {"policy": "confidence", "label": labels[0]},
                {"policy": "fixed_exit", "exit": 1, "label": labels[1]},
            ],
            "nodes": {labels[0]: {"service_ms": 5}},
            "devices.cameras.node": labels[0],
        }
    )
    summary = json.loads((results / "summary.json").read_text())
    assert [row["policy"] for row in summary["arms"]] == [labels[0]] * 2 + [labels[1]] * 2
    assert {row["node"] for row in summary["nodes"]} == {labels[0]}


def test_a_window_without_a_request_is_one_message(
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    fixed_service: Change,
    tmp_path: Path,
) -> None:
    path = scenario({**fixed_service, "devices.cameras.arrivals.rate_hz": 1e-6})
    ran = offramp("simulate", path, "--store", store, "-o", tmp_path / "results", "-j", 1)
    assert ran.status == 2
    assert "no request" in ran.err or "0 requests" in ran.err
    assert "duration_s" in ran.err


# --- folders that hold no results ---------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False], ids=["empty", "absent"])
def test_a_folder_without_results_is_one_message(
    there: bool, offramp: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "nothing"
    if there:
        folder.mkdir()
    ran = offramp("report", folder)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {folder} is not a results folder of a finished run")
    assert "manifest.json" in ran.err
    assert not there or list(folder.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_one_message(
    offramp: Callable[..., Any], trained: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a file")
    for arguments in (("report", tmp_path / "file"), ("report", trained.results, "-o", "file")):
        ran = offramp(*arguments)
        assert ran.status == 2
        assert "file" in ran.err
        assert (tmp_path / "file").read_text() == "a file"


NEEDED = (
    "manifest.json",
    "runs.csv",
    "nodes.csv",
    "deadline_sweep.csv",
    "exit_accuracy.csv",
    "records.parquet",
)


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("damage", ["missing", "empty", "foreign", "cut"])
def test_a_file_that_is_missing_or_damaged_is_one_message_that_names_it(
    name: str,
    damage: str,
    trained: Any,
    tmp_path: Path,
    snapshot: Callable[..., dict[str, str]],
) -> None:
    if damage == "cut" and name.endswith(".csv"):
        damage = "binary"  # a table cut at the end of a line is a table still
    results = Path(shutil.copytree(trained.results, tmp_path / "results"))
    file = results / name
    match damage:
        case "missing":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "foreign":
            file.write_text('{"a": 1}' if name.endswith(".json") else "a,b\n1,2\n")
        case "cut":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        case "binary":
            file.write_bytes(b"\x00\xff\xfe" * 50)
    before = snapshot(results)
    with pytest.raises(OfframpError) as raised:
        build_report(results)
    assert name in str(raised.value)
    assert snapshot(results) == before


#: Columns that every row has, and those that may be unknown.
KNOWN = [
    *(("runs.csv", column) for column in ("offered", "aud", "on_time", "lost")),
    ("nodes.csv", "work"),
    ("links.csv", "load"),
    ("deadline_sweep.csv", "aud"),
]
UNKNOWN = [("runs.csv", "rest_s"), ("runs.csv", "latency_p95_s"), ("nodes.csv", "drain_s")]


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        *((*place, value) for place in KNOWN for value in (None, "inf", "nan", "x")),
        *((*place, value) for place in UNKNOWN for value in (None, "inf", "x")),
    ],
)
def test_a_column_that_is_missing_or_damaged_is_one_message_that_names_it(
    name: str, column: str, value: str | None, trained: Any, tmp_path: Path
) -> None:
    results = Path(shutil.copytree(trained.results, tmp_path / "results"))
    table = pd.read_csv(results / name, dtype=str, keep_default_na=False)
    if value is None:
        table = table.drop(columns=column)
    else:
        table.loc[0, column] = value
    table.to_csv(results / name, index=False)
    with pytest.raises(OfframpError, match=column) as raised:
        build_report(results)
    assert name in str(raised.value)


@pytest.mark.parametrize(
    "section", ["name", "description", "training", "devices", "nodes", "policies", "simulation"]
)
def test_a_manifest_without_a_part_of_the_scenario_is_one_message(
    section: str, trained: Any, tmp_path: Path
) -> None:
    results = Path(shutil.copytree(trained.results, tmp_path / "results"))
    manifest = json.loads((results / "manifest.json").read_text())
    del manifest["scenario"][section]
    (results / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OfframpError, match=rf"manifest\.json is damaged: .*scenario\.{section}"):
        build_report(results)


def test_records_of_other_runs_are_one_message(
    trained: Any,
    tmp_path: Path,
    snapshot: Callable[..., dict[str, str]],
    offramp: Callable[..., Any],
) -> None:
    results = Path(shutil.copytree(trained.results, tmp_path / "results"))
    table = pq.read_table(results / "records.parquet")
    without = table.filter(pc.not_equal(table["strategy"].cast("string"), "curriculum"))
    one_less = table.slice(1)
    for rest in (without, one_less):
        pq.write_table(rest, results / "records.parquet")
        before = snapshot(results)
        for arguments in ((results,), (trained.results, results, "--compare", "-o", "compared")):
            ran = offramp("report", *arguments)
            assert ran.status == 2
            assert "records.parquet does not belong to" in ran.err.replace("\n", " ")
            assert "Traceback" not in ran.err
        assert snapshot(results) == before
        assert not Path("compared").exists()


def test_a_manifest_of_another_format_is_one_message(trained: Any, tmp_path: Path) -> None:
    results = Path(shutil.copytree(trained.results, tmp_path / "results"))
    manifest = json.loads((results / "manifest.json").read_text())
    for format, said in (
        ("offramp-manifest-9", "use the Offramp that wrote it"),
        ("x", "is not a"),
    ):
        (results / "manifest.json").write_text(json.dumps({**manifest, "format": format}))
        with pytest.raises(OfframpError, match=said):
            build_report(results)
