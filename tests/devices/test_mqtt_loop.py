"""Many clients on one loop: what they send and hear, while brokers come, go, hang and refuse."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise

import pytest
from brokers import Mosquitto, free_port
from fake_runtime import in_time

from devices.mqtt.connections import Broker
from devices.mqtt.mqtt_loop import LoopedClient, MqttLoop
from devices.virtual.alarm import Alarm, now_s

PATIENCE_S = 20.0


async def until(happened: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    end_s = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < end_s, "it did not happen in time"
        await asyncio.sleep(0.01)


def echo(mqtt: MqttLoop, name: str = "me", **settings: object) -> tuple[LoopedClient, list[bytes]]:
    """A client that hears what it sends to the topic of its name."""
    heard: list[bytes] = []
    client = mqtt.add(name, [name], lambda it: heard.append(bytes(it.payload)), **settings)  # type: ignore[arg-type]
    return client, heard


def numbered(client: LoopedClient, topic: str, numbers: range) -> list[bool]:
    return [client.send(topic, lambda n=n: (b"%d" % n, None)) for n in numbers]


def numbers(heard: list[bytes]) -> list[int]:
    return [int(payload) for payload in heard]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_what_is_sent_arrives(mosquitto: Mosquitto, qos: int, version: str) -> None:
    async def main() -> None:
        async with MqttLoop(replace(mosquitto.broker, version=version)) as mqtt:
            client, heard = echo(mqtt, qos=qos)
            assert await mqtt.all_ready(PATIENCE_S) == []
            assert all(numbered(client, "me", range(50)))
            await until(lambda: len(heard) >= 50)
            assert numbers(heard) == list(range(50))

    asyncio.run(main())


def test_messages_larger_than_the_socket_takes_at_once(mosquitto: Mosquitto) -> None:
    async def main() -> None:
        async with MqttLoop(mosquitto.broker) as mqtt:
            client, heard = echo(mqtt)
            await mqtt.all_ready(PATIENCE_S)
            large = bytes(8_000_000)
            assert client.send("me", lambda: (large, None))
            assert client.send("me", lambda: (b"after", None))
            await until(lambda: len(heard) >= 2)
            assert heard == [large, b"after"]

    asyncio.run(main())


def test_the_embedded_broker_serves_many_clients(embedded: Broker) -> None:
    async def main() -> None:
        async with MqttLoop(embedded) as mqtt:
            clients = [echo(mqtt, f"client-{number}") for number in range(40)]
            assert await mqtt.all_ready(PATIENCE_S) == []
            for number, (client, _) in enumerate(clients):
                numbered(client, f"client-{number}", range(number, number + 3))
            await until(lambda: all(len(heard) >= 3 for _, heard in clients))
            for number, (_, heard) in enumerate(clients):
                assert numbers(heard) == list(range(number, number + 3))

    asyncio.run(main())


def test_qos_1_waits_for_the_connection_and_says_its_age_when_it_is_sent(
    mosquitto: Mosquitto,
) -> None:
    mosquitto.kill()

    async def main() -> None:
        async with MqttLoop(mosquitto.broker) as mqtt:
            client, heard = echo(mqtt, most_held=3)
            made_s: list[float] = []

            def make() -> tuple[bytes, None]:
                made_s.append(time.monotonic())
                return b"%d" % len(made_s), None

            assert [client.send("me", make) for _ in range(5)] == [True] * 3 + [False] * 2
            await until(lambda: "nothing listens" in client.problem)
            assert made_s == []
            started_s = time.monotonic()
            await asyncio.to_thread(mosquitto.start)
            await until(lambda: len(heard) >= 3)
            assert numbers(heard) == [1, 2, 3]
            assert min(made_s) >= started_s
            assert client.problem == ""

    asyncio.run(main())


def test_qos_0_is_lost_without_a_connection() -> None:
    async def main() -> None:
        async with MqttLoop(Broker("127.0.0.1", free_port())) as mqtt:
            client, _ = echo(mqtt, qos=0)
            assert not client.send("me", lambda: (b"", None))

    asyncio.run(main())


@pytest.mark.parametrize("qos", [1, 2])
def test_no_more_is_unacknowledged_than_allowed(
    start_mosquitto: Callable[..., Mosquitto], qos: int
) -> None:
    # A client that sends more than the broker's Receive Maximum is disconnected (MQTT 5, 3.3.4).
    broker = start_mosquitto("max_inflight_messages 3").broker

    async def main() -> None:
        async with MqttLoop(broker) as mqtt:
            client, heard = echo(mqtt, qos=qos)
            one, ones = echo(mqtt, "one", qos=qos, inflight=1)
            await mqtt.all_ready(PATIENCE_S)
            numbered(client, "me", range(100))
            outstanding = []
            send = one._publish

            def noting(topic: str, make: object) -> None:
                send(topic, make)  # type: ignore[arg-type]
                outstanding.append(one._unacknowledged)

            one._publish = noting  # type: ignore[method-assign]
            numbered(one, "one", range(20))
            await until(lambda: len(heard) >= 100 and len(ones) >= 20)
            assert numbers(heard) == list(range(100))
            assert numbers(ones) == list(range(20))
            assert outstanding == [1] * 20
            assert [client.connections, one.connections] == [1, 1]

    asyncio.run(main())


def test_a_restarted_broker_gets_everyone_back_with_subscriptions(mosquitto: Mosquitto) -> None:
    async def main() -> None:
        async with MqttLoop(mosquitto.broker) as mqtt:
            clients = [echo(mqtt, f"client-{number}") for number in range(50)]
            await mqtt.all_ready(PATIENCE_S)
            mosquitto.kill()
            await until(lambda: not any(client.is_ready for client, _ in clients))
            for number, (client, _) in enumerate(clients):
                assert client.send(f"client-{number}", lambda: (b"1", None))
            await asyncio.sleep(2.0)  # long enough for delays to grow
            await asyncio.to_thread(mosquitto.start)
            back_s = time.monotonic()
            assert await mqtt.all_ready(PATIENCE_S) == []
            assert time.monotonic() - back_s < in_time(5)
            await until(lambda: all(heard for _, heard in clients))
            assert {client.connections for client, _ in clients} == {2}

    asyncio.run(main())


def test_what_was_sent_and_not_acknowledged_is_sent_again(mosquitto: Mosquitto) -> None:
    async def main() -> None:
        async with MqttLoop(mosquitto.broker, keepalive_s=1.0) as mqtt:
            client, heard = echo(mqtt)
            await mqtt.all_ready(PATIENCE_S)
            mosquitto.freeze()
            numbered(client, "me", range(5))
            await asyncio.sleep(0.1)
            mosquitto.kill()
            await asyncio.to_thread(mosquitto.start)
            # At least once: what the old broker delivered before its end may come again.
            await until(lambda: set(numbers(heard)) == set(range(5)))
            heard.clear()
            numbered(client, "me", range(5, 10))
            await until(lambda: len(heard) >= 5)
            assert numbers(heard) == list(range(5, 10))

    asyncio.run(main())


def test_a_broker_that_hangs_is_noticed_and_found_again(mosquitto: Mosquitto) -> None:
    async def main() -> None:
        async with MqttLoop(mosquitto.broker, keepalive_s=1.0) as mqtt:
            client, heard = echo(mqtt)
            await mqtt.all_ready(PATIENCE_S)
            mosquitto.freeze()
            await until(lambda: not client.is_ready, within_s=5.0)
            mosquitto.thaw()
            await until(lambda: client.is_ready)
            numbered(client, "me", range(1))
            await until(lambda: len(heard) == 1)

    asyncio.run(main())


def test_closing_does_not_wait_for_a_broker_that_is_not_there() -> None:
    async def main() -> float:
        async with MqttLoop(Broker("127.0.0.1", free_port())) as mqtt:
            for number in range(20):
                echo(mqtt, f"client-{number}")
            missing = await mqtt.all_ready(0.3)
            assert len(missing) == 20
            await until(lambda: all("nothing listens" in client.problem for client in missing))
            return time.monotonic()

    closing_s = asyncio.run(main())
    assert time.monotonic() - closing_s < in_time(5)


@contextmanager
def scripted_broker(suback: int, after: bytes = b"") -> Iterator[Broker]:
    """A broker that answers CONNECT and SUBSCRIBE of MQTT 5 and sends ``after``, nothing else."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, length = await reader.readexactly(2)
                body = await reader.readexactly(length)
                if kind >> 4 == 1:
                    writer.write(bytes([0x20, 3, 0, 0, 0]))
                elif kind >> 4 == 8:
                    writer.write(bytes([0x90, 4, *body[:2], 0, suback]) + after)
        writer.close()

    ready, loop = threading.Event(), asyncio.new_event_loop()
    ports: list[int] = []
    stop = asyncio.Event()

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            ports.append(server.sockets[0].getsockname()[1])
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    ready.wait()
    try:
        yield Broker("127.0.0.1", ports[0])
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_a_subscription_that_is_refused_is_told() -> None:
    async def main(broker: Broker) -> None:
        async with MqttLoop(broker) as mqtt:
            client, _ = echo(mqtt)
            assert await mqtt.all_ready(0.5) == [client]
            assert client.problem == "it refuses the subscription to me; its access list?"

    with scripted_broker(suback=0x87) as broker:
        asyncio.run(main(broker))


