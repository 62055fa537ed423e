"""Verdicts: whether a world can carry its load, and whether a result may be relied on."""

import numpy as np
import pandas as pd
import pytest
from tiny_worlds import (
    Deciding,
    Fickle,
    group,
    node,
    predictions,
    profile,
    run_of,
    world,
    written_world,
)

from sim.distributions import Constant, Exponential, Gamma, Uniform
from sim.network.links import Direction, Link
from sim.nodes.service import DistributedService, ProfiledService
from sim.policies import DeadlineAware, FixedExit
from sim.policy import ANSWER, DROP, run_to
from sim.results.metrics import run_metrics
from sim.results.verdict import (
    ENOUGH_REQUESTS,
    doubts,
    load_verdict,
    node_metrics,
    offered_loads,
    outcome_shares,
    policies_in_vain,
    settling,
)
from sim.workload.arrivals import ClosedLoop, Periodic, Poisson

# --- before a run --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "service", [Constant(0.1), Uniform(0.0, 0.2), Exponential(0.1), Gamma(0.1, 0.05)]
)
@pytest.mark.parametrize("workers", [1, 4])
def test_offered_load_is_rate_times_mean_service_time_per_worker(service, workers):
    a_world = world(
        group("cameras", 3, Poisson(2.0)),
        group("meters", 10, Periodic(0.2)),
        node(service, workers=workers),
    )
    (offered,) = offered_loads(a_world)
    assert (offered.node, offered.workers) == ("edge", workers)
    assert offered.rate_hz == pytest.approx(3 * 2.0 + 10 * 0.2)
    assert offered.load == (pytest.approx(8.0 * 0.1 / workers, rel=0.002),)


def test_offered_load_of_a_profile_is_that_of_each_exit_measured_alone():
    exit = np.array([[0.1, 0.5], [0.2, 0.6], [0.3, 0.7], [0.2, 0.6]])
    a_world = world(group(arrivals=Poisson(3.0)), node(ProfiledService(profile(exit), speed=2.0)))
    (offered,) = offered_loads(a_world)
    assert offered.load == pytest.approx((3 * 0.2 / 2, 3 * 0.6 / 2))
    # Exit by exit, all classifiers on the way are computed: as the service says it.
    means_s = a_world.nodes[0].service.stepwise_means()
    assert offered.stepwise == pytest.approx([3 * mean_s for mean_s in means_s])
    assert offered.stepwise[0] == pytest.approx(offered.load[0])


def test_every_node_is_offered_what_its_own_groups_send():
    a_world = world(
        group("cameras", 2, Poisson(1.0), node="near"),
        group("meters", 3, Poisson(1.0), node="far"),
        group("doors", 4, Poisson(0.5), node="far"),
        *(node(name=name) for name in ("near", "far", "idle")),
    )
    assert [(one.node, one.rate_hz) for one in offered_loads(a_world)] == [
        ("near", 2.0),
        ("far", 5.0),
        ("idle", 0),
    ]
    assert offered_loads(a_world)[2].load == (0.0,)


def test_what_others_send_on_and_closed_loops_are_told_apart():
    devices = group("open", 4, Poisson(2.0), node="edge")
    loops = group("loops", 3, ClosedLoop(Constant(1.0)), node="edge")
    nodes = (
        node(name="edge", next_tier="fog"),
        node(name="fog", next_tier="cloud"),
        node(name="cloud"),
    )
    loads = offered_loads(world(devices, loops, *nodes))
    assert [(one.rate_hz, one.sent_on_hz, one.looping) for one in loads] == [
        (8.0, 0.0, 3),
        (0.0, 8.0, 0),
        (0.0, 8.0, 0),
    ]


