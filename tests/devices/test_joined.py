"""Devices that joined: one record for each request, with what can be known of its times."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.joined import JoinedLog, with_joined
from devices.protocol.messages import (
    InferenceRequest,
    LatencyReport,
    Reply,
    encode_reply,
    encode_report,
    encode_request,
)
from devices.virtual.fleet_log import FleetLog, FleetResult, Oddities
from devices.virtual.results import run_of
from sim.distributions import Constant
from sim.network.links import Link
from sim.nodes.service import DistributedService
from sim.nodes.spec import NodeSpec
from sim.outcomes import LOST, ON_TIME, OUTCOMES
from sim.results.run import Run
from sim.workload.arrivals import Poisson
from sim.workload.device_groups import DeviceGroup
from sim.world import World

LABELS = np.array([3, 1, 2], dtype=np.int32)
SAMPLE = np.array([10, 11, 12], dtype=np.int32)
CLASSES = 4
START_S = 1000.0

WORLD = World(
    groups=(DeviceGroup("cameras", 2, Poisson(1.0), Constant(0.1), "wifi", "edge", 64, 64),),
    nodes=(NodeSpec("edge", 1, DistributedService(Constant(0.005), 2)),),
    links={"wifi": Link()},
    warm_up_s=1.0,
    duration_s=10.0,
    seed=1,
)


def fleet_result(log: FleetLog | None = None, cut_s: float | None = None) -> FleetResult:
    log = log or FleetLog()
    return FleetResult(
        0,
        log.requests(),
        log.sightings(),
        tuple(log.nodes),
        (True,) * len(log.nodes),
        START_S,
        cut_s,
        Oddities(),
    )


def asks(log: JoinedLog, at_s: float, device: str = "esp32", **fields: Any) -> InferenceRequest:
    request = InferenceRequest(**{"id": 1, "deadline_s": 0.1, "sample": 10, **fields})
    log.request("edge", device, encode_request(request), START_S + at_s)
    return request


def is_answered(log: JoinedLog, at_s: float, device: str = "esp32", **fields: Any) -> None:
    said = {"id": 1, "status": "ok", "node": "edge", "predicted": 3, "exit": 1, "node_s": 0.01}
    said |= {"confidence": 0.5, "queued_s": 0.002, "service_s": 0.008} | fields
    log.reply("edge", device, encode_reply(Reply(**said)), START_S + at_s)


def reports(log: JoinedLog, latency_s: float | None, id: int = 1, device: str = "esp32") -> None:
    log.report("edge", device, encode_report(LatencyReport(id, latency_s)))


def joined_run(log: JoinedLog, fleet: FleetResult | None = None) -> tuple[World, Run, list[str]]:
    fleet = fleet_result() if fleet is None else fleet
    joined = with_joined(WORLD, fleet, log, SAMPLE, LABELS, CLASSES)
    return joined.world, run_of(joined.world, joined.result, joined.labels), joined.notes


def only_row(log: JoinedLog) -> dict[str, Any]:
    world, run, _ = joined_run(log)
    assert len(run) == 1
    return {
        "created_s": run.requests.created_s[0],
        "latency_s": run.received_s[0] - run.requests.created_s[0],
        "outcome": OUTCOMES[run.outcome[0]],
        "correct": bool(run.correct[0]),
        "device": world.device_name(int(run.requests.device[0])),
        "group": world.groups[run.requests.group[0]].name,
        "arrived_s": run.arrived_s[0],
        "started_s": run.started_s[0],
        "finished_s": run.finished_s[0],
    }


# --- times --------------------------------------------------------------------------------------


def test_what_the_device_reports_is_its_latency() -> None:
    log = JoinedLog()
    asks(log, 2.0, age_s=0.005, way_s=0.004)
    is_answered(log, 2.012)
    reports(log, 0.030)
    row = only_row(log)
    assert row["created_s"] == pytest.approx(2.0 - 0.002 - 0.005)
    assert row["latency_s"] == pytest.approx(0.030)
    assert (row["outcome"], row["correct"]) == ("on_time", True)
    assert (row["device"], row["group"]) == ("esp32", "joined")


def test_without_a_report_age_node_and_way_make_the_latency() -> None:
    log = JoinedLog()
    asks(log, 2.0, age_s=0.005, way_s=0.050)
    is_answered(log, 2.012, node_s=0.010)
    assert only_row(log)["latency_s"] == pytest.approx(0.005 + 0.010 + 0.050)


def test_what_was_seen_at_the_broker_is_the_least_that_it_took() -> None:
    log = JoinedLog()
    asks(log, 2.0, age_s=0.005, way_s=0.001)
    is_answered(log, 2.040, node_s=0.010)
    assert only_row(log)["latency_s"] == pytest.approx(0.005 + 0.040)


def test_the_travel_time_of_a_request_is_told_with_the_next() -> None:
    log = JoinedLog()
    asks(log, 2.0, id=1, way_s=0.004)
    is_answered(log, 2.012, node_s=0.010)
    asks(log, 20.0, id=2, way_s=0.070)  # outside of the run
    assert only_row(log)["latency_s"] == pytest.approx(0.010 + 0.070)


def test_times_at_the_node_lie_between_creation_and_answer() -> None:
    log = JoinedLog()
    asks(log, 2.0, way_s=0.020)
    is_answered(log, 2.012, node_s=0.010, queued_s=0.004, service_s=0.006)
    row = only_row(log)
    assert row["created_s"] < row["arrived_s"] < row["started_s"] < row["finished_s"]
    assert row["started_s"] - row["arrived_s"] == pytest.approx(0.004)
    assert row["finished_s"] - row["started_s"] == pytest.approx(0.006)
    assert row["finished_s"] < row["created_s"] + row["latency_s"]


# --- outcomes -----------------------------------------------------------------------------------


def test_an_answer_after_its_deadline_is_late() -> None:
    log = JoinedLog()
    asks(log, 2.0, deadline_s=0.02)
    is_answered(log, 2.012)
    reports(log, 0.021)
    assert only_row(log)["outcome"] == "late"


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"status": "dropped", "reason": "policy"}, "dropped"),
        ({"status": "error", "code": "bad_image", "message": "no"}, "lost"),
    ],
)
def test_what_is_no_answer_is_dropped_or_lost(fields: dict[str, Any], outcome: str) -> None:
    log = JoinedLog()
    asks(log, 2.0)
    is_answered(log, 2.012, predicted=None, exit=None, confidence=None, **fields)
    assert only_row(log)["outcome"] == outcome


def test_without_a_reply_a_request_is_lost() -> None:
    log = JoinedLog()
    asks(log, 2.0)
    assert only_row(log)["outcome"] == "lost"


def test_a_reply_that_the_device_says_never_came_is_lost() -> None:
    log = JoinedLog()
    asks(log, 2.0)
    is_answered(log, 2.012)
    reports(log, None)
    assert only_row(log)["outcome"] == "lost"


@pytest.mark.parametrize("at_s", [-0.5, 11.5])
def test_what_was_created_outside_of_the_run_has_no_record(at_s: float) -> None:
    log = JoinedLog()
    asks(log, at_s)
    assert len(joined_run(log)[1]) == 0


def test_what_was_created_after_a_run_was_cut_short_has_no_record() -> None:
    log = JoinedLog()
    asks(log, 4.0)
    asks(log, 6.0, id=2)
    assert len(joined_run(log, fleet_result(cut_s=5.0))[1]) == 1


# --- which requests -----------------------------------------------------------------------------


def test_a_request_that_is_delivered_twice_has_one_record() -> None:
    log = JoinedLog()
    asks(log, 2.0)
    is_answered(log, 2.012)
    asks(log, 2.015)  # again, to the bit
    is_answered(log, 2.016)
    assert len(joined_run(log)[1]) == 1


def test_a_request_that_is_tried_again_before_its_answer_has_one_record() -> None:
    log = JoinedLog()
    asks(log, 2.0, age_s=0.0)
    asks(log, 2.05, age_s=0.05)
    is_answered(log, 2.06)
    assert len(joined_run(log)[1]) == 1


def test_an_id_that_is_used_again_later_is_another_request() -> None:
    log = JoinedLog()
    asks(log, 2.0, sent_s=7.0)
    is_answered(log, 2.012)
    asks(log, 3.0, sent_s=8.0)
    is_answered(log, 3.012, predicted=0)
    _, run, _ = joined_run(log)
    assert run.correct.tolist() == [True, False]


def test_devices_that_use_the_same_ids_are_told_apart() -> None:
    log = JoinedLog()
    asks(log, 2.0, device="pi")
    asks(log, 2.0, device="esp32")
    is_answered(log, 2.012, device="esp32")
    world, run, _ = joined_run(log)
    names = [world.device_name(it) for it in run.requests.device.tolist()]
    assert dict(zip(names, run.outcome.tolist(), strict=True)) == {
        "pi": LOST,
        "esp32": ON_TIME,
    }


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"sample": 12}, 2),
        ({"sample": 12, "label": 2}, 2),
        ({"sample": None, "image": b"x", "label": 1}, 1),
        ({"sample": 12, "image": b"x", "label": 0}, 0),  # the device knows what it has sent
        ({"sample": 999, "image": b"x", "label": 3}, 3),
    ],
)
def test_a_sample_or_a_label_decides_what_is_correct(fields: dict[str, Any], label: int) -> None:
    for predicted in range(CLASSES):
        log = JoinedLog()
        asks(log, 2.0, **fields)
        is_answered(log, 2.012, predicted=predicted)
        assert only_row(log)["correct"] is (predicted == label)


@pytest.mark.parametrize(
    "fields",
    [
        {"sample": None, "image": b"x"},
        {"sample": 999},
        {"sample": None, "image": b"x", "label": 4},
    ],
)
def test_what_nobody_can_judge_is_told_and_in_no_figure(fields: dict[str, Any]) -> None:
    log = JoinedLog()
    asks(log, 2.0, **fields)
    is_answered(log, 2.012)
    _, run, notes = joined_run(log)
    assert len(run) == 0
    assert any("1 requests of devices that joined had neither a label" in it for it in notes)


def test_estimated_latencies_are_told() -> None:
    log = JoinedLog()
    for id in range(3):
        asks(log, 2.0 + id, id=id, way_s=0.001 if id == 1 else None)
        is_answered(log, 2.01 + id, id=id)
    reports(log, 0.02, id=0)
    notes = "\n".join(joined_run(log)[2])
    assert "reported no latency of 2 of 3 answers" in notes
    assert "for 1 of them the device told no travel time" in notes


def test_a_run_that_nobody_joined_stays_as_it_is() -> None:
    world, run, notes = joined_run(JoinedLog())
    assert (world, len(run), notes) == (WORLD, 0, [])


def test_the_fleets_requests_stay_first_as_they_were() -> None:
    fleet = FleetLog()
    for number, created_s in enumerate((1.5, 4.0)):
        fleet.create((0, number, number, 0, created_s, 0.1, number, 0.5))
    answer = Reply(
        0, "ok", node="edge", predicted=1, exit=2, confidence=0.5, queued_s=0.0,
        service_s=0.01, node_s=0.01, arrived_s=START_S + 4.001, batch=1,
    )  # fmt: skip
    fleet.seen["sent_s"][1] = 4.0
    fleet.replied(1, answer, 4.02)
    log = JoinedLog()
    asks(log, 2.0)
    is_answered(log, 2.012, node="other edge")
    world, run, _ = joined_run(log, fleet_result(fleet))
    assert run.requests.created_s[:2].tolist() == [1.5, 4.0]
    assert run.outcome.tolist() == [LOST, ON_TIME, ON_TIME]
    assert run.correct.tolist() == [False, True, True]
    assert run.arrived_s[1] == pytest.approx(4.001)
    assert [world.device_name(it) for it in run.requests.device.tolist()] == [
        "cameras-0",
        "cameras-1",
        "esp32",
    ]


def test_a_group_that_is_called_joined_already_keeps_its_name() -> None:
    taken = replace(WORLD, groups=(replace(WORLD.groups[0], name="joined"),))
    log = JoinedLog()
    asks(log, 2.0)
    joined = with_joined(taken, fleet_result(), log, SAMPLE, LABELS, CLASSES)
    assert [group.name for group in joined.world.groups] == ["joined", "joined-devices"]


# --- hostile input ------------------------------------------------------------------------------


@given(payload=st.binary(max_size=60))
def test_no_message_breaks_the_log(payload: bytes) -> None:
    log = JoinedLog()
    log.request("edge", "esp32", payload, START_S)
    log.reply("edge", "esp32", payload, START_S)
    log.report("edge", "esp32", payload)
    joined_run(log)


def test_a_flood_of_requests_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.joined._REMEMBERED", 10)
    monkeypatch.setattr("devices.joined._MOST_KEPT", 20)
    log = JoinedLog()
    for id in range(100):
        asks(log, 2.0, id=id)
    assert (len(log._asked), len(log.kept)) == (10, 20)


def test_no_more_devices_join_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.joined._MOST_DEVICES", 2)
    log = JoinedLog()
    for device in ("a", "b", "c", "a"):
        asks(log, 2.0, device=device, id=len(log.kept))
    assert list(log.devices) == ["a", "b"]
    assert [asked.device for asked in log.kept] == ["a", "b", "a"]
    assert log.turned_away == 1


def test_a_reply_that_may_be_of_either_device_is_of_none() -> None:
    log = JoinedLog()
    either = [("edge", "a"), ("edge", "b")]
    for device, id in (("a", 1), ("b", 1), ("b", 2)):
        asks(log, 2.0, device=device, id=id)
    for id in (1, 2):
        said = Reply(id, "ok", node="edge", predicted=3, exit=1, node_s=0.01)
        log.reply_to_one_of(either, encode_reply(said), START_S + 2.05)
    assert [asked.reply is not None for asked in log.kept] == [False, False, True]
    _, _, notes = joined_run(log)
    assert any("1 replies came on a topic that several devices share" in note for note in notes)


def test_what_was_lost_long_ago_makes_no_later_reply_doubtful() -> None:
    log = JoinedLog()
    asks(log, 2.0, device="a", id=1)
    asks(log, 9.0, device="b", id=1)
    said = Reply(1, "ok", node="edge", predicted=3, exit=1, node_s=0.01)
    log.reply_to_one_of([("edge", "a"), ("edge", "b")], encode_reply(said), START_S + 9.05)
    assert [asked.reply is not None for asked in log.kept] == [False, True]
    assert log.ambiguous == 0


def test_images_are_not_kept_and_tell_repetitions_apart() -> None:
    log = JoinedLog()
    picture = {"shape": (1, 2, 2), "sample": None, "label": 1}
    for image in (b"abcd", b"abcd", b"efgh"):
        asks(log, 2.0, image=image, **picture)
        is_answered(log, 2.1)
    assert [asked.request.image for asked in log.kept] == [None, None]


def test_who_goes_on_asking_after_a_run_is_not_waited_for() -> None:
    log = JoinedLog()
    asks(log, 2.0, id=1)
    is_answered(log, 2.05)
    asks(log, 3.0, id=2)
    assert log.waits(START_S + 3.0, grace_s=1.0)
    assert not log.waits(START_S + 3.0, grace_s=1.0, asked_by_s=START_S + 2.5)


def test_what_was_seen_before_a_run_is_forgotten_but_not_who_asked() -> None:
    log = JoinedLog()
    asks(log, 2.0)
    log.clear()
    assert (list(log.devices), log.kept) == (["esp32"], [])


def test_it_waits_for_replies_that_may_still_come() -> None:
    log = JoinedLog()
    asks(log, 2.0, deadline_s=0.1)
    assert log.waits(START_S + 2.5, grace_s=1.0)
    assert not log.waits(START_S + 3.2, grace_s=1.0)
    is_answered(log, 2.6)
    assert not log.waits(START_S + 2.7, grace_s=1.0)
    assert math.isfinite(log.kept[0].heard_s)
