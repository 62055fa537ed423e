"""The inference server with a runtime that computes nothing: every rule of serving, one by one."""

import io
import logging
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from fake_runtime import CLASSES, INPUT_SHAPE, FakeRuntime, eventually, image_of, in_time, node_spec
from PIL import Image
from prometheus_client import generate_latest

from devices.node.node_metrics import NodeMetrics
from devices.node.serving import InferenceServer
from devices.node.views import LiveRequest
from devices.node.way_estimates import DeviceWays
from devices.protocol.images import decode_image
from devices.protocol.message_types import InferenceRequest
from sim.policies import Anytime, Confidence, FixedExit, Full, Imprecise, Oracle
from sim.policy import ANSWER, DROP, OFFLOAD, run_to


class Ask:
    """A policy made of a function; it notes what it was asked."""

    def __init__(self, decide: Callable) -> None:
        self.function, self.asked = decide, []

    def decide(self, request, node):
        self.asked.append((request.asked.id, request.exit, request.confidences))
        return self.function(request, node)


class Served:
    """A server, and what left it in order."""

    def __init__(self, policy, runtime=None, **spec) -> None:
        self.runtime = runtime or FakeRuntime()
        self.left: list[LiveRequest] = []
        self.metrics = NodeMetrics()
        self.server = InferenceServer(
            "edge",
            node_spec(exits=self.runtime.exit_count, **spec),
            self.runtime,
            policy,
            INPUT_SHAPE,
            self.left.append,
            self.metrics,
        )

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop()

    def offer(self, *pixels, deadline_s=10.0, **asked):
        offered = []
        for pixel in pixels:
            request = InferenceRequest(pixel, deadline_s, image=image_of(pixel), **asked)
            now_s = time.monotonic()
            image = decode_image(request, INPUT_SHAPE)
            offered.append(LiveRequest(request, DeviceWays(), now_s, time.monotonic, image))
            self.server.offer(offered[-1])
        return offered

    def serve(self, *pixels, **asked):
        """Offer requests, and wait until they have left."""
        offered = self.offer(*pixels, **asked)
        eventually(lambda: all(request in self.left for request in offered))
        return offered

    def figure(self, name, labels=None):
        return self.metrics.registry.get_sample_value(f"offramp_edge_{name}", labels or {})


def outcome(request):
    if request.error:
        return request.error[0]
    return request.reason or (request.exit, request.predicted)


def paused():
    """A function for a runtime's segments that waits, once, for the test to go on."""
    reached, go_on = threading.Event(), threading.Event()

    def segment(exit, pixels):
        if not reached.is_set():
            reached.set()
            assert go_on.wait(10)

    return segment, reached, go_on


# --- one request ---------------------------------------------------------------------------------


def test_only_the_exit_that_was_decided_is_classified():
    with Served(FixedExit(2)) as served:
        (request,) = served.serve(7)
    assert outcome(request) == (2, 7)
    assert served.runtime.computed == [
        ("segment", 1, (7,)),
        ("segment", 2, (7,)),
        ("classify", 2, (7,)),
    ]
    assert request.confidences == (1.0,)


def test_the_policy_is_asked_at_the_start_and_after_every_exit_that_was_computed():
    confidences = {1: 0.3, 2: 0.6, 3: 0.7}
    policy = Ask(Confidence(threshold=0.65).decide)
    with Served(policy, FakeRuntime(confidence=lambda exit, pixel: confidences[exit])) as served:
        (request,) = served.serve(5)
    assert policy.asked == [(5, 0, ()), (5, 1, (0.3,)), (5, 2, (0.3, 0.6)), (5, 3, (0.3, 0.6, 0.7))]
    assert outcome(request) == (3, 5)
    assert request.confidence == 0.7


