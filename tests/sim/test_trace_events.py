"""Traces: what a viewer demands of the Trace Event Format, and that every request is there."""

import json
import math
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.outcomes import DROPPED, LATE, LOST, ON_TIME, OUTCOMES
from sim.results.trace_events import TracedRequests, trace_events, write_trace
from sim.results.visits import Visits

NODES = ["edge", "cloud"]


def requests_of(device, created_s, received_s, outcome):
    count = len(device)
    received_s = np.array([math.nan if time is None else time for time in received_s], dtype=float)
    return TracedRequests(
        device=np.array(device, dtype=np.int64),
        created_s=np.array(created_s, dtype=float),
        deadline_s=np.full(count, 0.25),
        received_s=received_s,
        exit=np.where(np.isnan(received_s), 0, 2),
        correct=~np.isnan(received_s),
        outcome=np.array(outcome),
    )


def visits_of(*rows):
    """Visits from tuples (request, node, arrived_s, started_s or None, left_s[, batch])."""
    columns = [[math.nan if value is None else value for value in (*row, 1)[:6]] for row in rows]
    request, node, arrived, started, left, batch = np.array(columns, dtype=float).reshape(-1, 6).T
    whole = [column.astype(np.int64) for column in (request, node, batch)]
    return Visits(whole[0], whole[1], arrived, started, left, left, whole[2])


def traced(requests, visits, from_s=0.0, to_s=100.0):
    return trace_events(requests, visits, lambda device: f"cam-{device}", NODES, from_s, to_s)


def of_kind(events, phase):
    return [event for event in events if event["ph"] == phase]


def track_names(events):
    """Name of each (pid, tid)."""
    return {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in of_kind(events, "M")
        if event["name"] == "thread_name"
    }


def on_track(events, name):
    """(request, ts, ts + dur) of the slices of the track ``name``."""
    names = track_names(events)
    return [
        (event["args"]["request"], event["ts"], event["ts"] + event["dur"])
        for event in of_kind(events, "X")
        if names[event["pid"], event["tid"]] == name
    ]


# --- a run made up: two nodes, batches, drops, losses, offloads ----------------------------------


def made_up(seed, count=60, workers=2):
    """A run with every kind of fate: FIFO at ``edge``, some batches, some sent on to ``cloud``."""
    random = np.random.default_rng(seed)
    created = np.cumsum(random.exponential(0.05, count))
    received, outcome, rows = [None] * count, [LOST] * count, []
    free = [0.0] * workers
    request = 0
    while request < count:
        worker = free.index(min(free))
        together = min(int(random.integers(1, 4)), count - request)
        batch = list(range(request, request + together))
        request += together
        arrived = [created[one] + 0.01 for one in batch]
        if random.random() < 0.1:
            for one, came in zip(batch, arrived, strict=True):
                rows.append((one, 0, came, None, came + 0.02 * random.integers(0, 2)))
                outcome[one] = DROPPED
            continue
        starts = max(*arrived, free[worker])
        ends = [starts + 0.04 * random.integers(0, 4) for _ in batch]
        free[worker] = max(ends)
        for one, came, end in zip(batch, arrived, ends, strict=True):
            rows.append((one, 0, came, starts, end, together))
            if random.random() < 0.2:  # sent on, and half of those are lost
                rows.append((one, 1, end + 0.02, end + 0.02, end + 0.03))
                end += 0.03
                if random.random() < 0.5:
                    continue
            received[one], outcome[one] = end + 0.01, random.integers(0, 2)
    return requests_of(random.integers(0, 5, count), created, received, outcome), visits_of(*rows)


def overlapping(slices):
    """Pairs of slices of one track that neither nest nor are apart."""
    return [
        (one, other)
        for index, one in enumerate(slices)
        for other in slices[index + 1 :]
        if one[1] < other[1] < one[2] < other[2] or other[1] < one[1] < other[2] < one[2]
    ]


@given(st.integers(0, 10_000))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_every_event_is_what_the_format_asks_for(seed):
    events = json.loads(json.dumps(traced(*made_up(seed)), allow_nan=False))
    for event in events:
        assert event["ph"] in "XMCstf"
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["pid"] > 0  # Linux keeps 0 for itself, and Perfetto too
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            assert set(event["args"]) in ({"name"}, {"sort_index"})
            continue
        assert isinstance(event["ts"], int)
        if event["ph"] == "X":
            assert event["dur"] >= 0
        if event["ph"] == "C":
            assert event["args"]["waiting"] >= 0
        if event["ph"] in "stf":
            assert isinstance(event["id"], int)
            assert event["cat"]
            assert (event.get("bp") == "e") == (event["ph"] == "f")
    times = [event["ts"] for event in events if event["ph"] != "M"]
    assert times == sorted(times)