# --- after a run ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "drain_s", "verdict"),
    [
        (0.5, 0.0, "STABLE"),
        (0.99, 2.0, "STABLE"),
        (0.5, 2.1, "BACKLOGGED"),
        (1.0, 0.0, "OVERLOADED"),
        (1.3, 99.0, "OVERLOADED"),
    ],
)
def test_verdict_of_a_load_for_a_mean_deadline_of_2_s(work, drain_s, verdict):
    assert load_verdict(work, drain_s, deadline_s=2.0) == verdict


def verdict_of(a_world, policy=None, says=None):
    (metrics,) = node_metrics(a_world, run_of(a_world, policy, says))
    names = ("work", "drain_s", "deadline_mean_s", "bounded")
    return load_verdict(*(metrics[name] for name in names)), metrics


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("load", "expected"), [(0.5, "STABLE"), (1.3, "OVERLOADED")])
def test_verdict_of_simulated_loads(load, expected, workers):
    a_world = world(
        group(count=4, arrivals=Poisson(load * workers / 4 / 0.1), deadline=1.5),
        node(Exponential(0.1), workers=workers),
        warm_up_s=10.0,
        duration_s=300.0,
    )
    verdict, metrics = verdict_of(a_world)
    assert verdict == expected
    assert metrics["work"] == pytest.approx(load, rel=0.06)
    (offered,) = offered_loads(a_world)
    assert offered.load[0] == pytest.approx(load, rel=0.002)


def test_a_burst_at_the_end_is_backlogged_if_it_outlasts_the_deadlines():
    # Ten seconds of work a second before the end: half the window's capacity.
    burst = written_world([19.0] * 10, [1.0] * 10, duration_s=20.0, deadline=8.9)
    verdict, metrics = verdict_of(burst)
    assert verdict == "BACKLOGGED"
    assert metrics["work"] == 0.5
    assert metrics["drain_s"] == 9.0
    patient = written_world([19.0] * 10, [1.0] * 10, duration_s=20.0, deadline=9.1)
    assert verdict_of(patient)[0] == "STABLE"


def test_node_metrics_of_a_hand_worked_run():
    # Two workers: work of 4 + 2 + 3 s in a window of 10 s; the first request is warm-up's.
    a_world = written_world(
        [0.0, 2.0, 3.0, 11.0], [5.0, 4.0, 2.0, 3.0], workers=2, warm_up_s=2.0, duration_s=10.0,
        deadline=7.0, link=Link(Direction(Constant(0.5)), Direction(Constant(9.0))),
    )  # fmt: skip
    (metrics,) = node_metrics(a_world, run_of(a_world))
    # They arrive at 0.5, 2.5, 3.5 and 11.5; only the third waits, for the first's worker, to 5.5.
    assert metrics == {
        "node": "edge",
        "work": pytest.approx(9 / 20),
        "wait_mean_s": pytest.approx(2.0 / 3),
        "drain_s": pytest.approx(14.5 - 12.0),
        "deadline_mean_s": 7.0,
        "bounded": False,
    }


def test_a_node_that_nobody_uses_is_stable():
    a_world = world(group(node="busy"), node(name="busy"), node(name="idle"))
    busy, idle = node_metrics(a_world, run_of(a_world))
    assert busy["work"] > 0
    assert idle == {
        "node": "idle", "work": 0.0, "wait_mean_s": 0.0, "drain_s": 0.0, "deadline_mean_s": 0.0,
        "bounded": True,
    }  # fmt: skip
    assert load_verdict(0.0, 0.0, 0.0) == "STABLE"


def test_refusing_work_keeps_an_overloaded_node_stable():
    a_world = world(
        group(count=4, arrivals=Poisson(3.25), deadline=0.5),
        node(Constant(0.1)),
        duration_s=300.0,
    )
    assert verdict_of(a_world, FixedExit(1))[0] == "OVERLOADED"
    assert verdict_of(a_world, DeadlineAware(when_none_fits="drop"))[0] == "STABLE"


