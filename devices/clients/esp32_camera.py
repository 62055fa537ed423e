"""Sends camera frames to an Offramp edge node and prints its answers: MicroPython for an ESP32.

Copy this file to the board as main.py, with the settings below changed. It needs umqtt.simple
(``mpremote mip install umqtt.simple``) and a firmware with a ``camera`` module, or another
``take_frame``. MQTT 3.1.1; the protocol is that of Offramp's docs/protocol.md, version 1.

Frames are shrunk to what the node's network takes (``input_shape`` in its status), so the board
sends nothing before a node of EDGE has said that it is online.
"""

import os
import struct
import time

from umqtt.simple import MQTTClient

WIFI_NAME = "wifi"
WIFI_PASSWORD = "password"

BROKER = "192.168.1.10"
PORT = 1883
USER = None
PASSWORD = None
# For TLS: an ssl.SSLContext of recent firmware, and PORT = 8883.
SSL = None

# Whom to ask (the scenario's kind of node) and this device's name: letters, digits, . _ -
EDGE = "edge"
DEVICE = "esp32-1"

PERIOD_MS = 1000
DEADLINE_MS = 500

QOS = 0
KEEP_ALIVE_S = 30
# How long the broker may take to answer, seconds. umqtt alone would wait for ever.
WAIT_S = 10
# After so many requests in a row without a reply the connection is taken for dead.
MOST_SILENT = 5
# How long a reply is awaited after the deadline, so that late ones are told from lost ones.
GRACE_MS = 500

VERSION = 1
REQUEST_TOPIC = "offramp/1/request/" + EDGE + "/" + DEVICE
REPLY_TOPIC = "offramp/1/reply/" + EDGE + "/" + DEVICE
STATUS_TOPIC = "offramp/1/status/" + EDGE + "/"


# --- The camera: replace these for another one -----------------------------------------------

CAMERA_WIDTH = 96
CAMERA_HEIGHT = 96


def start_camera():
    """Make the camera ready for take_frame."""
    import camera

    camera.init(0, format=camera.GRAYSCALE, framesize=camera.FRAME_96X96)


def take_frame():
    """A grey frame: CAMERA_WIDTH * CAMERA_HEIGHT bytes, row by row."""
    import camera

    return camera.capture()


def shrink(frame, width, height, to_width, to_height):
    """A grey frame of another size, by leaving pixels out or repeating them, as bytes."""
    small = bytearray(to_width * to_height)
    at = 0
    for row in range(to_height):
        start = row * height // to_height * width
        for column in range(to_width):
            small[at] = frame[start + column * width // to_width]
            at += 1
    return bytes(small)


# --- CBOR, as far as the protocol needs it ---------------------------------------------------


def head(major, argument):
    """The first bytes of a CBOR item."""
    if argument < 24:
        return bytes((major << 5 | argument,))
    if argument < 0x100:
        return struct.pack(">BB", major << 5 | 24, argument)
    if argument < 0x10000:
        return struct.pack(">BH", major << 5 | 25, argument)
    if argument < 0x100000000:
        return struct.pack(">BI", major << 5 | 26, argument)
    return struct.pack(">BQ", major << 5 | 27, argument)


def encode(value):
    """CBOR of an integer, text, byte string, list, or map; floats are not needed."""
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, str):
        text = value.encode()
        return head(3, len(text)) + text
    if isinstance(value, dict):
        parts = [head(5, len(value))]
        for key in value:
            parts.append(encode(key))
            parts.append(encode(value[key]))
        return b"".join(parts)
    if isinstance(value, list):
        return head(4, len(value)) + b"".join([encode(part) for part in value])
    return head(2, len(value)) + value


def decode(data):
    """What a CBOR message says; ValueError, IndexError or UnicodeError if it is none."""
    value, end = item(data, 0, 0)
    if end != len(data):
        raise ValueError("truncated")
    return value


def item(data, at, depth):
    """A CBOR item and the position after it."""
    if depth > 4:
        raise ValueError("nested too deep")
    major = data[at] >> 5
    info = data[at] & 31
    at += 1
    argument = info
    if info > 27:
        raise ValueError("indefinite length")
    if info > 23:
        size = 1 << (info - 24)
        bits = data[at : at + size]
        if len(bits) < size:
            raise ValueError("truncated")
        at += size
        if major == 7 and info == 26:
            return struct.unpack(">f", bits)[0], at
        if major == 7 and info == 27:
            return struct.unpack(">d", bits)[0], at
        if major == 7 and info == 25:
            return half(bits[0] << 8 | bits[1]), at
        argument = 0
        for bit in bits:
            argument = argument << 8 | bit
    if major == 0:
        return argument, at
    if major == 1:
        return -1 - argument, at
    if major == 7:
        return {20: False, 21: True}.get(argument), at
    if argument > len(data):
        raise ValueError("truncated")
    if major == 2 or major == 3:
        end = at + argument
        if end > len(data):
            raise ValueError("truncated")
        return (data[at:end] if major == 2 else str(data[at:end], "utf-8")), end
    if major == 4:
        array = []
        for _ in range(argument):
            value, at = item(data, at, depth + 1)
            array.append(value)
        return array, at
    if major == 5:
        fields = {}
        for _ in range(argument):
            key, at = item(data, at, depth + 1)
            fields[key], at = item(data, at, depth + 1)
        return fields, at
    raise ValueError("tag")