@given(st.integers(0, 10_000))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_slices_of_a_track_nest_or_are_apart_and_workers_are_no_more_than_there_are(seed):
    events = traced(*made_up(seed))
    names = track_names(events)
    tids = [tid for _, tid in names]
    assert len(set(tids)) == len(tids)
    assert not set(tids) & {event["pid"] for event in events}
    tracks = defaultdict(list)
    for event in of_kind(events, "X"):
        begin = event["ts"]
        tracks[event["pid"], event["tid"]].append((event["name"], begin, begin + event["dur"]))
    assert set(tracks) == set(names)  # every track has a name, and none is empty
    for slices in tracks.values():
        assert overlapping(slices) == []
    assert {name for name in names.values() if name.startswith("edge worker")} <= {
        "edge worker 1",
        "edge worker 2",
    }
    # A slice that begins while another is open must come after it in the file.
    for slices in tracks.values():
        for (_, begin, end), (_, later, later_end) in pairwise(slices):
            assert later > begin or later_end <= end or begin == end


@given(st.integers(0, 10_000), st.floats(0.0, 3.0), st.floats(0.01, 1.0))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_every_request_of_the_window_is_shown_whole_and_no_other(seed, from_s, length_s):
    requests, visits = made_up(seed)
    to_s = from_s + length_s
    ended_s = requests.received_s.copy()
    for request in np.flatnonzero(np.isnan(ended_s)):
        ended_s[request] = visits.left_s[visits.request == request].max()
    expected = {
        request
        for request in range(len(ended_s))
        if requests.created_s[request] < to_s and ended_s[request] > from_s
    }
    events = traced(requests, visits, from_s, to_s)
    slices = of_kind(events, "X")
    devices = [event for event in slices if event["pid"] == 1]
    assert sorted(event["args"]["request"] for event in devices) == sorted(expected)
    served = Counter(event["args"]["request"] for event in slices if event["name"] == "service")
    assert served == Counter(
        request
        for request, started in zip(visits.request.tolist(), visits.started_s, strict=True)
        if request in expected and not np.isnan(started)
    )
    for event in devices:
        request = event["args"]["request"]
        assert event["name"] == OUTCOMES[requests.outcome[request]]
        assert event["ts"] == math.floor(requests.created_s[request] * 1e6)
        assert event["ts"] + event["dur"] == math.floor(ended_s[request] * 1e6)


@given(st.integers(0, 10_000))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_a_flow_leads_through_all_slices_of_its_request_in_order(seed):
    events = traced(*made_up(seed))
    slices, flows = defaultdict(list), defaultdict(list)
    last_slice = {}
    for event in events:
        track = event["pid"], event["tid"]
        if event["ph"] == "X":
            slices[event["args"]["request"]].append((*track, event["ts"]))
            last_slice[track] = event["args"]["request"]
        elif event["ph"] in "stf":
            # Viewers attach it to the slice that was opened last on its track.
            assert last_slice[track] == event["id"]
            flows[event["id"]].append((event["ph"], (*track, event["ts"])))
    for request, places in slices.items():
        phases = [phase for phase, _ in flows[request]]
        assert phases == ["s", *"t" * (len(places) - 2), "f"]
        assert [place for _, place in flows[request]] == places
        assert places[0][0] == 1  # from its device


# --- worked by hand ------------------------------------------------------------------------------


def test_a_request_that_waits_is_served_and_sent_on():
    requests = requests_of([7], [1.0], [2.0], [ON_TIME])
    visits = visits_of((0, 0, 1.1, 1.2, 1.5), (0, 1, 1.6, 1.6, 1.9))
    events = traced(requests, visits)
    assert on_track(events, "cam-7") == [(0, 1_000_000, 2_000_000)]
    assert on_track(events, "edge queue 1") == [(0, 1_100_000, 1_200_000)]
    assert on_track(events, "edge worker 1") == [(0, 1_200_000, 1_500_000)]
    assert on_track(events, "cloud worker 1") == [(0, 1_600_000, 1_900_000)]
    (at_device,) = [event for event in of_kind(events, "X") if event["pid"] == 1]
    assert at_device["name"] == "on_time"
    assert at_device["args"] == {
        "request": 0,
        "outcome": "on_time",
        "created_s": 1.0,
        "deadline_ms": 250.0,
        "exit": 2,
        "correct": True,
        "latency_ms": 1000.0,
    }
    processes = [event for event in of_kind(events, "M") if event["name"] == "process_name"]
    assert [event["args"]["name"] for event in processes] == ["devices", "node edge", "node cloud"]