@pytest.mark.parametrize(
    ("arrivals", "limit", "verdict"),
    [
        (Poisson(4.0), None, "OVERLOADED"),
        (Poisson(4.0), 3, "SATURATED"),
        (ClosedLoop(Constant(0.0)), None, "SATURATED"),
    ],
)
def test_a_queue_that_cannot_grow_is_saturated_at_most(arrivals, limit, verdict):
    a_world = world(
        group(count=4, arrivals=arrivals, deadline=100.0),
        node(Constant(0.1), queue_limit=limit),
        warm_up_s=10.0,
        duration_s=100.0,
    )
    assert verdict_of(a_world, FixedExit(1))[0] == verdict


def test_open_arrivals_at_another_tier_can_overload_a_node():
    a_world = world(
        group(count=1, arrivals=ClosedLoop(Constant(1.0)), node="cloud"),
        group("others", node="edge"),
        node(Constant(0.1), name="edge", next_tier="cloud"),
        node(Constant(0.1), name="cloud"),
        node(Constant(0.1), name="spare"),
    )
    bounded = {row["node"]: row["bounded"] for row in node_metrics(a_world, run_of(a_world))}
    assert bounded == {"edge": False, "cloud": False, "spare": True}


def test_work_done_for_requests_that_are_dropped_after_it_is_work_too():
    # 13 requests a second, 0.1 s each until exit 1, and only then refused.
    a_world = world(
        group(count=4, arrivals=Poisson(3.25), deadline=0.5),
        node(DistributedService(Constant(0.1), 1)),
        duration_s=300.0,
    )
    refuse = Deciding(lambda request, node: DROP if request.exit else run_to(1))
    verdict, metrics = verdict_of(a_world, refuse)
    assert metrics["work"] == pytest.approx(1.3, rel=0.06)
    assert verdict == "OVERLOADED"


def test_settling_compares_the_first_quarter_of_the_window_with_the_rest():
    # Window from 8 to 16 s: its first quarter ends at 10 s.
    a_world = written_world(
        [0.0, 8.0, 9.5, 10.5, 12.0, 15.0], [7.0, 1.0, 0.5, 0.25, 0.75, 2.0],
        warm_up_s=8.0, duration_s=8.0,
    )  # fmt: skip
    first, rest = settling(a_world, run_of(a_world))
    assert first == pytest.approx((1.0 + 0.5) / 2)
    assert rest == pytest.approx((0.25 + 0.75 + 2.0) / 3)


def test_settling_looks_at_answered_requests_only():
    a_world = written_world([0.0, 1.0, 5.0], [0.5] * 3, duration_s=8.0)
    decisions = iter([DROP, run_to(1), ANSWER, DROP])
    first, rest = settling(a_world, run_of(a_world, Deciding(lambda *views: next(decisions))))
    assert first == 0.5
    assert np.isnan(rest)


# --- doubts --------------------------------------------------------------------------------------

CALM = (1.0, 1.01), (1.02, 1.0), (0.99, 1.0), (1.0, 1.0)


def runs_frame(offered=5000, latencies=CALM, policy="fixed", on_time=1, strategy="standard"):
    """One row per replication, with the latencies of the first quarter and the rest."""
    return pd.DataFrame(
        [
            (strategy, 1, policy, replication, offered, on_time, first, rest)
            for replication, (first, rest) in enumerate(latencies)
        ],
        columns=[
            "strategy", "training_seed", "policy", "replication", "offered", "on_time",
            "first_quarter_s", "rest_s",
        ],
    )  # fmt: skip


def nodes_frame(*verdicts, strategy="standard"):
    return pd.DataFrame(
        [(f"node{number}", "fixed", strategy, verdict) for number, verdict in enumerate(verdicts)],
        columns=["node", "policy", "strategy", "verdict"],
    )


def doubts_about(runs=None, nodes=("STABLE",), training_seeds=3, replications=4, compares=True):
    runs = runs_frame() if runs is None else runs
    return doubts(runs, nodes_frame(*nodes), training_seeds, replications, compares)


