"""The embedded broker: its process, and what a live run relies on of MQTT 3.1.1."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from brokers import WITHIN_S, Member, free_port, program

from devices.mqtt.connections import Broker, check_broker
from devices.mqtt.embedded_broker import embedded_broker, start_embedded_broker
from models.errors import BrokerError


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def ends(process_id: int) -> bool:
    until_s = time.monotonic() + WITHIN_S
    while time.monotonic() < until_s:
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


class TestProcess:
    def test_it_listens_and_leaves_nothing_behind(self):
        with embedded_broker() as broker:
            assert broker.version == "3.1.1"
            check_broker(broker)
        assert not is_listening(broker.port)

    def test_on_a_port_that_was_asked_for_again_and_again(self):
        port = free_port()
        for _ in range(2):
            with embedded_broker(port) as broker:
                assert broker == Broker("127.0.0.1", port, version="3.1.1")
                check_broker(broker)

    def test_a_port_in_use(self, embedded):
        with pytest.raises(BrokerError) as caught:
            start_embedded_broker(embedded.port)
        assert str(caught.value) == (
            f"no broker can listen on 127.0.0.1:{embedded.port}: the port is in use"
        )

    @pytest.mark.parametrize("port", [-1, 65536, 80000])
    def test_no_port(self, port):
        with pytest.raises(BrokerError, match="1 to 65535"):
            start_embedded_broker(port)

    @pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
    def test_an_address_that_this_host_has_not(self, host):
        with pytest.raises(BrokerError, match=f"no broker can listen on {host}:0: "):
            start_embedded_broker(host=host)

    def test_it_is_reached_from_this_host_only(self, embedded):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect(("192.0.2.1", 9))  # sends nothing: which address would it go out from?
            except OSError:
                pytest.skip("this host has no other address")
            address = sock.getsockname()[0]
        if address.startswith("127."):
            pytest.skip("this host has no other address")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, embedded.port), timeout=5)

    def test_it_ends_with_its_parent(self):
        program = (
            "import os, signal; from devices.mqtt.embedded_broker import start_embedded_broker;"
            "started = start_embedded_broker(); print(started.process.pid, flush=True);"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        parent = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
        )
        assert parent.returncode == -signal.SIGKILL
        assert ends(int(parent.stdout))

    def test_what_happened_to_it_is_known(self):
        started = start_embedded_broker()
        try:
            assert started.status is None
            started.process.kill()
            started.process.wait()
            assert started.status == -signal.SIGKILL
        finally:
            started.stop()

    def test_ctrl_c_is_for_its_parent(self, embedded):
        """The terminal sends it to the whole group; the broker goes last, in its own session."""
        started = start_embedded_broker()
        try:
            assert os.getpgid(started.process.pid) != os.getpgid(0)
        finally:
            started.stop()

    def test_connections_end_with_it_and_are_back_after_it(self, join):
        port = free_port()
        started = start_embedded_broker(port)
        member = join(started.broker, "c", "t")
        started.stop()
        with embedded_broker(port):
            member.wait_until_connected(times=2)

    def test_it_says_nothing_whatever_it_is_sent(self, tmp_path):
        program = (
            "import socket, time; from devices.mqtt.embedded_broker import embedded_broker\n"
            "with embedded_broker() as broker:\n"
            "  for data in (b'', b'GET / HTTP/1.1', bytes(99), bytes([255] * 99),\n"
            "               bytes([16, 255, 255, 255, 127, 0]), bytes([48, 2, 0, 0])):\n"
            "    with socket.create_connection((broker.host, broker.port)) as sock:\n"
            "      sock.sendall(data)\n"
            "  time.sleep(0.3)\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
        )
        assert (said.stdout, said.stderr, said.returncode) == ("", "", 0)

    def test_amqtt_is_not_imported_by_those_who_start_it(self):
        program = (
            "import sys, devices.mqtt.embedded_broker; print({'amqtt', 'torch'} & {*sys.modules})"
        )
        said = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
        assert said.stdout.strip() == b"set()"


class TestCommand:
    """``offramp live broker``."""

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "offramp", "live", "broker", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_serves_until_it_is_told_to_end(self, number):
        port = free_port()
        with self.start("--port", str(port)) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert f"mqtt://127.0.0.1:{port}" in line
            check_broker(Broker("127.0.0.1", port, version="3.1.1"))
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert (errors, process.returncode) == ("", 0)
        assert not is_listening(port)

    def test_a_port_in_use(self, embedded):
        with self.start("--port", str(embedded.port)) as process:
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert errors == (
            f"error: no broker can listen on 127.0.0.1:{embedded.port}: the port is in use\n"
        )


def test_mqtt_5_is_refused_with_a_sentence(embedded):
    with pytest.raises(BrokerError, match="it does not speak this version of MQTT"):
        check_broker(replace(embedded, version="5"))


def test_packets_go_out_at_once():
    """asyncio turns Nagle's algorithm off for some sockets only, and not for ours."""
    from devices.mqtt.amqtt_broker import EmbeddedBroker
    from devices.mqtt.embedded_broker import _listen

    async def options() -> list[int]:
        broker, seen = EmbeddedBroker(), []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving = asyncio.ensure_future(broker.serve(reader, writer))
            await asyncio.sleep(0)
            sock = writer.get_extra_info("socket")
            seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            await serving

        await broker.start()
        server = await asyncio.start_server(serve, sock=_listen("127.0.0.1", 0))
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"no MQTT")
        writer.write_eof()
        await reader.read()
        writer.close()
        server.close()
        await broker.shutdown()
        return seen

    assert all(asyncio.run(options()))


