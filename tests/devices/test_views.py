"""What a policy sees of a live node: as in the simulator, from the same profile."""

import math

import numpy as np
import pytest
from fake_runtime import image_of, node_spec

from devices.node.inbox import Inbox
from devices.node.views import LiveNode, LiveRequest
from devices.node.way_estimates import DeviceWays
from devices.protocol.message_types import InferenceRequest
from models.errors import PolicyError
from sim.policies import POLICIES, DeadlineAware, Oracle
from sim.policy import run_to


class Hand:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Hand()


def request_(clock, deadline_s=1.0, ways=None, **asked):
    asked = InferenceRequest(1, deadline_s, image=image_of(3), **asked)
    return LiveRequest(asked, ways or DeviceWays(), clock(), clock)


def node_view(exits=3, segment_s=0.010, **changes):
    spec = node_spec(segment_s, exits, **changes)
    inbox = Inbox(spec)
    return LiveNode("edge-1", spec.service, spec.last_exit or exits, inbox), inbox


def test_what_remains_is_the_deadline_less_age_way_up_and_time_here(clock):
    ways = DeviceWays()
    ways.heard(99.0, 0.0, 0.020)
    request = request_(clock, 0.5, ways, age_s=0.1, sent_s=0.970, way_s=0.020)
    # Half of 20 ms, and 30 ms more than the request before.
    assert request.remaining_s == pytest.approx(0.5 - 0.1 - 0.010 - 0.030)
    clock.now_s += 0.25
    assert request.remaining_s == pytest.approx(0.11)
    clock.now_s += 0.25
    assert request.remaining_s == pytest.approx(-0.14)


def test_a_request_as_it_comes(clock):
    request = request_(clock, priority=4)
    assert (request.exit, request.priority, request.confidences) == (0, 4, ())
    assert math.isnan(request.confidence)
    assert request.way_home_s(0.95) == 0.0


def test_nobody_can_foresee_anything(clock):
    with pytest.raises(PolicyError, match="only a simulator has foresight"):
        request_(clock).foresight()
    with pytest.raises(PolicyError, match="foresight"):
        Oracle().decide(request_(clock), node_view()[0])


def test_latencies_are_those_of_the_profile_at_each_quantile(clock):
    view, _ = node_view()
    assert view.latencies_s(0.5) == pytest.approx((0.010, 0.020, 0.030))
    assert view.latencies_s(0.5, 1) == pytest.approx((0.010, 0.020))
    spec = node_spec(0.010)
    assert view.latencies_s(0.9, 2) == tuple(spec.service.quantiles(0.9, 2))


def test_a_node_that_holds_fewer_exits_shows_no_more():
    view, _ = node_view(last_exit=2)
    assert view.exit_count == 2
    assert len(view.latencies_s(0.5)) == 2


def test_queue_and_workers_are_those_of_the_inbox(clock):
    view, inbox = node_view(workers=2)
    for _ in range(3):
        inbox.offer(request_(clock))
    assert (view.queue_length, view.workers, view.idle_workers) == (3, 2, 2)
    inbox.take()
    assert (view.queue_length, view.idle_workers) == (2, 1)
    assert (view.name, view.next_tier) == ("edge-1", None)


def test_a_policy_decides_as_the_way_home_and_the_latencies_say(clock):
    ways, view = DeviceWays(), node_view()[0]
    ways.heard(99.0, None, 0.010)  # 5 ms each way
    for deadline_s, exit in ((0.041, 3), (0.039, 2), (0.029, 1), (0.001, 1)):
        request = request_(clock, deadline_s, ways, way_s=0.010)
        assert DeadlineAware().decide(request, view) == run_to(exit)


@pytest.mark.parametrize(
    "name", [name for name in POLICIES if name not in ("oracle", "fixed_exit")]
)
def test_every_policy_that_ships_can_decide_about_a_live_request(clock, name):
    decision = POLICIES[name]().decide(request_(clock), node_view()[0])
    assert decision.exit >= 1


def test_what_a_request_keeps_in_memory_is_its_image(clock):
    request = request_(clock)
    assert request.bytes == len(image_of(3))
    request.image = np.zeros((3, 32, 32), np.uint8)
    assert request.bytes == 3072