def test_exits_that_were_passed_have_no_confidence():
    policy = Ask(lambda request, node: {0: run_to(2), 2: run_to(3), 3: ANSWER}[request.exit])
    runtime = FakeRuntime(confidence=lambda exit, pixel: exit / 10)
    with Served(policy, runtime) as served:
        served.serve(1)
    assert policy.asked[-1] == (1, 3, (0.2, 0.3))


def test_times_tell_of_the_queue_the_service_and_the_node():
    segment, reached, go_on = paused()
    with Served(FixedExit(1), FakeRuntime(segment=segment)) as served:
        first, second = served.offer(1, 2)
        reached.wait(10)
        time.sleep(0.02)
        go_on.set()
        eventually(lambda: len(served.left) == 2)
    assert first.finished_s - first.started_s >= 0.02
    assert second.started_s >= first.finished_s
    assert second.started_s - second.arrived_s >= 0.02
    assert served.figure("service_seconds_bucket", {"le": "0.01"}) <= 1
    assert served.figure("service_seconds_bucket", {"le": "+Inf"}) == 2
    assert served.figure("service_seconds_sum") == pytest.approx(
        sum(request.finished_s - request.started_s for request in served.left)
    )


def test_a_policy_may_drop_at_any_exit():
    policy = Ask(lambda request, node: run_to(1) if request.exit < request.asked.id else DROP)
    with Served(policy) as served:
        assert outcome(served.serve(0)[0]) == "policy"
        assert served.runtime.computed == []
        assert outcome(served.serve(1)[0]) == "policy"
    assert served.runtime.computed == [("segment", 1, (1,)), ("classify", 1, (1,))]


def test_a_policy_sees_the_queue_behind_a_request():
    lengths = []
    segment, reached, go_on = paused()

    def decide(request, node):
        lengths.append((request.asked.id, request.exit, node.queue_length, node.idle_workers))
        return ANSWER if request.exit else run_to(1)

    with Served(Ask(decide), FakeRuntime(segment=segment)) as served:
        served.offer(1)
        reached.wait(10)
        served.offer(2, 3)
        go_on.set()
        eventually(lambda: len(served.left) == 3)
    assert lengths == [
        (1, 0, 0, 0),
        (1, 1, 2, 0),
        (2, 0, 1, 0),
        (2, 1, 1, 0),
        (3, 0, 0, 0),
        (3, 1, 0, 0),
    ]


def test_optional_parts_are_shed_while_somebody_waits():
    segment, reached, go_on = paused()
    with Served(Imprecise(), FakeRuntime(segment=segment)) as served:
        served.offer(1)
        reached.wait(10)
        served.offer(2)
        go_on.set()
        eventually(lambda: len(served.left) == 2)
    assert [outcome(request) for request in served.left] == [(1, 1), (3, 2)]


def test_a_node_that_holds_fewer_exits_computes_no_more():
    with Served(Full(), last_exit=2) as served:
        assert outcome(served.serve(4)[0]) == (2, 4)


# --- images --------------------------------------------------------------------------------------


