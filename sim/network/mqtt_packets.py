"""Sizes of MQTT control packets, what carries them, and which packets one message takes.

Sizes follow the packet layouts of the OASIS standards MQTT 3.1.1 (2014) and MQTT 5.0 (2019); §
below means the section of that number in both, unless a version stands with it. Every size is in
bytes. Texts count as they travel, encoded in UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.errors import ScenarioError

Version = Literal["3.1.1", "5"]
QoS = Literal[0, 1, 2]

#: The longest that follows the fixed header (§2.2.3; 5.0: §2.1.4), and the longest text (§1.5.3).
MAX_REMAINING_LENGTH = 268_435_455
MAX_TEXT = 65_535

#: Ethernet's 1500 bytes without the headers of IPv4 and TCP. With timestamps, as Linux sends them,
#: it is 1448.
MSS = 1460
_IP_AND_TCP = 20 + 20
_TLS_RECORD = 2**14
#: Header 5, content type 1 and tag of AES-GCM or ChaCha20-Poly1305 16 (RFC 8446 §5.2).
_TLS_OVERHEAD = 22

#: Bytes of the value of each property of fixed size (MQTT 5.0 §2.2.2.2, table 2-4).
_FIXED_PROPERTIES = {
    "payload_format_indicator": 1,
    "message_expiry_interval": 4,
    "session_expiry_interval": 4,
    "server_keep_alive": 2,
    "request_problem_information": 1,
    "will_delay_interval": 4,
    "request_response_information": 1,
    "receive_maximum": 2,
    "topic_alias_maximum": 2,
    "topic_alias": 2,
    "maximum_qos": 1,
    "retain_available": 1,
    "maximum_packet_size": 4,
    "wildcard_subscription_available": 1,
    "subscription_identifier_available": 1,
    "shared_subscription_available": 1,
}
#: Properties whose value is a text or binary data.
_TEXT_PROPERTIES = {
    "content_type",
    "response_topic",
    "correlation_data",
    "assigned_client_identifier",
    "authentication_method",
    "authentication_data",
    "response_information",
    "server_reference",
    "reason_string",
}


def variable_integer_bytes(value: int) -> int:
    """Bytes of a variable byte integer: seven bits in each (§2.2.3; 5.0: §1.5.5)."""
    if not 0 <= value <= MAX_REMAINING_LENGTH:
        raise ValueError(f"MQTT has no variable byte integer for {value}")
    return max(1, -(-value.bit_length() // 7))


def properties_bytes(
    *fixed: str,
    subscription_identifier: int | None = None,
    user_properties: Sequence[tuple[int, int]] = (),
    **texts: int,
) -> int:
    """Bytes of the properties of an MQTT 5 packet, without the length before them (5.0 §2.2.2).

    Args:
        fixed: properties whose value has a fixed size, such as ``"message_expiry_interval"``.
        subscription_identifier: its value, on which its size depends.
        user_properties: bytes of the name and of the value of each.
        texts: bytes of each text or binary value, such as ``response_topic=20``.

    Raises:
        ValueError: MQTT has no such property.
    """
    unknown = (set(fixed) - set(_FIXED_PROPERTIES)) | (set(texts) - _TEXT_PROPERTIES)
    if unknown:
        raise ValueError(f"MQTT 5 has no such property: {', '.join(sorted(unknown))}")
    total = sum(1 + _FIXED_PROPERTIES[name] for name in fixed)
    total += sum(1 + _text(size, name) for name, size in texts.items())
    total += sum(1 + _text(name, "name") + _text(value, "value") for name, value in user_properties)
    if subscription_identifier is not None:
        total += 1 + variable_integer_bytes(subscription_identifier)
    return total


# --- control packets -----------------------------------------------------------------------------


def publish_bytes(
    version: Version, qos: QoS, topic_bytes: int, payload_bytes: int, properties: int = 0
) -> int:
    """A PUBLISH (§3.3).

    Args:
        topic_bytes: of the topic name; 0 where a Topic Alias stands for it (5.0).
        properties: bytes of the properties, see :func:`properties_bytes`.

    Raises:
        ScenarioError: it is longer than MQTT allows.
    """
    identifier = 2 if qos else 0
    return _packet(
        "PUBLISH",
        _text(topic_bytes, "topic") + identifier + _properties(version, properties) + payload_bytes,
    )


def acknowledgement_bytes(version: Version, properties: int = 0) -> int:
    """A PUBACK, PUBREC, PUBREL or PUBCOMP that reports success (§3.4 to §3.7).

    In MQTT 5 a reason code follows the packet identifier; success without properties omits it.
    """
    reason = 1 + _properties(version, properties) if properties else 0
    return _packet("acknowledgement", 2 + reason)


def connect_bytes(
    version: Version,
    client_id_bytes: int,
    username_bytes: int | None = None,
    password_bytes: int | None = None,
    will: tuple[int, int] | None = None,
    properties: int = 0,
    will_properties: int = 0,
) -> int:
    """A CONNECT (§3.1).

    Args:
        will: bytes of its topic and its payload.
    """
    # Protocol name, level, flags and keep alive.
    length = _text(4, "protocol name") + 1 + 1 + 2 + _properties(version, properties)
    length += _text(client_id_bytes, "client identifier")
    if will is not None:
        length += _properties(version, will_properties)
        length += _text(will[0], "will topic") + _text(will[1], "will payload")
    for size, name in ((username_bytes, "user name"), (password_bytes, "password")):
        length += 0 if size is None else _text(size, name)
    return _packet("CONNECT", length)


def connack_bytes(version: Version, properties: int = 0) -> int:
    """A CONNACK (§3.2): flags and a code."""
    return _packet("CONNACK", 2 + _properties(version, properties))


def subscribe_bytes(version: Version, filter_bytes: Sequence[int], properties: int = 0) -> int:
    """A SUBSCRIBE (§3.8).

    Args:
        filter_bytes: of each topic filter, ``$share/NAME/`` included.
    """
    filters = sum(_text(size, "topic filter") + 1 for size in filter_bytes)
    return _packet("SUBSCRIBE", 2 + _properties(version, properties) + filters)


def suback_bytes(version: Version, filters: int = 1, properties: int = 0) -> int:
    """A SUBACK (§3.9): one code for each topic filter."""
    return _packet("SUBACK", 2 + _properties(version, properties) + filters)


def ping_bytes() -> int:
    """A PINGREQ or a PINGRESP (§3.12, §3.13)."""
    return _packet("PINGREQ", 0)


def disconnect_bytes(version: Version, properties: int = 0) -> int:
    """A DISCONNECT (§3.14); in MQTT 5, "normal disconnection" without properties is omitted."""
    return _packet("DISCONNECT", 1 + _properties(version, properties) if properties else 0)


def _packet(name: str, remaining: int) -> int:
    """A fixed header, its remaining length, and what that counts (§2.2)."""
    if remaining > MAX_REMAINING_LENGTH:
        raise ScenarioError(
            f"a {name} of {remaining} bytes: MQTT allows at most {MAX_REMAINING_LENGTH} after the "
            "fixed header; send less in one message"
        )
    return 1 + variable_integer_bytes(remaining) + remaining


def _text(size: int, name: str) -> int:
    """A text or binary data, after its length in two bytes (§1.5.3)."""
    if size > MAX_TEXT:
        raise ScenarioError(f"a {name} of {size} bytes: MQTT allows at most {MAX_TEXT}")
    return 2 + size


def _properties(version: Version, properties: int) -> int:
    """Properties after their length (5.0 §2.2.2); MQTT 3.1.1 has none."""
    if version == "5":
        return variable_integer_bytes(properties) + properties
    if properties:
        raise ValueError("MQTT 3.1.1 has no properties")
    return 0


# --- one message, acknowledged -------------------------------------------------------------------


@dataclass(frozen=True)
class Exchange:
    """The packets that one PUBLISH takes between a client and a broker, in turn there and back.

    Attributes:
        packets: names, the first from the sender to the receiver, the next back, and so on (§4.3).
        trips_to_act: one-way trips until the receiver hands the message on. At QoS 2, paho
            (``Client._handle_pubrel``) and Mosquitto (``handle__pubrel``, which calls
            ``db__message_release_incoming``) do so when the PUBREL comes, as in the left column of
            figure 4.3; at QoS 1 they do so before they acknowledge.
    """

    packets: tuple[str, ...]
    trips_to_act: int

    @property
    def forward(self) -> tuple[str, ...]:
        """Packets from the sender of the message to its receiver."""
        return self.packets[::2]

    @property
    def back(self) -> tuple[str, ...]:
        """Packets from the receiver of the message to its sender."""
        return self.packets[1::2]

    @property
    def trips_to_complete(self) -> int:
        """One-way trips until the sender's inflight window has room for another (§4.4, §4.9)."""
        return len(self.packets)