def test_a_sound_result_raises_no_doubt():
    assert doubts_about() == []
    assert doubts_about(nodes=("STABLE", "BACKLOGGED")) == []


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"replications": 1}, "too few replications"),
        ({"training_seeds": 1}, "too few training seeds"),
        ({"runs": runs_frame(offered=ENOUGH_REQUESTS - 1)}, "too short: a run measured 99"),
        (
            {"nodes": ("STABLE", "OVERLOADED")},
            "node 'node1' is overloaded under fixed with standard",
        ),
        ({"runs": runs_frame(on_time=0)}, "no request was answered in time under any policy"),
        (
            {"runs": runs_frame(latencies=[(0.5, 1.0), (0.52, 1.0), (0.49, 1.0), (0.51, 1.0)])},
            "warm-up not settled for fixed with standard:",
        ),
        (
            {"runs": runs_frame(latencies=[(1.5, 1.0), (1.52, 1.0), (1.49, 1.0)])},
            "warm-up not settled for fixed with standard:",
        ),
    ],
)
def test_each_reason_for_doubt_is_given_alone(about, reason):
    (given,) = doubts_about(**about)
    assert reason in given


def test_a_policy_in_vain_beside_another_is_a_result():
    runs = pd.concat([runs_frame(on_time=0), runs_frame(policy="quick")])
    assert policies_in_vain(runs) == ["fixed"]
    assert doubts_about(runs=runs) == []


def test_reasons_add_up():
    assert len(doubts_about(replications=1, training_seeds=1, nodes=("OVERLOADED",) * 2)) == 4


def test_one_training_seed_is_enough_where_no_strategies_are_compared():
    assert doubts_about(training_seeds=1, compares=False) == []


def test_100_requests_are_enough_and_the_shortest_run_counts():
    assert doubts_about(runs=runs_frame(offered=ENOUGH_REQUESTS)) == []
    short = pd.concat([runs_frame(), runs_frame(offered=7)])
    assert "measured 7 requests" in doubts_about(runs=short)[0]


@pytest.mark.parametrize(
    "latencies",
    [
        [(1.08, 1.0), (1.09, 1.0), (1.08, 1.0), (1.09, 1.0)],  # clear, but within 10 %
        [(3.0, 1.0), (0.4, 1.0), (1.5, 1.0), (0.6, 1.0)],  # large, but chance
        [(3.0, 1.0)],  # one run shows nothing
        [(float("nan"), 1.0), (float("nan"), 1.0)],  # nothing answered
    ],
)
def test_what_does_not_show_that_the_warm_up_has_not_settled(latencies):
    assert doubts_about(runs=runs_frame(latencies=latencies)) == []


def test_only_policies_that_have_not_settled_are_named():
    runs = pd.concat(
        [
            runs_frame(),
            runs_frame(latencies=[(0.5, 1.0), (0.52, 1.0), (0.51, 1.0)], policy="deadline_aware"),
        ]
    )
    (reason,) = doubts_about(runs=runs)
    assert "deadline_aware" in reason
    assert "fixed" not in reason


#: A quarter that is half as slow as the rest, alike in every replication.
UNSETTLED = (0.5, 1.0), (0.52, 1.0), (0.51, 1.0)


def test_a_strategy_that_has_not_settled_does_not_hide_behind_another_that_moves_the_other_way():
    slower = [(rest, first) for first, rest in UNSETTLED]
    runs = pd.concat([runs_frame(latencies=UNSETTLED), runs_frame(latencies=slower, strategy="z")])
    (reason,) = doubts_about(runs=runs)
    assert "warm-up not settled for fixed with standard, z: " in reason
    calm = pd.concat([runs_frame(latencies=UNSETTLED), runs_frame(strategy="curriculum")])
    (reason,) = doubts_about(runs=calm)
    assert "warm-up not settled for fixed with standard: " in reason