def half(bits):
    """A float from its 16 bits."""
    sign = -1.0 if bits & 0x8000 else 1.0
    exponent = bits >> 10 & 31
    fraction = bits & 0x3FF
    if exponent == 31:
        return sign * float("inf") if fraction == 0 else float("nan")
    if exponent == 0:
        return sign * fraction * 2.0**-24
    return sign * (1024 + fraction) * 2.0 ** (exponent - 25)


# --- The connection --------------------------------------------------------------------------


class Connection(MQTTClient):
    """umqtt.simple's client, which waits for the broker for WAIT_S at most.

    umqtt itself opens sockets that wait for ever, and lets them do so again after each message.
    """

    plain = None

    @property
    def sock(self):
        """What umqtt reads and writes."""
        return self.opened

    @sock.setter
    def sock(self, opened):
        # In here, since umqtt opens the socket and waits for an answer in one call.
        if hasattr(opened, "settimeout"):  # TLS over the socket has none, and goes by the socket's
            opened.settimeout(WAIT_S)
            without_delay(opened)
            self.plain = opened
        self.opened = opened

    def connect(self):
        """Connect; OSError if it fails or takes too long."""
        try:
            super().connect(True, WAIT_S)
        except TypeError:  # an umqtt that knows no limit: older than 1.4
            super().connect()
        self.opened = Impatient(self.opened, self.plain)


class Impatient:
    """A connected socket, perhaps with TLS, that may block for WAIT_S at most."""

    def __init__(self, stream, plain):
        self.plain = plain
        self.read = stream.read
        self.write = stream.write
        self.close = stream.close

    def setblocking(self, block):
        """As of a socket, with a limit."""
        self.plain.settimeout(WAIT_S if block else 0)


def without_delay(sock):
    """Switch Nagle's algorithm off where the firmware can: it holds packets back for 40 ms."""
    try:
        sock.setsockopt(6, 1, 1)  # IPPROTO_TCP, TCP_NODELAY
    except (AttributeError, OSError, ValueError):
        pass  # on old firmware


def close(client):
    """Close the socket of a connection that has failed: a board has few of them."""
    try:
        client.sock.close()
    except (AttributeError, OSError):
        pass


# --- Requests and replies --------------------------------------------------------------------


class Clock:
    """Milliseconds since start, which do not wrap around as ticks_ms does after some days."""

    def __init__(self):
        self.last = time.ticks_ms()
        self.total = 0

    def now(self):
        """Milliseconds; to be asked at least once in six days."""
        ticks = time.ticks_ms()
        self.total += time.ticks_diff(ticks, self.last)
        self.last = ticks
        return self.total


