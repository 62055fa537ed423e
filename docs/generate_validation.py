"""Writes ``docs/validation.md``: what the tests compare the simulator with, and their figures.

python docs/generate_validation.py

It runs the tests that compare the simulator with theory, and writes down what they
compared. Seeds are fixed, so the same code writes the same page.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sim.results.metrics import confidence_interval

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests" / "sim"

#: Tests that compare means with closed forms, with the heading of their part of the page.
FORMS = {
    "test_queueing_theory.py": "Queues, and queues in series",
    "test_loss_systems.py": "Nodes with room for so many requests",
    "test_closed_networks.py": "Devices that wait for their answers",
}
#: Tests that compare request by request, or world with world.
EXACT = ["test_gg1_lindley.py", "test_random_worlds.py", "test_metamorphic.py"]

HEAD = """\
# Is the simulator right?

Made by `python docs/generate_validation.py`, which runs the tests named here and copies their
figures. Every test is part of `make test`.

## Against closed forms

Mean service time is 1 s throughout, so times are in services. *Simulated* is the mean over
independent replications with its 99.9 % interval (Student's t); a test fails if that interval does
not hold the figure of the theory, or is too wide to confirm it. Of {rows} such intervals, about
{expected:.1f} would miss by chance with other seeds.
"""

REQUEST_BY_REQUEST = """\
## Request by request

`tests/sim/test_gg1_lindley.py` follows every single request with recursions of a few lines that
know nothing of events: from the times of creation and the service times of a run, they say when
each request starts, ends or is refused. The times must be **equal to the last bit** at nodes, and
equal up to rounding on links and in the broker, which add in another order. Loads are Poisson,
periodic with and without jitter, on/off and diurnal; service times constant, exponential,
lognormal, gamma and uniform.

- G/G/1 against Lindley (1952), G/G/c against Kiefer & Wolfowitz (1955), G/G/c/K, and one worker
  that takes the earliest deadline or the highest priority, or batches that fill or wait;
- links of one device or an access point of several, up and down, and the broker in between.

## Laws of every world

`tests/sim/test_random_worlds.py` draws worlds of every feature (arrivals, closed loops, links with
loss and outages, MQTT at each QoS, tiers, devices that compute, batches, disciplines, admission,
faults, all policies). In each, every request has one outcome that its times explain; outcomes add
up to what was offered; no node serves more than it has workers for; Little's law holds between
telemetry and visits to the last digit; nothing is lost without a fault.

`tests/sim/test_metamorphic.py` changes such worlds in a known way:

- all times multiplied by a power of two: every result is multiplied by it, exactly;
- devices added on a link and a node of their own: no other record changes;
- slices of time cut elsewhere, or messages followed one by one: the same results, up to rounding;
- a longer deadline, a worker more, a faster node, more bandwidth, fewer devices: nothing gets
  worse, request by request, where theory says so.
"""

LIMITS = """\
## What this does not show

Closed forms hold for laws of arrival and service that are simpler than a measured profile's. That
links, brokers and nodes of the field behave as the models here say is another question: the tests
of packet sizes, retransmission and congestion windows (`tests/sim/test_mqtt_packets.py` and others)
and the presets name the standards and measurements they rest on.
"""


class Listener:
    """Collects what the tests compare, and how many passed, by file."""

    def __init__(self) -> None:
        self.rows: dict[str, list[str]] = {}
        self.passed: dict[str, int] = {}
        self._file = ""

    def pytest_collection_finish(self) -> None:
        """The tests are imported; listen to what they confirm."""
        sys.modules["confirming"].LISTENERS.append(self)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Hear from the test that runs now."""
        self._file = item.path.name

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count the tests that pass."""
        if report.when == "call" and report.passed:
            self.passed[self._file] = self.passed.get(self._file, 0) + 1

    def __call__(self, what: str, expected: float, replications: Sequence[float]) -> None:
        """Told of a comparison by ``tests/sim/confirming.py``."""
        interval = confidence_interval(replications, level=0.999)
        off = 100 * (interval.mean / expected - 1)
        self.rows.setdefault(self._file, []).append(
            f"| {what} | {expected:.4g} | {interval.mean:.4g} ± {interval.half_width:.2g} "
            f"| {off:+.1f} % | {interval.n} |"
        )


def page(listener: Listener) -> str:
    """The page, of what was heard."""
    rows = sum(map(len, listener.rows.values()))
    parts = [HEAD.format(rows=rows, expected=rows / 1000)]
    for file, heading in FORMS.items():
        table = [
            f"### {heading}",
            "",
            f"`tests/sim/{file}`",
            "",
            "| what | theory | simulated | off by | replications |",
            "| --- | --- | --- | --- | --- |",
            *listener.rows[file],
            "",
        ]
        parts.append("\n".join(table))
    counts = ", ".join(f"{listener.passed[file]} of `{file}`" for file in EXACT)
    parts += [REQUEST_BY_REQUEST, f"Passed when this page was made: {counts}.\n", LIMITS]
    return "\n".join(parts)


def main() -> int:
    """Run the tests, and write the page if all of them pass."""
    listener = Listener()
    files = [str(TESTS / file) for file in [*FORMS, *EXACT]]
    status = pytest.main(
        ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files], plugins=[listener]
    )
    if status == 0:
        (ROOT / "docs" / "validation.md").write_text(page(listener), encoding="utf-8")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
