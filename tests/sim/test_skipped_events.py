"""Time that goes on without an event: the same records as if every step were one."""

from contextlib import contextmanager
from unittest.mock import patch

from hypothesis import given
from random_worlds import EXITS, SAMPLES, policies, worlds
from tiny_worlds import AtTimes, examples, group, random_predictions, records_of, run_of, world

from sim.clock import Clock
from sim.nodes.node import Node
from sim.running.ahead import Ahead


def simulated(a_world, policy):
    predictions = random_predictions(SAMPLES, EXITS, 1)
    return records_of(a_world, run_of(a_world, policy, predictions), predictions)


def on_one_clock(begin):
    def begun(engine, *args):
        begin(engine, *args)
        engine._clocks = [engine.clock]

    return begun


@contextmanager
def every_step_an_event():
    """Of a worker's steps and of the arrivals that it waits for, on one clock for all nodes."""
    with (
        patch.object(Node, "_undisturbed_until", return_value=False),
        patch.object(Node, "_skips_to_arrival", return_value=False),
        patch.object(Ahead, "clock_of_node", lambda engine: engine.clock),
        patch.object(Ahead, "__init__", on_one_clock(Ahead.__init__)),
    ):
        yield


@examples(60)
@given(worlds(ties=False), policies())
def test_records_are_those_of_a_world_where_every_step_is_an_event(a_world, policy):
    skipped = simulated(a_world, policy)
    with every_step_an_event():
        stepped = simulated(a_world, policy)
    assert skipped.equals(stepped)


def events_of(a_world):
    with patch.object(Clock, "push", autospec=True, side_effect=Clock.push) as push:
        run = run_of(a_world)
    return push.call_count, len(run)


def test_a_worker_that_nothing_disturbs_needs_no_event_for_a_request():
    events, requests = events_of(world(group(arrivals=AtTimes(((0.1, 0.2, 0.21, 0.5),)))))
    assert requests == 4
    assert events <= 1
    with every_step_an_event():
        events, _ = events_of(world(group(arrivals=AtTimes(((0.1, 0.2, 0.21, 0.5),)))))
    assert events >= 4