@pytest.mark.parametrize("qos", [0, 1, 2])
class TestQualityOfService:
    def test_a_message_arrives_once_and_in_order(self, embedded, join, qos):
        receiver = join(embedded, "receiver", "t/+", qos=qos)
        sender = join(embedded, "sender")
        sent = [b"%d" % number for number in range(300)]
        for payload in sent:
            sender.client.publish("t/a", payload, qos)
        receiver.wait_for(sent[-1])
        assert [payload for _, payload in receiver.got] == sent
        assert {message.qos for message in receiver.messages} == {qos}

    @pytest.mark.parametrize("published", [0, 1, 2])
    def test_the_lower_of_two_counts(self, embedded, join, qos, published):
        receiver = join(embedded, "receiver", "t", qos=qos)
        join(embedded, "sender").publish("t", b"x", published)
        assert receiver.wait_for(b"x").qos == min(qos, published)

    def test_a_large_message(self, embedded, join, qos):
        receiver = join(embedded, "receiver", "t", qos=qos)
        payload = os.urandom(1024 * 1024)
        join(embedded, "sender").publish("t", payload, qos)
        receiver.wait_for(payload)

    def test_many_at_once(self, embedded, join, qos):
        receiver = join(embedded, "receiver", "t/+", qos=qos)
        senders = [join(embedded, f"sender-{number}") for number in range(8)]
        threads = [
            threading.Thread(
                target=lambda sender=sender, name=name: [
                    sender.client.publish(f"t/{name}", b"%d" % number, qos).wait_for_publish(10)
                    for number in range(100)
                ]
            )
            for name, sender in enumerate(senders)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with receiver.new:
            assert receiver.new.wait_for(lambda: len(receiver.messages) >= 800, WITHIN_S)
        assert Counter(topic for topic, _ in receiver.got) == {
            f"t/{name}": 100 for name in range(8)
        }


class TestSubscriptions:
    @pytest.mark.parametrize(
        ("topic_filter", "matches"),
        [
            ("a/b", {"a/b"}),
            ("a/+", {"a/b", "a/c"}),
            ("+/b", {"a/b", "x/b"}),
            ("a/#", {"a", "a/b", "a/c", "a/b/c"}),
            ("#", {"a", "a/b", "a/c", "a/b/c", "x/b"}),
            ("+", {"a"}),
            ("a/+/c", {"a/b/c"}),
        ],
    )
    def test_wildcards(self, embedded, join, topic_filter, matches):
        receiver = join(embedded, "receiver", topic_filter)
        sender = join(embedded, "sender")
        for topic in ("a", "a/b", "a/c", "a/b/c", "x/b"):
            sender.publish(topic, b"x")
        receiver.subscribe("end")
        sender.publish("end", b"end")
        receiver.wait_for(b"end")
        assert {topic for topic, _ in receiver.got} == {*matches, "end"}

    def test_the_last_quality_of_service_counts(self, embedded, join):
        receiver = join(embedded, "receiver", "t", qos=0)
        receiver.subscribe("t", 1)
        join(embedded, "sender").publish("t", b"x", 1)
        assert receiver.wait_for(b"x").qos == 1

    def test_unsubscribing(self, embedded, join):
        receiver = join(embedded, "receiver", "t", "end")
        done = threading.Event()
        receiver.client.on_unsubscribe = lambda *_: done.set()
        receiver.client.unsubscribe("t")
        assert done.wait(WITHIN_S)
        sender = join(embedded, "sender")
        sender.publish("t", b"x")
        sender.publish("end", b"end")
        receiver.wait_for(b"end")
        assert [payload for _, payload in receiver.got] == [b"end"]


class TestRetained:
    def test_who_subscribes_later_gets_it(self, embedded, join):
        sender = join(embedded, "sender")
        sender.publish("status/a", b"old", retain=True)
        sender.publish("status/a", b"new", retain=True)
        receiver = join(embedded, "receiver", "status/+")
        assert receiver.wait_for(b"new").retain
        sender.publish("status/a", b"live", retain=True)
        assert not receiver.wait_for(b"live").retain
        assert [payload for _, payload in receiver.got] == [b"new", b"live"]

    def test_an_empty_one_clears_it(self, embedded, join):
        sender = join(embedded, "sender")
        sender.publish("status/a", b"old", retain=True)
        sender.publish("status/a", b"", retain=True)
        receiver = join(embedded, "receiver", "#")
        sender.publish("end", b"end")
        receiver.wait_for(b"end")
        assert [payload for _, payload in receiver.got] == [b"end"]

    def test_nobody_gets_what_others_subscribed_to(self, embedded, join):
        sender = join(embedded, "sender")
        sender.publish("status/a", b"status", retain=True)
        join(embedded, "one", "status/+").wait_for(b"status")
        other = join(embedded, "other", "end")
        sender.publish("end", b"end")
        other.wait_for(b"end")
        assert [payload for _, payload in other.got] == [b"end"]

    def test_many_that_subscribe_at_once_get_it(self, embedded, join):
        join(embedded, "sender").publish("status/a", b"status", retain=True)
        members: list[Member] = []
        threads = [
            threading.Thread(
                target=lambda name=name: members.append(
                    join(embedded, name, "status/+", f"reply/{name}")
                )
            )
            for name in (f"device-{number}" for number in range(50))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(members) == 50
        for member in members:
            member.wait_for(b"status")
            assert len(member.session_present) == 1, "it was thrown out and came back"


class TestLastWill:
    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_of_one_that_vanishes(self, embedded, join, qos):
        watcher = join(embedded, "watcher", "will", qos=2)
        join(embedded, "gone", will=("will", b"dead", qos, True)).vanish()
        assert watcher.wait_for(b"dead").qos == qos
        assert join(embedded, "late", "will").wait_for(b"dead").retain

    def test_not_of_one_that_says_goodbye(self, embedded, join):
        watcher = join(embedded, "watcher", "will", "end")
        join(embedded, "polite", will=("will", b"dead", 1, False)).leave()
        join(embedded, "sender").publish("end", b"end")
        watcher.wait_for(b"end")
        assert [payload for _, payload in watcher.got] == [b"end"]

    def test_not_of_one_that_says_it_at_once(self, embedded, join):
        watcher = join(embedded, "watcher", "will", "end")
        hello = connect_packet("polite", will=("will", b"dead"))
        for _ in range(20):
            with socket.create_connection((embedded.host, embedded.port)) as sock:
                sock.settimeout(WITHIN_S)
                sock.sendall(hello + b"\xe0\x00")
                assert sock.recv(4) == b"\x20\x02\x00\x00"
                assert sock.recv(1) == b""
        join(embedded, "sender").publish("end", b"end")
        watcher.wait_for(b"end")
        assert [payload for _, payload in watcher.got] == [b"end"]

    def test_of_one_that_falls_silent(self, embedded, join):
        """A half-open connection: the socket stays, and nobody is at its other end."""
        watcher = join(embedded, "watcher", "will")
        with socket.create_connection((embedded.host, embedded.port)) as sock:
            sock.sendall(connect_packet("silent", keepalive_s=1, will=("will", b"dead")))
            assert sock.recv(4) == b"\x20\x02\x00\x00"
            watcher.wait_for(b"dead")
            sock.settimeout(WITHIN_S)
            assert sock.recv(1) == b"", "the broker closes it"


class TestSessions:
    def test_of_one_that_is_away(self, embedded, join):
        first = join(embedded, "away", "t", qos=2, clean=False)
        first.leave()
        sender = join(embedded, "sender")
        time.sleep(1.5)  # the broker looks for sessions to forget once a second
        for qos in (0, 1, 2):
            sender.publish("t", b"missed at %d" % qos, qos)
        again = join(embedded, "away", clean=False)
        again.wait_for(b"missed at 2")
        assert again.session_present == [True]
        assert [payload for _, payload in again.got] == [b"missed at 1", b"missed at 2"]
        assert not any(message.retain for message in again.messages)

    def test_of_one_that_did_not_acknowledge(self, embedded, join):
        with socket.create_connection((embedded.host, embedded.port)) as sock:
            sock.settimeout(WITHIN_S)
            sock.sendall(connect_packet("mute", clean=False))
            sock.recv(4)
            sock.sendall(b"\x82\x06\x00\x01\x00\x01t\x01")  # SUBSCRIBE to "t" at QoS 1
            assert sock.recv(5) == b"\x90\x03\x00\x01\x01"
            join(embedded, "sender").publish("t", b"x")
            assert sock.recv(1)[0] >> 4 == 3  # PUBLISH
        join(embedded, "mute", clean=False).wait_for(b"x")

    def test_clean_ones_are_forgotten(self, embedded, join):
        join(embedded, "away", "t", clean=False).leave()
        again = join(embedded, "away")
        assert again.session_present == [False]
        sender = join(embedded, "sender")
        sender.publish("t", b"x")
        again.subscribe("end")
        sender.publish("end", b"end")
        again.wait_for(b"end")
        assert [payload for _, payload in again.got] == [b"end"]

    @pytest.mark.parametrize("clean", [True, False])
    def test_a_second_connection_takes_the_place_of_the_first(self, embedded, join, clean):
        watcher = join(embedded, "watcher", "will")
        first = join(embedded, "same", "t", clean=clean, will=("will", b"dead", 1, False))
        gone = threading.Event()
        first.client._reconnect_on_failure = False  # or the two would fight for ever
        first.client.on_disconnect = lambda *_: gone.set()
        second = join(embedded, "same", "t", clean=clean)
        assert gone.wait(WITHIN_S)
        watcher.wait_for(b"dead")
        time.sleep(1.5)  # the broker looks for sessions to forget once a second
        join(embedded, "sender").publish("t", b"x")
        second.wait_for(b"x")
        assert second.session_present == [not clean]
        assert not first.got

    def test_qos_2_goes_on_after_the_connection_broke(self, embedded, join):
        """The client has PUBREC, not PUBCOMP: it sends PUBREL again, and must be answered."""
        receiver = join(embedded, "receiver", "t", qos=2)
        publish = b"\x34\x06\x00\x01t\x00\x09x"
        with socket.create_connection((embedded.host, embedded.port)) as sock:
            sock.settimeout(WITHIN_S)
            sock.sendall(connect_packet("sender", clean=False))
            sock.recv(4)
            sock.sendall(publish)
            assert sock.recv(4) == b"\x50\x02\x00\x09"  # PUBREC
        for _ in range(2):
            with socket.create_connection((embedded.host, embedded.port)) as sock:
                sock.settimeout(WITHIN_S)
                sock.sendall(connect_packet("sender", clean=False))
                assert sock.recv(4) == b"\x20\x02\x01\x00"
                sock.sendall(b"\x62\x02\x00\x09")  # PUBREL
                assert sock.recv(4) == b"\x70\x02\x00\x09"  # PUBCOMP
        join(embedded, "other").publish("t", b"end", 2)
        receiver.wait_for(b"end")
        assert [payload for _, payload in receiver.got] == [b"x", b"end"]


class TestHostileClients:
    @pytest.mark.parametrize(
        "packet",
        [
            b"\x30\x05\x00\x03a/#",  # PUBLISH to a filter
            b"\x30\x04\x00\x02$x",
            b"\x30\x02\x00\x00",  # to no topic
            b"\x32\x07\x00\x03a/#\x00\x01",
            b"\x30\xff\xff\xff\x7f" + b"\x00\x01t" + b"x" * 1000,  # 256 MiB are announced
            b"\x30\xff\xff\xff\xff\xff",  # no length at all
            b"\xf0\x00",  # reserved
            b"\x36\x06\x00\x01t\x00\x01x",  # QoS 3
            b"\x20\x02\x00\x00",  # CONNACK
        ],
    )
    def test_are_thrown_out(self, embedded, join, packet):
        bystander = join(embedded, "bystander", "t")
        with socket.create_connection((embedded.host, embedded.port)) as sock:
            sock.settimeout(WITHIN_S)
            sock.sendall(connect_packet("hostile"))
            sock.recv(4)
            sock.sendall(packet)
            assert sock.recv(1) == b""
        join(embedded, "sender").publish("t", b"x")
        bystander.wait_for(b"x")

    def test_random_packets_do_no_harm(self, embedded, join):
        bystander = join(embedded, "bystander", "t")
        draw = random.Random(7)
        parts = [
            b"\x30\x04\x00\x01tx",  # PUBLISH
            b"\x32\x06\x00\x01t\x00\x01x",
            b"\x34\x06\x00\x01t\x00\x01x",
            b"\x62\x02\x00\x01",  # PUBREL
            b"\x40\x02\x00\x01",  # PUBACK
            b"\x82\x06\x00\x01\x00\x01u\x01",  # SUBSCRIBE
            b"\xa2\x05\x00\x01\x00\x01u",  # UNSUBSCRIBE
            b"\xc0\x00",  # PINGREQ
            connect_packet("again"),
        ]
        for number in range(300):
            data = bytearray(b"".join(draw.choices(parts, k=4)))
            for _ in range(draw.randrange(4)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            hello = bytearray(connect_packet(f"hostile-{number % 5}"))
            if draw.random() < 0.3:
                hello[draw.randrange(len(hello))] = draw.randrange(256)
            with socket.create_connection((embedded.host, embedded.port)) as sock:
                sock.sendall(hello + data)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        join(embedded, "sender").publish("t", b"end")
        bystander.wait_for(b"end")
        assert len(bystander.session_present) == 1, "it was thrown out and came back"

    def test_who_reads_nothing_costs_bounded_memory(self, join):
        psutil = pytest.importorskip("psutil")
        started = start_embedded_broker()
        try:
            broker = started.broker
            with socket.create_connection((broker.host, broker.port)) as sock:
                sock.sendall(connect_packet("deaf", keepalive_s=0))
                sock.recv(4)
                sock.sendall(b"\x82\x06\x00\x01\x00\x01t\x00")
                sock.recv(5)
                sender, reader = join(broker, "sender"), join(broker, "reader", "t", qos=0)
                memory = psutil.Process(started.process.pid).memory_info
                before = memory().rss
                for number in range(8):
                    for _ in range(500):
                        sender.client.publish("t", bytes(20_000), 0)
                    sender.publish("t", b"%d" % number)  # waits for the broker
                    reader.wait_for(b"%d" % number)
                # 80 MB were sent; a thousand messages (20 MB) and what the sockets hold may wait.
                assert memory().rss - before < 50e6
        finally:
            started.stop()


def connect_packet(
    client_id: str,
    clean: bool = True,
    keepalive_s: int = 60,
    will: tuple[str, bytes] | None = None,
) -> bytes:
    """A CONNECT packet of MQTT 3.1.1."""

    def text(data: bytes) -> bytes:
        return len(data).to_bytes(2, "big") + data

    flags = (2 if clean else 0) | (4 if will else 0)
    body = text(b"MQTT") + bytes([4, flags]) + keepalive_s.to_bytes(2, "big")
    body += text(client_id.encode())
    if will is not None:
        body += text(will[0].encode()) + text(will[1])
    return bytes([0x10, len(body)]) + body


def test_mosquittos_programs_are_served(embedded):
    where = ["-p", str(embedded.port), "-t", "t", "-q", "1"]
    publish = [program("mosquitto_pub"), *where, "-m", "hello", "-r"]
    subprocess.run(publish, check=True, timeout=60)
    subscribe = [program("mosquitto_sub"), *where, "-C", "1"]
    said = subprocess.run(subscribe, check=True, timeout=60, capture_output=True)
    assert said.stdout == b"hello\n"
