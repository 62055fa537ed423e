"""Sweeps on a Dask cluster whose workers share nothing with the driver, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from offramp.console import Console
from offramp.store import Store, content_key
from offramp.sweep import clusters, crew
from offramp.sweep.backend import BackendError, Call, Done
from offramp.sweep.dask import DaskBackend, open_dask
from offramp.sweep.definition import load_sweep
from offramp.sweep.run import run_sweep
from tests.offramp import sweep_workers as there
from tests.offramp.sweep_backends import Inline
from tests.offramp.sweep_machines import Machines
from tests.offramp.sweep_workers import Somewhere


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    started = Machines(tmp_path_factory.mktemp("machines"))
    try:
        started.worker("first")
        started.worker("second")
        yield started
    finally:
        started.stop()


class Lines(Console):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def note(self, line: str) -> None:
        self.said.append(line)


@pytest.fixture
def console() -> Lines:
    return Lines()


@pytest.fixture
def driver_store(tmp_path: Path) -> Store:
    return Store(tmp_path / "driver-store")


@pytest.fixture
def context(driver_store: Store, tmp_path: Path) -> Somewhere:
    return Somewhere(tmp_path, driver_store.root, {})


@pytest.fixture
def shares_store() -> bool:
    """Whether workers see the driver's store."""
    return False


