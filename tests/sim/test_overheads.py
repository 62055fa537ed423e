"""What a node takes besides inference: who waits for it, and who does not."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_worlds import (
    AtTimes,
    Deciding,
    WrittenService,
    group,
    node,
    predictions,
    profile,
    run_of,
    world,
)

from sim.distributions import Constant, Empirical, Exponential
from sim.faults import Fault
from sim.network.mqtt import Mqtt
from sim.nodes.autocorrelation import Autocorrelation
from sim.nodes.cooling import Cooling
from sim.nodes.overheads import Overheads, ServiceWithOverheads
from sim.nodes.service import DistributedService, ProfiledService
from sim.nodes.spec import NodeSpec
from sim.outcomes import LOST, ON_TIME
from sim.policies import Confidence
from sim.policy import ANSWER, DROP, run_to
from sim.results.telemetry import node_telemetry
from sim.results.verdict import node_metrics, offered_loads
from sim.streams import scrambled
from sim.workload.arrivals import ClosedLoop, Poisson
from sim.workload.samples import Shuffled

#: Two exits; from the image to each, and from the first to the second.
SERVICE = ProfiledService(profile([[2.0, 6.0]], [[2.0, 3.0]]))


def overheads(receive=0.0, begin=0.0, reply=0.0):
    return Overheads(Constant(receive), Constant(begin), Constant(reply))


def served(times_s, seconds_of, *, workers=1, policy=None, duration_s=200.0, faults=(), **besides):
    service = WrittenService([[it] for it in seconds_of])
    spec = node(service, workers=workers, overheads=overheads(**besides))
    devices = group(arrivals=AtTimes((tuple(times_s),)), deadline=100.0)
    return run_of(world(devices, spec, duration_s=duration_s, faults=tuple(faults)), policy)


# --- one by one -----------------------------------------------------------------------------------


def test_a_request_begins_later_than_it_arrives_and_takes_longer():
    run = served([0.0], [3.0], receive=0.5, begin=0.25, reply=4.0)
    assert run.arrived_s.tolist() == [0.0]
    assert run.started_s.tolist() == [0.5]
    # The reply keeps the worker, not its own answer.
    assert run.finished_s.tolist() == [3.75]
    assert run.received_s.tolist() == [3.75]


def test_reading_a_message_goes_on_while_the_worker_is_busy():
    run = served([0.0, 1.0], [3.0, 3.0], receive=0.5)
    assert run.started_s.tolist() == [0.5, 3.5]
    assert run.arrived_s.tolist() == [0.0, 1.0]


def test_a_reply_keeps_the_worker_from_the_next_request():
    run = served([0.0, 1.0, 20.0], [3.0, 3.0, 3.0], reply=0.5)
    assert run.started_s.tolist() == [0.0, 3.5, 20.0]
    assert run.finished_s.tolist() == [3.0, 6.5, 23.0]


def test_each_of_several_workers_sends_its_own_replies():
    run = served([0.0, 0.0, 1.0, 1.0], [3.0, 4.0, 1.0, 1.0], workers=2, reply=0.5)
    assert run.started_s.tolist() == [0.0, 0.0, 3.5, 4.5]


def test_who_finds_a_worker_idle_may_take_another_time_to_begin_with():
    service = WrittenService([[3.0], [3.0], [3.0]])
    besides = Overheads(begin=Constant(0.25), begin_idle=Constant(1.0))
    devices = group(arrivals=AtTimes(((0.0, 1.0, 50.0),)), deadline=100.0)
    run = run_of(world(devices, node(service, overheads=besides), duration_s=200.0))
    assert run.started_s.tolist() == [0.0, 4.0, 50.0]
    assert run.finished_s.tolist() == [4.0, 7.25, 54.0]


def disturbed(times_s, seconds_of, by_s, workers=1, **besides):
    service = WrittenService([[it] for it in seconds_of])
    spec = node(service, workers=workers, overheads=Overheads(disturb_s=by_s, **besides))
    devices = group(arrivals=AtTimes((tuple(times_s),)), deadline=100.0)
    return run_of(world(devices, spec, duration_s=200.0))


def test_a_message_that_arrives_delays_what_is_computed_meanwhile():
    # The second comes while the first is computed, the third only because that is delayed.
    run = disturbed([0.0, 1.0, 3.25, 50.0], [3.0, 3.0, 3.0, 3.0], 0.5)
    assert run.started_s.tolist() == [0.0, 4.0, 7.0, 50.0]
    assert run.finished_s.tolist() == [4.0, 7.0, 10.0, 53.0]


@pytest.mark.parametrize("within_s", [3.0, 3.25, 3.5])
def test_a_step_that_is_delayed_beyond_its_time_is_cut_off(within_s):
    service = WrittenService([[1.0, 4.0], [1.0, 4.0]])
    spec = node(service, overheads=Overheads(disturb_s=0.5))
    devices = group(arrivals=AtTimes(((0.0, 2.0),)), deadline=100.0)

    def decide(request, node):
        if request.exit == 0:
            return run_to(1)
        return ANSWER if request.exit == 2 else run_to(2, within_s=within_s)

    run = run_of(world(devices, spec, duration_s=50.0), Deciding(decide), predictions(exits=2))
    # 1 s to the first exit, 3 s from there, and 0.5 s for the message that comes.
    assert (run.exit[0], run.finished_s[0]) == ((2, 4.5) if within_s == 3.5 else (1, 1 + within_s))


def test_a_crash_loses_what_is_delayed():
    devices = group(arrivals=AtTimes(((0.0, 1.0, 10.0),)), deadline=100.0)
    service = WrittenService([[3.0], [3.0], [3.0]])
    spec = node(service, overheads=Overheads(disturb_s=2.0))
    down = Fault("node_crash", "edge", schedule=((4.0, 6.0),))
    run = run_of(world(devices, spec, duration_s=50.0, faults=(down,)))
    # It would have been ready at 3 s, and is delayed to 5 s.
    assert run.answered.tolist() == [False, False, True]
    assert run.finished_s[2] == 13.0


def late(times_s, seconds_of, *, workers=1, faults=(), batch_size=1, batch_wait_s=0.0, **besides):
    service = WrittenService([[it] for it in seconds_of])
    busy = {name: Constant(it) for name, it in besides.items()}
    spec = node(
        service,
        workers=workers,
        batch_size=batch_size,
        batch_wait_s=batch_wait_s,
        overheads=Overheads(**busy),
    )
    devices = group(arrivals=AtTimes((tuple(times_s),)), deadline=100.0)
    return run_of(world(devices, spec, duration_s=200.0, faults=tuple(faults)))


def test_a_message_that_comes_while_a_worker_computes_is_read_later():
    # The second comes during the first, and is read after it; the third when nothing is computed,
    # while the second waits, and is read with it; the fourth during the second's inference, the
    # last when nothing is in its way.
    run = late([0.0, 2.0, 3.25, 6.5, 50.0], [3.0, 3.0, 3.0, 3.0, 3.0], ingress_busy=2.0)
    assert run.arrived_s.tolist() == [0.0, 4.0, 4.0, 8.5, 50.0]
    assert run.started_s.tolist() == [0.0, 4.0, 7.0, 10.0, 50.0]


def test_messages_are_read_in_the_order_in_which_they_come():
    spec = node(
        WrittenService([[3.0]] * 4),
        overheads=Overheads(ingress_busy=Empirical(np.array([0.25, 2.75]))),
    )
    devices = group(arrivals=AtTimes(((0.0, 1.0, 1.5, 2.0),)), deadline=100.0)
    found = set()
    for seed in range(40):
        arrived_s = run_of(world(devices, spec, duration_s=200.0, seed=seed)).arrived_s
        assert (np.diff(arrived_s) >= 0).all()
        found.add(tuple(arrived_s.tolist()))
    # Each waits as it draws, unless one before it waits for longer.
    assert found == {
        (0.0, 1.25, 1.75, 2.25),
        (0.0, 1.25, 1.75, 4.75),
        (0.0, 1.25, 4.25, 4.25),
        (0.0, 3.75, 3.75, 3.75),
    }


@pytest.mark.parametrize("mqtt", [Mqtt(), Mqtt(inflight=10_000)])
def test_one_that_comes_when_those_before_it_are_read_is_behind_them(mqtt):
    spec = node(Constant(4.5), overheads=Overheads(ingress_busy=Constant(2.0)))
    devices = group(arrivals=AtTimes(((0.0, 3.0, 5.0),)), deadline=100.0)
    run = run_of(world(devices, spec, duration_s=50.0, mqtt=mqtt))
    assert run.arrived_s.tolist() == [0.0, 5.0, 5.0]
    assert run.started_s.tolist() == [0.0, 5.0, 9.5]


def test_an_idle_worker_waits_for_what_is_read_late_because_of_another():
    run = late([0.0, 1.0], [3.0, 3.0], workers=2, ingress_busy=0.5)
    assert run.started_s.tolist() == [0.0, 1.5]


def test_a_crash_loses_no_message_that_was_not_read_yet():
    down = Fault("node_crash", "edge", schedule=((2.0, 6.0),))
    run = late([0.0, 1.0], [3.0, 3.0], faults=[down], ingress_busy=3.0)
    assert run.answered.tolist() == [False, True]
    assert run.started_s[1] == 6.0


@pytest.mark.parametrize("mqtt", [Mqtt(), Mqtt(inflight=10_000)])
def test_a_node_that_crashes_reads_what_it_had_not_read_when_it_is_back(mqtt):
    # With messages known ahead, and followed as events. The first comes before the crash, and would
    # be read during it: full is a node that has workers, and no room.
    down = Fault("node_crash", "edge", schedule=((2.0, 6.0),))
    spec = node(Constant(3.0), queue_limit=0, overheads=overheads(receive=1.0))
    devices = group(arrivals=AtTimes(((1.5, 20.0),)), deadline=100.0)
    run = run_of(world(devices, spec, duration_s=50.0, mqtt=mqtt, faults=(down,)))
    assert run.arrived_s.tolist() == [1.5, 20.0]
    assert run.started_s.tolist() == [6.0, 21.0]
    # What could not answer in time any more is refused when the node is back.
    hopeless = replace(spec, queue_limit=None, admission="feasible")
    devices = group(arrivals=AtTimes(((1.5, 20.0),)), deadline=7.0)
    run = run_of(world(devices, hopeless, duration_s=50.0, mqtt=mqtt, faults=(down,)))
    assert run.released_s.tolist() == [6.0, 24.0]


def test_an_answer_leaves_later_if_its_worker_goes_on_at_once():
    run = late([0.0, 1.0, 50.0], [3.0, 3.0, 3.0], egress_busy=0.5)
    assert run.finished_s.tolist() == [3.0, 6.0, 53.0]
    assert run.received_s.tolist() == [3.5, 6.0, 53.0]


def test_an_answer_that_has_not_left_is_lost_in_a_crash():
    down = Fault("node_crash", "edge", schedule=((3.25, 5.0),))
    run = late([0.0, 1.0, 50.0], [3.0, 3.0, 3.0], faults=[down], egress_busy=0.5)
    assert run.outcome.tolist() == [LOST, LOST, ON_TIME]
    assert run.exit.tolist() == [0, 0, 1]


#: A pause of 1 s halves what is left of the warmth, and a service leaves half of the cold.
COOLING = Cooling(1 / np.log(2), 0.5, read_s=0.5, begin_s=2.0, answer_s=0.25)


def cooled(times_s, *, overheads=None, **besides):
    spec = node(Constant(3.0), overheads=overheads or Overheads(cooling=COOLING), **besides)
    devices = group(arrivals=AtTimes((tuple(times_s),)), deadline=100.0)
    return run_of(world(devices, spec, duration_s=200.0))


def test_a_node_that_has_had_nothing_to_do_takes_longer_and_is_warmed_by_what_it_computes():
    run = cooled([0.0, 1.0, 2.0, 15.0])
    # The first finds it as cold as it gets; the next two wait.
    assert run.arrived_s[:3].tolist() == [0.5, 1.0, 2.0]
    assert run.started_s[:3].tolist() == [0.5, 5.5, 9.5]
    assert (run.finished_s - run.started_s)[:3].tolist() == pytest.approx([5.0, 4.0, 3.5])
    # An eighth is left at 13 s; after 2 s it has 1 - 7/8 * 1/4, which goes on until it is read.
    came = 1 - 7 / 8 / 4
    assert run.arrived_s[3] == pytest.approx(15.0 + came / 2)
    began = 1 - (1 - came) * 2 ** -(came / 2)
    assert run.finished_s[3] - run.started_s[3] == pytest.approx(3.0 + 2 * began)
    # The first two go on at once.
    late_s = (run.received_s - run.finished_s).tolist()
    assert late_s == pytest.approx([0.0, 0.0, 0.25 / 4, 0.25 * began])


def test_a_node_is_without_work_once_the_reply_is_sent():
    run = cooled([0.0, 7.5], overheads=Overheads(cooling=COOLING, reply=Constant(1.0)))
    # Free from 6.5 s on, half as cold as before.
    assert run.arrived_s.tolist() == pytest.approx([0.5, 7.5 + 0.5 * 0.75])
    # One that comes during the reply finds no idle worker.
    run = cooled([0.0, 6.0], overheads=Overheads(cooling=COOLING, reply=Constant(1.0)))
    assert (run.arrived_s[1], run.started_s[1]) == (6.0, 6.5)


def test_while_another_worker_computes_a_node_does_not_cool_down():
    run = cooled([0.0, 3.0, 100.0], workers=2)
    assert run.arrived_s[:2].tolist() == [0.5, 3.0]
    assert (run.finished_s - run.started_s).tolist() == pytest.approx([5.0, 4.0, 5.0])


def test_a_batch_begins_late_once_and_each_of_its_answers_leaves_late():
    run = cooled([0.0, 100.0, 100.0], batch_size=2, batch_wait_s=1.0)
    # Both are read at once; the first waits for another in vain.
    assert run.started_s.tolist() == pytest.approx([1.5, 100.5, 100.5])
    assert (run.finished_s - run.started_s).tolist() == pytest.approx([5.0] * 3)
    assert (run.received_s - run.finished_s).tolist() == pytest.approx([0.25] * 3)


def test_a_node_that_is_back_after_a_crash_has_been_without_work_since_it():
    down = Fault("node_crash", "edge", schedule=((4.0, 6.0),))
    spec = node(Constant(3.0), overheads=Overheads(cooling=COOLING, receive=Constant(1.0)))
    devices = group(arrivals=AtTimes(((0.0, 3.5, 100.0),)), deadline=100.0)
    run = run_of(world(devices, spec, duration_s=150.0, faults=(down,)))
    # What was computed is lost; the second would be read while it is down, and is when it is back.
    assert run.outcome.tolist() == [LOST, ON_TIME, ON_TIME]
    assert run.started_s[1] == 6.0
    assert run.finished_s[1] - run.started_s[1] == pytest.approx(3.0 + 2 * (1 - 0.5 / 4))
    assert run.finished_s[2] - run.started_s[2] == pytest.approx(5.0)


def test_a_crash_of_a_node_without_work_does_not_warm_it():
    down = Fault("node_crash", "edge", schedule=((99.0, 99.5),))
    spec = node(Constant(3.0), overheads=Overheads(cooling=COOLING))
    devices = group(arrivals=AtTimes(((0.0, 100.0),)), deadline=100.0)
    run = run_of(world(devices, spec, duration_s=150.0, faults=(down,)))
    assert run.finished_s[1] - run.started_s[1] == pytest.approx(5.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"time_s": 0.0},
        {"time_s": np.inf},
        {"kept": 1.0},
        {"kept": -0.1},
        {"read_s": -1.0},
        {"begin_s": np.nan},
        {"answer_s": np.inf},
    ],
)
def test_a_node_that_cools_down_in_no_way_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        replace(COOLING, **wrong)


def test_a_batch_that_still_fills_keeps_no_answer():
    times_s = [0.0, 0.0, 2.5, 10.0, 10.0, 11.0, 11.0]
    run = late(times_s, [3.0] * 7, batch_size=2, batch_wait_s=2.0, egress_busy=0.5)
    # The third waits until 4.5 for another, which keeps the worker idle; the last two do not.
    assert run.started_s.tolist() == [0.0, 0.0, 4.5, 10.0, 10.0, 13.0, 13.0]
    assert run.received_s.tolist() == [3.0, 3.0, 7.5, 13.5, 13.5, 16.0, 16.0]


def test_it_delays_all_workers_that_compute():
    run = disturbed([0.0, 0.0, 1.0], [3.0, 4.0, 1.0], 0.5, workers=2)
    # The first two came before either was computed.
    assert run.finished_s.tolist() == [3.5, 4.5, 4.5]


def test_devices_that_wait_for_answers_disturb_alike():
    service = DistributedService(Constant(1.0), 1)
    spec = node(service, workers=2, overheads=Overheads(disturb_s=0.25))
    devices = group(count=2, arrivals=ClosedLoop(Constant(0.5)), deadline=100.0)
    run = run_of(world(devices, spec, duration_s=200.0))
    delays = np.unique(np.round(run.finished_s - run.started_s - 1.0, 6))
    assert delays.tolist() in ([0.0, 0.25], [0.25])


def test_a_refusal_by_the_policy_takes_a_reply_too():
    policy = Deciding(lambda request, node: DROP)
    run = served([0.0, 0.0], [3.0, 3.0], policy=policy, reply=0.5, begin=1.0)
    assert run.started_s.tolist() == [0.0, 0.5]


def test_a_crash_while_a_reply_is_sent_frees_no_worker_twice():
    down = Fault("node_crash", "edge", schedule=((3.25, 5.0),))
    run = served([0.0, 6.0, 6.0], [3.0, 3.0, 3.0], reply=1.0, faults=[down])
    assert run.started_s.tolist() == [0.0, 6.0, 10.0]


def test_further_exits_cost_what_they_cost_without():
    policy = Confidence(threshold=0.8)
    says = predictions(confidence=[[0.5, 0.9]])
    spec = node(SERVICE, overheads=overheads(begin=0.25))
    a_world = world(group(arrivals=AtTimes(((0.0,),)), deadline=100.0), spec, duration_s=20.0)
    run = run_of(a_world, policy, says)
    assert run.exit.tolist() == [2]
    assert run.finished_s.tolist() == [2.0 + 0.25 + 3.0]


def test_policies_know_the_times_of_inference_alone():
    seen = []

    def decide(request, node):
        seen.append((node.latencies_s(0.5), request.remaining_s))
        return ANSWER if request.exit else run_to(1)

    spec = node(SERVICE, overheads=overheads(receive=1.0, begin=0.25))
    a_world = world(group(arrivals=AtTimes(((0.0,),)), deadline=100.0), spec, duration_s=20.0)
    run_of(a_world, Deciding(decide), predictions(exits=2))
    assert seen == [((2.0, 6.0), 99.0), ((2.0, 6.0), 96.75)]


# --- batches --------------------------------------------------------------------------------------


def test_a_batch_begins_once_and_replies_to_one_member_after_the_other():
    service = DistributedService(Constant(4.0), exit_count=1)
    spec = node(service, batch_size=3, overheads=overheads(begin=0.25, reply=0.5))
    devices = group(arrivals=AtTimes(((0.0, 0.0, 0.0, 1.0),)), deadline=100.0)
    run = run_of(world(devices, spec, duration_s=50.0))
    # The first three together, each reply after the one before; then the fourth.
    assert run.batch.tolist() == [3, 3, 3, 1]
    assert run.started_s.tolist() == [0.0, 0.0, 0.0, 5.75]
    assert run.finished_s.tolist() == [4.25, 4.75, 5.25, 10.0]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_load_is_what_messages_make_of_it(workers):
    besides = Overheads(disturb_s=0.25)
    spec = node(Constant(0.5 * workers), workers=workers, overheads=besides)
    a_world = world(group(arrivals=Poisson(1.0), deadline=100.0), spec, duration_s=20_000.0)
    (load,) = offered_loads(a_world)
    assert load.load[0] == pytest.approx(0.5 / 0.75)
    run = run_of(a_world)
    busy_s = np.nansum(run.finished_s - run.started_s)
    assert busy_s / 20_000 / workers == pytest.approx(load.load[0], rel=0.02)
    hopeless = replace(spec, overheads=Overheads(disturb_s=2.0))
    (load,) = offered_loads(world(group(arrivals=Poisson(1.0)), hopeless, duration_s=1.0))
    assert load.load[0] > 1e6


def test_a_message_delays_a_whole_batch():
    service = DistributedService(Constant(4.0), exit_count=1)
    spec = node(service, batch_size=3, overheads=Overheads(disturb_s=0.5))
    devices = group(arrivals=AtTimes(((0.0, 0.0, 0.0, 1.0, 4.25),)), deadline=100.0)
    run = run_of(world(devices, spec, duration_s=50.0))
    assert run.batch.tolist() == [3, 3, 3, 2, 2]
    assert run.finished_s.tolist() == [5.0, 5.0, 5.0, 9.0, 9.0]


def test_a_refused_member_of_a_batch_keeps_no_second_worker():
    seen = []

    def decide(request, node):
        seen.append(request.index)
        return DROP if len(seen) <= 2 else ANSWER if request.exit else run_to(1)

    spec = node(
        DistributedService(Constant(4.0), exit_count=1),
        batch_size=3,
        overheads=overheads(reply=0.5),
    )
    devices = group(arrivals=AtTimes(((0.0, 0.0, 0.0),)), deadline=100.0)
    run = run_of(world(devices, spec, duration_s=50.0), Deciding(decide))
    # The second is asked, and refused, when the first has been told.
    assert run.started_s.tolist() == [0.0, 0.5, 0.0]
    assert run.left_s.tolist() == [0.0, 0.5, 5.0]
    services = run.visits.services()
    assert (services.ended_s - services.started_s).sum() == 5.5


def test_members_of_a_batch_that_are_cut_off_or_lost_before_it_begins_keep_no_second_worker():
    def decide(request, node):
        if request.index == 1:
            return DROP
        return ANSWER if request.exit else run_to(1, within_s=0.25)

    service = DistributedService(Constant(4.0), exit_count=1)
    spec = node(service, batch_size=3, overheads=overheads(reply=0.5))
    devices = group(arrivals=AtTimes(((0.0, 0.0, 0.0),)), deadline=100.0)
    down = Fault("node_crash", "edge", schedule=((0.125, 1.0),))
    # The first is cut off, or lost, while the second is told; else the third is computed then.
    for faults, busy_s in (((), 4.5), ((down,), 0.0)):
        run = run_of(world(devices, spec, duration_s=50.0, faults=faults), Deciding(decide))
        services = run.visits.services()
        assert (services.ended_s - services.started_s).sum() == busy_s


def test_who_leaves_a_batch_keeps_the_rest_waiting_for_its_reply():
    says = predictions(confidence=[[0.9, 0.9], [0.5, 0.9]])
    service = DistributedService(Constant(4.0), exit_count=2)

    def decide(request, node):
        if request.exit == 0:
            return run_to(1)
        sure = request.confidences[-1] > 0.8
        return ANSWER if sure or request.exit == 2 else run_to(2)

    spec = node(service, batch_size=2, overheads=overheads(reply=0.5))
    devices = group(arrivals=AtTimes(((0.0, 0.0),)), deadline=100.0, samples=Shuffled())
    run = run_of(world(devices, spec, duration_s=50.0), Deciding(decide), says)
    # Both are at exit 1 after 4 s, and all of a distributed time is spent then. Who is sure leaves
    # at once; a member behind it is asked, and goes on, when that reply is sent.
    sure_first = run.exit.tolist() == [1, 2]
    assert sorted(run.exit.tolist()) == [1, 2]
    assert run.finished_s[run.exit == 1].tolist() == [4.0]
    assert run.finished_s[run.exit == 2].tolist() == [4.5]
    assert sure_first or run.exit.tolist() == [2, 1]


# --- the same in every engine, and without ------------------------------------------------------


def random_world(spec: NodeSpec, **more):
    return world(
        group("a", 3, Poisson(0.8), deadline=2.0),
        group("b", 2, Poisson(0.6), deadline=3.0),
        spec,
        warm_up_s=0.0,
        duration_s=200.0,
        **more,
    )


RANDOM = Overheads(
    Exponential(0.05),
    Exponential(0.04),
    Exponential(0.03),
    autocorrelation=Autocorrelation(0.5, 2.0),
    disturb_s=0.02,
    ingress_busy=Exponential(0.1),
    egress_busy=Exponential(0.05),
    cooling=Cooling(2.0, 0.5, 0.04, 0.1, 0.02),
)


def test_a_request_whose_inference_is_slow_begins_slowly():
    # What is added to each quantile of a profile makes a distribution, not a convolution.
    plain, besides = (
        run_of(random_world(node(Exponential(0.2), overheads=overheads)))
        for overheads in (Overheads(), Overheads(begin=Exponential(0.05)))
    )
    inference_s, taken_s = (run.finished_s - run.started_s for run in (plain, besides))
    np.testing.assert_allclose(taken_s, 1.25 * inference_s, atol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_following_messages_one_by_one_gives_the_same(batch_size):
    spec = node(Exponential(0.2), batch_size=batch_size, workers=2, overheads=RANDOM)
    ahead = run_of(random_world(spec, mqtt=Mqtt()))
    # A window that is never full: messages are followed as events.
    stepwise = run_of(random_world(spec, mqtt=Mqtt(inflight=10_000)))
    for name in ("arrived_s", "started_s", "finished_s", "received_s"):
        mine, theirs = getattr(ahead, name), getattr(stepwise, name)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9, err_msg=name)


def test_who_is_cut_off_from_a_batch_finds_what_has_arrived_by_then():
    service = WrittenService([[2.0, 6.0]] * 3)
    spec = node(service, batch_size=2, overheads=Overheads(egress_busy=Constant(0.25)))

    def decide(request, node):
        if request.exit == 0:
            return run_to(1)
        return ANSWER if request.exit == 2 else run_to(2, within_s=1.0)

    devices = group(arrivals=AtTimes(((0.0, 0.0, 2.5),)), deadline=100.0)
    run = run_of(world(devices, spec, duration_s=50.0), Deciding(decide))
    # Both leave at 3 s, when the third waits.
    assert run.finished_s[:2].tolist() == [3.0, 3.0]
    assert run.received_s[:2].tolist() == [3.25, 3.25]


def test_what_is_no_service_does_not_depend_on_times():
    # Whose last bit differs between hosts, and between messages known ahead and followed as events.
    besides = replace(RANDOM, begin=Constant(0.04))
    with_times = node(Constant(0.2), overheads=besides)
    without = node(Constant(0.2), overheads=replace(besides, autocorrelation=None))
    one, other = run_of(random_world(with_times)), run_of(random_world(without))
    np.testing.assert_array_equal(one.started_s, other.started_s)
    np.testing.assert_array_equal(one.received_s, other.received_s)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    "nothing",
    [
        Overheads(),
        Overheads(ingress_busy=Constant(0.0), egress_busy=Constant(0.0)),
        Overheads(
            ingress_busy=Constant(0.0),
            egress_busy=Constant(0.0),
            cooling=Cooling(1.0, 0.5, 0.0, 0.0, 0.0),
        ),
    ],
)
def test_overheads_of_zero_change_nothing(batch_size, nothing):
    plain = node(Exponential(0.2), batch_size=batch_size, workers=2)
    zero = node(Exponential(0.2), batch_size=batch_size, workers=2, overheads=nothing)
    before, after = run_of(random_world(plain)), run_of(random_world(zero))
    for name in ("arrived_s", "started_s", "finished_s", "received_s", "batch"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name), err_msg=name)


def test_a_device_in_a_closed_loop_waits_for_its_answer_and_not_for_the_reply_to_be_sent():
    spec = node(mean_s=1.0, overheads=overheads(receive=0.25, reply=5.0))
    devices = group(arrivals=ClosedLoop(Constant(0.5)), deadline=100.0)
    run = run_of(world(devices, spec, duration_s=15.0))
    assert run.requests.created_s[:3].tolist() == [0.5, 2.25, 8.25]
    assert run.started_s[:3].tolist() == [0.75, 6.75, 12.75]


# --- numbers -------------------------------------------------------------------------------------


def test_requests_draw_their_overheads_from_the_whole_distribution():
    spec = node(
        Constant(0.01),
        overheads=Overheads(Empirical(np.array([0.1, 0.2])), Empirical(np.array([1.0, 3.0]))),
        workers=50,
    )
    run = run_of(world(group(arrivals=Poisson(5.0)), spec, duration_s=400.0))
    waited_s = (run.started_s - run.arrived_s).round(6)
    assert set(waited_s.tolist()) == {0.1, 0.2}
    assert 0.45 < np.mean(waited_s == 0.1) < 0.55
    taken_s = (run.finished_s - run.started_s).round(6)
    assert set(taken_s.tolist()) == {1.01, 3.01}
    # One says nothing of the other; who begins slowly is of the slower half of the inferences.
    assert abs(np.corrcoef(waited_s, taken_s)[0, 1]) < 0.05
    assert abs(np.corrcoef(run.requests.service_u, waited_s)[0, 1]) < 0.05
    np.testing.assert_array_equal(taken_s == 3.01, run.requests.service_u >= 0.5)


def test_scrambled_numbers_are_uniform_and_independent():
    u = np.random.default_rng(1).uniform(size=100_000)
    one, two = scrambled(u, 1), scrambled(u, 2)
    for numbers in (one, two):
        assert numbers.min() >= 0
        assert numbers.max() < 1
        counts = np.histogram(numbers, 50, (0, 1))[0]
        assert np.sum((counts - 2000.0) ** 2 / 2000.0) < 85  # chi-square, 49 degrees: p = 0.001
    assert np.abs(np.corrcoef([u, one, two]) - np.eye(3)).max() < 0.015


def test_the_offered_load_counts_what_occupies_workers():
    spec = node(mean_s=0.1, overheads=overheads(receive=5.0, begin=0.04, reply=0.06))
    (load,) = offered_loads(world(group(arrivals=Poisson(2.0)), spec))
    assert load.load == pytest.approx((0.4,))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_worker_is_busy_with_replies(batch_size):
    """A request a second, 0.6 s to compute and half a second to reply: more than it can do."""
    service = WrittenService([[0.6]] * 400)
    spec = node(service, batch_size=batch_size, overheads=overheads(reply=0.5))
    devices = group(arrivals=AtTimes((tuple(map(float, range(400))),)), deadline=900.0)
    a_world = world(devices, spec, duration_s=400.0)
    run = run_of(a_world)
    (load,) = node_metrics(a_world, run)
    if batch_size == 1:
        assert load["work"] == pytest.approx(1.1)
        assert load["drain_s"] == pytest.approx(run.released_s.max() - 400.0) == 40.0
    used = node_telemetry(run.visits, ["edge"], [1], np.linspace(0.0, 400.0, 5))["utilisation"]
    assert used[1:].to_numpy() == pytest.approx(1.0), "somebody always waits"


def test_a_node_with_overheads_has_a_service_that_knows_them_once():
    spec = node(mean_s=0.1, overheads=overheads(begin=1.0))
    plain = replace(spec, overheads=None).service
    for again in (spec, replace(spec, workers=3)):
        assert isinstance(again.service, ServiceWithOverheads)
        assert again.service.inference is plain
    drawn = replace(spec, overheads=overheads(begin=2.0)).service.draw(np.array([0.5]))
    assert drawn[0][1] == 2.0