def test_where_the_world_changes_on_schedule_settling_is_not_judged_and_all_else_is():
    runs = runs_frame(latencies=UNSETTLED)
    assert len(doubts(runs, nodes_frame("STABLE"), 3, 4, True)) == 1
    changes = ["requests follow a curve"]
    assert doubts(runs, nodes_frame("STABLE"), 3, 4, True, planned_changes=changes) == []
    (reason,) = doubts(runs, nodes_frame("OVERLOADED"), 3, 4, True, planned_changes=changes)
    assert "overloaded" in reason


def test_every_strategy_that_overloads_a_node_is_named_once():
    nodes = pd.concat(
        [
            nodes_frame("OVERLOADED", "OVERLOADED", strategy="standard"),
            nodes_frame("OVERLOADED", "STABLE", strategy="curriculum"),
            nodes_frame("STABLE", "STABLE", strategy="anti_curriculum"),
        ]
    )
    first, second = doubts(runs_frame(), nodes, 3, 4, True)
    assert "node 'node0' is overloaded under fixed with standard, curriculum: " in first
    assert "node 'node1' is overloaded under fixed with standard: " in second


def test_policies_with_the_same_strategies_are_one_reason():
    nodes = pd.concat(
        [
            nodes_frame("OVERLOADED", strategy=strategy).assign(policy=policy)
            for policy in ("full", "fixed", "other")
            for strategy in ("standard", "curriculum")
            if (policy, strategy) != ("other", "standard")
        ]
    )
    (reason,) = doubts(runs_frame(), nodes, 3, 4, True)
    said = "is overloaded under full, fixed with standard, curriculum; other with curriculum: "
    assert said in reason


def links_frame(*loads, strategy="standard"):
    return pd.DataFrame(
        [
            (
                f"link{number}", "uplink", "fixed", strategy, load,
                "OVERLOADED" if load >= 1 else "STABLE",
            )
            for number, load in enumerate(loads)
        ],
        columns=["link", "direction", "policy", "strategy", "load", "verdict"],
    )  # fmt: skip


def test_an_overloaded_link_is_a_reason_and_is_named():
    links = links_frame(0.4, 1.25)
    (reason,) = doubts(runs_frame(), nodes_frame("STABLE"), 3, 4, True, links)
    for fragment in ("uplink of link 'link1'", "1.25", "under fixed with standard"):
        assert fragment in reason
    other = links_frame(1.25, 1.25, strategy="curriculum")
    of_both, of_one = doubts(
        runs_frame(), nodes_frame("STABLE"), 3, 4, True, pd.concat([links, other])
    )
    assert (
        "'link1' is offered 1.25 of what it can carry under fixed with standard, curricul"
        in of_both
    )
    assert "'link0' is offered 1.25 of what it can carry under fixed with curriculum" in of_one


# --- shares --------------------------------------------------------------------------------------


def test_shares_of_outcomes_are_of_all_offered_by_arm():
    runs = pd.DataFrame(
        [
            ("standard", "fixed", 10, 6, 4, 0, 0),
            ("standard", "fixed", 30, 30, 0, 0, 0),
            ("curriculum", "fixed", 10, 0, 5, 4, 1),
        ],
        columns=["strategy", "policy", "offered", "on_time", "late", "dropped", "lost"],
    )
    shares = outcome_shares(runs)
    assert shares.loc[("standard", "fixed")].tolist() == [36 / 40, 4 / 40, 0.0, 0.0]
    assert shares.loc[("curriculum", "fixed")].tolist() == [0.0, 0.5, 0.4, 0.1]
    assert shares.sum(axis=1).tolist() == [1.0, 1.0]


def test_outcomes_of_a_run_sum_to_what_was_offered():
    a_world = world(group(count=4, deadline=0.15), node(Exponential(0.1)), duration_s=50.0)
    metrics = run_metrics(a_world, run_of(a_world, Fickle(5), predictions()))
    counts = [metrics[name] for name in ("on_time", "late", "dropped", "lost")]
    assert sum(counts) == metrics["offered"]
    assert all(count > 5 for count in counts[:3])