def test_messages_that_the_broker_refuses_are_counted(
    start_mosquitto: Callable[..., Mosquitto], tmp_path: object
) -> None:
    acl = f"{tmp_path}/acl"
    with open(acl, "w", encoding="utf-8") as file:
        file.write("topic readwrite me\n")
    broker = start_mosquitto(f"acl_file {acl}").broker

    async def main() -> None:
        async with MqttLoop(broker) as mqtt:
            client, heard = echo(mqtt)
            await mqtt.all_ready(PATIENCE_S)
            client.send("other", lambda: (b"0", None))
            numbered(client, "me", range(1))
            await until(lambda: len(heard) == 1)
            assert (client.refused, client.refusal) == (1, "Not authorized")

    asyncio.run(main())


def test_a_client_gives_up_for_another_of_its_name() -> None:
    session_taken_over = bytes([0xE0, 2, 0x8E, 0])

    async def main(broker: Broker) -> None:
        async with MqttLoop(broker) as mqtt:
            client, _ = echo(mqtt)
            await until(lambda: client.taken_over)
            assert await mqtt.all_ready(PATIENCE_S) == [client]
            assert "same identifier" in client.problem
            await asyncio.sleep(0.3)
            assert client.connections == 1

    with scripted_broker(suback=1, after=session_taken_over) as broker:
        asyncio.run(main(broker))