def test_a_request_refused_at_the_door_and_one_that_never_came_are_seen():
    requests = requests_of([0, 1], [1.0, 1.0], [None, None], [DROPPED, LOST])
    events = traced(requests, visits_of((0, 0, 1.5, None, 1.5)))
    assert on_track(events, "edge queue 1") == [(0, 1_500_000, 1_500_000)]
    assert on_track(events, "cam-0") == [(0, 1_000_000, 1_500_000)]
    assert on_track(events, "cam-1") == [(1, 1_000_000, 1_000_000)]
    assert [event["id"] for event in of_kind(events, "s")] == [0]
    assert all("exit" not in event["args"] for event in of_kind(events, "X"))


def test_a_flow_leads_onwards_even_if_everything_happens_at_one_instant():
    requests = requests_of([0], [1.0], [1.5], [ON_TIME])
    events = traced(requests, visits_of((0, 0, 1.0, 1.0, 1.5)))
    flow = [(event["ph"], event["pid"], event["ts"]) for event in events if event["ph"] in "stf"]
    assert flow == [("s", 1, 1_000_000), ("f", 2, 1_000_000)]


def test_requests_of_one_device_that_overlap_get_tracks_of_their_own():
    requests = requests_of([3] * 3, [0.0, 1.0, 2.0], [1.5, 4.0, 3.0], [LATE] * 3)
    events = traced(requests, visits_of())
    assert on_track(events, "cam-3") == [(0, 0, 1_500_000), (2, 2_000_000, 3_000_000)]
    assert on_track(events, "cam-3 (2)") == [(1, 1_000_000, 4_000_000)]


def test_a_batch_is_drawn_into_one_track_longest_first():
    requests = requests_of([0, 1, 2], [0.0] * 3, [3.0] * 3, [LATE] * 3)
    visits = visits_of((0, 0, 1, 1, 2, 2), (1, 0, 1, 1, 3, 2), (2, 0, 1, 1, 3))
    events = traced(requests, visits)
    tracks = [on_track(events, f"edge worker {worker}") for worker in (1, 2)]
    assert [(1, 1_000_000, 3_000_000), (0, 1_000_000, 2_000_000)] in tracks
    assert [(2, 1_000_000, 3_000_000)] in tracks


def test_the_counter_is_the_queue_within_the_window_whoever_waits_there():
    requests = requests_of([0] * 3, [0.0] * 3, [9.0] * 3, [LATE] * 3)
    visits = visits_of((0, 0, 1.0, 4.0, 8.0), (1, 0, 2.0, 5.0, 8.0), (2, 0, 3.0, None, 5.0))
    events = traced(requests, visits, 2.5, 5.5)
    lengths = [
        (event["ts"], event["args"]["waiting"])
        for event in of_kind(events, "C")
        if event["pid"] == 2
    ]
    assert lengths == [(2_500_000, 2), (3_000_000, 3), (4_000_000, 2), (5_000_000, 0)]
    assert [event["args"]["waiting"] for event in of_kind(events, "C") if event["pid"] == 3] == [0]


def test_an_empty_window_is_refused():
    with pytest.raises(ValueError, match="no trace window"):
        traced(requests_of([], [], [], []), visits_of(), 2.0, 2.0)


def test_the_same_run_gives_the_same_trace():
    assert traced(*made_up(1)) == traced(*made_up(1))


# --- the file ------------------------------------------------------------------------------------


def test_the_file_is_json_that_viewers_know(tmp_path):
    events = traced(*made_up(2))
    write_trace(tmp_path / "trace.json", events)
    document = json.loads((tmp_path / "trace.json").read_text())
    assert document == {"displayTimeUnit": "ms", "traceEvents": events}


def test_a_trace_that_cannot_be_written_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "trace.json"
    write_trace(path, [])
    before = path.read_text()
    with pytest.raises(ValueError, match="JSON"):
        write_trace(path, [{"ph": "C", "args": {"waiting": math.nan}}])
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["trace.json"]