def png(pixel):
    file = io.BytesIO()
    Image.fromarray(np.full(INPUT_SHAPE[1:], pixel, np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_compressed_images_are_decoded_by_a_worker():
    with Served(FixedExit(1)) as served:
        asked = InferenceRequest(1, 1.0, image=png(6), format="png")
        request = LiveRequest(asked, DeviceWays(), time.monotonic(), time.monotonic)
        served.server.offer(request)
        eventually(lambda: served.left)
    assert outcome(request) == (1, 6)


def test_an_image_that_cannot_be_read_is_an_error_and_its_batch_goes_on():
    segment, reached, go_on = paused()
    with Served(FixedExit(1), FakeRuntime(segment=segment), batch_size=3) as served:
        served.offer(1)
        reached.wait(10)
        asked = InferenceRequest(9, 1.0, image=png(6)[:40], format="png")
        served.offer(2)
        broken = LiveRequest(asked, DeviceWays(), time.monotonic(), time.monotonic)
        served.server.offer(broken)
        served.offer(3)
        go_on.set()
        eventually(lambda: len(served.left) == 4)
    assert outcome(broken) == "bad_image"
    assert ("segment", 1, (2, 3)) in served.runtime.computed


# --- batches -------------------------------------------------------------------------------------


def batch_of(served, reached, go_on, *pixels, **asked):
    """Serve a batch: the worker is held up by a first request until the others are there."""
    served.offer(200)
    assert reached.wait(10)
    requests = served.offer(*pixels, **asked)
    go_on.set()
    eventually(lambda: all(request in served.left for request in requests))
    start = served.runtime.computed.index(("classify", 1, (200,))) + 1
    return requests, served.runtime.computed[start:]


def first_then(others):
    """Answer request 200 at exit 1; ask ``others`` about the rest."""

    def decide(request, node):
        if request.asked.id == 200:
            return ANSWER if request.exit else run_to(1)
        return others(request, node)

    return Ask(decide)


def test_a_batch_is_computed_together_to_the_nearest_exit_that_any_wants():
    segment, *events = paused()
    wants = {1: 1, 2: 3, 3: 2}
    policy = first_then(
        lambda request, node: ANSWER if request.exit else run_to(wants[request.asked.id])
    )
    runtime = FakeRuntime(segment=segment, confidence=lambda exit, pixel: exit / 10)
    with Served(policy, runtime, batch_size=4) as served:
        requests, computed = batch_of(served, *events, 1, 2, 3)
    assert [outcome(request) for request in requests] == [(1, 1), (3, 2), (2, 3)]
    assert [request.confidences for request in requests] == [(0.1,), (0.3,), (0.2,)]
    assert [request.batch for request in requests] == [3, 3, 3]
    assert [step for step in computed if step[0] == "segment"] == [
        ("segment", 1, (1, 2, 3)),
        ("segment", 2, (2, 3)),
        ("segment", 3, (2,)),
    ]
    assert [id for id, exit, _ in policy.asked if exit == 1] == [200, 1]


def test_who_is_not_confident_goes_on_and_the_others_make_it_faster():
    segment, *events = paused()
    runtime = FakeRuntime(
        segment=segment, confidence=lambda exit, pixel: 1.0 if pixel % 2 or exit == 3 else 0.1
    )
    policy = first_then(Confidence(threshold=0.9).decide)
    with Served(policy, runtime, batch_size=8) as served:
        requests, computed = batch_of(served, *events, 1, 2, 3, 4)
    assert [outcome(request) for request in requests] == [(1, 1), (3, 2), (1, 3), (3, 4)]
    assert ("segment", 3, (2, 4)) in computed


def test_a_batch_of_which_some_are_dropped():
    segment, *events = paused()
    policy = first_then(
        lambda request, node: DROP if request.asked.id == 2 else Full().decide(request, node)
    )
    with Served(policy, FakeRuntime(segment=segment), batch_size=8) as served:
        requests, computed = batch_of(served, *events, 1, 2, 3)
    assert [outcome(request) for request in requests] == [(3, 1), "policy", (3, 3)]
    assert computed[0] == ("segment", 1, (1, 3))
    assert [request.batch for request in requests] == [2, 1, 2]


def test_no_batch_is_larger_than_the_node_takes():
    segment, *events = paused()
    with Served(first_then(FixedExit(1).decide), FakeRuntime(segment=segment), batch_size=2) as it:
        _, computed = batch_of(it, *events, 1, 2, 3, 4, 5)
    assert [step[2] for step in computed if step[0] == "segment"] == [(1, 2), (3, 4), (5,)]


# --- cut-offs ------------------------------------------------------------------------------------


def slow(exit_from, seconds):
    return lambda exit, pixels: time.sleep(seconds if exit >= exit_from else 0)


def test_a_computation_that_is_cut_off_leaves_with_the_exit_before_on_time():
    policy = Ask(lambda request, node: run_to(3, within_s=0.05) if request.exit else run_to(1))
    with Served(policy, FakeRuntime(segment=slow(2, 2.0))) as served:
        (request,) = served.serve(4)
        # The answer does not wait for the segment that cannot be interrupted.
        assert 0.05 <= request.finished_s - request.started_s < 1.8
        assert outcome(request) == (1, 4)
        assert served.server.inbox.idle_workers == 0
        eventually(lambda: served.server.inbox.idle_workers == 1)
    assert policy.asked == [(4, 0, ()), (4, 1, (1.0,))]
    assert len(served.left) == 1
    # The segments after the cut are not computed.
    assert ("segment", 3, (4,)) not in served.runtime.computed


def test_without_an_exit_before_it_a_cut_off_drops():
    policy = Ask(lambda request, node: run_to(1, within_s=0.02))
    with Served(policy, FakeRuntime(segment=slow(1, 0.1))) as served:
        assert outcome(served.serve(4)[0]) == "policy"


def test_what_is_done_in_time_is_not_cut_off():
    policy = Ask(lambda request, node: ANSWER if request.exit else run_to(2, within_s=30.0))
    with Served(policy) as served:
        assert outcome(served.serve(4)[0]) == (2, 4)


def test_time_that_is_up_at_once_computes_nothing_more():
    policy = Ask(lambda request, node: run_to(2, within_s=0.0) if request.exit else run_to(1))
    with Served(policy) as served:
        assert outcome(served.serve(4)[0]) == (1, 4)


def test_one_member_is_cut_off_and_the_rest_of_its_batch_goes_on():
    segment, *events = paused()

    def others(request, node):
        if request.exit == 0:
            return run_to(1)
        if request.exit == 3:
            return ANSWER
        return run_to(3, within_s=0.03 if request.asked.id == 2 else None)

    def compute(exit, pixels):
        segment(exit, pixels)
        if exit == 2:
            time.sleep(0.15)

    with Served(first_then(others), FakeRuntime(segment=compute), batch_size=4) as served:
        requests, computed = batch_of(served, *events, 1, 2, 3)
    assert [outcome(request) for request in requests] == [(3, 1), (1, 2), (3, 3)]
    assert computed[-2:] == [("segment", 3, (1, 3)), ("classify", 3, (1, 3))]


def test_a_cut_off_belongs_to_the_computation_that_it_was_decided_for():
    def decide(request, node):
        if request.exit == 0:
            return run_to(1, within_s=0.03)
        if request.exit == 1:
            time.sleep(0.06)
            return run_to(3)
        return ANSWER

    with Served(Ask(decide)) as served:
        assert outcome(served.serve(4)[0]) == (3, 4)


def test_a_sooner_cut_off_is_seen_while_a_later_one_is_waited_for():
    def decide(request, node):
        within_s = 30.0 if request.asked.id == 1 else 0.05
        return ANSWER if request.exit == 3 else run_to(3 if request.exit else 1, within_s)

    began, go_on = threading.Event(), threading.Event()

    def segment(exit, pixels):
        if exit == 2:
            began.set()
            go_on.wait(20)

    with Served(Ask(decide), FakeRuntime(segment=segment), workers=2) as served:
        served.offer(1)
        assert began.wait(10)
        time.sleep(0.02)  # the later one is waited for
        (sooner,) = served.offer(2)
        eventually(lambda: sooner in served.left)
        go_on.set()
        eventually(lambda: len(served.left) == 2)
    assert [outcome(request) for request in served.left] == [(1, 2), (3, 1)]


def test_who_was_cut_off_is_not_told_of_what_failed_after():
    segment, *events = paused()

    def others(request, node):
        return (
            run_to(3, within_s=0.02 if request.asked.id == 2 else None)
            if request.exit
            else run_to(1)
        )

    def compute(exit, pixels):
        segment(exit, pixels)
        if exit == 2:
            time.sleep(0.1)
            raise RuntimeError("out of memory")

    with Served(first_then(others), FakeRuntime(segment=compute), batch_size=4) as served:
        requests, _ = batch_of(served, *events, 1, 2)
    assert [outcome(request) for request in requests] == ["internal_error", (1, 2)]
    assert len(served.left) == 3


def test_anytime_answers_before_the_deadline_with_what_it_has():
    with Served(Anytime(), FakeRuntime(segment=slow(3, 2.5))) as served:
        (request,) = served.serve(8, deadline_s=0.2)
        assert outcome(request) == (2, 8)
        assert request.finished_s - request.arrived_s < 2.0
        assert request.finished_s >= request.deadline_at_s


def test_many_cut_offs_race_with_what_they_cut_and_each_request_leaves_once():
    policy = Ask(
        lambda request, node: (
            ANSWER if request.exit == 3 else run_to(request.exit + 1, within_s=0.0005)
        )
    )
    with Served(policy, FakeRuntime(segment=slow(1, 0.0004)), workers=2) as served:
        requests = served.serve(*range(200))
    assert len(served.left) == len(set(map(id, served.left))) == 200
    for request in requests:
        assert outcome(request) == (
            "policy" if not request.exit else (request.exit, request.asked.id % CLASSES)
        )


# --- policies that fail --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decide", "says"),
    [
        (lambda request, node: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda request, node: ANSWER, "decided ANSWER after exit 0"),
        (lambda request, node: OFFLOAD, "a live node has no next tier"),
        (lambda request, node: run_to(4), "possible are run_to(1) to run_to(3), DROP"),
        (lambda request, node: None, "decided None"),
        (lambda request, node: "answer", "decided 'answer'"),
        (Oracle().decide, "only a simulator has foresight"),
    ],
)
def test_a_policy_that_fails_costs_its_request_and_not_the_node(decide, says, caplog):
    sane = FixedExit(1)
    policy = Ask(
        lambda request, node: (decide if request.asked.id == 9 else sane.decide)(request, node)
    )
    with Served(policy) as served, caplog.at_level(logging.ERROR):
        requests = served.serve(9, 1, 9, 2)
    assert [outcome(request) for request in requests] == [
        "policy_failed",
        (1, 1),
        "policy_failed",
        (1, 2),
    ]
    assert says in requests[0].error[1]
    assert [record for record in caplog.records if says in record.message] == caplog.records
    assert len(caplog.records) == 1  # said once
    assert served.figure("requests_total", {"outcome": "error", "why": "policy_failed"}) == 2


def test_going_back_to_an_exit_is_impossible():
    policy = Ask(lambda request, node: run_to(1) if request.exit else run_to(2))
    with Served(policy) as served:
        assert outcome(served.serve(1)[0]) == "policy_failed"


def test_a_policy_that_fails_for_one_of_a_batch():
    segment, *events = paused()
    policy = first_then(
        lambda request, node: 1 / 0 if request.asked.id == 2 else Full().decide(request, node)
    )
    with Served(policy, FakeRuntime(segment=segment), batch_size=4) as served:
        requests, _ = batch_of(served, *events, 1, 2, 3)
    assert [outcome(request) for request in requests] == [(3, 1), "policy_failed", (3, 3)]


def test_a_policy_is_never_asked_by_two_workers_at_once():
    inside = []

    def decide(request, node):
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.001)
        inside.pop()
        return ANSWER if request.exit else run_to(1)

    with Served(Ask(decide), workers=4) as served:
        requests = served.serve(*range(40))
    assert {outcome(request)[0] for request in requests} == {1}


