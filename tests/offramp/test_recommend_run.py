"""Recommendations: the cheapest is found and verified, however it was run, stopped or disturbed."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
import pytest
from ruamel.yaml import YAML

from models.errors import ResultsError, ScenarioError
from offramp.manifest import read_manifest
from offramp.recommendation.outcome import Outcome
from offramp.recommendation.run import LOCK
from offramp.recommendation.words import advice, verdict_text, warnings
from tests.offramp.latex_papers import needs_latex, paper_of
from tests.offramp.recommend_worlds import BUSY, Here, make_networks, recommended

FILES = ("trials.csv", "verified.csv", "recommendation.json", "recommendation.yaml")

Recommending = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _quickly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws no figure, which takes longer than all the rest, but for tests that look at it."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("offramp.recommendation.run.write_figure", lambda *_: "no figure")


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Where the figure is, of a test that looks at it."""
    return tmp_path / "results" / "figures"


@pytest.fixture
def find(scenario: Callable[..., Path], tmp_path: Path) -> Recommending:
    """Recommends for a busy node, changed, whose networks are made up."""

    def run(
        *targets: str,
        changes: dict[str, Any] | None = None,
        block: dict[str, Any] | None = None,
        results: str = "results",
        **options: Any,
    ) -> Outcome:
        whole = {**BUSY, **(changes or {})}
        whole["recommend"] = {**BUSY["recommend"], **(block or {})}
        path = scenario(whole)
        make_networks(path, tmp_path / "store")
        return recommended(path, tmp_path / "store", tmp_path / results, *targets, **options)

    return run


def bytes_of(results: Path) -> dict[str, bytes]:
    return {name: (results / name).read_bytes() for name in FILES if (results / name).exists()}


def read(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "recommendation.json").read_text())
    return found


# --- what is found -------------------------------------------------------------------------------


def test_the_cheapest_of_a_space_that_is_simulated_whole_is_recommended(
    find: Recommending, tmp_path: Path
) -> None:
    outcome = find("hit_ratio=0.7")
    found, cheaper = outcome.recommended, outcome.next_cheaper
    assert outcome.exhaustive
    assert found is not None
    assert cheaper is not None
    trials = pd.read_csv(tmp_path / "results" / "trials.csv")
    assert sorted(trials["nodes.edge.workers"]) == [1, 2, 3, 4, 5, 6]
    reached = trials.sort_values("cost")["hit_ratio"]
    assert reached.is_monotonic_increasing, "else this is no test of what is cheapest"
    least = int(trials["cost"][trials["hit_ratio"] >= 0.7].min())
    assert 1 < least < 6
    assert found.cost.amount == least
    assert found.screened.configuration.values == (least,)
    assert (cheaper.cost.amount, cheaper.verdict) == (least - 1, "missed")


#: Two nodes, and two policies of which the one that answers early is often wrong.
WIDE: dict[str, Any] = {
    "nodes": {
        "edge": {"workers": 3, "service_ms": 20},
        "hub": {"workers": 3, "service_ms": 15},
    },
    "devices.others": {
        "count": 4,
        "arrivals": {"process": "poisson", "rate_hz": 15},
        "deadline_ms": 40,
        "link": "wifi",
        "node": "hub",
    },
    "policies": [{"policy": "fixed_exit", "exit": 1}],
    "simulation.duration_s": 1,
}
WIDE_BLOCK: dict[str, Any] = {
    "keys": {
        "nodes.edge.workers": {"integers": [1, 6]},
        "nodes.hub.workers": {"integers": [1, 6]},
        "policies.0.exit": [1, 2],
    },
    "screening_replications": 2,
    "prices": {"edge": 3.0},
}


def test_the_search_finds_what_trying_everything_finds(find: Recommending) -> None:
    options: dict[str, Any] = {"changes": WIDE, "cost": "workers"}
    whole = find("aud=0.7", block={**WIDE_BLOCK, "trials": 72}, results="whole", **options)
    part = find("aud=0.7", block={**WIDE_BLOCK, "trials": 30}, results="part", **options)
    assert whole.exhaustive
    assert not part.exhaustive
    assert len(part.tried) == 30
    assert whole.recommended is not None
    assert part.recommended is not None
    assert whole.recommended.screened.configuration.policy["exit"] == 2
    edge, hub = whole.recommended.screened.configuration.values
    assert whole.recommended.cost.amount == 3 * edge + hub
    assert part.recommended.cost.amount == whole.recommended.cost.amount


