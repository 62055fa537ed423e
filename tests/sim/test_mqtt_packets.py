"""Packet sizes: as the standard lays them out, and as paho really builds them."""

import itertools

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from tiny_worlds import examples

from models.errors import ScenarioError
from sim.network.mqtt_packets import (
    EXCHANGES,
    MAX_REMAINING_LENGTH,
    acknowledgement_bytes,
    connack_bytes,
    connect_bytes,
    disconnect_bytes,
    exchange_bytes,
    ping_bytes,
    properties_bytes,
    publish_bytes,
    suback_bytes,
    subscribe_bytes,
    tcp_bytes,
    tcp_segments,
    tls_bytes,
    variable_integer_bytes,
)

VERSIONS = {"3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}


class PahoPackets:
    """paho's client, whose packets are caught before they reach a socket."""

    def __init__(self, version, client_id="camera-1"):
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=VERSIONS[version]
        )
        self.client._sock = object()
        self.sizes = []
        self.client._packet_queue = self._catch

    def _catch(self, command, packet, mid, qos, info=None):
        self.sizes.append(len(packet))
        return mqtt.MQTT_ERR_SUCCESS

    def size_of(self, send, *arguments, **keywords):
        getattr(self.client, send)(*arguments, **keywords)
        (size,) = self.sizes
        self.sizes.clear()
        self.client._sock = None  # paho closes what it holds when it is deleted
        return size


def paho_publish(version, qos, topic, payload, properties=None):
    paho = PahoPackets(version)
    return paho.size_of(
        "_send_publish", 1, b"t" * topic, b"p" * payload, qos=qos, properties=properties
    )


def request_properties(**values):
    properties = Properties(PacketTypes.PUBLISH)
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


# --- against paho --------------------------------------------------------------------------------

#: Around where the remaining length takes one byte more.
BOUNDARIES = [around + step for around in (127, 16_383, 2_097_151) for step in range(-12, 3)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_publish_is_as_long_as_pahos(version, qos):
    for topic, payload in itertools.product([1, 7, 30], [0, 1, 64, *BOUNDARIES]):
        expected = paho_publish(version, qos, topic, payload)
        assert publish_bytes(version, qos, topic, payload) == expected, (topic, payload)


@examples(100)
@given(
    version=st.sampled_from(sorted(VERSIONS)),
    qos=st.integers(0, 2),
    topic=st.integers(1, 300),
    payload=st.integers(0, 40_000),
)
def test_a_publish_of_any_size_is_as_long_as_pahos(version, qos, topic, payload):
    assert publish_bytes(version, qos, topic, payload) == paho_publish(version, qos, topic, payload)


@pytest.mark.parametrize("response_topic", [1, 20, 110, 130])
def test_properties_of_a_request_are_as_long_as_pahos(response_topic):
    properties = request_properties(
        ResponseTopic="r" * response_topic,
        CorrelationData=b"c" * 8,
        MessageExpiryInterval=2,
        TopicAlias=3,
        PayloadFormatIndicator=1,
        ContentType="image",
        UserProperty=[("model", "resnet8"), ("exit", "2")],
    )
    ours = properties_bytes(
        "message_expiry_interval",
        "topic_alias",
        "payload_format_indicator",
        response_topic=response_topic,
        correlation_data=8,
        content_type=5,
        user_properties=[(5, 7), (4, 1)],
    )
    assert publish_bytes("5", 1, 9, 500, ours) == paho_publish("5", 1, 9, 500, properties)


@pytest.mark.parametrize("identifier", [1, 127, 128, 16_383, 16_384, MAX_REMAINING_LENGTH])
def test_a_subscription_identifier_is_as_long_as_pahos(identifier):
    properties = request_properties(SubscriptionIdentifier=identifier)
    ours = properties_bytes(subscription_identifier=identifier)
    assert publish_bytes("5", 0, 9, 10, ours) == paho_publish("5", 0, 9, 10, properties)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("send", ["_send_puback", "_send_pubrec", "_send_pubrel", "_send_pubcomp"])
def test_acknowledgements_are_as_long_as_pahos(version, send):
    assert acknowledgement_bytes(version) == PahoPackets(version).size_of(send, 1) == 4


@pytest.mark.parametrize("version", VERSIONS)
def test_pings_and_a_disconnect_are_as_long_as_pahos(version):
    assert ping_bytes() == PahoPackets(version).size_of("_send_pingreq") == 2
    assert ping_bytes() == PahoPackets(version).size_of("_send_pingresp")
    assert disconnect_bytes(version) == PahoPackets(version).size_of("_send_disconnect") == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_a_connect_is_as_long_as_pahos(version):
    bare = PahoPackets(version, "camera-1")
    assert connect_bytes(version, 8) == bare.size_of("_send_connect", 60)
    full = PahoPackets(version, "c" * 20)
    full.client.username_pw_set("name", "secret")
    full.client.will_set("status/camera-1", b"gone", qos=1)
    ours = connect_bytes(version, 20, username_bytes=4, password_bytes=6, will=(15, 4))
    assert ours == full.size_of("_send_connect", 60)


def test_a_connect_with_properties_is_as_long_as_pahos():
    paho = PahoPackets("5")
    paho.client._connect_properties = Properties(PacketTypes.CONNECT)
    paho.client._connect_properties.SessionExpiryInterval = 3600
    paho.client._connect_properties.ReceiveMaximum = 20
    ours = properties_bytes("session_expiry_interval", "receive_maximum")
    assert connect_bytes("5", 8, properties=ours) == paho.size_of("_send_connect", 60)


def test_a_subscribe_is_as_long_as_pahos():
    topics = [b"answers/camera-1", b"$share/edge/requests/#"]
    sizes = list(map(len, topics))
    old, new = PahoPackets("3.1.1"), PahoPackets("5")
    assert subscribe_bytes("3.1.1", sizes) == old.size_of(
        "_send_subscribe", False, [(topic, 1) for topic in topics]
    )
    assert subscribe_bytes("5", sizes) == new.size_of(
        "_send_subscribe", False, [(topic, SubscribeOptions(qos=1)) for topic in topics]
    )


# --- by hand -------------------------------------------------------------------------------------


def test_the_brokers_answers_follow_the_standards_layout():
    assert connack_bytes("3.1.1") == 4  # §3.2: two bytes after a fixed header of two
    assert connack_bytes("5") == 5  # and the length of no properties
    # Mosquitto 2 tells its topic alias maximum and its receive maximum.
    told = properties_bytes("topic_alias_maximum", "receive_maximum")
    assert connack_bytes("5", told) == 11
    assert suback_bytes("3.1.1") == 5
    assert suback_bytes("5") == 6
    assert suback_bytes("3.1.1", filters=3) == 7


def test_a_reason_code_is_written_only_before_properties():
    reason = properties_bytes(reason_string=10)
    assert reason == 13
    assert acknowledgement_bytes("5", reason) == 2 + 2 + 1 + 1 + 13
    assert disconnect_bytes("5", reason) == 2 + 1 + 1 + 13


@pytest.mark.parametrize(
    ("value", "size"),
    [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_151, 3), (2_097_152, 4)],
)
def test_a_variable_byte_integer_takes_a_byte_for_seven_bits(value, size):
    assert variable_integer_bytes(value) == size