EXCHANGES: dict[QoS, Exchange] = {
    0: Exchange(("PUBLISH",), trips_to_act=1),
    1: Exchange(("PUBLISH", "PUBACK"), trips_to_act=1),
    2: Exchange(("PUBLISH", "PUBREC", "PUBREL", "PUBCOMP"), trips_to_act=3),
}


def exchange_bytes(
    version: Version, qos: QoS, topic_bytes: int, payload_bytes: int, properties: int = 0
) -> tuple[int, ...]:
    """Bytes of each packet of ``EXCHANGES[qos]``, in order; arguments as :func:`publish_bytes`."""
    publish = publish_bytes(version, qos, topic_bytes, payload_bytes, properties)
    acknowledgements = len(EXCHANGES[qos].packets) - 1
    return (publish, *([acknowledgement_bytes(version)] * acknowledgements))


# --- what carries packets ------------------------------------------------------------------------


def tls_bytes(size: int) -> int:
    """``size`` bytes as TLS 1.3 records of at most 16 KiB, one write's worth (RFC 8446 §5)."""
    return size + _TLS_OVERHEAD * -(-size // _TLS_RECORD)


def tcp_segments(size: int, mss: int = MSS, tls: bool = False) -> int:
    """TCP segments that carry ``size`` bytes, none shared with another packet."""
    return -(-(tls_bytes(size) if tls else size) // mss)


def segments_on_link(size: int) -> int:
    """TCP segments in so many bytes with their headers, as :func:`tcp_bytes` counts; at least 1."""
    return max(1, -(-size // (MSS + _IP_AND_TCP)))


def tcp_bytes(size: int, mss: int = MSS, tls: bool = False) -> int:
    """Bytes of the IPv4 packets that carry ``size`` bytes over TCP.

    Headers without options, 20 bytes each (RFC 791, RFC 9293). Left out: bare TCP
    acknowledgements, which mostly ride on packets that go the other way, and the frames of the
    link below.
    """
    carried = tls_bytes(size) if tls else size
    return carried + _IP_AND_TCP * tcp_segments(size, mss, tls)