def test_strategies_are_searched_alike_and_compared(find: Recommending, tmp_path: Path) -> None:
    """A curriculum whose first exit is good needs fewer workers: its policy may stop there."""
    outcome = find(
        "aud=0.7",
        changes={
            "training.strategies": ["standard", "curriculum"],
            "training.seeds": 3,
            "policies": [{"policy": "fixed_exit", "exit": 1}],
            "simulation.duration_s": 1,
        },
        block={"keys": {**BUSY["recommend"]["keys"], "policies.0.exit": [1, 2]}},
    )
    tried = {
        strategy: [it.trial.configuration.key for it in outcome.tried if it.strategy == strategy]
        for strategy in ("standard", "curriculum")
    }
    assert tried["standard"] == tried["curriculum"]
    exits = {
        strategy: {
            it.screened.configuration.policy["exit"]
            for it in outcome.verified[strategy]
            if it.verdict == "met"
        }
        for strategy in outcome.verified
    }
    assert exits["standard"] == {2}, "its first exit is right half of the time"
    assert outcome.level == pytest.approx(0.975)
    page = (tmp_path / "results" / "recommendation.md").read_text()
    assert "cheapest with standard: " in page
    assert "cheapest with curriculum: " in page
    assert "over 3 training seeds and 6 replications" in page
    assert "the search saw the networks of the verification" in page
    assert "training.seeds=[3, 4, 5, 6, 7]" in page
    by_strategy = read(tmp_path / "results")["cheapest_by_strategy"]
    assert by_strategy["standard"]["cost"] == by_strategy["curriculum"]["cost"]
    assert "the strategy makes no difference to the cost" in page


def test_where_trainings_are_searched_the_answer_warns(
    find: Recommending, scenario: Callable[..., Path], tmp_path: Path
) -> None:
    steps = [5, 6]
    for count in steps:
        make_networks(scenario({**BUSY, "training.steps": count}), tmp_path / "store")
    find("hit_ratio=0.7", block={"keys": {"training.steps": steps, "nodes.edge.workers": [1, 4]}})
    page = (tmp_path / "results" / "recommendation.md").read_text()
    warning = "**Warning:** training.steps is searched, so that configurations have trainings"
    assert warning in page
    assert page.index("The cheapest configuration") < page.index(warning)
    assert page.index(warning) < page.index("The next cheaper one")
    assert read(tmp_path / "results")["trained_keys"] == ["training.steps"]
    find("hit_ratio=0.7", results="others")
    assert "Warning" not in (tmp_path / "others" / "recommendation.md").read_text()
    assert read(tmp_path / "others")["trained_keys"] == []


def test_a_share_of_all_cannot_be_shown_and_that_is_said(
    find: Recommending, tmp_path: Path
) -> None:
    changes = {"devices.cameras.deadline_ms": 5000}
    outcome = find("hit_ratio=1", changes=changes)
    assert outcome.best.evidence.estimates[0].mean == 1
    assert outcome.recommended is None
    page = (tmp_path / "results" / "recommendation.md").read_text()
    assert "only a target below 100 % can be shown to be met" in page
    assert find("hit_ratio=0.9", changes=changes, results="less").recommended is not None


def test_a_few_latencies_that_are_all_alike_show_nothing(
    find: Recommending, tmp_path: Path
) -> None:
    """Enough workers that no request waits, and links that take the same time for each."""
    changes = {"links.wifi": {"uplink": {"latency_ms": 2}, "downlink": {"latency_ms": 2}}}
    block = {"keys": {"nodes.edge.workers": [20, 30]}}
    sure = find("latency_p50_ms=30", changes=changes, block=block).recommended
    assert sure is not None
    assert sure.evidence.estimates[0].half_width == 0
    block["replications"] = 4
    few = find("latency_p50_ms=30", changes=changes, block=block, results="few")
    assert few.recommended is None
    assert few.best.verdict == "not shown"
    page = (tmp_path / "few" / "recommendation.md").read_text()
    assert "more replications (recommend.replications) would narrow it" in page
    assert "few replications that are all alike" in verdict_text(few, few.best)


