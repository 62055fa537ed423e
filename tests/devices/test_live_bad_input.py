"""What people get wrong about a live world: each ends in one clear sentence, and status 2.

The commands are those that a user types, in processes of their own.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cbor2
import pytest
from brokers import Mosquitto, SecureMosquitto, free_port, make_certificates
from fake_runtime import eventually
from live_clients import Device
from small_scenario import WITHIN_S, Trained

from devices.mqtt.broker_address import Broker
from devices.protocol.messages import decode_status
from devices.protocol.topics import status_topic


def ends_with(made: tuple[int, str], *texts: str) -> None:
    """A command ended with status 2 and one error, which says all this."""
    status, said = made
    assert status == 2, said
    assert said.count("error:") == 1, said
    assert "Traceback" not in said
    for text in texts:
        assert text in said, said


COMMANDS = ["edge", "devices", "run"]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_address_where_no_broker_is(trained: Trained, command: str) -> None:
    port = free_port()
    made = trained.run("live", command, "small.yaml", "--broker", f"mqtt://127.0.0.1:{port}")
    ends_with(made, f"no connection to mqtt://127.0.0.1:{port}: nothing listens there")


@pytest.mark.parametrize(
    ("command", "address", "says"),
    [
        ("edge", "http://127.0.0.1", "mqtt://"),
        ("devices", "mqtt://user:pass/word@127.0.0.1", "%2F"),
        ("run", "mqtt://127.0.0.1:99999", "port"),
    ],
)
def test_an_address_that_is_none(trained: Trained, command: str, address: str, says: str) -> None:
    ends_with(trained.run("live", command, "small.yaml", "--broker", address), says)


def test_a_host_that_nobody_knows(trained: Trained) -> None:
    made = trained.run("live", "devices", "small.yaml", "--broker", "mqtt://no-such-host.invalid")
    ends_with(made, "no connection to mqtt://no-such-host.invalid:1883: its name is not known")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_password(trained: Trained, mosquitto_tls: SecureMosquitto, command: str) -> None:
    url = f"mqtts://fleet@localhost:{mosquitto_tls.port}"
    arguments = ["--broker", url, "--ca", str(mosquitto_tls.certificates / "ca.crt")]
    made = trained.run(
        *("live", command, "small.yaml", *arguments), OFFRAMP_MQTT_PASSWORD="not/this"
    )
    ends_with(made, "wrong user or password")
    assert "not/this" not in made[1]


@pytest.mark.parametrize("more", [(), ("--wait-s", "90")])
def test_a_node_looks_at_its_broker_before_it_builds_its_network(
    trained: Trained, mosquitto_tls: SecureMosquitto, more: tuple[str, ...]
) -> None:
    """What is refused now is refused later too; ``--wait-s`` is for a broker that is not up yet."""
    url = f"mqtts://fleet@localhost:{mosquitto_tls.port}"
    made = trained.run(
        *("live", "edge", "small.yaml", "--checkpoint", "there-is-none.safetensors", *more),
        *("--broker", url, "--ca", str(mosquitto_tls.certificates / "ca.crt")),
        OFFRAMP_MQTT_PASSWORD="not/this",
    )
    ends_with(made, "wrong user or password")


def test_a_node_waits_for_a_broker_that_is_not_up_yet_with_its_network_ready(
    trained: Trained,
) -> None:
    made = trained.run(
        *("live", "edge", "small.yaml", "--checkpoint", "there-is-none.safetensors"),
        *("--broker", f"mqtt://127.0.0.1:{free_port()}", "--wait-s", "90"),
    )
    ends_with(made, "there-is-none.safetensors")


def test_a_node_whose_user_may_not_say_that_it_is_online(
    trained: Trained, mosquitto_tls: SecureMosquitto
) -> None:
    """Mosquitto acknowledges what it forbids: the node finds out by what does not come back."""
    made = trained.run(
        *(
            "live",
            "edge",
            "small.yaml",
            "--broker",
            f"mqtts://fleet@localhost:{mosquitto_tls.port}",
        ),
        *("--ca", str(mosquitto_tls.certificates / "ca.crt")),
        OFFRAMP_MQTT_PASSWORD=mosquitto_tls.password("fleet"),
    )
    ends_with(made, "must be allowed to write and read offramp/1/status/edge/edge")


def test_no_password(trained: Trained, mosquitto_tls: SecureMosquitto) -> None:
    arguments = ["--ca", str(mosquitto_tls.certificates / "ca.crt")]
    url = f"mqtts://localhost:{mosquitto_tls.port}"
    made = trained.run("live", "devices", "small.yaml", "--broker", url, *arguments)
    ends_with(made, "it wants a user and a password")


@pytest.mark.parametrize("command", ["edge", "run"])
def test_a_certificate_that_is_refused_here(
    trained: Trained, mosquitto_tls: SecureMosquitto, command: str
) -> None:
    url = f"mqtts://fleet:x@localhost:{mosquitto_tls.port}"
    made = trained.run("live", command, "small.yaml", "--broker", url)
    ends_with(made, "its certificate is signed by a CA that is not trusted")


@pytest.mark.parametrize("with_foreign", [False, True])
def test_a_certificate_that_the_broker_refuses(
    trained: Trained, mosquitto_tls: SecureMosquitto, tmp_path: Path, with_foreign: bool
) -> None:
    url = f"mqtts://localhost:{mosquitto_tls.certificate_port}"
    arguments = ["--broker", url, "--ca", str(mosquitto_tls.certificates / "ca.crt")]
    if with_foreign:  # of a CA that the broker does not know
        made = make_certificates(tmp_path / "foreign", "client", "cam-1")
        assert made.returncode == 0, made.stderr
        files = [str(tmp_path / "foreign" / f"cam-1.{kind}") for kind in ("crt", "key")]
        arguments += ["--cert", files[0], "--key", files[1]]
    said = trained.run("live", "devices", "small.yaml", *arguments)
    ends_with(said, "client certificate")


def test_tls_where_there_is_none_and_the_other_way_round(
    trained: Trained, mosquitto: Mosquitto, mosquitto_tls: SecureMosquitto
) -> None:
    made = trained.run(
        *("live", "devices", "small.yaml", "--broker", f"mqtts://127.0.0.1:{mosquitto.port}")
    )
    ends_with(made, "TLS")
    made = trained.run(
        *("live", "devices", "small.yaml", "--broker", f"mqtt://127.0.0.1:{mosquitto_tls.port}")
    )
    ends_with(made, "it does not answer as an MQTT broker does")


# --- ports ---------------------------------------------------------------------------------------


def test_a_port_in_use(trained: Trained, mosquitto: Mosquitto) -> None:
    port = str(mosquitto.port)
    ends_with(trained.run("live", "broker", "--port", port), port, "in use")
    made = trained.run("live", "run", "small.yaml", "--port", port)
    ends_with(made, port, "in use")
    made = trained.run(
        *("live", "edge", "small.yaml", "--broker", mosquitto.url, "--metrics-port", port)
    )
    ends_with(made, f"cannot serve metrics on port {port}: it is in use (--metrics-port)")


def test_a_port_of_metrics_in_use_ends_a_whole_run(trained: Trained, mosquitto: Mosquitto) -> None:
    made = trained.run(
        *("live", "run", "small.yaml", "--metrics-port", str(mosquitto.port), "--quiet")
    )
    status, said = made
    assert status == 2, said
    assert f"cannot serve metrics on port {mosquitto.port}: it is in use" in said
    assert "Traceback" not in said


# --- networks ------------------------------------------------------------------------------------


def test_a_checkpoint_that_does_not_fit(
    trained: Trained, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    def edge(checkpoint: Path, *more: str) -> tuple[int, str]:
        return trained.run(
            *("live", "edge", "small.yaml", "--broker", mosquitto.url),
            *("--checkpoint", str(checkpoint), *more),
        )

    ends_with(edge(trained.checkpoint, "--set", "model.exits=[layer2]"), "made for another network")
    short = tmp_path / "short.safetensors"
    short.write_bytes(trained.checkpoint.read_bytes()[:5000])
    ends_with(edge(short), str(short))
    ends_with(edge(tmp_path / "none.safetensors"), "none.safetensors")
    made = trained.run("live", "edge", "small.yaml", "--broker", mosquitto.url, "--seed", "9")
    ends_with(made, "--seed 9: the scenario has 0")
    made = trained.run(
        *("live", "edge", "small.yaml", "--broker", mosquitto.url, "--set", "training.steps=3")
    )
    ends_with(made, "has not been trained with these settings: run `offramp train")


# --- nodes and devices ---------------------------------------------------------------------------


@pytest.fixture
def start_edge(trained: Trained) -> Iterator[Callable[[Broker], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(broker: Broker) -> subprocess.Popen[str]:
        started.append(trained.start("live", "edge", "small.yaml", "--broker", broker.url))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def instance(broker: Broker) -> Callable[[], str | None]:
    """What tells which instance of the node is online."""
    watcher = Device(broker, f"watcher-{time.monotonic_ns()}")
    watcher.listen(status_topic("edge", "edge"))
    last: list[str | None] = [None]

    def now() -> str | None:
        while not watcher.heard.empty():
            status = decode_status(watcher.message().payload)
            last[0] = status.instance if status.state == "online" else None
        return last[0]

    return now


def test_two_nodes_with_one_name(
    trained: Trained,
    mosquitto: Mosquitto,
    start_edge: Callable[[Broker], subprocess.Popen[str]],
) -> None:
    """The newer takes over; the older says so and ends. Devices notice nothing."""
    online = instance(mosquitto.broker)
    older = start_edge(mosquitto.broker)
    first = eventually(online, WITHIN_S)
    newer = start_edge(mosquitto.broker)
    eventually(lambda: online() not in (None, first), WITHIN_S)
    _, said = older.communicate(timeout=WITHIN_S)
    said = " ".join(said.split())
    ends_with((older.returncode, said), "another node called 'edge' has started")
    assert newer.poll() is None
    with Device(mosquitto.broker) as device:
        device.ask(1, image=bytes(64))
        assert device.reply().status == "ok"
        # A device with an unknown version of the protocol is told, and nobody else is disturbed.
        asked = {"v": 2, "id": 5, "deadline_ms": 500, "image": bytes(64)}
        for version in (2, 0, "1", None):
            device.send(cbor2.dumps({**asked, "v": version}))
            reply = device.reply()
            assert (reply.status, reply.code) == ("error", "unsupported_version")
        assert "1" in str(reply.message)
        device.ask(2, image=bytes(64))
        assert device.reply().status == "ok"
    newer.send_signal(signal.SIGTERM)
    _, said = newer.communicate(timeout=WITHIN_S)
    assert newer.returncode == 0, said


def test_a_node_that_is_not_there(trained: Trained, mosquitto: Mosquitto) -> None:
    made = trained.run(
        *("live", "devices", "small.yaml", "--broker", mosquitto.url, "--wait-s", "0.5")
    )
    ends_with(made, "not all nodes are online", "'edge' (never heard of)")
