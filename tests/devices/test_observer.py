"""Who watches a broker sees what joined devices ask, wherever their replies go."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from brokers import Mosquitto
from fake_runtime import in_time
from paho.mqtt.client import Client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.mqtt.connections import connect, disconnect, new_client
from devices.observer import Observer
from devices.protocol.messages import (
    InferenceRequest,
    LatencyReport,
    Reply,
    encode_reply,
    encode_report,
    encode_request,
)
from devices.protocol.topics import reply_topic, report_topic, request_topic
from models.errors import LiveError

SOON_S = 20.0


def wait_until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + SOON_S
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def observer(mosquitto: Mosquitto) -> Iterator[Observer]:
    with Observer(mosquitto.broker, ["edge", "cloud"], own=["cameras-0"]) as observer:
        yield observer


@pytest.fixture
def publish(mosquitto: Mosquitto) -> Iterator[Callable[..., None]]:
    client: Client = new_client(mosquitto.broker, "somebody")
    connect(client, mosquitto.broker)

    def send(topic: str, payload: bytes, response_topic: str | None = None) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if response_topic is not None:
            properties.ResponseTopic = response_topic
        client.publish(topic, payload, 1, properties=properties).wait_for_publish(SOON_S)

    yield send
    disconnect(client)


def request(id: int) -> bytes:
    return encode_request(InferenceRequest(id, 0.1, sample=3))


def reply(id: int) -> bytes:
    return encode_reply(Reply(id, "ok", node="edge", predicted=1, exit=1, node_s=0.001))


def test_it_sees_requests_replies_and_reports_of_every_edge(
    observer: Observer, publish: Callable[..., None]
) -> None:
    for edge in ("edge", "cloud"):
        publish(request_topic(edge, "pi"), request(1))
        publish(reply_topic(edge, "pi"), reply(1))
        publish(report_topic(edge, "pi"), encode_report(LatencyReport(1, 0.25)))
    wait_until(lambda: len(observer.log.kept) == 2 and observer.log.kept[1].reported)
    assert [(it.edge, it.device, it.latency_s) for it in observer.log.kept] == [
        ("edge", "pi", 0.25),
        ("cloud", "pi", 0.25),
    ]
    assert all(it.replied_s > it.asked_s for it in observer.log.kept)


def test_it_passes_over_the_devices_of_the_run(
    observer: Observer, publish: Callable[..., None]
) -> None:
    publish(request_topic("edge", "cameras-0"), request(1))
    publish(request_topic("edge", "pi"), request(1))
    told: list[str] = []
    observer.wait_for(1, SOON_S, told.append)
    assert told == list(observer.log.devices) == ["pi"]


def test_who_joined_is_told_once(observer: Observer, publish: Callable[..., None]) -> None:
    told: list[str] = []
    for names in (["pi"], ["pi", "esp32"]):
        for name in names:
            publish(request_topic("edge", name), request(1))
        observer.wait_for(len(names), SOON_S, told.append)
    assert told == ["pi", "esp32"]


def test_it_waits_for_so_long_and_says_who_is_missing(
    observer: Observer, publish: Callable[..., None]
) -> None:
    publish(request_topic("edge", "pi"), request(1))
    publish(request_topic("edge", "broken"), b"no request")
    wait_until(lambda: observer.log.malformed)
    with pytest.raises(LiveError) as caught:
        observer.wait_for(2, 0.3, lambda name: None)
    assert str(caught.value) == (
        "after 0.3 s 1 of 2 devices that are to join have asked (pi); "
        "1 message(s) came that are no requests"
    )


def test_it_tells_once_of_somebody_who_has_a_virtual_devices_name(
    observer: Observer, publish: Callable[..., None]
) -> None:
    publish(request_topic("edge", "cameras-0"), request(1))
    publish(request_topic("edge", "pi"), request(1))
    observer.wait_for(1, SOON_S, lambda name: None)
    assert observer.new_namesakes() == ["cameras-0"]
    publish(request_topic("edge", "cameras-0"), request(2))
    publish(request_topic("edge", "esp32"), request(1))
    observer.wait_for(2, SOON_S, lambda name: None)
    assert observer.new_namesakes() == []
    with pytest.raises(LiveError, match="under the name of a virtual device asked cameras-0"):
        observer.wait_for(3, 0.1, lambda name: None)


def test_what_virtual_devices_ask_is_theirs_and_a_report_is_not(
    observer: Observer, publish: Callable[..., None]
) -> None:
    observer.own_send = True
    publish(request_topic("edge", "cameras-0"), request(1))
    publish(request_topic("edge", "pi"), request(1))
    wait_until(lambda: observer.log.devices)
    assert observer.new_namesakes() == []
    publish(report_topic("edge", "cameras-0"), encode_report(LatencyReport(1, 0.1)))
    wait_until(lambda: observer.new_namesakes() == ["cameras-0"])


def test_a_wait_ends_with_what_goes_wrong_meanwhile(observer: Observer) -> None:
    def meanwhile() -> None:
        raise LiveError("node edge ended")

    with pytest.raises(LiveError, match="node edge ended"):
        observer.wait_for(1, SOON_S, lambda name: None, meanwhile)


@pytest.mark.parametrize(
    "topic", [reply_topic("edge", "pi"), f"{reply_topic('edge', 'pi')}/7", "home/answers"]
)
def test_it_finds_replies_on_topics_that_a_device_chose(
    observer: Observer, publish: Callable[..., None], topic: str
) -> None:
    publish(request_topic("edge", "pi"), request(1), topic)
    wait_until(lambda: observer.log.devices)
    time.sleep(0.2)  # it subscribes to a topic of the device's own once it has seen it
    publish(topic, reply(1))
    wait_until(lambda: observer.log.kept[0].reply is not None)


def test_it_subscribes_to_nothing_of_the_brokers_own(
    observer: Observer, publish: Callable[..., None]
) -> None:
    publish(request_topic("edge", "pi"), request(1), "$SYS/broker/uptime")
    wait_until(lambda: observer.log.devices)
    assert not observer._chosen


def test_devices_may_have_their_replies_on_one_topic(
    observer: Observer, publish: Callable[..., None]
) -> None:
    for id, device in ((1, "pi"), (2, "esp32")):
        publish(request_topic("edge", device), request(id), "home/answers")
    wait_until(lambda: len(observer.log.devices) == 2)
    time.sleep(0.2)
    for id in (1, 2):
        publish("home/answers", reply(id))
    wait_until(lambda: all(asked.reply is not None for asked in observer.log.kept))


def test_a_request_that_the_broker_kept_is_of_nobody_who_is_there(mosquitto: Mosquitto) -> None:
    client: Client = new_client(mosquitto.broker, "somebody")
    connect(client, mosquitto.broker)
    topic = request_topic("edge", "old")
    client.publish(topic, request(1), 1, retain=True).wait_for_publish(SOON_S)
    with Observer(mosquitto.broker, ["edge"], own=[]) as observer:
        client.publish(request_topic("edge", "new"), request(1), 1).wait_for_publish(SOON_S)
        wait_until(lambda: observer.log.devices)
        time.sleep(0.2)
        assert list(observer.log.devices) == ["new"]
    client.publish(topic, b"", 1, retain=True).wait_for_publish(SOON_S)
    disconnect(client)


def test_a_deadline_of_a_day_keeps_nobody_waiting(
    observer: Observer, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.observer._LONGEST_DRAIN_S", 0.5)
    publish(request_topic("edge", "pi"), encode_request(InferenceRequest(1, 86400.0, sample=3)))
    wait_until(lambda: observer.log.kept)
    start_s = time.monotonic()
    observer.drain(grace_s=0.1)
    assert 0.5 <= time.monotonic() - start_s < in_time(5)


def test_it_is_back_after_the_broker_was_away(
    mosquitto: Mosquitto, observer: Observer, publish: Callable[..., None]
) -> None:
    mosquitto.restart()
    wait_until(lambda: observer.connections == 2)
    wait_until(lambda: _sees(observer, publish))


def _sees(observer: Observer, publish: Callable[..., None]) -> bool:
    with contextlib.suppress(RuntimeError):  # whoever publishes may not be back yet
        publish(request_topic("edge", "pi"), request(1))
    return bool(observer.log.devices)


def test_it_waits_no_longer_than_replies_may_come(
    observer: Observer, publish: Callable[..., None]
) -> None:
    publish(request_topic("edge", "pi"), request(1))
    wait_until(lambda: observer.log.kept)
    asked_s = observer.log.kept[0].asked_s
    observer.drain(grace_s=0.5)
    waited_s = time.monotonic() - asked_s
    assert 0.6 <= waited_s < in_time(5)
