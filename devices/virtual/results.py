"""From what devices saw of a live run to a run as the simulator leaves one, with the same records.

Times are seconds since the start of the run, on the devices' monotonic clock. What happened at a
node is known from its reply: how long the request was there, waited, and was computed, and when it
came on the node's clock. Where node and devices run on one machine, under one boot, that clock is
theirs. Else the way of a request and that of its reply are taken to be equally long: it arrived
half of the travel time after it was sent, which is off by half the difference of the two at most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from devices.virtual.fleet_log import DROPPED, OK, FleetResult
from sim import outcomes
from sim.distributions import Floats
from sim.results.run import Run
from sim.world import World

#: A node's clock that is the devices' puts an arrival between sending and hearing, within this.
_TOLERANCE_S = 1e-3

#: Requests of one batch start together: on the node's clock, within the rounding of milliseconds
#: that were written down as floats.
_SAME_START_S = 1e-5


def run_of(world: World, result: FleetResult, labels: NDArray[np.int32]) -> Run:
    """The run that devices saw; a request has exactly one row, and one outcome.

    ``on_time`` and ``late`` are answered requests by the latency that the device saw, from the
    planned creation to the reply; ``dropped`` were refused by a node; all others are ``lost``.

    Args:
        labels: (samples,) classes of the test set.
    """
    requests, seen = result.requests, result.seen
    answered, dropped = seen.status == OK, seen.status == DROPPED
    replied = answered | dropped
    arrived_s = np.where(replied, _arrivals(result), np.nan)
    # NaN where no worker ever took the request: such a reply does not say how long it waited.
    started_s = np.where(replied, arrived_s + seen.queued_s, np.nan)
    started_s, batch = _together(result, started_s, answered)
    # So that a request waited for as long as its node says, whatever the estimate.
    arrived_s = np.where(np.isnan(started_s), arrived_s, started_s - seen.queued_s)
    left_s = started_s + seen.service_s
    left_s = np.where(np.isnan(left_s), arrived_s + seen.node_s, left_s)
    received_s = np.where(answered, seen.heard_s, np.nan)
    outcome = np.full(len(requests), outcomes.LOST, dtype=np.int8)
    outcome[dropped] = outcomes.DROPPED
    in_time = received_s - requests.created_s <= requests.deadline_s
    outcome[answered] = np.where(in_time[answered], outcomes.ON_TIME, outcomes.LATE)
    predicted = np.where(answered, seen.predicted, -1).astype(np.int32)
    return Run(
        replication=result.replication,
        requests=requests,
        index=np.arange(len(requests)),
        deadline_s=requests.deadline_s,
        node=_nodes(world, result),
        arrived_s=arrived_s,
        started_s=started_s,
        finished_s=np.where(answered, left_s, np.nan),
        received_s=received_s,
        left_s=left_s,
        released_s=left_s,  # as far as a reply says
        exit=np.where(answered, seen.exit, 0),
        predicted=predicted,
        confidence=np.where(answered, np.nan_to_num(seen.confidence), 0).astype(np.float32),
        correct=answered & (predicted == labels[requests.sample]),
        batch=batch,
        outcome=outcome,
    )


def _arrivals(result: FleetResult) -> Floats:
    """(N,) when requests reached their node; NaN where no reply says how long they were there."""
    seen = result.seen
    travel_s = np.maximum(0.0, seen.heard_s - seen.sent_s - seen.node_s)
    estimate_s = seen.heard_s - seen.node_s - travel_s / 2
    # One more, for those without a reply.
    shares_clock = np.array([*result.same_clock, False])[seen.node]
    exact_s = seen.arrived_node_s - result.start_s
    possible = (exact_s >= seen.sent_s - _TOLERANCE_S) & (exact_s <= seen.heard_s + _TOLERANCE_S)
    arrivals: Floats = np.where(shares_clock & possible, exact_s, estimate_s)
    return arrivals


def _together(
    result: FleetResult, started_s: Floats, answered: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.int64]]:
    """Let the requests of a batch start at one instant, and count those that are known of each.

    Visits are counted as one service if they agree on node, start and size. The node says the size,
    but the answers of some of a batch may be lost, or be those of devices elsewhere.

    Returns:
        (N,) starts and (N,) sizes of batches.
    """
    seen = result.seen
    started_s, batch = started_s.copy(), np.ones(len(started_s), dtype=np.int64)
    rows = np.flatnonzero(answered & (seen.batch > 1) & ~np.isnan(started_s))
    at_node_s = (seen.arrived_node_s + seen.queued_s)[rows]
    rows, at_node_s = rows[~np.isnan(at_node_s)], at_node_s[~np.isnan(at_node_s)]
    if not len(rows):
        return started_s, batch
    size, node = seen.batch[rows], seen.node[rows]
    order = np.lexsort((at_node_s, size, node))
    rows, at_node_s, size, node = rows[order], at_node_s[order], size[order], node[order]
    begins = np.ones(len(rows), dtype=bool)
    begins[1:] = (np.diff(at_node_s) > _SAME_START_S) | (np.diff(size) != 0) | (np.diff(node) != 0)
    of_batch = np.cumsum(begins) - 1
    known = np.bincount(of_batch)
    started_s[rows] = (np.bincount(of_batch, weights=started_s[rows]) / known)[of_batch]
    # Several batches of one size may have begun together.
    batch[rows] = np.where(known[of_batch] % size == 0, size, known[of_batch])
    return started_s, batch


def _nodes(world: World, result: FleetResult) -> NDArray[np.int64]:
    """(N,) who replied; the first node of those that were asked, where nobody known did."""
    asked = np.array(
        [world.first_node[world.kind(group.node)] for group in world.groups], dtype=np.int64
    )[result.requests.group]
    names = {name: index for index, name in enumerate(world.node_names)}
    known = np.array([*(names.get(name, -1) for name in result.nodes), -1])[result.seen.node]
    nodes: NDArray[np.int64] = np.where(known >= 0, known, asked)
    return nodes