def test_an_inference_that_fails_costs_its_batch_and_not_the_node(caplog):
    def segment(exit, pixels):
        if 9 in pixels:
            raise RuntimeError("out of memory")

    with (
        Served(FixedExit(1), FakeRuntime(segment=segment)) as served,
        caplog.at_level(logging.ERROR),
    ):
        requests = served.serve(9, 1)
    assert [outcome(request) for request in requests] == ["internal_error", (1, 1)]
    assert "out of memory" in caplog.text


def test_a_reply_that_fails_costs_nothing_else(caplog):
    served = Served(FixedExit(1))
    left = served.left

    def leave(request):
        left.append(request)
        raise OSError("no buffer space")

    served.server._left = leave
    with served, caplog.at_level(logging.ERROR):
        served.serve(1, 2)
    assert "no buffer space" in caplog.text


# --- refusals, and the end -----------------------------------------------------------------------


def test_what_is_refused_leaves_at_once_with_the_reason():
    segment, reached, go_on = paused()
    with Served(FixedExit(1), FakeRuntime(segment=segment), queue_limit=1) as served:
        served.offer(1)
        reached.wait(10)
        _, refused = served.offer(2, 3)
        assert served.left == [refused]
        assert outcome(refused) == "queue_full"
        assert np.isnan(refused.started_s)
        go_on.set()
        eventually(lambda: len(served.left) == 3)


