"""What a reply carries: the same bytes as paho's own properties, and what may be replied on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_clients import properties
from paho.mqtt.client import MQTTMessage

from devices.node.recent_requests import RecentRequests
from devices.node.replies import ReplyProperties, reply_way

OWN = "offramp/1/reply/edge/d0"


@given(st.floats(-10, 1e10), st.none() | st.binary(max_size=400))
def test_properties_are_packed_as_paho_packs_them(remaining_s, correlation):
    packed = ReplyProperties(remaining_s, correlation).pack()
    expiry = int.from_bytes(packed[packed.index(2) + 1 :][:4], "big")
    assert 1 <= expiry <= 2**32 - 1
    assert expiry >= min(remaining_s, 2**32 - 1)
    values = {"MessageExpiryInterval": expiry}
    if correlation is not None:
        values["CorrelationData"] = correlation
    assert packed == properties(**values).pack()


def way_to(**values):
    message = MQTTMessage(topic=b"offramp/1/request/edge/d0")
    message.qos = 1
    message.properties = properties(**values) if values else None
    return reply_way(message, OWN)


@pytest.mark.parametrize("topic", [OWN, f"{OWN}/a", "elsewhere", "offramp", "offrampx/1"])
def test_topics_that_a_device_may_name(topic):
    way, refused = way_to(ResponseTopic=topic, CorrelationData=b"x")
    assert (way.topic, way.correlation, way.qos, refused) == (topic, b"x", 1, None)


@pytest.mark.parametrize(
    "topic", ["", "a/+", "#", "a\0b", "$SYS/x", "$share/g/t", "offramp/", f"{OWN}x", "a" * 65536]
)
def test_topics_that_it_may_not(topic):
    message = MQTTMessage(topic=b"offramp/1/request/edge/d0")
    message.properties = type("Any", (), {"ResponseTopic": topic})()
    way, refused = reply_way(message, OWN)
    assert (way.topic, refused) == (OWN, topic)


def test_without_properties_the_reply_goes_home():
    way, refused = way_to()
    assert (way.topic, way.correlation, refused) == (OWN, None, None)


def test_a_request_came_before_if_it_says_so_or_was_sent_at_the_same_instant():
    recent = RecentRequests()
    assert recent.find("a", 1, None, dup=True) is None
    first = recent.add("a", 1, 2.5)
    assert recent.find("a", 1, 2.5, dup=False) is first
    assert recent.find("a", 1, None, dup=True) is first
    assert recent.find("a", 1, None, dup=False) is None
    assert recent.find("a", 1, 3.5, dup=False) is None
    assert recent.find("b", 1, 2.5, dup=True) is None
    assert recent.find("a", "1", 2.5, dup=True) is None


def test_without_a_time_of_sending_the_same_id_is_another_request():
    recent = RecentRequests()
    recent.add("a", 1, None)
    assert recent.find("a", 1, None, dup=False) is None


def test_only_the_last_requests_are_remembered():
    recent = RecentRequests(most=3)
    for id in range(5):
        recent.add("a", id, None)
    recent.add("a", 2, None)  # again: now it is the youngest
    recent.add("a", 5, None)
    assert len(recent) == 3
    assert [id for id in range(6) if recent.find("a", id, None, dup=True)] == [2, 4, 5]
