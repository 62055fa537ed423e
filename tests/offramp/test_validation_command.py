"""``offramp validate``, whole: one short live run, and the same simulated."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from offramp.live.own_broker import OwnBroker
from offramp.live.session import LiveOptions
from offramp.store import file_hash
from offramp.validation import measuring
from offramp.validation.calibrating import read_measured
from offramp.validation.calibration import (
    Calibration,
    NodeSamples,
    read_calibration,
    write_calibration,
)
from offramp.validation.comparison import compare

ONE_ARM = ("--strategy", "standard", "--policy", "fixed_exit(exit=2)", "--replications", 1)
SHORT = ("--set", "simulation.duration_s=1.5", "--set", "simulation.warm_up_s=0.25")

#: The beginning of what is said of a host that is not quiet.
NOT_QUIET = "This host was not quiet when it was calibrated"

#: Nobody is too slow for this deadline, however busy this host is; that is not what is tested.
PATIENT = ("--set", "devices.cameras.deadline_ms=20000")


@pytest.fixture
def short_calibrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_SHORTEST_S", 1.0)
    monkeypatch.setattr(measuring, "IDLE_REQUESTS", 50)
    monkeypatch.setattr(measuring, "HALF_BUSY_REQUESTS", 100)
    monkeypatch.setattr(measuring, "BUSY_REQUESTS", 100)


def test_a_scenario_is_validated_with_the_same_requests_in_both_worlds(
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
    short_calibrations: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = tmp_path / "results"
    # Whether this host is quiet is not what is tested, but that a user hears of one that is not.
    monkeypatch.setattr(measuring, "time_work", lambda on: np.array([0.004] * 20 + [0.010] * 20))
    command = ("validate", scenario(), "--store", store, "-o", results, "--quiet")
    ran = offramp(*command, *ONE_ARM, *SHORT, *PATIENT)
    assert ran.status == 0, ran.err
    assert NOT_QUIET in ran.out
    assert f"report: {results / 'validation.md'}" in ran.out
    assert "one replication: no intervals" in ran.out

    sides = [pq.read_table(results / it / "records.parquet").to_pandas()
             for it in ("live", "simulated")]  # fmt: skip
    live, simulated = (side.sort_values(["created_s", "device"]) for side in sides)
    for name in ("device", "created_s", "deadline_s", "sample", "label"):
        assert live[name].tolist() == simulated[name].tolist(), name
    # The same image, network and exit give the same answer, whoever computes it.
    assert live["predicted"].tolist() == simulated["predicted"].tolist()
    assert (live["outcome"] == "on_time").all()

    table = pd.read_csv(results / "validation.csv").set_index("metric")
    assert table.loc["aud", "error"] == 0.0
    assert table.loc["aud", "met"] == "yes"
    latency_s = (simulated["received_s"] - simulated["created_s"]).to_numpy()
    assert len(table) == 10
    again = compare(results / "live", results / "simulated")
    assert again.same_requests == len(live)
    first = again.table.set_index("metric").loc["latency_p95_s", "simulated"]
    assert first == pytest.approx(np.percentile(latency_s, 95))

    calibration = read_calibration(results / "calibration")
    assert calibration.about["same_clock"]
    assert calibration.broker_s > 0
    rates = calibration.about["rate_hz"]
    assert rates["idle"]["edge"] < rates["busy"]["edge"]
    parts = pd.read_csv(results / "time_parts.csv")
    for world, side in (("live", live), ("simulated", simulated)):
        seconds = parts[parts["world"] == world]["seconds"]
        assert (seconds >= 0).all()
        latency_s = side["received_s"] - side["created_s"]
        assert seconds.sum() == pytest.approx(latency_s.mean())
    manifest = json.loads((results / "simulated" / "manifest.json").read_text())
    assert manifest["scenario"]["nodes"]["edge"]["overhead"] is not None
    # The one replication is simulated with what was measured before and after it.
    (inputs,) = manifest["inputs_of_replications"]
    files = sorted((results / "calibration" / "replication-0").glob("*_ms.txt"))
    assert {file_hash(file) for file in files} <= set(inputs.values())
    assert calibration.about["calibrations"] == len(read_measured(results / "calibration")) == 2
    # Slow moments are drawn again where the calibration found some.
    found = read_calibration(results / "calibration" / "replication-0").nodes["edge"]
    assert (results / "draws.csv").exists() == bool(found.autocorrelation)
    if found.autocorrelation:
        draws = pd.read_csv(results / "draws.csv")
        assert draws["draw"].tolist() == list(range(8))
        assert table.loc["latency_p50_s", "simulated"] == pytest.approx(draws.latency_p50_s.mean())
    assert not list(results.glob(".draw-*"))
    for figure in ("latency_ecdf", "time_parts"):
        for suffix in (".pdf", ".png", ".csv"):
            assert (results / "figures" / f"{figure}{suffix}").stat().st_size > 0
    page = (results / "validation.md").read_text()
    assert f"The same {len(live)} requests in both worlds" in page
    assert "Devices and nodes ran on one machine" in page
    assert "a single replication" in page
    assert "the same work, again and again" in page
    found_cooling = "after a long pause an inference took longer by" in page
    assert found_cooling != ("longer after a pause was not found" in page)
    assert found_cooling == (found.cooling is not None)
    assert NOT_QUIET in page


ONE_WAY_S = 0.06


@contextmanager
def slow_way(to_port: int) -> Iterator[int]:
    """A port by which another one is reached, both ways after a delay."""
    loop = asyncio.new_event_loop()
    writers = list[asyncio.StreamWriter]()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(2**16):
            loop.call_later(ONE_WAY_S, writer.write, some)
        loop.call_later(ONE_WAY_S, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", to_port)
        writers.extend([writer, to_writer])
        await asyncio.gather(carry(reader, to_writer), carry(to_reader, writer))

    async def start() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0)

    async def stop() -> None:
        server.close()
        for writer in writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close in the next round

    thread = threading.Thread(target=loop.run_forever, name="slow-way")
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_the_network_of_a_scenario_is_calibrated_away_by_a_direct_way_to_the_broker(
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
    short_calibrations: None,
) -> None:
    results, ms = tmp_path / "results", 1e3 * ONE_WAY_S
    way = f"{{uplink: {{latency_ms: {ms}}}, downlink: {{latency_ms: {ms}}}}}"
    broker = OwnBroker(0)
    try:
        with slow_way(broker.broker.port) as port:
            ran = offramp(
                *("validate", scenario(), "--store", store, "-o", results, "--quiet"),
                *(*ONE_ARM, *SHORT, *PATIENT, "--links", "scenario"),
                *("--set", f"links={{far: {way}}}", "--set", "devices.cameras.link=far"),
                *("--set", 'mqtt={version: "3.1.1"}'),
                *("--broker", f"mqtt://127.0.0.1:{port}"),
                *("--direct-broker", f"mqtt://127.0.0.1:{broker.broker.port}"),
            )
    finally:
        broker.stop()
    assert ran.status == 0, ran.err
    calibration = read_calibration(results / "calibration")
    assert np.median(calibration.up_s) + np.median(calibration.home_s) < ONE_WAY_S, (
        "without the network"
    )
    for world in ("live", "simulated"):
        records = pq.read_table(results / world / "records.parquet").to_pandas()
        latency_s = records["received_s"] - records["created_s"]
        assert (latency_s > 2 * ONE_WAY_S).all(), world
        assert latency_s.median() < 4 * ONE_WAY_S, "devices alone are behind it"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--links", "scenario"), "--direct-broker URL), or a calibration that was made without"),
        (("--direct-broker", "mqtt://127.0.0.1"), "another way to the broker of --broker"),
        (("--calibration", "nowhere"), "no calibration in nowhere"),
        (("--policy", "full"), "full"),
        (("--password-file", "file"), "neither TLS nor passwords"),
        (("--set", "nodes.edge.next_tier={node: edge}"), "next_tier"),
    ],
)
def test_what_cannot_be_validated_is_refused_before_anything_runs(
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    arguments: tuple[str, ...],
    says: str,
) -> None:
    ran = offramp("validate", scenario(), *arguments)
    assert ran.status == 2
    assert says in ran.err
    assert not Path("results").exists()


def test_a_calibration_goes_with_the_profile_of_its_time(
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
) -> None:
    some = np.array([0.001, 0.002])
    nodes = {"edge": NodeSamples(some, some, some, some)}
    about = {"profile": "of another day", "processors": LiveOptions().use_of_processors}
    calibration = Calibration(some, some, some, some, some, 0.0001, nodes, 1, about)
    write_calibration(tmp_path / "calibration", calibration)
    command = ("validate", scenario(), "--store", store, "-o", tmp_path / "results", "--quiet")
    ran = offramp(*command, "--calibration", tmp_path / "calibration", *ONE_ARM)
    assert ran.status == 2
    assert "made with another profile of this host" in ran.err
    assert not (tmp_path / "results" / "live").exists()
    ran = offramp(*command, "--calibration", tmp_path / "calibration", *ONE_ARM, "--no-pin")
    assert ran.status == 2
    assert "nodes have processors of their own; now, nodes share processors (--pin" in ran.err
