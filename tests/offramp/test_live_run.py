"""``offramp live run``, whole: real processes, real brokers, real time."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from devices.mqtt.broker_address import parse_broker
from devices.mqtt.connections import connect, disconnect, new_client
from devices.protocol.messages import InferenceRequest, decode_reply, encode_request
from devices.protocol.topics import reply_topic, request_topic
from models.errors import LiveError
from offramp import load_scenario
from offramp.live.nodes import nodes_online
from offramp.live.processors import shares
from offramp.live.session import LiveOptions, LiveSession
from offramp.stages.live_parts import LIVE_PARTS
from tests.devices.brokers import Mosquitto, free_port, open_config, program
from tests.devices.fake_runtime import in_time

PI_CAMERA = Path(__file__).parents[2] / "devices" / "clients" / "pi_camera.py"

#: Generous: a node imports torch, and this machine may be busy.
SOON_S = 120.0

#: One arm of the tiny scenario, whose network is trained.
ONE_ARM = ("--strategy", "standard", "--policy", "fixed_exit(exit=2)")

SHORT = ("--set", "simulation.duration_s=1.5", "--set", "simulation.warm_up_s=0.25")


@pytest.fixture
def live(
    store: Path, scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> Callable[..., Any]:
    """Runs ``offramp live run`` on the tiny scenario, changed."""

    def run(*arguments: object, changes: dict[str, Any] | None = None) -> Any:
        return offramp("live", "run", scenario(changes), "--store", store, *arguments)

    return run


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    program("mosquitto")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Mosquitto(folder, open_config())
    yield broker
    broker.kill()


def read(results: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    records = pq.read_table(results / "records.parquet").to_pandas()
    manifest: dict[str, Any] = json.loads((results / "manifest.json").read_text())
    return records, manifest


def wait_until(happened: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SOON_S
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.05)


# --- a whole run --------------------------------------------------------------------------------


def test_a_live_run_leaves_what_a_simulation_leaves(
    live: Callable[..., Any], trained: Any, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    ran = live("-o", results, "--policy", "fixed_exit(exit=2)")
    assert ran.status == 0, ran.err
    records, manifest = read(results)
    assert set(records["strategy"]) == {"standard", "curriculum"}
    assert set(records["training_seed"]) == {0}
    # The same requests as in a simulation, which drew them from the same streams.
    simulated = pq.read_table(trained.results / "records.parquet").to_pandas()
    simulated = simulated[simulated["training_seed"] == 0]
    simulated = simulated[simulated["replication"] == 0]
    for strategy in ("standard", "curriculum"):
        ours = records[records["strategy"] == strategy]
        theirs = simulated[
            (simulated["strategy"] == strategy) & (simulated["policy"] == "fixed_exit(exit=2)")
        ]
        for column in ("request", "device", "sample", "label", "created_s", "deadline_s"):
            np.testing.assert_array_equal(ours[column], theirs[column])
    answered = records[records["outcome"].isin(["on_time", "late"])]
    assert len(answered) > 0.9 * len(records)
    assert set(answered["exit"]) == {2}
    for before, after in (
        ("created_s", "arrived_s"),
        ("arrived_s", "started_s"),
        ("started_s", "finished_s"),
        ("finished_s", "received_s"),
    ):
        assert (answered[before] <= answered[after] + 1e-3).all(), (before, after)
    assert (answered["correct"] == (answered["predicted"] == answered["label"])).all()
    latency_s = answered["received_s"] - answered["created_s"]
    in_time = latency_s <= answered["deadline_s"]
    assert (in_time == (answered["outcome"] == "on_time")).all()
    assert manifest["world"] == "live"
    assert manifest["live"]["broker"] == "embedded"
    assert manifest["live"]["host"]["cores"] == os.cpu_count()
    assert manifest["live"]["lag_ms"]["p99"] >= 0
    apart = shares({"edge": 1})
    found = json.loads(json.dumps(asdict(apart))) if apart else None
    assert manifest["live"]["processors"] == found
    told = "\n".join(manifest["live"]["warnings"])
    assert "links are not emulated (wifi)" in told
    assert "speed 0.1 is not emulated" in told
    for name in ("runs.csv", "nodes.csv", "groups.csv", "devices.csv", "deadline_sweep.csv"):
        assert len(pd.read_csv(results / name)), name
    assert not (results / "links.csv").exists()
    assert not (results / LIVE_PARTS).exists()
    page = (results / "report.md").read_text()
    assert "**Live**, not simulated" in page
    assert "too few replications: 1 gives no interval (--replications)" in ran.out
    assert (results / "figures" / "latency_ecdf.png").exists()
    assert re.search(r"to measure: 2 arm\(s\), 7 s in real time", ran.out)


def test_replicas_on_mosquitto_share_the_requests(
    live: Callable[..., Any], mosquitto: Mosquitto, tmp_path: Path
) -> None:
    ran = live(
        *("-o", tmp_path, *ONE_ARM, *SHORT, "--broker", mosquitto.url, "--no-pin"),
        changes={"nodes.edge": {"workers": 1, "replicas": 2}, "mqtt": {"qos": 2}},
    )
    assert ran.status == 0, ran.err
    records, manifest = read(tmp_path)
    assert set(records["node"]) == {"edge-0", "edge-1"}
    first = records["request"][0]
    assert records["request"].tolist() == list(range(first, first + len(records)))
    assert (records["outcome"] == "on_time").mean() > 0.5
    assert manifest["live"]["broker"] == mosquitto.url
    assert manifest["live"]["processors"] is None


def test_quiet_prints_results_only(live: Callable[..., Any], tmp_path: Path) -> None:
    ran = live("-o", tmp_path, *ONE_ARM, *SHORT, "-q")
    assert ran.status == 0, ran.err
    assert "live  " not in ran.out
    assert "warning" not in ran.out
    assert "report: " in ran.out


# --- devices that join --------------------------------------------------------------------------


class Somebody:
    """A device that nobody here started: ten requests a second, with a label of its own."""

    def __init__(self, url: str, name: str) -> None:
        self.replies = 0
        self._name = name
        self._broker = parse_broker(url)
        self._client = new_client(self._broker, name)
        self._client.on_message = self._heard
        self._client.on_connect = lambda client, *_: client.subscribe(reply_topic("edge", name))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _heard(self, client: object, userdata: object, message: Any) -> None:
        self.replies += decode_reply(message.payload).status == "ok"

    def _ask(self) -> None:
        id = 0
        while not self._over.wait(0.1):
            id += 1
            request = InferenceRequest(id, 0.5, image=bytes(64), label=id % 10)
            self._client.publish(request_topic("edge", self._name), encode_request(request), 1)

    def __enter__(self) -> "Somebody":
        connect(self._client, self._broker)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        disconnect(self._client)


def test_devices_that_join_are_waited_for_and_recorded(
    live: Callable[..., Any], mosquitto: Mosquitto, tmp_path: Path
) -> None:
    with Somebody(mosquitto.url, "esp32"), Somebody(mosquitto.url, "pi"):
        ran = live("-o", tmp_path, *ONE_ARM, *SHORT, "--broker", mosquitto.url, "--join", 2)
    assert ran.status == 0, ran.err
    assert "joined  esp32" in ran.out
    records, manifest = read(tmp_path)
    joined = records[records["group"] == "joined"]
    assert set(joined["device"]) == set(manifest["live"]["joined"]) == {"esp32", "pi"}
    assert 15 <= len(joined) <= 40  # two devices, ten a second, 1.5 s
    assert (joined["sample"] == -1).all()
    assert (joined["outcome"] == "on_time").mean() > 0.5
    assert (joined["correct"] == (joined["predicted"] == joined["label"])).all()
    assert set(records["group"]) == {"cameras", "joined"}
    assert "reported no latency" in "\n".join(manifest["live"]["warnings"])


@pytest.fixture
def pi_camera(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the client that ships for a Raspberry Pi: ``pi_camera(url, name)``."""
    (tmp_path / "pictures" / "7").mkdir(parents=True)
    (tmp_path / "pictures" / "7" / "grey.pgm").write_bytes(b"P5 8 8 255\n" + bytes(64))
    running: list[subprocess.Popen[str]] = []

    def start(url: str, name: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PI_CAMERA), "--broker", url, "--edge", "edge"]
        command += ["--device", name, "--images", str(tmp_path / "pictures")]
        command += ["--rate-hz", "10", "--deadline-ms", "1000", "--label-from-folder-name"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_a_camera_that_waits_for_a_node_joins_the_run_that_starts_one(
    started: Callable[..., subprocess.Popen[str]],
    pi_camera: Callable[..., subprocess.Popen[str]],
    mosquitto: Mosquitto,
    tmp_path: Path,
) -> None:
    camera = pi_camera(mosquitto.url, "pi-1")
    results = tmp_path / "results"
    run = started("-o", results, *ONE_ARM, *SHORT, "--broker", mosquitto.url, "--join")
    out, err = run.communicate(timeout=SOON_S)
    assert run.returncode == 0, err
    waits = f"waiting for 1 device(s) at {mosquitto.url}, for 600 s at most (Ctrl-C ends the run)"
    assert out.index(waits) < out.index("joined  pi-1")
    records, manifest = read(results)
    joined = records[records["group"] == "joined"]
    assert manifest["live"]["joined"] == ["pi-1"]
    assert (joined["outcome"] == "on_time").any()
    assert (joined["label"] == 7).all()
    camera.send_signal(signal.SIGINT)
    told, _ = camera.communicate(timeout=SOON_S)
    assert "#0 ok after" in told


def test_devices_that_never_come_are_not_waited_for_for_ever(
    live: Callable[..., Any], mosquitto: Mosquitto, tmp_path: Path
) -> None:
    arguments = ("--broker", mosquitto.url, "--join", 2, "--join-wait-s", 1)
    ran = live("-o", tmp_path, *ONE_ARM, *SHORT, *arguments)
    assert ran.status == 2
    assert "after 1 s 0 of 2 devices that are to join have asked" in ran.err


def test_a_device_that_has_a_virtual_ones_name_is_told_that_it_cannot_join(
    live: Callable[..., Any], mosquitto: Mosquitto, tmp_path: Path
) -> None:
    arguments = ("--broker", mosquitto.url, "--join", "--join-wait-s", 2)
    with Somebody(mosquitto.url, "cameras-0"):
        ran = live("-o", tmp_path, *ONE_ARM, *SHORT, *arguments)
    assert ran.status == 2
    warning = "warning: a device that was not started here is called 'cameras-0', as a virtual one"
    assert ran.out.count(warning) == 1
    assert "under the name of a virtual device asked cameras-0" in ran.err


def test_a_node_that_cannot_start_ends_the_wait_for_devices(
    live: Callable[..., Any], mosquitto: Mosquitto, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        arguments = ("--broker", mosquitto.url, "--join", "--metrics-port", taken.getsockname()[1])
        ran = live("-o", tmp_path, *ONE_ARM, *SHORT, *arguments)
    assert ran.status == 2
    assert "node edge ended with status 2; it said last:" in ran.err


@pytest.mark.parametrize("join", [("--join",), ("--join", "3"), ("--join=2",)])
def test_join_may_stand_alone(offramp: Callable[..., Any], join: tuple[str, ...]) -> None:
    for arguments in (("nowhere.yaml", *join), (*join, "nowhere.yaml")):
        ran = offramp("live", "run", *arguments)
        assert ran.status == 2
        assert "nowhere.yaml: no such file" in ran.err


# --- a run that is ended ------------------------------------------------------------------------


@pytest.fixture
def started(
    store: Path, scenario: Callable[..., Path], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``offramp live run`` in a process of its own, whose children can be found."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "offramp", "live", "run", scenario(), "--store", store]
        process = subprocess.Popen(
            [*map(str, command), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OFFRAMP_TEST": str(tmp_path)},
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def parts(tmp_path: Path) -> Callable[[str], list[int]]:
    """Processes that were started for a run and whose command line holds a text."""

    def find(text: str = "") -> list[int]:
        mark = f"OFFRAMP_TEST={tmp_path}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if mark in (folder / "environ").read_bytes() and text in line:
                    found.append(int(folder.name))
        return found

    return find


def test_ctrl_c_keeps_the_arms_that_are_finished(
    started: Callable[..., subprocess.Popen[str]],
    parts: Callable[..., list[int]],
    tmp_path: Path,
) -> None:
    results = tmp_path / "results"
    arguments = ("-o", results, *ONE_ARM, *SHORT, "--replications", 2)
    run = started(*arguments)
    wait_until(lambda: list(results.glob(f"{LIVE_PARTS}/*/0*.parquet")), "the end of an arm")
    wait_until(lambda: parts("live edge"), "the start of the next node")
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=SOON_S)
    assert run.returncode == 130, err
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    assert not parts()
    assert not (results / "manifest.json").exists()
    again = started(*arguments)
    out, err = again.communicate(timeout=SOON_S)
    assert again.returncode == 0, err
    assert "to measure: 1 arm(s)" in out
    records, _ = read(results)
    assert set(records["replication"]) == {0, 1}
    assert not records.duplicated(["replication", "request"]).any()


def test_nothing_outlives_a_run_that_is_killed(
    started: Callable[..., subprocess.Popen[str]],
    parts: Callable[..., list[int]],
    tmp_path: Path,
) -> None:
    run = started("-o", tmp_path / "results", *ONE_ARM, "--set", "simulation.duration_s=60")
    wait_until(lambda: parts("live edge"), "the start of the node")
    wait_until(lambda: parts("spawn_main"), "the start of the devices")
    assert parts("embedded_broker")
    run.kill()
    run.wait()
    wait_until(lambda: not parts(), "the end of all parts")


# --- parts that fail ----------------------------------------------------------------------------


def test_a_node_that_is_killed_is_started_again_and_every_request_has_one_record(
    started: Callable[..., subprocess.Popen[str]],
    parts: Callable[..., list[int]],
    tmp_path: Path,
) -> None:
    results = tmp_path / "results"
    duration_s = round(in_time(20), 1)
    length = ("--set", f"simulation.duration_s={duration_s}", "--set", "simulation.warm_up_s=0")
    run = started("-o", results, *ONE_ARM, *length)
    wait_until(lambda: parts("live edge"), "the start of the node")
    assert run.stdout is not None
    line = ""
    while "devices 5 of 5" not in line:
        line = run.stdout.readline()
        assert line, "the run ended"
    assert re.search(r"queue \d", line)  # the node said it
    apart = shares({"edge": 1})

    def run_on(what: str) -> set[tuple[int, ...]]:
        return {tuple(sorted(os.sched_getaffinity(pid))) for pid in parts(what)}

    if apart:
        assert run_on("live edge") == {apart.nodes["edge"]}
        for what in ("embedded_broker", "spawn_main", "devices.standby"):
            assert run_on(what) == {apart.rest}, what
    os.kill(parts("live edge")[0], signal.SIGKILL)
    if apart:  # who stood by has become the node
        wait_until(lambda: apart.nodes["edge"] in run_on("devices.standby"), "the restart")
    _, err = run.communicate(timeout=SOON_S)
    assert run.returncode == 0, err
    records, manifest = read(results)
    told = [it for it in manifest["live"]["warnings"] if "started again" in it]
    assert len(told) == 1
    assert "node edge was ended by SIGKILL while it was measured" in told[0]
    assert records["request"].tolist() == list(range(len(records)))
    outcomes = records["outcome"].value_counts()
    assert outcomes["lost"] > 0
    assert outcomes["on_time"] > 0
    late = records[records["created_s"] > duration_s - 2]
    assert (late["outcome"] == "on_time").any()  # the node was back


def test_a_node_that_cannot_start_says_why(live: Callable[..., Any], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = live("-o", tmp_path, *ONE_ARM, *SHORT, "--metrics-port", port)
    assert ran.status == 2
    assert "node edge ended with status 2; it said last:" in ran.err
    assert f"port {port}" in ran.err


def test_a_broker_that_cannot_be_reached_is_an_error_before_anything_is_measured(
    live: Callable[..., Any], tmp_path: Path
) -> None:
    ran = live("-o", tmp_path, *ONE_ARM, "--broker", f"mqtt://127.0.0.1:{free_port()}")
    assert ran.status == 2
    assert "nothing listens there" in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--broker", "http://x"), "'http://x' is no broker"),
        (("--broker", "mqtt://127.0.0.1", "--port", "1884"), "--port is of the broker"),
        (("--mqtt-version", "5"), "speaks MQTT 3.1.1 without TLS"),
        (("--strategy", "standrad"), "standard"),
        (("--seed", "17"), "17"),
        (("--policy", "fixed_exit"), "fixed_exit(exit=2)"),
    ],
)
def test_bad_arguments_are_one_message(
    live: Callable[..., Any], arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    ran = live("-o", tmp_path / "results", *arguments)
    assert ran.status == 2
    assert words in ran.err
    assert not (tmp_path / "results").exists()


def test_a_scenario_that_is_changed_during_a_run_ends_it(scenario: Callable[..., Path]) -> None:
    loaded = load_scenario(str(scenario()), ["seed=4"])
    nothing: Any = None
    session = LiveSession(
        source=loaded,
        loaded=loaded,
        job=nothing,
        options=LiveOptions(),
        arguments=(),
        broker=nothing,
        own_broker=None,
        there={},
        processors=(),
        shares=None,
        parts=nothing,
        observer=None,
        say=print,
    )
    session.check_unchanged()
    scenario({"devices.cameras.count": 6})
    with pytest.raises(LiveError, match=r"tiny\.yaml was changed during the run"):
        session.check_unchanged()


def test_replicas_on_the_embedded_broker_are_refused(live: Callable[..., Any]) -> None:
    ran = live(*ONE_ARM, changes={"nodes.edge.replicas": 2})
    assert ran.status == 2
    assert "--broker mqtt://HOST" in ran.err


def test_a_port_that_is_in_use_is_an_error(live: Callable[..., Any], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = live("-o", tmp_path, *ONE_ARM, "--port", taken.getsockname()[1])
    assert ran.status == 2
    assert "the port is in use" in ran.err


def test_a_node_that_is_there_already_serves_its_own_arm_alone(
    live: Callable[..., Any],
    store: Path,
    scenario: Callable[..., Path],
    mosquitto: Mosquitto,
    tmp_path: Path,
) -> None:
    command = ["live", "edge", scenario(), "--store", store, "--broker", mosquitto.url]
    command += ["--strategy", "standard", "--seed", "0", "--policy", "fixed_exit(exit=2)"]
    with subprocess.Popen(
        [sys.executable, "-m", "offramp", *map(str, command)], stdout=subprocess.DEVNULL
    ) as node:
        try:
            wait_until(lambda: nodes_online(mosquitto.broker, ["edge"]), "the node's presence")
            ran = live("-o", tmp_path / "all", *SHORT, "--broker", mosquitto.url)
            assert ran.status == 2
            assert "node 'edge' is at" in ran.err
            assert "--strategy standard --seed 0 --policy 'fixed_exit(exit=2)'" in ran.err
            ran = live("-o", tmp_path / "one", *ONE_ARM, *SHORT, "--broker", mosquitto.url)
            assert ran.status == 0, ran.err
            records, manifest = read(tmp_path / "one")
            assert (records["outcome"] == "on_time").any()
            assert "not started here, but at the broker before: node edge" in "\n".join(
                manifest["live"]["warnings"]
            )
            assert node.poll() is None
        finally:
            node.terminate()
