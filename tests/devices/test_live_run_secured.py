"""``offramp live run`` on the Mosquitto of ``deploy/``: TLS, a password, access lists, a device."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

from brokers import SecureMosquitto
from live_clients import Device
from small_scenario import WITHIN_S, Trained

from sim.results.records import read_records


def test_a_whole_run_with_a_device_that_joins(
    trained: Trained, mosquitto_tls: SecureMosquitto, tmp_path: Path
) -> None:
    """Everything that the run starts comes as one user; the device as itself."""
    run = trained.start(
        *("live", "run", "small.yaml", "-o", str(tmp_path / "live"), "--join"),
        *("--broker", f"mqtts://runner@localhost:{mosquitto_tls.port}"),
        *("--ca", str(mosquitto_tls.certificates / "ca.crt")),
        *("--set", "simulation.duration_s=3"),
        OFFRAMP_MQTT_PASSWORD=mosquitto_tls.password("runner"),
    )
    over = threading.Event()

    def ask() -> None:
        with Device(mosquitto_tls.user("cam-1"), "cam-1") as device:
            id = 0
            while not over.wait(0.1):
                id += 1
                device.ask(id, deadline_s=1.0, image=bytes(64), label=id % 10)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        said, wrong = run.communicate(timeout=WITHIN_S)
    finally:
        over.set()
        asking.join()
        run.kill()
        run.communicate()
    assert run.returncode == 0, wrong
    assert mosquitto_tls.password("runner") not in said + wrong

    records = read_records(tmp_path / "live/records.parquet").to_pylist()
    outcomes = {
        group: Counter(row["outcome"] for row in records if row["group"] == group)
        for group in ("cameras", "joined")
    }
    for group, counted in outcomes.items():
        assert counted["on_time"] + counted["late"] > 0.8 * counted.total(), (group, counted)
    assert {row["device"] for row in records if row["group"] == "joined"} == {"cam-1"}
    manifest = (tmp_path / "live/manifest.json").read_text()
    assert mosquitto_tls.password("runner") not in manifest
    live = json.loads(manifest)["live"]
    assert live["joined"] == ["cam-1"]
    assert live["broker"] == f"mqtts://runner@localhost:{mosquitto_tls.port}"


def test_devices_whose_user_may_not_ask_are_told_why_nothing_comes(
    trained: Trained, mosquitto_tls: SecureMosquitto
) -> None:
    """At MQTT 3.1.1 a broker cannot say that a message was refused."""
    broker = ("--broker", f"mqtts://node-1@localhost:{mosquitto_tls.port}")
    broker += ("--ca", str(mosquitto_tls.certificates / "ca.crt"), "--mqtt-version", "3.1.1")
    secret = {"OFFRAMP_MQTT_PASSWORD": mosquitto_tls.password("node-1")}
    node = trained.start("live", "edge", "small.yaml", *broker, **secret)
    try:
        devices = trained.start(
            *("live", "devices", "small.yaml", *broker, "--wait-s", str(WITHIN_S)), **secret
        )
        said, wrong = devices.communicate(timeout=2 * WITHIN_S)
    finally:
        node.kill()
        node.communicate()
    assert devices.returncode == 0, wrong
    assert "may the broker's user write to offramp/1/request/#" in " ".join(said.split())
