"""Runs from what devices saw: times, outcomes, batches, and everything that is made of a run."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from brokers import Mosquitto
from fake_edge import fake_edge
from small_worlds import group, node, predictions, sample_set, world

from devices.protocol.messages import InferenceRequest, Reply
from devices.virtual.fleet import run_fleet
from devices.virtual.fleet_log import UNSENT, FleetLog, FleetResult, Oddities
from devices.virtual.fleet_settings import FleetSettings
from devices.virtual.results import run_of
from sim.outcomes import DROPPED, LATE, LOST, ON_TIME
from sim.results import records
from sim.results.gathering import Gathering, Telemetry
from sim.results.metrics import run_metrics
from sim.results.run import Run, record_table
from sim.workload.arrivals import Poisson
from sim.world import World

#: Of the devices' clock at the start of the run; and how much further the clock of a node is that
#: runs elsewhere.
START_S, ELSEWHERE_S = 1000.0, 500.0

WORLD = world(group(count=4), nodes=(node(replicas=2),), warm_up_s=0.0, duration_s=100.0)
LABELS = sample_set().labels


class Seen:
    """A result made by hand: one call of ``request`` for each."""

    def __init__(self) -> None:
        self.log = FleetLog()

    def request(
        self,
        reply: Reply | None = None,
        created_s: float = 10.0,
        sent_s: float = 10.0,
        heard_s: float = 10.0,
        deadline_s: float = 1.0,
        sample: int = 7,
        device: int = 0,
    ) -> int:
        row = (0, device, device, len(self.log), created_s, deadline_s, sample, 0.5)
        index = self.log.create(row)
        self.log.seen["sent_s"][index] = sent_s
        self.log.seen["lag_s"][index] = sent_s - created_s
        if reply is not None:
            self.log.replied(index, reply, heard_s)
        return index

    def result(self, same_clock: bool = True, **changes: Any) -> FleetResult:
        nodes = tuple(self.log.nodes)
        result = FleetResult(
            replication=2,
            requests=self.log.requests(),
            seen=self.log.sightings(),
            nodes=nodes,
            same_clock=(same_clock,) * len(nodes),
            start_s=START_S,
            cut_s=None,
            oddities=Oddities(),
        )
        return replace(result, **changes)

    def run(self, same_clock: bool = True) -> Run:
        return run_of(WORLD, self.result(same_clock), LABELS)


def answer(**changes: Any) -> Reply:
    reply = Reply(
        0,
        "ok",
        "edge-0",
        predicted=7,
        confidence=0.9,
        exit=2,
        queued_s=0.1,
        service_s=0.2,
        node_s=0.3,
        arrived_s=START_S + 10.05,
        batch=1,
    )
    return replace(reply, **changes)


def dropped(reason: str, **changes: Any) -> Reply:
    reply = Reply(0, "dropped", "edge-0", node_s=0.0, arrived_s=START_S + 10.05, reason=reason)
    return replace(reply, **changes)


def times(run: Run, index: int = 0) -> list[float]:
    return [
        float(column[index])
        for column in (
            run.arrived_s,
            run.started_s,
            run.finished_s,
            run.released_s,
            run.received_s,
        )
    ]


# --- times ---------------------------------------------------------------------------------------


def test_times_at_a_node_on_the_same_clock_are_exact() -> None:
    seen = Seen()
    seen.request(answer(), heard_s=10.5)
    np.testing.assert_allclose(times(seen.run()), [10.05, 10.15, 10.35, 10.35, 10.5])


def test_times_at_a_node_elsewhere_assume_ways_of_equal_length() -> None:
    seen = Seen()
    seen.request(answer(arrived_s=START_S + ELSEWHERE_S), heard_s=10.5)
    # 0.2 s of travel: 0.1 s there.
    np.testing.assert_allclose(times(seen.run(same_clock=False)), [10.1, 10.2, 10.4, 10.4, 10.5])


def test_a_clock_that_cannot_be_the_same_is_not_believed() -> None:
    seen = Seen()
    seen.request(answer(arrived_s=START_S + ELSEWHERE_S), heard_s=10.5)
    seen.request(answer(arrived_s=START_S + 9.9), heard_s=10.5)
    run = seen.run(same_clock=True)
    np.testing.assert_allclose(run.arrived_s, [10.1, 10.1])


def test_a_reply_that_tells_no_times_leaves_them_unknown() -> None:
    seen = Seen()
    bare = answer(queued_s=None, service_s=None, node_s=None, arrived_s=None, batch=None)
    seen.request(bare, heard_s=10.5)
    run = seen.run()
    assert np.isnan(times(run)[:4]).all()
    assert (run.received_s[0], run.outcome[0], run.exit[0]) == (10.5, ON_TIME, 2)
    assert len(run.visits) == 0


# --- outcomes ------------------------------------------------------------------------------------


def test_outcomes_follow_from_creation_and_reply() -> None:
    seen = Seen()
    seen.request(answer(), created_s=10.0, heard_s=11.0)  # just in time
    seen.request(answer(), created_s=9.9, heard_s=11.0)
    seen.request(dropped("policy"), heard_s=10.1)
    seen.request(Reply(0, "error", "edge-0", code="internal_error"), heard_s=10.1)
    seen.request()
    unsent = seen.request(sent_s=np.nan)
    seen.log.seen["status"][unsent] = UNSENT
    run = seen.run()
    assert run.outcome.tolist() == [ON_TIME, LATE, DROPPED, LOST, LOST, LOST]
    assert run.answered.tolist() == [True, True, False, False, False, False]
    assert run.exit.tolist() == [2, 2, 0, 0, 0, 0]
    assert run.index.tolist() == list(range(6))
    assert run.replication == 2


def test_an_answer_is_right_if_it_is_the_label_of_the_sample() -> None:
    seen = Seen()
    seen.request(answer(predicted=7), sample=17, heard_s=10.5)
    seen.request(answer(predicted=7), sample=18, heard_s=10.5)
    seen.request(dropped("policy"), sample=7, heard_s=10.5)
    run = seen.run()
    assert run.correct.tolist() == [True, False, False]
    assert run.predicted[:2].tolist() == [7, 7]
    np.testing.assert_allclose(run.confidence[:2], 0.9)


def test_the_node_is_who_replied_or_the_first_that_was_asked() -> None:
    seen = Seen()
    for name in ("edge-1", "edge-0", "stranger"):
        seen.request(answer(node=name), heard_s=10.5)
    seen.request()
    assert seen.run().node.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("reply", "started_s", "left_s"),
    [
        (dropped("queue_full"), np.nan, 10.05),
        (dropped("draining", node_s=0.4), np.nan, 10.45),
        (dropped("policy", queued_s=0.1, service_s=0.2, node_s=0.3), 10.15, 10.35),
        (dropped("policy", queued_s=0.3, service_s=0.0, node_s=0.3), 10.35, 10.35),
    ],
)
def test_a_refused_request_was_at_its_node(reply: Reply, started_s: float, left_s: float) -> None:
    seen = Seen()
    seen.request(reply, heard_s=10.6)
    run = seen.run()
    np.testing.assert_allclose(times(run), [10.05, started_s, np.nan, left_s, np.nan])
    assert len(run.visits) == 1


# --- batches -------------------------------------------------------------------------------------


def in_batch(started_s: float, waited_s: float, size: int, **changes: Any) -> Reply:
    """Of a batch that was begun at ``started_s`` of the node's clock, as milliseconds tell it."""
    arrived_s = (started_s - waited_s) * 1e3 / 1e3
    queued_s = waited_s * 1e3 / 1e3
    return answer(
        arrived_s=arrived_s, queued_s=queued_s, batch=size, node_s=waited_s + 0.2, **changes
    )