def test_a_latency_can_be_the_target_along_with_a_share(find: Recommending) -> None:
    alone = find("hit_ratio=0.7").recommended
    both = find("hit_ratio=0.7", "latency_p99_ms=30.5", results="both").recommended
    assert alone is not None
    assert both is not None
    assert both.cost.amount > alone.cost.amount
    latency = both.evidence.estimates[1]
    assert latency.over == "6 replications of one training"
    assert latency.mean < 0.0305


def test_energy_can_be_the_cost(find: Recommending, tmp_path: Path) -> None:
    power = {
        "idle_w": 1.0,
        "compute_w": 5.0,
        "transmit_w": 1.0,
        "receive_w": 1.0,
        "source": "made up",
    }
    outcome = find(
        "hit_ratio=0.2",
        changes={"nodes.edge": {"service_ms": 20, "energy": power}},
        block={"keys": {"nodes.edge.workers": {"integers": [2, 4]}, "nodes.edge.speed": [1, 2]}},
        cost="energy",
    )
    found = outcome.recommended
    assert found is not None
    assert found.screened.configuration.values[1] == 2, "half as long at the same power"
    assert found.cost.amount == found.cost.energy_j > 0
    table = pd.read_csv(tmp_path / "results" / "trials.csv")
    assert (table["cost"] == table["j_per_request"]).all()
    assert table["cost"].nunique() == 2, "workers that idle cost nothing more"


def test_nothing_meets_the_target_and_that_is_said(find: Recommending, tmp_path: Path) -> None:
    outcome = find("aud=0.99")
    assert outcome.recommended is None
    told = read(tmp_path / "results")
    assert not told["met"]
    assert told["recommended"] is None
    assert told["best"]["metrics"]["aud"]["mean"] > 0.8
    page = (tmp_path / "results" / "recommendation.md").read_text()
    assert "Nothing that was tried is shown to meet aud ≥ 99 %" in page
    assert "points below the target" in page
    assert not (tmp_path / "results" / "recommendation.yaml").exists()


def test_where_nothing_is_answered_nothing_is_claimed(find: Recommending, tmp_path: Path) -> None:
    crash = [{"kind": "node_crash", "node": "edge", "at_s": 0, "for_s": 60}]
    outcome = find("latency_p95_ms=50", changes={"faults": crash})
    assert outcome.recommended is None
    page = (tmp_path / "results" / "recommendation.md").read_text()
    assert "latency_p95_ms unknown (over" in page
    assert "No request was answered, so that nothing is known" in page
    assert not re.search(r"\bnan\b", page)
    assert "the interval holds the target" not in "".join(advice(outcome))


def test_a_worse_answer_leaves_no_scenario_of_an_earlier_one(
    find: Recommending, tmp_path: Path
) -> None:
    find("hit_ratio=0.7")
    assert (tmp_path / "results" / "recommendation.yaml").exists()
    find("aud=0.99")
    assert not (tmp_path / "results" / "recommendation.yaml").exists()


# --- what is left in the folder ------------------------------------------------------------------


