"""Brokers that tests of this floor connect to; see ``brokers`` for what they can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import Member, Mosquitto, SecureMosquitto, make_certificates, open_config, program
from small_scenario import Trained, train

from devices.mqtt.connections import Broker
from devices.mqtt.embedded_broker import embedded_broker


@pytest.fixture
def start_mosquitto(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Mosquitto]]:
    """Starts a Mosquitto that lets everyone in: ``start_mosquitto(*lines, persistence=False)``."""
    program("mosquitto")
    started: list[Mosquitto] = []

    def start(*lines: str, persistence: bool = False) -> Mosquitto:
        folder: Path = tmp_path_factory.mktemp("mosquitto")
        config = open_config(*lines, persistence=folder if persistence else None)
        started.append(Mosquitto(folder, config))
        return started[-1]

    yield start
    for broker in started:
        broker.kill()


@pytest.fixture
def mosquitto(start_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A Mosquitto that lets everyone in."""
    return start_mosquitto()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of certificates that the script which ships has made, for localhost."""
    program("openssl")
    folder = tmp_path_factory.mktemp("certificates") / "made"
    for arguments in (
        ("server", "localhost", "127.0.0.1"),
        ("client", "cam-1"),
        ("client", "node-1"),
    ):
        made = make_certificates(folder, *arguments)
        assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def mosquitto_tls(
    tmp_path_factory: pytest.TempPathFactory, certificates: Path
) -> Iterator[SecureMosquitto]:
    """A Mosquitto with the configuration that ships; ``.user(name)`` is a broker to connect to."""
    program("mosquitto")
    broker = SecureMosquitto(tmp_path_factory.mktemp("mosquitto"), certificates)
    yield broker
    broker.kill()


@pytest.fixture
def embedded() -> Iterator[Broker]:
    """The embedded broker."""
    with embedded_broker() as broker:
        yield broker


@pytest.fixture
def join() -> Iterator[Callable[..., Member]]:
    """Connects clients, ``join(broker, client_id, *filters)``, and disconnects them at the end."""
    members: list[Member] = []

    def start(broker: Broker, client_id: str, *filters: str, **settings: object) -> Member:
        members.append(Member(broker, client_id, *filters, **settings))  # type: ignore[arg-type]
        return members[-1]

    yield start
    for member in members:
        member.leave()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A scenario whose network is trained and profiled, and its commands."""
    return train(tmp_path_factory.mktemp("scenario"))