@pytest.fixture
def cluster(
    machines: Machines,
    driver_store: Store,
    console: Lines,
    shares_store: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[DaskBackend]:
    if not shares_store:
        monkeypatch.setattr(crew, "join", there.join_from_elsewhere)
    backend = open_dask(machines.address, None, driver_store, console)
    assert isinstance(backend, DaskBackend)
    while backend.workers < 2:
        list(backend.run(there.square, [Call((Somewhere(Path(), Path(), {}), 1))]))
    yield backend
    backend.close()


def values(done: list[Done]) -> dict[int, Any]:
    return {it.number: it.value for it in done}


# --- work ----------------------------------------------------------------------------------------


def test_every_call_is_done_and_few_are_under_way(cluster: DaskBackend, context: Somewhere) -> None:
    drawn = most = 0
    processes = set()

    def calls() -> Iterator[Call]:
        nonlocal drawn
        for number in range(60):
            drawn += 1
            yield Call((context, number))

    squares = {}
    for ended, done in enumerate(cluster.run(there.square, calls())):
        most = max(most, drawn - ended)
        squares[done.number], process = done.value
        processes.add(process)
    assert squares == {number: number * number for number in range(60)}
    assert most <= 2 * 2 + 1
    assert len(processes) == 2


@pytest.mark.parametrize("shares_store", [False, True])
def test_files_and_artefacts_travel_both_ways(
    cluster: DaskBackend, context: Somewhere, driver_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("a")
    (tmp_path / "code.py").write_text("def build(): return 'built'")
    names, code = ["a.csv", str(tmp_path / "a.csv")], ["code.py:build"]
    (read,) = cluster.run(there.read_files, [Call((context, names, code))])
    assert read.value == {**dict.fromkeys(names, "a"), "code.py:build": "built"}

    contents = [os.urandom(100), os.urandom(9 * 2**20)]
    keys = [("made", content_key({"number": number})) for number in range(2)]
    makes = [
        Call((context, {"number": number}, contents[number]), makes=(keys[number],))
        for number in range(2)
    ]
    stores = values(list(cluster.run(there.make_artefact, makes)))
    assert set(stores.values()) == {str(driver_store.root)}  # as messages are to name it
    found = [driver_store.at(*key) for key in keys]
    assert [(it / "content").read_bytes() for it in found if it] == contents

    # Whoever made it, and however often it is asked for.
    reads = [Call((context, *keys[it % 2]), needs=(keys[it % 2],)) for it in range(8)]
    arrived = values(list(cluster.run(there.read_artefact, reads)))
    assert arrived == {it: contents[it % 2] for it in range(8)}


def test_errors_name_files_as_the_driver_knows_them(
    cluster: DaskBackend, context: Somewhere, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("a")
    names = ["a.csv", str(tmp_path / "a.csv"), f"../{tmp_path.name}/a.csv"]
    (done,) = cluster.run(there.places, [Call((context, names))])
    assert [it.error for it in done.value] == [f"{tmp_path / name}: bad" for name in names]


OWN_POLICY = """
from sim.policy import ANSWER, run_to

class Own:
    def __init__(self, fails: bool):
        self.fails = fails

    def decide(self, request, node):
        if self.fails:
            raise RuntimeError(f"{__file__} fails")
        return ANSWER if request.exit else run_to(node.exit_count)
"""


@pytest.mark.parametrize("shares_store", [False, True])
def test_a_sweep_has_the_same_bytes_as_one_in_this_process(
    cluster: DaskBackend,
    driver_store: Store,
    scenario: Callable[..., Path],
    tmp_path: Path,
    console: Lines,
) -> None:
    """Networks trained by workers, a measured link, a user's policy, a point that fails."""
    path = scenario(
        {
            "training.seeds": 1,
            "training.steps": 2,
            "simulation.duration_s": 1,
            "simulation.warm_up_s": 0.2,
            "policies": [{"policy": "own.py:Own", "fails": False}],
        }
    )
    (path.parent / "delays.txt").write_text("1\n2\n30\n")
    (path.parent / "own.py").write_text(OWN_POLICY)
    overrides = (
        "devices.cameras.count=1,3",
        "links.wifi.uplink={latency_ms: 2},{latency_file: delays.txt}",
        "policies.0.fails=false,true",
    )
    sweep = load_sweep(str(path), overrides)
    here = Inline()
    tables = {}
    for name, backend in (("dask", cluster), ("here", here)):
        results = tmp_path / name
        swept = run_sweep(sweep, driver_store, results, console, lambda it=backend: it)
        assert (swept.counts.done, swept.counts.failed) == (4, 4)
        files = ("sweep.parquet", "summary.csv", "failures.csv")
        tables[name] = [(results / file).read_bytes() for file in files]
    assert tables["dask"] == tables["here"]
    assert str(path.parent / "own.py").encode() in tables["here"][2]
    assert set(here.called) == {"simulate_points"}  # nothing was trained again


# --- what goes wrong with workers ----------------------------------------------------------------


def test_a_call_on_which_workers_die_fails_alone(cluster: DaskBackend, context: Somewhere) -> None:
    done = list(cluster.run(there.die_of, (Call((context, number, 3)) for number in range(12))))
    assert [it.number for it in done if it.error] == [3]
    assert "memory ran out, or it was killed" in str([it.error for it in done if it.error])
    assert values(done) == {number: None if number == 3 else number for number in range(12)}


def test_calls_whose_workers_are_killed_are_done_by_others(
    cluster: DaskBackend, context: Somewhere, machines: Machines
) -> None:
    calls = (Call((context, number)) for number in range(150))
    done = []
    for result in cluster.run(there.square, calls):
        done.append(result)
        if len(done) in (20, 60):
            os.kill(machines.pids()[len(done) // 60], signal.SIGKILL)
    assert {it.number: it.value[0] for it in done} == {it: it * it for it in range(150)}


def test_a_worker_whose_disk_is_full_is_set_aside_and_named(
    cluster: DaskBackend, context: Somewhere, driver_store: Store, console: Lines
) -> None:
    makes = ("made", content_key({"full": "first"}))
    calls = (Call((context, "first"), makes=(makes,)) for _ in range(6))
    done = list(cluster.run(there.make_where_there_is_room, calls))
    assert [it.value.error for it in done] == [None] * 6
    assert driver_store.at(*makes)
    (told,) = {line for line in console.said if "not used any more" in line}
    assert "worker first on 127.0.0.1 " in told
    assert "No space left" in told


def test_what_a_function_raises_is_raised_here(cluster: DaskBackend, context: Somewhere) -> None:
    with pytest.raises(ZeroDivisionError):
        list(cluster.run(there.divide_by_zero, [Call((context,))]))
    (done,) = cluster.run(there.run_out_of_memory, [Call((context,))])
    assert done.error == "the worker ran out of memory"


def test_the_cluster_is_clean_after_a_run_that_was_left(
    cluster: DaskBackend, context: Somewhere, machines: Machines
) -> None:
    for _ in cluster.run(there.square, (Call((context, number)) for number in range(1000))):
        break
    cluster.close()
    from distributed import Client

    with Client(machines.address, set_as_default=False) as client:
        deadline = time.monotonic() + 20
        while client.run_on_scheduler(there.tasks):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert client.scheduler_info(n_workers=-1)["workers"]


def test_a_worker_that_joins_with_other_versions_gets_no_work(
    cluster: DaskBackend, context: Somewhere, machines: Machines, console: Lines, tmp_path: Path
) -> None:
    other = tmp_path / "simpy-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: simpy\nVersion: 0.0.1\n")
    machines.worker("other", path=str(tmp_path))

    def calls() -> Iterator[Call]:
        deadline = time.monotonic() + 60
        while not any("other versions" in line for line in console.said):
            assert time.monotonic() < deadline, machines.log("other")
            yield Call((context, 1))

    before = {it.value[1] for it in cluster.run(there.square, (Call((context, 1)),) * 20)}
    after = {it.value[1] for it in cluster.run(there.square, calls())}
    assert after <= before
    assert any(
        "worker other on 127.0.0.1 has other versions: simpy 0.0.1 (" in line
        for line in console.said
    )
    with pytest.raises(BackendError, match=r"simpy 0\.0\.1"):
        open_dask(machines.address, None, Store(tmp_path / "store"), console)
    machines.processes[-1].terminate()
    machines.processes[-1].wait(20)


# --- what goes wrong with schedulers -------------------------------------------------------------


def test_a_scheduler_that_is_killed_ends_the_sweep_at_once(
    tmp_path: Path, driver_store: Store, context: Somewhere, console: Lines
) -> None:
    machines = Machines(tmp_path / "machines")
    try:
        machines.worker("only")
        backend = open_dask(machines.address, None, driver_store, console)
        calls = (Call((context, number)) for number in range(100_000))
        results = backend.run(there.square, calls)
        for _ in range(5):
            next(results)
        machines.scheduler.kill()
        with pytest.raises(BackendError, match="connection to the scheduler is lost"):
            list(results)
        backend.close()
    finally:
        machines.stop()


def test_a_cluster_without_workers_is_waited_for_and_then_given_up(
    tmp_path: Path, driver_store: Store, console: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "PATIENCE_S", 4.0)
    machines = Machines(tmp_path / "machines")
    try:
        with pytest.raises(BackendError, match="no worker could be used for 4 s"):
            open_dask(machines.address, None, driver_store, console)
    finally:
        machines.stop()
    assert console.said == [f"waiting for workers of {machines.address}, for up to 4 s"]


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("tcp://127.0.0.1:{port}", "cannot reach a scheduler at 127.0.0.1:{port}: .* refused"),
        ("127.0.0.1:{port}", "cannot reach a scheduler"),
        ("lcal", "not an address; did you mean 'local'"),
        ("http://127.0.0.1:1", "not an address"),
        ("slurm", "say with --jobs how many workers"),
        ("none.json", "--dask none.json: No such file"),
        ("{folder}/empty.json", "not a scheduler file"),
        ("{folder}/gone.json", "cannot reach a scheduler at 127.0.0.1:{port}"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_told(
    where: str, message: str, driver_store: Store, console: Lines, tmp_path: Path
) -> None:
    port = unused_port()
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "gone.json").write_text(json.dumps({"address": f"tcp://127.0.0.1:{port}"}))
    with pytest.raises(BackendError, match=message.format(port=port)):
        open_dask(where.format(port=port, folder=tmp_path), None, driver_store, console)


def test_tls_without_certificates_says_which_settings_name_them(
    machines: Machines, driver_store: Store, console: Lines
) -> None:
    began = time.monotonic()
    with pytest.raises(BackendError, match=r"tls.*distributed\.comm\.tls\.ca-file"):
        open_dask(machines.address.replace("tcp", "tls"), None, driver_store, console)
    assert time.monotonic() - began < clusters.CONNECT_WITHIN_S


def test_slurm_without_a_description_of_its_jobs_says_where_to_write_it(
    driver_store: Store, console: Lines
) -> None:
    with pytest.raises(BackendError, match=r"jobqueue\.yaml: give cores and memory"):
        open_dask("slurm", 2, driver_store, console)


def test_without_dask_the_extra_is_named(
    driver_store: Store, console: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BackendError, match=r"pip install 'offramp\[dask\]'"):
        open_dask("local", 1, driver_store, console)


# --- workers of one's own ------------------------------------------------------------------------


def test_workers_of_ones_own_work_here_and_end(
    driver_store: Store, context: Somewhere, console: Lines, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("a")
    backend = open_dask("local", 2, driver_store, console)
    try:
        assert backend.workers == 2
        key = ("made", content_key({"number": 1}))
        list(backend.run(there.make_artefact, [Call((context, {"number": 1}, b"x"), (), (key,))]))
        assert driver_store.at(*key)
        (done,) = backend.run(there.places, [Call((context, ["a.csv"]))])
        assert done.value[0].error == f"{tmp_path}/a.csv: bad"
        calls = [Call((context, it, str(tmp_path))) for it in range(3)]
        assert values(list(backend.run(there.die_once, calls))) == {0: 0, 1: 1, 2: 2}
    finally:
        backend.close()
    children = psutil.Process().children()
    assert not [it for it in children if "spawn_main" in " ".join(it.cmdline())]
    assert not (driver_store.root / "mirrors").exists()