def test_a_node_drains_what_it_has_and_refuses_the_rest():
    segment, reached, go_on = paused()
    with Served(FixedExit(1), FakeRuntime(segment=segment)) as served:
        first, second = served.offer(1, 2)
        reached.wait(10)
        assert not served.server.drain(0.01)
        (third,) = served.offer(3)
        assert outcome(third) == "draining"
        go_on.set()
        assert served.server.drain(10)
        assert [outcome(request) for request in (first, second)] == [(1, 1), (1, 2)]


def test_a_node_that_stops_answers_what_it_computes_and_drops_what_waits():
    segment, reached, go_on = paused()
    with Served(FixedExit(1), FakeRuntime(segment=segment)) as served:
        first, second = served.offer(1, 2)
        reached.wait(10)
        threading.Timer(0.05, go_on.set).start()
        served.server.stop()
        assert outcome(first) == (1, 1)
        assert outcome(second) == "draining"


def test_a_worker_that_never_ends_does_not_hold_up_the_end():
    segment, reached, go_on = paused()
    with Served(FixedExit(1), FakeRuntime(segment=segment)) as served:
        served.offer(1)
        reached.wait(10)
        began_s = time.monotonic()
        served.server.stop(timeout_s=0.05)
        assert time.monotonic() - began_s < in_time(5)
        go_on.set()