def test_the_recommended_scenario_runs_and_shows_what_was_verified(
    find: Recommending, offramp: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(
        "from sim.policies import FixedExit\n\n\nclass Mine(FixedExit):\n    pass\n"
    )
    (tmp_path / "up.csv").write_text("latency_ms\n2\n4\n")
    outcome = find(
        "hit_ratio=0.7",
        changes={
            "policies": [{"policy": "own.py:Mine", "exit": 2}],
            "links.wifi.uplink": {"latency_file": "up.csv"},
        },
    )
    found = outcome.recommended
    assert found is not None
    elsewhere = tmp_path / "elsewhere" / "recommendation.yaml"
    elsewhere.parent.mkdir()
    shutil.copy(tmp_path / "results" / "recommendation.yaml", elsewhere)
    ran = offramp(
        "run", elsewhere, "--store", tmp_path / "store", "-o", tmp_path / "run", "-j", 1, "-q"
    )
    assert ran.status == 0, ran.err
    with (tmp_path / "run" / "runs.csv").open(newline="") as file:
        runs = [*csv.DictReader(file)]
    assert len(runs) == 6, "one strategy, policy and seed, and the replications of a verification"
    on_time, offered = (sum(int(row[name]) for row in runs) for name in ("on_time", "offered"))
    estimate = found.evidence.estimates[0]
    assert on_time / offered == pytest.approx(estimate.mean, abs=1e-12)


def test_names_with_variables_are_left_to_whoever_runs_it(
    find: Recommending, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DELAYS", str(tmp_path))
    (tmp_path / "up.csv").write_text("latency_ms\n2\n4\n")
    find("hit_ratio=0.7", changes={"links.wifi.uplink": {"latency_file": "$DELAYS/up.csv"}})
    written = YAML(typ="safe").load((tmp_path / "results" / "recommendation.yaml").read_text())
    assert written["links"]["wifi"]["uplink"]["latency_file"] == "$DELAYS/up.csv"
    assert "recommend" not in written


@needs_latex
def test_the_figure_goes_into_a_paper(find: Recommending, drawn: Path, tmp_path: Path) -> None:
    find("hit_ratio=0.7", "latency_p95_ms=30")
    [file] = paper_of(tmp_path, drawn)
    text = file.read_text(encoding="utf-8")
    assert r"$\geq$" in text
    assert r"$\leq$" in text


def test_what_is_recommended_and_overloaded_is_warned_of(
    find: Recommending, tmp_path: Path
) -> None:
    lenient = find("accuracy=0.5")
    found = lenient.recommended
    assert found is not None
    assert found.screened.configuration.values == (1,)
    assert (found.evidence.overloaded, found.evidence.runs) == (6, 6)
    [warning] = warnings(lenient)
    assert warning.startswith(
        "a node or a link is OVERLOADED in 6 of 6 runs of what is recommended"
    )
    assert warning in (tmp_path / "results" / "recommendation.md").read_text()
    assert read(tmp_path / "results")["recommended"]["overloaded_runs"] == 6
    trials = pd.read_csv(tmp_path / "results" / "trials.csv").set_index("nodes.edge.workers")
    assert trials["overloaded_runs"][1] > 0 == trials["overloaded_runs"][6]
    assert not [*warnings(find("hit_ratio=0.9", results="enough"))]


def test_page_figure_and_manifest_are_there(
    find: Recommending, drawn: Path, tmp_path: Path
) -> None:
    find("hit_ratio=0.7", "accuracy=0.5")
    results = tmp_path / "results"
    names = {path.name for path in drawn.iterdir()}
    assert names == {f"cost_against_target{it}" for it in (".pdf", ".png", ".csv", ".txt", ".tex")}
    points = pd.read_csv(drawn / "cost_against_target.csv")
    assert {*points["metric"]} == {"hit_ratio", "accuracy"}
    assert (points["stage"] == "recommended").sum() == 2, "in each of the panels"
    assert (points["stage"] == "screened").sum() == 2 * 6
    page = (results / "recommendation.md").read_text()
    for wanted in (
        "what is the least that meets hit_ratio ≥ 70 % and accuracy ≥ 50 %?",
        "nodes.edge.workers: 1 to 6",
        "optuna ",
        "offramp recommend ",
        "![cost_against_target](figures/cost_against_target.png)",
    ):
        assert wanted in page
    manifest = read_manifest(results / "manifest.json")
    assert manifest["kind"] == "recommendation"
    assert {*FILES} == {*manifest["results"]}
    assert "optuna" in manifest["versions"]
    assert any(name.startswith("predictions ") for name in manifest["inputs"])


# --- however it is run ---------------------------------------------------------------------------

#: More configurations than are tried.
SEARCHED: dict[str, Any] = {
    "keys": {
        "nodes.edge.workers": {"integers": [1, 12]},
        "nodes.edge.speed": {"log_uniform": [0.5, 2.0]},
    },
    "trials": 16,
    "replications": 3,
}


def test_the_same_bytes_for_any_number_of_workers(find: Recommending, tmp_path: Path) -> None:
    find("hit_ratio=0.7", block=SEARCHED)
    find("hit_ratio=0.7", block=SEARCHED, results="several", backend=Here(5, seed=3))
    expected = bytes_of(tmp_path / "results")
    here, there = str(tmp_path / "results").encode(), str(tmp_path / "several").encode()
    found = {name: it.replace(there, here) for name, it in bytes_of(tmp_path / "several").items()}
    assert found == expected
    assert set(expected) == {*FILES}


def test_a_search_that_is_stopped_goes_on_and_ends_with_the_same_bytes(
    find: Recommending, tmp_path: Path
) -> None:
    whole = Here()
    find("hit_ratio=0.7", block=SEARCHED, backend=whole)
    expected = bytes_of(tmp_path / "results")
    shutil.move(tmp_path / "results", tmp_path / "undisturbed")
    simulated = 0
    for stop_after, stop in ((5, KeyboardInterrupt), (9, MemoryError)):
        backend = Here(3, seed=stop_after, stop_after=stop_after, stop=stop)
        with pytest.raises(stop):
            find("hit_ratio=0.7", block=SEARCHED, backend=backend)
        assert backend.closed
        assert not (tmp_path / "results" / "trials.csv").exists(), "it is not finished"
        simulated += backend.simulated
    backend = Here(2)
    find("hit_ratio=0.7", block=SEARCHED, backend=backend)
    assert bytes_of(tmp_path / "results") == expected
    assert simulated + backend.simulated == whole.simulated, "nothing is simulated twice"


def test_a_finished_search_simulates_nothing_more(find: Recommending, tmp_path: Path) -> None:
    find("hit_ratio=0.7", block=SEARCHED)
    expected = bytes_of(tmp_path / "results")
    backend = Here()
    find("hit_ratio=0.7", block=SEARCHED, backend=backend)
    assert backend.simulated == 0
    assert bytes_of(tmp_path / "results") == expected


def test_another_target_or_more_trials_use_what_was_simulated(find: Recommending) -> None:
    find("hit_ratio=0.7", block=SEARCHED)
    backend = Here()
    find("hit_ratio=0.7", block={**SEARCHED, "trials": 24}, backend=backend)
    assert 0 < backend.simulated <= 8 + 5
    changed = Here()
    find("hit_ratio=0.7", block=SEARCHED, changes={"seed": 4}, backend=changed)
    assert changed.simulated > 16, "another seed brings other requests"


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_folder_that_holds_something_else_is_left_alone(
    find: Recommending, tmp_path: Path
) -> None:
    for name in ("manifest.json", "points.sqlite"):
        other = tmp_path / name.partition(".")[0]
        other.mkdir()
        (other / name).write_text("{}")
        with pytest.raises(ResultsError, match="holds the results of something else"):
            find("hit_ratio=0.7", results=other.name)
        assert [path.name for path in other.iterdir()] == [name]


def test_a_file_of_trials_that_is_none_is_refused(find: Recommending, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "trials.sqlite").write_text("not a database, and long enough to be one")
    with pytest.raises(ResultsError, match=r"trials\.sqlite"):
        find("hit_ratio=0.7")


def test_two_searches_in_one_folder_are_refused(find: Recommending, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    with (
        filelock.FileLock(tmp_path / "results" / LOCK),
        pytest.raises(ResultsError, match="another search is running"),
    ):
        find("hit_ratio=0.7")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused_at_once(
    find: Recommending, tmp_path: Path
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ResultsError, match="cannot write"):
        find("hit_ratio=0.7", results="locked/results")


def test_a_file_where_the_folder_would_be_is_refused(find: Recommending, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot write"):
        find("hit_ratio=0.7", results="file/results")


def test_a_full_disk_while_the_page_is_written_loses_no_trial(
    find: Recommending, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("offramp.recommendation.run.write_page", full)
        with pytest.raises(ResultsError, match="No space left on device"):
            find("hit_ratio=0.7")
    backend = Here()
    assert find("hit_ratio=0.7", backend=backend).recommended is not None
    assert backend.simulated == 0


FUSSY = """
from dataclasses import dataclass

from sim.policy import ANSWER, run_to


@dataclass(frozen=True)
class Fussy:
    taste: int = 0

    def decide(self, request, node):
        if self.taste in (2, 3):
            raise RuntimeError("not to my taste")
        return ANSWER if request.exit else run_to(1)
"""


def test_trials_that_fail_are_told_and_stop_no_other(find: Recommending, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FUSSY)
    changes = {"policies": [{"policy": "own.py:Fussy", "taste": 1}]}
    keys = {"policies.0.taste": [1, 2, 3], "nodes.edge.workers": [2, 4]}
    outcome = find("hit_ratio=0.7", changes=changes, block={"keys": keys})
    assert outcome.recommended is not None
    table = pd.read_csv(tmp_path / "results" / "trials.csv")
    assert table["error"].str.contains("not to my taste").sum() == 4
    assert "4 of 7 trials failed" in (tmp_path / "results" / "recommendation.md").read_text()
    with pytest.raises(ResultsError, match=r"not one of \d configurations .* not to my taste"):
        find(
            "hit_ratio=0.7",
            changes={"policies": [{"policy": "own.py:Fussy", "taste": 2}]},
            block={"keys": {"policies.0.taste": [2, 3], "nodes.edge.workers": [2, 4]}},
            results="none",
        )


def test_values_that_do_not_go_together_are_a_failed_trial(find: Recommending) -> None:
    keys = {"nodes.edge.last_exit": [1, 2], "policies.0.exit": [1, 2], "nodes.edge.workers": [4]}
    outcome = find("hit_ratio=0.5", block={"keys": keys})
    failed = [it for it in outcome.tried if it.candidate is None]
    assert [it.trial.configuration.values[0] for it in failed] == [1]
    assert "exits 1 to 1" in str(failed[0].error)
    assert outcome.recommended is not None


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def command(
    scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> Callable[..., Any]:
    """Runs `offramp recommend` on a busy node, in a process of its own for each worker."""

    def run(*arguments: str) -> Any:
        path = scenario(BUSY)
        make_networks(path, tmp_path / "store")
        return offramp(
            "recommend", path, "--store", tmp_path / "store", "-o", tmp_path / "results", "-j", 1,
            *arguments,
        )  # fmt: skip

    return run


def test_the_command_says_what_it_found_and_where(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = command("--target", "hit_ratio=70%")
    assert ran.status == 0, ran.err
    assert "nodes.edge.workers: 1 to 6" in ran.out
    assert "The cheapest configuration that meets hit_ratio ≥ 70 % is standard" in ran.out
    assert "The next cheaper one" in ran.out
    assert f"report: {tmp_path / 'results' / 'recommendation.md'}" in ran.out
    monkeypatch.setattr("offramp.recommendation.cli._opening", lambda *_: Here)
    missed = command("--target", "aud=99%", "--quiet")
    assert missed.status == 1
    assert "Nothing that was tried is shown to meet aud ≥ 99 %" in missed.out
    assert "1 to 6" not in missed.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--target is missing"),
        (["--target", "aud=1.5"], "a share"),
        (["--target", "aud=0.5", "--cost", "energy"], "declares its power"),
        (["--target", "aud=0.5", "--set", "recommend.replications=1"], "at least 2"),
        (["--target", "aud=0.5", "--set", "recommend.trails=1"], "did you mean 'trials'"),
    ],
)
def test_what_is_wrong_is_one_message_and_status_2(
    arguments: list[str], says: str, command: Callable[..., Any]
) -> None:
    ran = command(*arguments)
    assert ran.status == 2
    assert says in ran.err
    assert "Traceback" not in ran.err


def test_an_interrupt_is_status_130_and_the_command_goes_on(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Here(stop_after=3)
    with monkeypatch.context() as patch:
        patch.setattr("offramp.recommendation.cli._opening", lambda *_: lambda: backend)
        ran = command("--target", "hit_ratio=70%")
        assert ran.status == 130
        assert "the same command goes on from there" in ran.err
        again = Here()
        patch.setattr("offramp.recommendation.cli._opening", lambda *_: lambda: again)
        assert command("--target", "hit_ratio=70%").status == 0
    assert 0 < again.simulated <= 6 - 3 + 5


def test_a_target_without_a_configuration_is_refused_where_only_an_oracle_is_given(
    find: Recommending,
) -> None:
    with pytest.raises(ScenarioError, match="no policy to recommend"):
        find("aud=0.5", changes={"policies": ["oracle"]})