class Device:
    """The device: its connection and the one request that may be open."""

    def __init__(self, count):
        self.left = count
        self.clock = Clock()
        self.client = None
        self.way = None
        # Height and width that the network takes; None until a node has said so.
        self.size = None
        self.silent = 0
        self.reply = None
        self.received = 0
        self.last_sent = 0
        # Replies to requests from before a reset must not be taken for those of today.
        random = os.urandom(3)
        self.id = (random[0] << 16 | random[1] << 8 | random[2]) << 16

    def connect(self):
        """Connect and subscribe, in this order before any request; OSError if it fails."""
        self.client = Connection(
            EDGE + "-" + DEVICE, BROKER, PORT, USER, PASSWORD, KEEP_ALIVE_S, ssl=SSL
        )
        self.client.set_callback(self.on_message)
        self.client.connect()
        self.client.subscribe(REPLY_TOPIC.encode(), QOS)
        self.client.subscribe((STATUS_TOPIC + "+").encode(), 0)
        self.silent = 0
        self.last_sent = self.clock.now()
        print("connected to", BROKER)

    def on_message(self, topic, payload):
        """Keep the reply to the open request, and the size that the network takes."""
        received = self.clock.now()
        try:
            # A status that somebody cleared is empty.
            fields = decode(payload) if payload else {}
            if fields.get("v") != VERSION:
                return
            if topic.startswith(STATUS_TOPIC.encode()):
                if fields.get("state") == "online":
                    _, height, width = fields["input_shape"]
                    self.size = height, width
            elif fields.get("status") == "error" and fields.get("id") is None:
                print("error:", fields.get("code"), fields.get("message"))
            elif fields.get("id") == self.id:
                self.reply = fields
                self.received = received
        except (ValueError, LookupError, TypeError, AttributeError, UnicodeError) as problem:
            print("not understood:", problem)

    def ask(self, image, size, created):
        """Send one request and wait for what comes of it.

        The image is grey, of that height and width.

        Returns (outcome, latency in milliseconds or None, reply or None); the outcome is
        "on_time", "late", "dropped", "error" or "lost".
        """
        self.id += 1
        self.reply = None
        sent = self.clock.now()
        request = {
            "v": VERSION,
            "id": self.id,
            "deadline_ms": DEADLINE_MS,
            "age_ms": sent - created,
            "sent_ms": sent,
            "shape": [1, size[0], size[1]],
            "image": image,
        }
        if self.way is not None:
            request["way_ms"] = self.way
        # At QoS 1 this waits for the broker, and the reply may come meanwhile.
        self.client.publish(REQUEST_TOPIC.encode(), encode(request), False, QOS)
        self.last_sent = sent
        while self.reply is None:
            self.client.check_msg()
            if self.reply is None:
                if self.clock.now() - created > DEADLINE_MS + GRACE_MS:
                    self.silent += 1
                    return "lost", None, None
                time.sleep_ms(1)
        self.silent = 0
        reply = self.reply
        latency = self.received - created
        node = reply.get("node_ms")
        if node is not None:
            self.way = max(0, int(self.received - sent - node))
        if reply.get("status") != "ok":
            return reply.get("status"), latency, reply
        return ("on_time" if latency <= DEADLINE_MS else "late"), latency, reply

    def wait(self, until):
        """Let time pass until a time of the clock, and keep the connection alive meanwhile."""
        while self.clock.now() < until:
            self.client.check_msg()
            if self.clock.now() - self.last_sent > KEEP_ALIVE_S * 500:
                self.client.ping()
                self.last_sent = self.clock.now()
            time.sleep_ms(5)

    def serve(self):
        """Ask once a period until none is left; an exception when the connection fails."""
        if self.size is None:
            print("waiting for a node of", EDGE)
        while self.size is None:
            self.wait(self.clock.now() + 100)
        following = self.clock.now()
        while self.left is None or self.left > 0:
            self.wait(following)
            # From now on, not from then on: a slow answer must not be followed by a burst.
            following = max(following, self.clock.now() - PERIOD_MS) + PERIOD_MS
            frame = take_frame()
            if not frame:
                print("the camera gave no frame")
                continue
            created = self.clock.now()
            height, width = size = self.size
            image = shrink(frame, CAMERA_WIDTH, CAMERA_HEIGHT, width, height)
            if self.left is not None:
                self.left -= 1
            outcome, latency, reply = self.ask(image, size, created)
            tell(self.id, outcome, latency, reply)
            if self.silent >= MOST_SILENT:
                raise OSError("too many requests without a reply")


def tell(id, outcome, latency, reply):
    """Print a line about a request."""
    if outcome == "on_time" or outcome == "late":
        print(
            id,
            outcome,
            latency,
            "ms: class",
            reply.get("class"),
            "confidence",
            reply.get("confidence"),
            "exit",
            reply.get("exit"),
        )
    elif outcome == "dropped":
        print(id, outcome, latency, "ms:", reply.get("reason"))
    elif outcome == "error":
        print(id, outcome, latency, "ms:", reply.get("code"), reply.get("message"))
    else:
        print(id, outcome)


def connect_wifi():
    """Join the network, and wait until that is done."""
    import network

    station = network.WLAN(network.STA_IF)
    station.active(True)
    if not station.isconnected():
        station.connect(WIFI_NAME, WIFI_PASSWORD)
        while not station.isconnected():
            time.sleep_ms(100)


def main(count=None):
    """Run the device: count requests, or for ever. It comes back after every failure."""
    start_camera()
    device = Device(count)
    pause = 1
    while device.left is None or device.left > 0:
        try:
            connect_wifi()
            device.connect()
            pause = 1
            device.serve()
            device.client.disconnect()
        except Exception as problem:  # of the network, the broker or umqtt, which raises many
            print("connection lost:", repr(problem))
            close(device.client)
            time.sleep(pause)
            pause = min(2 * pause, 30)


if __name__ == "__main__":
    main()