@pytest.mark.parametrize("same_clock", [True, False])
def test_a_batch_occupies_one_worker(same_clock: bool) -> None:
    seen = Seen()
    begins_s = START_S + 10.123456 + (0.0 if same_clock else ELSEWHERE_S)
    for waited_s in (0.0123, 0.0345, 0.0007):
        seen.request(in_batch(begins_s, waited_s, 3), sent_s=10.0, heard_s=10.5 + waited_s)
    seen.request(in_batch(begins_s + 0.2, 0.1, 2), heard_s=10.6)
    seen.request(in_batch(begins_s + 0.2, 0.2, 2), heard_s=10.6)
    run = seen.run(same_clock)
    services = run.visits.services()
    assert len(services.node) == 2
    np.testing.assert_allclose(services.ended_s - services.started_s, 0.2)
    np.testing.assert_allclose(run.started_s - run.arrived_s, [0.0123, 0.0345, 0.0007, 0.1, 0.2])
    assert run.batch.tolist() == [3, 3, 3, 2, 2]


def test_a_batch_of_which_answers_are_missing_is_as_large_as_what_is_known() -> None:
    seen = Seen()
    for waited_s in (0.01, 0.02):
        seen.request(in_batch(START_S + 10.1, waited_s, 4), heard_s=10.5)
    run = seen.run()
    assert run.batch.tolist() == [2, 2]
    gathering = Gathering(WORLD, exact=True)
    gathering.add(run)
    assert gathering.nodes.busy_s.tolist() == pytest.approx([0.2])


def test_batches_of_two_nodes_are_two() -> None:
    seen = Seen()
    for name in ("edge-0", "edge-1"):
        for waited_s in (0.01, 0.02):
            seen.request(in_batch(START_S + 10.1, waited_s, 2, node=name), heard_s=10.5)
    assert len(seen.run().visits.services().node) == 2


def test_two_batches_that_begin_together_at_one_node_are_two() -> None:
    seen = Seen()
    for waited_s in (0.01, 0.02, 0.03, 0.04):
        seen.request(in_batch(START_S + 10.1, waited_s, 2), heard_s=10.5)
    assert len(seen.run().visits.services().node) == 2


# --- what is made of a run -----------------------------------------------------------------------


