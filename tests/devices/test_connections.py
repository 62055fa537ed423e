"""Addresses of brokers, connections to them, and what is said when there is none."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

import pytest
from brokers import WITHIN_S, Mosquitto, free_port
from fake_runtime import in_time
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from devices.mqtt.connections import (
    Broker,
    check_broker,
    connect,
    connect_problem,
    disconnect,
    new_client,
    parse_broker,
    send_at_once,
)
from models.errors import BrokerError

CONNACK_CODES = [
    code
    for code, names in ReasonCode(PacketTypes.CONNACK).names.items()
    if any(PacketTypes.CONNACK in packets for packets in names.values())
]


class TestAddresses:
    @pytest.mark.parametrize(
        ("url", "broker"),
        [
            ("mqtt://host", Broker("host", 1883)),
            ("mqtt://host/", Broker("host", 1883)),
            ("mqtt://10.0.0.7:2000", Broker("10.0.0.7", 2000)),
            ("mqtts://host", Broker("host", 8883, tls=True)),
            ("mqtt://[::1]:1884", Broker("::1", 1884)),
            ("mqtt://me@host", Broker("host", 1883, "me")),
            ("mqtt://me:secret@host", Broker("host", 1883, "me", "secret")),
            ("mqtt://a%40b:p%2Fw%3A@host", Broker("host", 1883, "a@b", "p/w:")),
        ],
    )
    def test_urls(self, url, broker):
        assert parse_broker(url, environment={}) == broker

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("host:1883", "mqtt://[user@]host[:port]"),
            ("http://host", "mqtt://[user@]host[:port]"),
            ("", "mqtt://[user@]host[:port]"),
            ("mqtt://", "mqtt://[user@]host[:port]"),
            ("mqtt://:1883", "mqtt://[user@]host[:port]"),
            ("mqtt://host/topic", "mqtt://[user@]host[:port]"),
            ("mqtt://host?x=1", "mqtt://[user@]host[:port]"),
            ("mqtt://host:0", "1 to 65535"),
            ("mqtt://host:70000", "1 to 65535"),
            ("mqtt://host:port", "1 to 65535"),
            ("mqtt://[::1", "%2F"),
            ("mqtt://:secret@host", "a password needs a user"),
        ],
    )
    def test_what_is_no_url(self, url, words):
        with pytest.raises(BrokerError) as caught:
            parse_broker(url, environment={})
        assert words in str(caught.value)
        assert "secret" not in str(caught.value)

    @given(st.text(min_size=1), st.text(min_size=1))
    def test_any_user_and_password_can_be_written(self, user, password):
        url = f"mqtt://{quote(user, safe='')}:{quote(password, safe='')}@host:1"
        assert parse_broker(url) == Broker("host", 1, user, password)

    @given(st.text("/#?@:[]%&=abc", min_size=1, max_size=12))
    def test_no_message_shows_a_password_that_was_not_escaped(self, characters):
        secret = f"Zq7{characters}Zq7"
        try:
            broker = parse_broker(f"mqtt://user:{secret}@host:1883")
        except BrokerError as error:
            shown = str(error)
        else:
            shown = f"{broker!r} {broker} {broker.url}"
        assert "Zq7" not in shown

    def test_a_broker_is_shown_without_its_password(self):
        broker = Broker("::1", 8884, "me", "secret", tls=True)
        assert broker.url == "mqtts://me@[::1]:8884"
        assert "secret" not in repr(broker)
        assert parse_broker(broker.url, environment=broker.environment) == broker

    def test_where_the_password_is_looked_for(self, tmp_path, monkeypatch):
        file = tmp_path / "password"
        file.write_text("from file\nnot this\n", encoding="utf-8")
        monkeypatch.setenv("OFFRAMP_MQTT_PASSWORD", "from environment")
        url = "mqtt://me@host"
        assert parse_broker(url).password == "from environment"
        assert parse_broker(url, password_file=file).password == "from file"
        assert parse_broker("mqtt://me:in%20url@host", password_file=file).password == "in url"
        assert parse_broker("mqtt://host").password is None
        with pytest.raises(BrokerError, match="a password needs a user"):
            parse_broker("mqtt://host", password_file=file)

    def test_password_files_that_are_none(self, tmp_path):
        with pytest.raises(BrokerError, match=r"cannot read the password file .*No such file"):
            parse_broker("mqtt://me@host", password_file=tmp_path / "missing")
        empty = tmp_path / "empty"
        empty.write_bytes(b"\nsecond line")
        with pytest.raises(BrokerError, match="empty first line"):
            parse_broker("mqtt://me@host", password_file=empty)
        binary = tmp_path / "binary"
        binary.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(BrokerError, match="not UTF-8"):
            parse_broker("mqtt://me@host", password_file=binary)

    def test_certificates_belong_together_and_to_tls(self, tmp_path):
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(BrokerError, match="two files"):
            parse_broker("mqtts://host", cert=file)
        with pytest.raises(BrokerError, match="mqtts:// instead of mqtt://"):
            parse_broker("mqtt://host", ca=file)
        with pytest.raises(BrokerError, match=r"there is no file .*missing"):
            parse_broker("mqtts://host", ca=tmp_path / "missing")


class TestFilesOfTls:
    def test_that_hold_no_certificate(self, tmp_path):
        file = tmp_path / "ca.crt"
        file.write_text("hello", encoding="utf-8")
        broker = parse_broker("mqtts://host", ca=file)
        with pytest.raises(BrokerError, match=r"ca\.crt holds no certificate"):
            new_client(broker, "c")

    def test_a_key_of_another_certificate(self, certificates):
        broker = parse_broker(
            "mqtts://host", cert=certificates / "cam-1.crt", key=certificates / "node-1.key"
        )
        with pytest.raises(BrokerError, match="are no certificate and its unencrypted key"):
            new_client(broker, "c")

    def test_an_encrypted_key_is_refused_and_nobody_is_asked(self, certificates, tmp_path):
        key = tmp_path / "key"
        command = ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-out", str(key)]
        command += ["-in", str(certificates / "cam-1.key")]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        broker = parse_broker("mqtts://host", cert=certificates / "cam-1.crt", key=key)
        with pytest.raises(BrokerError, match="unencrypted key"):
            new_client(broker, "c")


def server(answer: bytes | None, close: bool = True) -> contextlib.AbstractContextManager[int]:
    """A port where a server that knows no MQTT reads a little, answers, and closes."""

    @contextlib.contextmanager
    def serve() -> Iterator[int]:
        connections = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connections.append(connection)
                    if answer is not None:
                        connection.recv(1000)
                        connection.sendall(answer)
                    if close:
                        connection.close()

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=accept)
            thread.start()
            try:
                yield listener.getsockname()[1]
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join(WITHIN_S)
                for connection in connections:
                    connection.close()

    return serve()


def no_connection(broker: Broker, timeout_s: float = 5.0) -> str:
    with pytest.raises(BrokerError) as caught:
        check_broker(broker, timeout_s)
    sentence = str(caught.value)
    assert sentence.startswith(f"no connection to {broker.url}: ")
    assert "\n" not in sentence
    return sentence


class TestNoConnection:
    def test_nothing_listens(self):
        sentence = no_connection(Broker("127.0.0.1", free_port()))
        assert sentence.endswith("nothing listens there (connection refused)")

    @pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 80, "a..b"])
    def test_an_unknown_name(self, host):
        assert "its name is not known" in no_connection(Broker(host, 1883))

    @pytest.mark.parametrize("version", ["3.1.1", "5"])
    def test_no_broker_answers(self, version):
        with server(None, close=False) as port:
            began_s = time.monotonic()
            sentence = no_connection(Broker("127.0.0.1", port, version=version), timeout_s=0.3)
            assert "says nothing" in sentence
            assert time.monotonic() - began_s < in_time(5)

    @pytest.mark.parametrize("version", ["3.1.1", "5"])
    @pytest.mark.parametrize(
        "answer",
        [None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, b"\xff" * 64, b"\x20\x00"],
    )
    def test_another_server_answers(self, version, answer):
        with server(answer) as port:
            sentence = no_connection(Broker("127.0.0.1", port, version=version), timeout_s=3)
        assert "is it an MQTT broker?" in sentence or "as an MQTT broker does" in sentence

    # paho leaves the socket of a failed handshake to the garbage collector, which complains.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_tls_meets_another_server(self, certificates):
        broker = Broker("127.0.0.1", 1, tls=True, ca=certificates / "ca.crt")
        with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
            assert "does not speak TLS" in no_connection(replace(broker, port=port))

    def test_what_was_set_stays_set(self):
        broker = Broker("127.0.0.1", free_port())
        client = new_client(broker, "c")

        def callback(*_: object) -> None:
            raise AssertionError("there was no connection")

        client.on_connect = client.on_disconnect = client.on_log = callback
        with pytest.raises(BrokerError):
            connect(client, broker)
        assert client.on_connect is client.on_disconnect is client.on_log is callback

    def test_a_client_whose_connection_failed_can_try_again(self, mosquitto):
        mosquitto.stop()
        client = new_client(mosquitto.broker, "c")
        with pytest.raises(BrokerError):
            connect(client, mosquitto.broker)
        mosquitto.start()
        connect(client, mosquitto.broker)
        assert client.is_connected()
        disconnect(client)


class TestWaitingForABroker:
    def test_that_starts_later(self, mosquitto):
        mosquitto.stop()
        later = threading.Timer(0.5, mosquitto.start)
        later.start()
        client = new_client(mosquitto.broker, "c")
        try:
            connect(client, mosquitto.broker, wait_s=WITHIN_S)
            assert client.is_connected()
        finally:
            later.join()
            disconnect(client)

    def test_that_never_starts(self):
        broker = Broker("127.0.0.1", free_port())
        began_s = time.monotonic()
        with pytest.raises(BrokerError, match="nothing listens there"):
            connect(new_client(broker, "c"), broker, wait_s=0.5)
        assert time.monotonic() - began_s >= 0.5

    def test_until_it_is_told_to_stop(self):
        broker = Broker("127.0.0.1", free_port())
        answers = iter([True, False])
        with pytest.raises(BrokerError, match="nothing listens there"):
            connect(new_client(broker, "c"), broker, wait_s=60, go_on=lambda: next(answers))
        assert next(answers, None) is None

    def test_that_refuses_is_not_tried_again(self, start_mosquitto):
        strict = start_mosquitto("allow_anonymous false")
        began_s = time.monotonic()
        with pytest.raises(BrokerError, match="it wants a user and a password"):
            connect(new_client(strict.broker, "c"), strict.broker, wait_s=60)
        assert time.monotonic() - began_s < 30


class TestProblems:
    @pytest.mark.parametrize("code", CONNACK_CODES)
    def test_every_refusal_has_words(self, code):
        words = connect_problem(ReasonCode(PacketTypes.CONNACK, identifier=code))
        assert words
        assert "\n" not in words

    @pytest.mark.parametrize(
        "error",
        [
            OSError(),
            OSError("strange"),
            OSError(113, "No route to host"),
            ConnectionResetError(104, "Connection reset by peer"),
            TimeoutError("timed out"),
            socket.gaierror(-2, "Name or service not known"),
            UnicodeError("label too long"),
            RuntimeError(),
        ],
    )
    def test_every_exception_has_words(self, error):
        words = connect_problem(error)
        assert words
        assert "\n" not in words


@pytest.mark.parametrize("version", ["3.1.1", "5"])
class TestClients:
    def test_small_packets_go_out_at_once(self, mosquitto, version):
        broker = replace(mosquitto.broker, version=version)
        seen = []

        def opened(client: object, userdata: object, sock: socket.socket) -> None:
            seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        client = new_client(broker, "c", on_socket_open=opened)
        connect(client, broker)
        try:
            sock = client.socket()
            assert sock is not None
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert len(seen) == 1
            assert all(seen), "set before the caller's own callback"
        finally:
            disconnect(client)

    def test_they_come_back_and_say_so(self, mosquitto, join, version):
        member = join(replace(mosquitto.broker, version=version), "c")
        member.client.on_connect = lambda client, *_: client.subscribe("again", 1)
        mosquitto.kill()
        mosquitto.start()
        began_s = time.monotonic()
        assert member._subscribed.acquire(timeout=WITHIN_S)
        assert time.monotonic() - began_s < in_time(5)
        join(replace(mosquitto.broker, version=version), "d").publish("again", b"heard")
        member.wait_for(b"heard")

    def test_a_frozen_broker_is_noticed(self, mosquitto, join, version):
        member = join(replace(mosquitto.broker, version=version), "c", keepalive_s=0.5)
        gone = threading.Event()
        member.client.on_disconnect = lambda *_: gone.set()
        mosquitto.freeze()
        assert gone.wait(WITHIN_S)
        mosquitto.thaw()
        member.wait_until_connected(times=2)

    def test_queues_are_bounded(self, mosquitto, version):
        broker = replace(mosquitto.broker, version=version)
        client = new_client(broker, "c", in_flight=5, queued=10)
        codes = [client.publish("t", b"x", 1).rc for _ in range(12)]
        assert codes[9] in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN)
        assert codes[10:] == [MQTTErrorCode.MQTT_ERR_QUEUE_SIZE] * 2

    def test_a_session_that_is_not_clean_gets_what_it_missed(self, mosquitto, join, version):
        broker = replace(mosquitto.broker, version=version)
        first = join(broker, "away", "t", clean=False)
        first.leave()
        join(broker, "sender").publish("t", b"missed")
        again = join(broker, "away", clean=False)
        again.wait_for(b"missed")
        assert again.session_present == [True]

    def test_a_clean_session_is_forgotten(self, mosquitto, join, version):
        broker = replace(mosquitto.broker, version=version)
        first = join(broker, "away", "t")
        first.leave()
        sender = join(broker, "sender")
        sender.publish("t", b"missed")
        again = join(broker, "away", "other")
        sender.publish("other", b"end")
        again.wait_for(b"end")
        assert again.session_present == [False]
        assert [payload for _, payload in again.got] == [b"end"]

    def test_a_goodbye_sends_no_last_will(self, mosquitto, join, version):
        broker = replace(mosquitto.broker, version=version)
        watcher = join(broker, "watcher", "will/#")
        join(broker, "polite", will=("will/polite", b"dead", 1, False)).leave()
        join(broker, "gone", will=("will/gone", b"dead", 1, False)).vanish()
        watcher.wait_for(b"dead")
        assert watcher.got == [("will/gone", b"dead")]


def test_the_broker_may_be_told_how_much_to_send_at_once(mosquitto, join):
    """Receive Maximum (MQTT 5): without acknowledgements, no more than so many messages come."""
    client = new_client(mosquitto.broker, "slow", receive_maximum=3)
    client.manual_ack_set(True)
    subscribed, got, enough = threading.Event(), [], threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()

    def on_message(client: object, userdata: object, message: object) -> None:
        got.append(message)
        if len(got) >= 3:
            enough.set()

    client.on_message = on_message
    connect(client, mosquitto.broker)
    client.subscribe("t", 1)
    assert subscribed.wait(WITHIN_S)
    sender = join(mosquitto.broker, "sender")
    for number in range(6):
        sender.publish("t", b"%d" % number)
    assert enough.wait(WITHIN_S)
    time.sleep(0.2)
    assert len(got) == 3
    disconnect(client)


def test_send_at_once_takes_what_is_no_tcp_socket():
    send_at_once(object())


def test_ports_are_kept_over_a_restart(mosquitto: Mosquitto):
    port = mosquitto.port
    mosquitto.restart()
    assert mosquitto.port == port
    check_broker(mosquitto.broker)
