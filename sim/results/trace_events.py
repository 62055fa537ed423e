"""A trace of a run, to see requests on their way in Perfetto or ``chrome://tracing``.

The format is the JSON of the Trace Event Format (Google, document
``1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU``). The devices are one process, each node is
another; every device, worker and place in a queue is a thread, which both viewers draw as a track.
Slices (``X``) show a request at its device, waiting and served; a flow (``s``, ``t``, ``f``) leads
from its device through every node it visits; a counter (``C``) shows each queue's length. Open the
file at https://ui.perfetto.dev, which does not upload it.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.files import write_text
from sim.outcomes import OUTCOMES
from sim.results.visits import Visits
from sim.streams import Floats

Event = dict[str, Any]
_Integers = NDArray[np.int64]

_DEVICES_PID = 1
#: Perfetto knows a thread by its tid alone, and takes one that equals its pid for the main thread:
#: tids are unique in the whole trace, and begin beyond all pids.
_FIRST_TID = 1_000_000


class TracedRequests(NamedTuple):
    """The requests of a run; arrays of length N.

    Attributes:
        device: index of the device.
        received_s: NaN where no answer came.
        exit: that answered; 0 if none did.
        outcome: index into :data:`sim.outcomes.OUTCOMES`.
    """

    device: NDArray[np.integer]
    created_s: Floats
    deadline_s: Floats
    received_s: Floats
    exit: NDArray[np.integer]
    correct: NDArray[np.bool_]
    outcome: NDArray[np.integer]


def trace_events(
    requests: TracedRequests,
    visits: Visits,
    device_name: Callable[[int], str],
    node_names: Sequence[str],
    from_s: float,
    to_s: float,
) -> list[Event]:
    """Trace events of every request that was under way in the window ``[from_s, to_s)``.

    Such a request is shown whole, from its creation to its answer, or to when a node last had it
    if there was none. Times are cut to whole microseconds, the unit of the format. Workers are not
    recorded: services are given to the first track that is free, of which no more are used than
    the node has workers. The requests of a batch share a track, drawn into each other.

    Args:
        device_name: name of a device, by index.
        node_names: by index.

    Raises:
        ValueError: the window is empty.
    """
    if not to_s > from_s:
        raise ValueError(f"no trace window from {from_s} s to {to_s} s")
    ended_s = _ended_s(requests, visits)
    under_way = (requests.created_s < to_s) & ((ended_s > from_s) | (requests.created_s >= from_s))
    slices = [
        *_device_slices(requests, ended_s, np.flatnonzero(under_way), device_name),
        *_node_slices(visits, under_way, node_names),
    ]
    slices.sort(key=lambda one: (one.begin_s, one.stage, -one.end_s if one.nests else one.end_s))
    tids: dict[tuple[int, str], int] = {}
    for one in slices:
        tids.setdefault((one.pid, one.track), _FIRST_TID + len(tids))
    return [
        *_names(slices, tids, node_names),
        *_in_order(
            _slices_and_flows(slices, tids),
            _queue_counters(visits, len(node_names), from_s, to_s),
        ),
    ]


def write_trace(path: Path, events: Sequence[Event]) -> None:
    """Write trace events as JSON, whole or not at all."""
    document = {"displayTimeUnit": "ms", "traceEvents": list(events)}
    write_text(path, json.dumps(document, separators=(",", ":"), allow_nan=False))


# --- slices --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Slice:
    """A request on one track.

    Attributes:
        stage: 0 at its device, 1 in a queue, 2 served; slices that begin together are written in
            this order, so that flows lead onwards.
        nests: among others that begin with it, as in a batch: the longest must come first.
        rank: of the track within its process, for the viewer's order.
    """

    request: int
    begin_s: float
    end_s: float
    stage: int
    nests: bool
    pid: int
    track: str
    rank: int
    name: str
    args: dict[str, Any]


def _ended_s(requests: TracedRequests, visits: Visits) -> Floats:
    """(N,) when the last was seen of each request."""
    seen: Floats = requests.created_s.copy()
    np.fmax.at(seen, visits.request, visits.left_s)
    return np.where(np.isnan(requests.received_s), seen, requests.received_s)


def _device_slices(
    requests: TracedRequests, ended_s: Floats, shown: _Integers, device_name: Callable[[int], str]
) -> Iterator[_Slice]:
    devices = requests.device[shown]
    ranks = {device: rank for rank, device in enumerate(np.unique(devices).tolist())}
    names = {device: device_name(device) for device in ranks}
    lanes = _lanes(devices, requests.created_s[shown], ended_s[shown])
    for request, device, lane in zip(shown.tolist(), devices.tolist(), lanes.tolist(), strict=True):
        created_s, end_s = float(requests.created_s[request]), float(ended_s[request])
        outcome, exit = OUTCOMES[requests.outcome[request]], int(requests.exit[request])
        args: dict[str, Any] = {
            "request": request,
            "outcome": outcome,
            "created_s": created_s,
            "deadline_ms": float(requests.deadline_s[request]) * 1e3,
        }
        if exit:
            args["exit"] = exit
            args["correct"] = bool(requests.correct[request])
            args["latency_ms"] = (end_s - created_s) * 1e3
        yield _Slice(
            request=request,
            begin_s=created_s,
            end_s=end_s,
            stage=0,
            nests=False,
            pid=_DEVICES_PID,
            track=f"{names[device]} ({lane + 1})" if lane else names[device],
            rank=ranks[device],
            name=outcome,
            args=args,
        )


def _node_slices(
    visits: Visits, under_way: NDArray[np.bool_], node_names: Sequence[str]
) -> Iterator[_Slice]:
    number = visits.service_number()
    of_shown, started = under_way[visits.request], number >= 0
    waited_until_s = np.where(started, visits.started_s, visits.left_s)
    # Whoever never met a worker shows in the queue, even if refused at the door.
    queued = np.flatnonzero(of_shown & (~started | (waited_until_s > visits.arrived_s)))
    served = np.flatnonzero(of_shown & started)
    places = _lanes(visits.node[queued], visits.arrived_s[queued], waited_until_s[queued])
    for row, place in zip(queued.tolist(), places.tolist(), strict=True):
        yield _Slice(
            request=int(visits.request[row]),
            begin_s=float(visits.arrived_s[row]),
            end_s=float(waited_until_s[row]),
            stage=1,
            nests=False,
            pid=_pid(int(visits.node[row])),
            track=f"{node_names[visits.node[row]]} queue {place + 1}",
            rank=len(visits) + place,  # below the workers
            name="waiting",
            args={"request": int(visits.request[row]), "served": bool(started[row])},
        )
    for row, lane in zip(served.tolist(), _workers(visits, number, served), strict=True):
        batch = int(visits.batch[row])
        yield _Slice(
            request=int(visits.request[row]),
            begin_s=float(visits.started_s[row]),
            end_s=float(visits.left_s[row]),
            stage=2,
            nests=batch > 1,
            pid=_pid(int(visits.node[row])),
            track=f"{node_names[visits.node[row]]} worker {lane + 1}",
            rank=lane,
            name="service",
            args={"request": int(visits.request[row]), "batch": batch},
        )


def _workers(visits: Visits, number: _Integers, served: _Integers) -> list[int]:
    """The worker of each visit in ``served``: one for all requests of a batch."""
    services = visits.services(number)
    shown, index = np.unique(number[served], return_inverse=True)
    lanes = _lanes(services.node[shown], services.started_s[shown], services.ended_s[shown])
    workers: list[int] = lanes[index].tolist()
    return workers


def _lanes(owner: NDArray[np.integer], begin_s: Floats, end_s: Floats) -> _Integers:
    """(N,) the lowest lane of its owner on which each interval overlaps no other.

    Args:
        owner: (N,) of each interval ``[begin, end)``; lanes of different owners are unrelated.
    """
    lanes = np.zeros(len(owner), dtype=np.int64)
    free: dict[int, list[int]] = {}
    busy: dict[int, list[tuple[float, int]]] = {}  # (until, lane), earliest first
    for row in np.lexsort((end_s, begin_s)).tolist():
        idle, running = free.setdefault(int(owner[row]), []), busy.setdefault(int(owner[row]), [])
        while running and running[0][0] <= begin_s[row]:
            heapq.heappush(idle, heapq.heappop(running)[1])
        lane = heapq.heappop(idle) if idle else len(running)
        heapq.heappush(running, (float(end_s[row]), lane))
        lanes[row] = lane
    return lanes


def _pid(node: int) -> int:
    return _DEVICES_PID + 1 + node


# --- events --------------------------------------------------------------------------------------


def _names(
    slices: Sequence[_Slice], tids: dict[tuple[int, str], int], node_names: Sequence[str]
) -> Iterator[Event]:
    """Metadata: names and order of processes and threads."""
    processes = {_DEVICES_PID: "devices"}
    processes |= {_pid(node): f"node {name}" for node, name in enumerate(node_names)}
    for pid, name in processes.items():
        yield _metadata("process_name", pid, pid, {"name": name})
        yield _metadata("process_sort_index", pid, pid, {"sort_index": pid})
    ranks = {(one.pid, one.track): one.rank for one in slices}
    for (pid, track), tid in tids.items():
        yield _metadata("thread_name", pid, tid, {"name": track})
        yield _metadata("thread_sort_index", pid, tid, {"sort_index": ranks[pid, track]})


def _metadata(name: str, pid: int, tid: int, args: dict[str, Any]) -> Event:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": args}


def _slices_and_flows(
    slices: Sequence[_Slice], tids: dict[tuple[int, str], int]
) -> Iterator[Event]:
    """Each slice, followed by the step of its request's flow that begins there."""
    steps: dict[int, int] = {}
    for one in slices:
        steps[one.request] = steps.get(one.request, 0) + 1
    taken: dict[int, int] = {}
    for one in slices:
        ts = _microseconds(one.begin_s)
        place = {"ts": ts, "pid": one.pid, "tid": tids[one.pid, one.track]}
        dur = _microseconds(one.end_s) - ts
        yield {"ph": "X", "name": one.name, "cat": "request", **place, "dur": dur, "args": one.args}
        step = taken[one.request] = taken.get(one.request, 0) + 1
        if steps[one.request] == 1:
            continue  # seen at one place only
        flow = {"name": "way", "cat": "way", "id": one.request, **place}
        if step == 1:
            yield {"ph": "s", **flow}
        elif step < steps[one.request]:
            yield {"ph": "t", **flow}
        else:
            yield {"ph": "f", "bp": "e", **flow}  # ends in the slice around it, not the next


