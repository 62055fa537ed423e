"""Real brokers for tests: Mosquitto in a process of its own, on a free port of this host.

Where Mosquitto is not installed, tests that need it are skipped; in CI they fail.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from paho.mqtt.client import MQTTMessage

from devices.mqtt.connections import Broker, connect, disconnect, new_client

#: How long tests wait for what must come; only a failure takes so long.
WITHIN_S = 10.0

INSTALL = "sudo apt-get install mosquitto mosquitto-clients"


def program(name: str) -> str:
    """The path of one of Mosquitto's programs; where it is missing, the test ends here."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"CI needs {name}: {INSTALL}", pytrace=False)
    pytest.skip(f"{name} is not installed: {INSTALL}")


def free_port() -> int:
    """A port that nobody uses, of those that the kernel gives no outgoing connection.

    Else a client that reconnects to a broker which is down could be given its port, connect
    to itself, and keep the broker from coming back.
    """
    draw = random.SystemRandom()  # workers of pytest-xdist may share a seed
    while True:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", draw.randrange(20_000, 32_000)))
            return sock.getsockname()[1]


class Mosquitto:
    """A Mosquitto that was started; always on the same port of 127.0.0.1.

    ``config`` is the text of its file without the listener's address, which replaces ``{port}``.
    """

    def __init__(self, folder: Path, config: str, **broker: object) -> None:
        self.folder = folder
        self.port = free_port()
        self.broker = Broker("127.0.0.1", self.port, **broker)  # type: ignore[arg-type]
        self.config = folder / "mosquitto.conf"
        text = config.replace("{port}", str(self.port))
        self.config.write_text(f"user {getpass.getuser()}\n{text}", encoding="utf-8")
        self.log = folder / "mosquitto.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return self.broker.url

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [program("mosquitto"), "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                time.sleep(0.02)
                if self.process.poll() is None:  # else another server answered
                    return
        log_text = self.log.read_text(errors="replace")
        self.kill()
        raise AssertionError(f"Mosquitto did not start:\n{log_text}")

    def stop(self) -> None:
        """End it as a service manager would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a warning."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Let it answer nothing while its connections stay open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


def open_config(*lines: str, persistence: Path | None = None) -> str:
    """The text for a broker that lets everyone in, with further ``lines``."""
    text = [
        "listener {port} 127.0.0.1",
        "allow_anonymous true",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "max_inflight_messages 100",
        "max_queued_messages 10000",
    ]
    if persistence is not None:
        text += ["persistence true", f"persistence_location {persistence}/", "autosave_interval 1"]
    return "\n".join([*text, *lines, ""])


DEPLOY = Path(__file__).parents[2] / "deploy"
USERS = ("node-1", "fleet", "runner", "cam-1", "cam-2")


def make_certificates(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script that ships; ``folder`` and its ``ca`` are made at first use."""
    command = ["sh", str(DEPLOY / "make_certificates.sh"), str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


class SecureMosquitto(Mosquitto):
    """A Mosquitto with the configuration that ships: TLS, passwords, ACLs.

    Only paths, ports and the address to listen on are other ones.
    """

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.certificates = certificates
        self.certificate_port = free_port()
        passwords = folder / "passwords"
        passwords.touch(mode=0o600)
        for user in USERS:
            command = [program("mosquitto_passwd"), "-b", str(passwords), user, self.password(user)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        for name in ("ca.crt", "server.crt", "server.key"):
            shutil.copy(certificates / name, folder)
        shutil.copy(DEPLOY / "mosquitto" / "acl", folder)
        (folder / "acl").chmod(0o600)
        text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text(encoding="utf-8")
        for theirs, ours in (
            ("listener 8883", "listener {port} 127.0.0.1"),
            ("listener 8884", f"listener {self.certificate_port} 127.0.0.1"),
            ("/etc/mosquitto/offramp/", f"{folder}/"),
            ("/var/lib/mosquitto/", f"{folder}/"),
        ):
            assert theirs in text
            text = text.replace(theirs, ours)
        super().__init__(folder, text, tls=True, ca=certificates / "ca.crt")

    @staticmethod
    def password(user: str) -> str:
        return f"{user}/pass@word"

    def user(self, name: str, **changes: object) -> Broker:
        """The broker for this user with its password."""
        secret = self.password(name)
        return replace(self.broker, username=name, password=secret, **changes)  # type: ignore[arg-type]

    def with_certificate(self, name: str) -> Broker:
        """The listener that wants a client certificate, with that of ``name``."""
        cert, key = self.certificates / f"{name}.crt", self.certificates / f"{name}.key"
        return replace(self.broker, port=self.certificate_port, cert=cert, key=key)


class Member:
    """A client that remembers what it received.

    ``settings`` are those of ``new_client``, and ``will`` the arguments of ``will_set``.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *filters: str,
        qos: int = 1,
        will: tuple[object, ...] | None = None,
        **settings: object,
    ) -> None:
        self.messages: list[MQTTMessage] = []
        self.session_present: list[bool] = []
        self.new = threading.Condition()
        self._subscribed = threading.Semaphore(0)
        self._sent = threading.Semaphore(0)
        self.client = new_client(broker, client_id, **settings)  # type: ignore[arg-type]
        if will is not None:
            self.client.will_set(*will)  # type: ignore[arg-type]
        self.client.on_message = self._message
        self.client.on_connect = self._connected
        self.client.on_subscribe = lambda *_: self._subscribed.release()
        self.client.on_publish = lambda *_: self._sent.release()
        connect(self.client, broker)
        try:
            for topic_filter in filters:
                self.subscribe(topic_filter, qos)
        except BaseException:  # nobody has it yet, to end its thread
            self.leave()
            raise

    def _connected(self, client: object, userdata: object, flags: object, *_: object) -> None:
        with self.new:
            self.session_present.append(flags.session_present)  # type: ignore[attr-defined]
            self.new.notify_all()

    def _message(self, client: object, userdata: object, message: MQTTMessage) -> None:
        with self.new:
            self.messages.append(message)
            self.new.notify_all()

    @property
    def got(self) -> list[tuple[str, bytes]]:
        return [(message.topic, message.payload) for message in self.messages]

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        self.client.subscribe(topic_filter, qos)
        assert self._subscribed.acquire(timeout=WITHIN_S)

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait until paho is done with it: from QoS 1 on, for the broker's answer.

        A broker answers also those who may not publish there.
        """
        self.client.publish(topic, payload, qos, retain)
        assert self._sent.acquire(timeout=WITHIN_S)

    def wait_for(self, payload: bytes) -> MQTTMessage:
        """The first message with this payload."""
        with self.new:
            assert self.new.wait_for(
                lambda: any(payload == message.payload for message in self.messages), WITHIN_S
            ), f"{payload[:80]!r} did not arrive; this did: {self.got}"
        return next(message for message in self.messages if message.payload == payload)

    def wait_until_connected(self, times: int) -> None:
        with self.new:
            assert self.new.wait_for(lambda: len(self.session_present) >= times, WITHIN_S)

    def vanish(self) -> None:
        """End the connection without a goodbye, and do not come back."""
        self.client.on_connect = self.client.on_message = None
        self.client._reconnect_on_failure = False
        sock = self.client.socket()
        assert sock is not None
        sock.shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()

    def leave(self) -> None:
        disconnect(self.client)