def test_two_clients_of_one_name_do_not_storm_the_broker(mosquitto: Mosquitto) -> None:
    async def main() -> None:
        async with MqttLoop(mosquitto.broker) as mqtt, MqttLoop(mosquitto.broker) as other:
            clients = [echo(mqtt)[0], echo(other)[0]]
            await asyncio.sleep(3.0)
            # Delays of 0.1 s that stay the same would make some 40 each.
            assert sum(client.connections for client in clients) < 20

    asyncio.run(main())


@pytest.mark.parametrize("forget", [True, False])
def test_a_persistent_session_is_ended_where_asked(mosquitto: Mosquitto, forget: bool) -> None:
    async def main() -> list[bytes]:
        async with MqttLoop(mosquitto.broker, forget=forget) as mqtt:
            echo(mqtt, clean=False)
            await mqtt.all_ready(PATIENCE_S)
        async with MqttLoop(mosquitto.broker) as mqtt:
            sender, _ = echo(mqtt, "sender")
            await mqtt.all_ready(PATIENCE_S)
            sender.send("me", lambda: (b"meanwhile", None))
            sender.send("sender", lambda: (b"done", None))
            await until(lambda: sender._unacknowledged == 0)
        async with MqttLoop(mosquitto.broker) as mqtt:
            client, heard = echo(mqtt, clean=False)
            await mqtt.all_ready(PATIENCE_S)
            client.send("me", lambda: (b"now", None))
            await until(lambda: b"now" in heard)
            return heard

    assert asyncio.run(main()) == ([b"now"] if forget else [b"meanwhile", b"now"])


# --- the alarm -----------------------------------------------------------------------------------


@pytest.mark.parametrize("timer_files", [True, False])
def test_an_alarm_rings_once_and_not_before_its_time(
    timer_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not timer_files:
        monkeypatch.setattr("devices.virtual.alarm.sys.platform", "other")

    async def main() -> None:
        rung_s: list[float] = []
        alarm = Alarm(lambda: rung_s.append(now_s()))
        at_s = now_s() + 0.05
        alarm.set(at_s - 0.04)
        alarm.set(at_s)  # the last time counts
        await until(lambda: bool(rung_s))
        assert rung_s[0] >= at_s
        alarm.set(math.inf)
        await asyncio.sleep(0.05)
        assert len(rung_s) == 1
        alarm.set(now_s() - 10)  # past: at once
        await until(lambda: len(rung_s) == 2)
        alarm.set(now_s() + 0.02)
        alarm.close()
        alarm.set(now_s())
        await asyncio.sleep(0.05)
        assert len(rung_s) == 2

    asyncio.run(main())


def test_an_alarm_may_set_itself() -> None:
    async def main() -> None:
        planned_s = [now_s() + 0.002 * number for number in range(1, 51)]
        rung_s: list[float] = []

        def ring() -> None:
            rung_s.append(now_s())
            alarm.set(planned_s[len(rung_s)] if len(rung_s) < len(planned_s) else math.inf)

        alarm = Alarm(ring)
        alarm.set(planned_s[0])
        await until(lambda: len(rung_s) == len(planned_s))
        alarm.close()
        assert all(at_s >= planned for at_s, planned in zip(rung_s, planned_s, strict=True))
        assert all(earlier <= later for earlier, later in pairwise(rung_s))

    asyncio.run(main())