def test_a_message_longer_than_mqtt_allows_is_refused():
    longest = MAX_REMAINING_LENGTH - 2 - 9
    assert publish_bytes("3.1.1", 0, 9, longest) == 1 + 4 + MAX_REMAINING_LENGTH
    with pytest.raises(ScenarioError, match="PUBLISH of 268435456 bytes: MQTT allows at most"):
        publish_bytes("3.1.1", 0, 9, longest + 1)
    with pytest.raises(ScenarioError, match="topic of 65536 bytes: MQTT allows at most 65535"):
        publish_bytes("5", 0, 65_536, 1)


def test_what_mqtt_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"3\.1\.1 has no properties"):
        publish_bytes("3.1.1", 0, 9, 10, properties=3)
    with pytest.raises(ValueError, match="no such property: respons_topic, topic_alia"):
        properties_bytes("topic_alia", respons_topic=3)


# --- one message ---------------------------------------------------------------------------------


def test_packets_go_there_and_back_in_turn():
    assert EXCHANGES[0].forward == ("PUBLISH",)
    assert EXCHANGES[0].back == ()
    assert EXCHANGES[1].back == ("PUBACK",)
    assert EXCHANGES[2].forward == ("PUBLISH", "PUBREL")
    assert EXCHANGES[2].back == ("PUBREC", "PUBCOMP")


def test_the_receiver_acts_after_three_trips_only_at_qos_2():
    assert [EXCHANGES[qos].trips_to_act for qos in (0, 1, 2)] == [1, 1, 3]
    assert [EXCHANGES[qos].trips_to_complete for qos in (0, 1, 2)] == [1, 2, 4]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_paho_acts_when_the_exchange_says_so(qos):
    """paho as the receiver: it is fed the forward packets one by one."""
    paho = PahoPackets("3.1.1")
    acted = []
    paho.client.on_message = lambda client, userdata, message: acted.append(message.payload)
    identifier = b"\x00\x01"
    forward = {
        "PUBLISH": (
            "_handle_publish",
            mqtt.PUBLISH | qos << 1,
            b"\x00\x01t" + (identifier if qos else b"") + b"image",
        ),
        "PUBREL": ("_handle_pubrel", mqtt.PUBREL | 2, identifier),
    }
    trips = 0
    for name in EXCHANGES[qos].forward:
        trips += 1 if trips == 0 else 2
        handler, command, packet = forward[name]
        paho.client._in_packet.update(command=command, packet=packet, remaining_length=len(packet))
        getattr(paho.client, handler)()
        assert bool(acted) == (trips >= EXCHANGES[qos].trips_to_act)
    assert acted == [b"image"]
    assert paho.sizes == [4] * len(EXCHANGES[qos].back)
    paho.client._sock = None


def test_every_packet_of_a_message_has_its_size():
    publish = publish_bytes("5", 2, 9, 100)
    assert exchange_bytes("5", 2, 9, 100) == (publish, 4, 4, 4)
    assert exchange_bytes("3.1.1", 1, 9, 100) == (publish_bytes("3.1.1", 1, 9, 100), 4)
    assert exchange_bytes("3.1.1", 0, 9, 100) == (publish_bytes("3.1.1", 0, 9, 100),)


# --- below MQTT ----------------------------------------------------------------------------------


def test_each_tcp_segment_adds_forty_bytes():
    assert [tcp_segments(size) for size in (0, 1, 1460, 1461, 2920, 3000)] == [0, 1, 1, 2, 2, 3]
    assert tcp_bytes(4) == 44
    assert tcp_bytes(1461) == 1461 + 80
    assert tcp_bytes(3000, mss=500) == 3000 + 6 * 40


def test_each_tls_record_adds_twenty_two_bytes():
    assert tls_bytes(100) == 122
    assert tls_bytes(16_384) == 16_384 + 22
    assert tls_bytes(16_385) == 16_385 + 44
    assert tcp_bytes(1450, tls=True) == 1472 + 80  # the record no longer fits one segment
    assert tcp_segments(1450, tls=True) == 2
