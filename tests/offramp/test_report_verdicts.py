"""Every strategy is judged by itself, and settling only where the world does not change."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from offramp.planned_changes import planned_changes
from offramp.report.notices import notices
from offramp.report.results import Results
from offramp.report.run_tables import node_table
from offramp.report.verdicts import (
    alike,
    link_verdicts,
    node_verdicts,
    not_judged,
    validity,
)
from offramp.report.world_tables import link_table

Change = dict[str, Any]


def results_of(work: dict[str, float], loads: dict[str, float] | None = None) -> Results:
    """Results of strategies under one policy, by the work that they bring to a node.

    Args:
        loads: of a link, by strategy.
    """
    nodes = pd.DataFrame(
        {
            "strategy": strategy,
            "training_seed": 0,
            "policy": "full",
            "replication": replication,
            "node": "edge",
            "work": brought,
            "wait_mean_s": 0.01,
            "drain_s": 0.0,
            "deadline_mean_s": 0.1,
            "bounded": False,
        }
        for strategy, brought in work.items()
        for replication in range(3)
    )
    runs = nodes.assign(offered=1000, on_time=900, first_quarter_s=0.01, rest_s=0.01, answered=1000)
    links = pd.DataFrame(
        [
            (strategy, 0, "full", 0, "wifi", "uplink", 5, load)
            for strategy, load in (loads or {}).items()
        ],
        columns=[
            *("strategy", "training_seed", "policy", "replication"),
            *("link", "direction", "shared_by", "load"),
        ],
    )
    scenario = {
        "name": "made up",
        "simulation": {"duration_s": 10, "warm_up_s": 1},
        "devices": {"cameras": {"arrivals": {"process": "poisson"}, "link": "wifi"}},
        "nodes": {"edge": {}},
        "links": {"wifi": {"uplink": {}, "downlink": {}}},
        "policies": [{"policy": "full"}],
    }
    others = {"links.csv": links} if loads else {}
    empty = pd.DataFrame()
    return Results(Path(), runs, nodes, empty, empty, others, None, {"scenario": scenario})


# --- nodes and links ----------------------------------------------------------------------------


def test_a_strategy_that_overloads_a_node_does_not_hide_behind_another() -> None:
    results = results_of({"standard": 1.4, "curriculum": 0.55})  # 0.975 on average
    found = node_verdicts(results).set_index("strategy")["verdict"]
    assert dict(found) == {"standard": "OVERLOADED", "curriculum": "STABLE"}
    verdict, reasons = validity(replace(results))
    assert verdict == "INVALID"
    assert (
        "node 'edge' is overloaded under full with standard: figures depend on the window's length"
    ) in reasons


def test_strategies_that_did_alike_share_a_row_and_are_named() -> None:
    together = node_table(node_verdicts(results_of({"standard": 0.5, "curriculum": 0.7})))
    assert [list(row) for row in together.rows] == [
        ["full", "edge", "standard and curriculum", "0.60", "10.0", "0.0", "STABLE"]
    ]
    work = {"standard": 0.5, "curriculum": 1.2, "anti_curriculum": 0.7}
    apart = node_table(node_verdicts(results_of(work)))
    assert [(row[2], row[3], row[6]) for row in apart.rows] == [
        ("standard and anti_curriculum", "0.60", "STABLE"),
        ("curriculum", "1.20", "OVERLOADED"),
    ]


def test_a_link_is_judged_for_each_strategy() -> None:
    results = results_of({"standard": 0.5, "curriculum": 0.5}, {"standard": 1.3, "curriculum": 0.5})
    assert list(link_verdicts(results)["verdict"]) == ["OVERLOADED", "STABLE"]
    table = link_table(results, link_verdicts(results))
    assert table is not None
    assert [list(row) for row in table.rows] == [
        ["wifi", "uplink", "standard", "5", "1.3", "OVERLOADED"],
        ["wifi", "uplink", "curriculum", "5", "0.5", "STABLE"],
    ]
    [reason] = [reason for reason in validity(results)[1] if "link" in reason]
    assert "'wifi' is offered 1.30 of what it can carry under full with standard: " in reason


def test_rows_of_one_node_stay_together_in_the_order_of_the_scenario() -> None:
    verdicts = pd.DataFrame(
        [
            ("b", "edge", "x", "STABLE", 0.1),
            ("b", "edge", "y", "OVERLOADED", 1.1),
            ("b", "cloud", "x", "STABLE", 0.2),
            ("b", "cloud", "y", "STABLE", 0.4),
            ("a", "edge", "x", "OVERLOADED", 2.0),
            ("a", "edge", "y", "OVERLOADED", 1.0),
        ],
        columns=["policy", "node", "strategy", "verdict", "work"],
    )
    rows = alike(verdicts, ["policy", "node"]).itertuples(index=False)
    assert [tuple(row) for row in rows] == [
        ("b", "edge", "x", 0.1, "STABLE"),
        ("b", "edge", "y", 1.1, "OVERLOADED"),
        ("b", "cloud", "x and y", pytest.approx(0.3), "STABLE"),
        ("a", "edge", "x and y", 1.5, "OVERLOADED"),
    ]
    assert list(alike(verdicts[:0], ["policy", "node"]).columns) == [
        *("policy", "node", "strategies", "work", "verdict")
    ]


# --- settling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"devices.cameras.arrivals": {"process": "diurnal", "curve": [[0, 1], [9, 5]]}},
            "requests of `cameras` follow a curve",
        ),
        (
            {"devices.cameras.arrivals": {"process": "trace", "file": "a.csv"}},
            "requests of `cameras` come at the times of a trace",
        ),
        (
            {"faults": [{"kind": "node_crash", "node": "edge", "at_s": 3.0, "for_s": 1.0}]},
            "a node crash of `edge` is planned for 3 s",
        ),
        (
            {"faults": [{"kind": "broker_restart", "at_s": 0.5, "for_s": 1.0}]},
            "a broker restart is planned for 0.5 s",
        ),
        ({"links.wifi.uplink.bandwidth_trace": "b.csv"}, "bandwidth of `wifi` follows a trace"),
    ],
)
def test_what_changes_on_schedule_is_no_sign_of_a_short_warm_up(change: Change, said: str) -> None:
    results = changed(results_of({"standard": 0.5}), change)
    unsettled = results.runs.assign(
        first_quarter_s=0.02 + 1e-4 * results.runs["replication"], rest_s=0.01
    )
    results = replace(results, runs=unsettled)
    [clause] = planned_changes(results.scenario)
    assert said in clause
    assert validity(results) == ("VALID", [])
    [sentence] = not_judged(results)
    assert sentence.startswith("Whether the warm-up was long enough was not judged: ")
    assert said in sentence
    assert sentence in notices(replace(results, manifest={**results.manifest, "versions": {}}))
    steady = replace(results_of({"standard": 0.5}), runs=unsettled)
    assert "warm-up not settled for full with standard" in validity(steady)[1][0]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"devices.cameras.arrivals": {"process": "on_off", "on_rate_hz": 5}},
        {"devices.cameras.arrivals": {"process": "diurnal", "curve": [[0, 5], [9, 5]]}},
        # At random, over before the window opens, after its end.
        {"faults": [{"kind": "node_crash", "node": "edge", "mtbf_s": 3.0, "mttr_s": 1.0}]},
        {"faults": [{"kind": "node_crash", "node": "edge", "at_s": 0.2, "for_s": 0.8}]},
        {"faults": [{"kind": "node_crash", "node": "edge", "at_s": 11.0, "for_s": 1.0}]},
        {"links.unused": {"uplink": {"bandwidth_trace": "b.csv"}, "downlink": {}}},
    ],
)
def test_what_is_alike_at_all_times_is_judged(change: Change) -> None:
    results = changed(results_of({"standard": 0.5}), change)
    assert planned_changes(results.scenario) == []
    assert not_judged(results) == []


def changed(results: Results, change: Change) -> Results:
    """The same with other settings of the scenario, by dotted key."""
    manifest = copy.deepcopy(results.manifest)
    for key, value in change.items():
        *parents, last = key.split(".")
        node = manifest["scenario"]
        for part in parents:
            node = node[part]
        node[last] = value
    return replace(results, manifest=manifest)


def test_a_daily_curve_does_not_make_a_report_invalid_and_the_report_says_what_it_leaves_open(
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    fixed_service: Change,
    tmp_path: Path,
) -> None:
    """Three times the load in the second half: latency grows, whatever the warm-up."""
    curve = [[0, 8], [1.5, 8], [1.5, 24], [3.5, 24]]
    changes = {
        "devices.cameras.arrivals": {"process": "diurnal", "curve": curve},
        "policies": ["full"],
        "simulation.replications": 4,
    }
    path = scenario({**fixed_service, **changes})
    results = tmp_path / "results"
    ran = offramp("simulate", path, "--store", store, "-o", results, "-j", 1)
    assert ran.status == 0, ran.err
    told = json.loads((results / "summary.json").read_text())
    assert not [reason for reason in told["reasons"] if "warm-up" in reason]
    [sentence] = told["not_judged"]
    assert "requests of `cameras` follow a curve" in sentence
    assert sentence in (results / "report.md").read_text()
    assert sentence.split("`")[0] in (results / "report.html").read_text()
    assert sentence in ran.out.replace("\n", " ")
