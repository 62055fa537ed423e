"""What a live node counts, for Prometheus. Names begin with ``offramp_edge_`` and end with a unit.

Everything is counted whether or not somebody scrapes it, several times for each request. So it is
counted in plain numbers under one lock, which takes a fifth of the time of prometheus_client's own
counters, and handed to it when it asks.
"""

from __future__ import annotations

import errno
import math
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from models.errors import LiveError

if TYPE_CHECKING:
    from devices.node.views import LiveRequest

_PREFIX = "offramp_edge"

# From 50 µs, a small network's first exit, to 10 s, in steps of about 2.
_SECONDS = (
    *(5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64)


#: Counters without labels.
_EVENTS = {
    "received_bytes": "Payloads of what came as a request.",
    "sent_bytes": "Payloads of replies.",
    "duplicate_requests": "Requests that had come before, and were not computed again.",
    "unsent_replies": "Replies lost: there is no connection, or too many wait for one.",
    "reconnections": "Connections to the broker after the first.",
}


class _Histogram:
    """Counts of values by bucket, and their sum; not locked."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name = f"{_PREFIX}_{name}"
        self.text = text
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def family(self) -> Metric:
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        buckets = list(zip(names, map(float, accumulate(self.counts)), strict=True))
        return HistogramMetricFamily(self.name, self.text, buckets=buckets, sum_value=self.sum)


class NodeMetrics(Collector):
    """The figures of one node, in a registry of their own; its methods may be called anywhere."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._queue_length: Callable[[], int] = lambda: 0
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._exits: Counter[int] = Counter()
        self._events: Counter[str] = Counter(dict.fromkeys(_EVENTS, 0))
        self._queue = _Histogram(
            "queue_seconds", "From the arrival of a request until a worker took it.", _SECONDS
        )
        self._service = _Histogram(
            "service_seconds", "From a worker's taking a request until it left.", _SECONDS
        )
        self._node = _Histogram(
            "node_seconds", "From the arrival of a request until it left.", _SECONDS
        )
        self._batch = _Histogram(
            "batch_requests", "Requests that were computed together.", _REQUESTS
        )
        self.registry.register(self)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Ask ``length`` for the number of requests that wait."""
        self._queue_length = length

    def batch_started(self, size: int) -> None:
        """A worker computes so many requests together."""
        with self._lock:
            self._batch.add(size)

    def request_left(self, request: LiveRequest) -> None:
        """A request has left."""
        with self._lock:
            if request.error is not None:
                self._outcomes["error", request.error[0]] += 1
            elif request.reason is not None:
                self._outcomes["dropped", request.reason] += 1
            else:
                self._outcomes["ok", ""] += 1
                self._exits[request.exit] += 1
            self._node.add(request.finished_s - request.arrived_s)
            if not math.isnan(request.started_s):
                self._queue.add(request.started_s - request.arrived_s)
                self._service.add(request.finished_s - request.started_s)

    def failed(self, code: str) -> None:
        """A message was answered with an error, or could not even be."""
        with self._lock:
            self._outcomes["error", code] += 1

    def add(self, event: str, count: int = 1) -> None:
        """Count one of the events that have names of their own."""
        with self._lock:
            self._events[event] += count

    def collect(self) -> list[Metric]:
        """For prometheus_client."""
        requests = CounterMetricFamily(
            f"{_PREFIX}_requests",
            "Requests by outcome (ok, dropped, error) and why (a drop's reason, an error's code).",
            labels=["outcome", "why"],
        )
        exits = CounterMetricFamily(
            f"{_PREFIX}_exits", "Answers by the exit that they come from.", labels=["exit"]
        )
        waiting = GaugeMetricFamily(
            f"{_PREFIX}_queue_requests",
            "Requests that wait for a worker.",
            value=float(self._queue_length()),
        )
        with self._lock:
            for labels, count in self._outcomes.items():
                requests.add_metric(labels, count)
            for exit, count in self._exits.items():
                exits.add_metric([str(exit)], count)
            events = [
                CounterMetricFamily(f"{_PREFIX}_{event}", text, value=self._events[event])
                for event, text in _EVENTS.items()
            ]
            histograms = (self._queue, self._service, self._node, self._batch)
            times = [histogram.family() for histogram in histograms]
        return [requests, exits, waiting, *events, *times]


def serve_metrics(metrics: NodeMetrics, port: int, host: str = "0.0.0.0") -> Callable[[], None]:
    """Let Prometheus scrape ``metrics``; return what ends that.

    Raises:
        LiveError: the port is in use, or may not be used.
    """
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        why = "it is in use" if in_use else error.strerror or str(error)
        raise LiveError(f"cannot serve metrics on port {port}: {why} (--metrics-port)") from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