def _queue_counters(visits: Visits, nodes: int, from_s: float, to_s: float) -> Iterator[Event]:
    """Length of every node's queue: when the window opens, and after each change within it."""
    until_s = np.where(np.isnan(visits.started_s), visits.left_s, visits.started_s)
    waits = until_s > visits.arrived_s
    for node in range(nodes):
        here = waits & (visits.node == node)
        time_s = np.concatenate([visits.arrived_s[here], until_s[here]])
        order = np.argsort(time_s, kind="stable")
        time_s = time_s[order]
        length = np.cumsum(np.repeat([1, -1], int(here.sum()))[order])
        before = int(np.searchsorted(time_s, from_s, side="right"))
        yield _counter(node, from_s, int(length[before - 1]) if before else 0)
        for at in range(before, int(np.searchsorted(time_s, to_s))):
            if at + 1 == len(time_s) or time_s[at + 1] > time_s[at]:
                yield _counter(node, float(time_s[at]), int(length[at]))


def _counter(node: int, at_s: float, length: int) -> Event:
    pid, ts = _pid(node), _microseconds(at_s)
    args = {"waiting": length}
    return {"ph": "C", "name": "queue", "ts": ts, "pid": pid, "tid": pid, "args": args}


def _microseconds(seconds: float) -> int:
    """Cut, not rounded to nearest: no two slices of a track begin to overlap either way."""
    return math.floor(seconds * 1e6)


def _in_order(*parts: Iterator[Event]) -> list[Event]:
    """All events by time; those of one time stay as they were."""
    return sorted((event for part in parts for event in part), key=lambda event: event["ts"])