# --- what is counted -----------------------------------------------------------------------------


def test_every_request_is_counted_by_what_became_of_it():
    policy = Ask(
        lambda request, node: (
            DROP
            if request.asked.id == 0
            else FixedExit(1 + request.asked.id % 2).decide(request, node)
        )
    )
    with Served(policy, batch_size=1) as served:
        served.serve(0, 1, 2, 3)
        served.server.drain(10)
        served.offer(4)
    assert served.figure("requests_total", {"outcome": "ok", "why": ""}) == 3
    assert served.figure("requests_total", {"outcome": "dropped", "why": "policy"}) == 1
    assert served.figure("requests_total", {"outcome": "dropped", "why": "draining"}) == 1
    assert served.figure("exits_total", {"exit": "1"}) == 1
    assert served.figure("exits_total", {"exit": "2"}) == 2
    assert served.figure("node_seconds_count") == 5
    assert served.figure("queue_seconds_count") == served.figure("service_seconds_count") == 4
    assert served.figure("batch_requests_sum") == served.figure("batch_requests_count") == 3
    assert served.figure("node_seconds_bucket", {"le": "10.0"}) == 5
    assert served.figure("queue_requests") == 0
    assert b"offramp_edge_service_seconds_bucket" in generate_latest(served.metrics.registry)


def test_workers_prepare_their_threads_once():
    with Served(FixedExit(1), workers=3) as served:
        served.serve(*range(20))
    assert served.runtime.threads == 3