def test_no_requests_at_all() -> None:
    run = Seen().run()
    assert len(run) == 0
    gathering = Gathering(WORLD, exact=True)
    gathering.add(run)
    assert gathering.request_metrics()["offered"] == 0


def a_live_run(mosquitto: Mosquitto) -> tuple[World, FleetResult]:
    """A second of a fleet whose node answers, refuses and forgets."""

    def by_sample(request: InferenceRequest, reply: Reply) -> list[Reply]:
        match (request.sample or 0) % 4:
            case 0:
                return []
            case 1:
                return [replace(reply, predicted=(reply.predicted or 0) + 1)]
            case 2:
                refusal = Reply(
                    request.id,
                    "dropped",
                    reply.node,
                    node_s=0.0,
                    arrived_s=reply.arrived_s,
                    reason="queue_full",
                )
                return [refusal]
            case _:
                return [reply]

    of = world(group(count=4, arrivals=Poisson(30.0)), duration_s=1.0, warm_up_s=0.3)
    with fake_edge(mosquitto.broker, answer=by_sample):
        settings = FleetSettings(mosquitto.broker, grace_s=0.3, wait_s=20.0)
        return of, run_fleet(of, sample_set(), 1, settings)


def test_records_and_figures_of_a_live_run(mosquitto: Mosquitto, tmp_path: Path) -> None:
    of, result = a_live_run(mosquitto)
    result = pickle.loads(pickle.dumps(result))
    run = run_of(of, result, LABELS)
    measured = run.requests.created_s >= of.warm_up_s

    file = tmp_path / "records.parquet"
    table = record_table(of, run, predictions(), "standard", 3, "full")
    records.write_records(file, [table], {"world": "live"})
    read = records.read_records(file)
    assert read.num_rows == measured.sum() == len(set(read["request"].to_pylist()))
    outcome_of = dict(zip(read["request"].to_pylist(), read["outcome"].to_pylist(), strict=True))
    expected = {0: "lost", 1: "on_time", 2: "dropped", 3: "on_time"}
    for index, sample in enumerate(run.requests.sample.tolist()):
        if measured[index]:
            assert outcome_of[index] == expected[sample % 4]
    by_outcome = read.group_by("outcome").aggregate([("received_s", "count"), ("request", "count")])
    counts = {row["outcome"]: row for row in by_outcome.to_pylist()}
    assert counts["on_time"]["received_s_count"] == counts["on_time"]["request_count"]
    assert counts["lost"]["received_s_count"] == counts["dropped"]["received_s_count"] == 0
    assert pa.compute.unique(read["policy"]).to_pylist() == ["full"]
    in_order = [read[name].to_numpy() for name in ("created_s", "arrived_s", "started_s")]
    in_order += [read[name].to_numpy() for name in ("finished_s", "received_s")]
    for before, after in pairwise(in_order):
        both = ~np.isnan(before) & ~np.isnan(after)
        assert (before[both] <= after[both] + 1e-9).all()

    telemetry = Telemetry(of, 0.5)
    gathering = Gathering(of, exact=True, watchers=[telemetry])
    gathering.add(run)
    metrics = gathering.metrics()
    assert metrics["offered"] == measured.sum()
    right = measured & (run.requests.sample % 4 == 3)
    assert metrics["aud"] == pytest.approx(right.sum() / measured.sum())
    assert metrics == pytest.approx(metrics | run_metrics(of, run), nan_ok=True)
    # Each answer took 0.1 ms of one worker.
    answered = int((measured & run.answered).sum())
    assert gathering.nodes.busy_s.tolist() == pytest.approx([answered * 1e-4])
    assert telemetry.requests()["offered_hz"].sum() * 0.5 == pytest.approx(len(run), rel=0.25)
    assert gathering.links() == []


def test_late_sends_make_a_result_doubtful() -> None:
    seen = Seen()
    for _ in range(100):
        seen.request(answer(), created_s=10.0, sent_s=10.001, heard_s=10.5)
    assert seen.result().warnings(WORLD) == []
    for _ in range(5):
        seen.request(answer(), created_s=10.0, sent_s=10.02, heard_s=10.5)
    warnings = seen.result().warnings(WORLD)
    assert len(warnings) == 1
    assert "1 % of the requests by more than 20.0 ms" in warnings[0]


def test_what_a_fleet_met_is_told() -> None:
    odd = Oddities(unsent=1, reconnections=2, refused=3, refusal="Not authorized", unknown=4)
    odd.errors["bad_image"] += 5
    odd.strangers["edge-9"] += 6
    seen = Seen()
    seen.request(answer(), heard_s=10.5)
    found = seen.result(oddities=odd, cut_s=12.5, notes=("a note",)).warnings(WORLD)
    for number, part in enumerate(
        [
            "a note",
            "12.5 s after its start, of 100 s",
            "1 requests were lost at devices",
            "connection to the broker 2 times",
            "refused 3 requests: Not authorized",
            "5 requests with the error bad_image",
            "6 replies came from 'edge-9'",
            "4 replies to requests that were never sent",
        ]
    ):
        assert part in found[number]
