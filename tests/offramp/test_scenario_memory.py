"""A run whose memory would not fit is refused before it starts, with what to change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offramp import ScenarioError, load_scenario
from offramp.checks import memory

GB = 1e9
CAMERAS = "devices.cameras"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Says how many bytes this machine has."""

    def has(amount: float) -> None:
        monkeypatch.setattr(memory, "machine_bytes", lambda: int(amount))

    return has


def requests(path: Path) -> float:
    return memory.expected_requests(load_scenario(str(path)).scenario, path.parent)


def test_this_machine_has_some_memory() -> None:
    assert 0.25 * GB < memory.machine_bytes() < 1e15


@pytest.mark.parametrize(
    ("arrivals", "each"),
    [
        ({"process": "poisson", "rate_hz": 12}, 12 * 3.5),
        ({"process": "on_off", "on_rate_hz": 9, "mean_on_s": 1, "mean_off_s": 2}, 3 * 3.5),
        ({"process": "diurnal", "curve": [[0, 2], [60, 4]]}, 3 * 3.5),
        # 1 s of thinking, 6 ms on the way and 4 ms of service: so often and no more often.
        ({"process": "closed_loop", "think_ms": 1000}, 3.5 / 1.01),
        ({"process": "closed_loop", "think_ms": 0}, 3.5 / 0.01),
    ],
)
def test_requests_are_counted_before_the_run(
    arrivals: dict[str, Any], each: float, scenario: Callable[..., Path]
) -> None:
    path = scenario({f"{CAMERAS}.arrivals": arrivals, "nodes.edge": {"service_ms": 4}})
    assert requests(path) == pytest.approx(5 * each)


def test_of_a_trace_those_within_the_run_are_counted(
    scenario: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "trace.csv").write_text("time_s,device\n0,0\n3.4,1\n3.5,2\n9,0\n")
    path = scenario({f"{CAMERAS}.arrivals": {"process": "trace", "file": "trace.csv"}})
    assert requests(path) == 2


def test_what_does_not_fit_is_refused_with_figures_and_what_to_change(
    scenario: Callable[..., Path], machine: Callable[[float], None], place_of: Callable[..., str]
) -> None:
    machine(8 * GB)
    path = scenario({"simulation.duration_s": 1e6})
    with pytest.raises(ScenarioError) as raised:
        load_scenario(str(path))
    message = str(raised.value)
    key = "simulation.duration_s"
    assert message.startswith(f"{place_of(path, key)}: {key}: ")
    for fragment in (
        "6e+07 requests in one replication",
        "5 devices",
        "GB of memory",
        "this machine has 8 GB",
        "simulation.records to summary",
        "shorten the window",
        "lower counts or rates",
    ):
        assert fragment in message


def test_a_summary_takes_no_memory_for_its_requests(
    scenario: Callable[..., Path], machine: Callable[[float], None]
) -> None:
    machine(2 * GB)
    changes = {"simulation.duration_s": 1e7, "simulation.records": "summary"}
    path = scenario(changes)
    assert requests(path) > 5e8
    longer = scenario({**changes, "simulation.duration_s": 1e9}, name="longer.yaml")
    needed = [
        memory.process_bytes(load_scenario(str(one)).scenario, one.parent) for one in (path, longer)
    ]
    assert needed[0] == needed[1] < GB


def test_devices_take_memory_even_where_only_the_summary_is_kept(
    scenario: Callable[..., Path], machine: Callable[[float], None]
) -> None:
    machine(1 * GB)
    changes = {
        "simulation.records": "summary",
        f"{CAMERAS}.count": 100_000_000,
        f"{CAMERAS}.arrivals.rate_hz": 1e-9,
    }
    with pytest.raises(ScenarioError) as raised:
        load_scenario(str(scenario(changes)))
    assert "100,000,000 devices" in str(raised.value)
    assert "summary" not in str(raised.value), "it is set already"


def test_where_messages_are_followed_one_by_one_a_summary_would_not_help(
    scenario: Callable[..., Path], machine: Callable[[float], None]
) -> None:
    machine(1 * GB)
    changes = {
        "simulation.duration_s": 1e5,
        "mqtt": {"inflight": 20},
    }
    with pytest.raises(ScenarioError) as raised:
        load_scenario(str(scenario(changes)))
    assert "summary" not in str(raised.value)


@pytest.mark.parametrize(("times", "workers"), [(3.1, 3), (1.1, 1), (0.5, 1)])
def test_as_many_worker_processes_as_fit(
    times: float,
    workers: int,
    scenario: Callable[..., Path],
    machine: Callable[[float], None],
) -> None:
    path = scenario({"simulation.duration_s": 5000})
    loaded = load_scenario(str(path)).scenario
    needed = memory.process_bytes(loaded, path.parent)
    machine(times * needed / memory.USABLE_SHARE)
    assert memory.most_workers(loaded, path.parent) == workers


def test_a_limit_of_the_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = memory.machine_bytes()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "1000000000\n")
    assert memory.machine_bytes() == 1_000_000_000
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "max\n")
    assert memory.machine_bytes() >= installed
