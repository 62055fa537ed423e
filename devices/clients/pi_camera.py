#!/usr/bin/env python3
"""Sends pictures to an Offramp edge node and prints its answers: one file for a Raspberry Pi.

Copy this file to the board. It needs Python 3.10 or later and paho-mqtt (``pip install paho-mqtt``,
or Debian's python3-paho-mqtt). Pictures come from picamera2 or OpenCV where there is one of them
(``--camera``), or from a folder (``--images``): binary PPM and PGM files as they are, others
through Pillow.

    python3 pi_camera.py --broker mqtt://192.168.1.10 --edge edge --device pi-1 \
        --images pictures --rate-hz 5 --deadline-ms 200

The protocol is that of Offramp's docs/protocol.md, version 1. Whoever is to record what this
device measured finds it on the report topic with ``--report``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

VERSION = 1
PASSWORD_VARIABLE = "OFFRAMP_MQTT_PASSWORD"
# How long after a deadline a late reply is still waited for, seconds.
GRACE_S = 2.0
# How often requests without a reply are looked for, seconds.
LOOK_EVERY_S = 0.5
# Latencies of the last answers that are kept: a camera may run for weeks.
MOST_LATENCIES = 10_000
# A camera that fails so often in a row has failed for good.
MOST_FAILED = 20
# So many connections lost within so many seconds look like two clients of one name.
MOST_LOST, LOST_WITHIN_S = 3, 60.0
# Reason of MQTT 5: another client has connected with the same identifier.
TAKEN_OVER = 142


# --- CBOR, as far as the protocol needs it ---------------------------------------------------


def encode(value: Any) -> bytes:
    """CBOR (RFC 8949) of a value that this client sends."""
    if value is None:
        return b"\xf6"
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        utf8 = value.encode()
        return _head(3, len(utf8)) + utf8
    if isinstance(value, Mapping):
        items = (encode(part) for pair in value.items() for part in pair)
        return _head(5, len(value)) + b"".join(items)
    return _head(4, len(value)) + b"".join(encode(part) for part in value)


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, code in enumerate("BHIQ", start=24):
        if argument < 1 << (8 * struct.calcsize(code)):
            return bytes([major << 5 | info]) + struct.pack(">" + code, argument)
    raise ValueError(f"{argument} needs more than 64 bits")


def decode(payload: bytes) -> dict[str, Any]:
    """The map that a payload is; ``ValueError`` if it isn't one."""
    try:
        value, end = _item(payload, 0, 0)
    except (IndexError, struct.error, RecursionError) as problem:
        raise ValueError("the message is truncated") from problem
    if end != len(payload) or not isinstance(value, dict):
        raise ValueError("the message is no CBOR map")
    return value


def _item(payload: bytes, start: int, depth: int) -> tuple[Any, int]:
    """A value and the position after it."""
    if depth > 8:
        raise ValueError("the message is nested too deep")
    major, info = payload[start] >> 5, payload[start] & 31
    position = start + 1
    argument = info
    if 24 <= info <= 27:
        size = 1 << (info - 24)
        argument = int.from_bytes(payload[position : position + size], "big")
        position += size
    elif info > 27:
        raise ValueError("the message has an indefinite length")
    if major == 7:
        if info in (25, 26, 27):
            code = {25: ">e", 26: ">f", 27: ">d"}[info]
            return struct.unpack(code, payload[start + 1 : position])[0], position
        return {20: False, 21: True}.get(argument), position
    if major < 2:
        return (argument if major == 0 else -1 - argument), position
    if major in (2, 3):
        content = payload[position : position + argument]
        if len(content) < argument:
            raise ValueError("the message is truncated")
        return (content if major == 2 else content.decode()), position + argument
    if major == 6 or argument > len(payload):
        raise ValueError("the message has a tag, or a length that it does not have")
    parts = []
    for _ in range(argument * (major - 3)):
        part, position = _item(payload, position, depth + 1)
        parts.append(part)
    return (parts if major == 4 else dict(zip(parts[::2], parts[1::2], strict=True))), position


# --- Pictures --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """Eight bits for red, green and blue of each pixel, row by row."""

    rgb: bytes
    width: int
    height: int
    label: str | None = None


def read_picture(path: Path) -> Picture:
    """A picture from a file; ``ValueError`` or ``OSError``, which name it, if it cannot be read."""
    label = path.parent.name
    if path.suffix.lower() in (".ppm", ".pgm"):
        return _read_netpbm(path.read_bytes(), path, label)
    try:
        from PIL import Image
    except ImportError:
        raise ValueError(f"{path}: only .ppm and .pgm can be read without Pillow") from None
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except Exception as problem:  # Pillow raises many at a file that is no picture
        raise ValueError(f"{path}: {problem}") from problem
    return Picture(image.tobytes(), image.width, image.height, label)


def _read_netpbm(content: bytes, path: Path, label: str) -> Picture:
    # Four words and one white space: P6 (or P5, grey), width, height, largest value.
    lines = [line.split(b"#")[0] for line in content[:512].split(b"\n")]
    words = b" ".join(lines).split()[:4]
    sizes = [int(word) for word in words[1:3] if word.isdigit()]
    if len(sizes) < 2 or words[0] not in (b"P5", b"P6") or words[3:] != [b"255"]:
        raise ValueError(f"{path}: neither a binary PPM nor PGM of 8 bits")
    width, height = sizes
    size = width * height * (3 if words[0] == b"P6" else 1)
    pixels = content[-size:]
    if not size or len(pixels) < size or len(content) < size + 11:
        raise ValueError(f"{path}: the picture is truncated")
    if words[0] == b"P5":
        pixels = bytes(value for value in pixels for _ in range(3))
    return Picture(pixels, width, height, label)


def from_folder(folder: Path, skip: Callable[[Exception], None]) -> Iterator[Picture]:
    """The pictures of a folder and the folders in it, over and over.

    Args:
        skip: told why a picture cannot be read; it is not tried again.

    Raises:
        ValueError: there is none; later, when none is left.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    kinds = (".ppm", ".pgm", ".png", ".jpg", ".jpeg", ".bmp")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds)
    if not paths:
        raise ValueError(f"{folder} holds no picture ({', '.join(kinds)})")
    return _in_turn(paths, skip)


def _in_turn(paths: list[Path], skip: Callable[[Exception], None]) -> Iterator[Picture]:
    while paths:
        for path in list(paths):
            try:
                picture = read_picture(path)
            except (OSError, ValueError) as problem:
                paths.remove(path)
                skip(problem)
            else:
                yield picture
    raise ValueError("there is no picture that can be read")


def from_camera(skip: Callable[[Exception], None]) -> Iterator[Picture]:
    """What a camera sees, through picamera2 if it is installed, else through OpenCV.

    Args:
        skip: told why the camera gave no picture.

    Raises:
        ValueError: there is no camera.
        OSError: later, when it gives no pictures any more.
    """
    try:
        take = _picamera()
    except ImportError:
        take = _opencv()
    return _taken(take, skip)


def _picamera() -> Callable[[], Picture]:
    from picamera2 import Picamera2

    try:
        camera = Picamera2()
        # This format counts from the highest byte: in memory it is red, green, blue.
        wanted = {"size": (640, 480), "format": "BGR888"}
        camera.configure(camera.create_video_configuration(wanted))
        camera.start()
    except Exception as problem:  # libcamera's are of many kinds
        raise ValueError(f"no camera: {problem}") from problem

    def take() -> Picture:
        frame = camera.capture_array("main")
        return Picture(frame.tobytes(), frame.shape[1], frame.shape[0])

    return take


def _opencv() -> Callable[[], Picture]:
    try:
        import cv2
    except ImportError:
        raise ValueError("--camera needs picamera2 or OpenCV (python3-opencv)") from None
    camera = cv2.VideoCapture(0)
    if not camera.isOpened():
        raise ValueError("no camera: OpenCV cannot open the first one")
    camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # else frames are several frames old

    def take() -> Picture:
        read, frame = camera.read()
        if not read:
            raise OSError("the camera gave no picture")
        rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        return Picture(rgb.tobytes(), rgb.shape[1], rgb.shape[0])

    return take


def _taken(take: Callable[[], Picture], skip: Callable[[Exception], None]) -> Iterator[Picture]:
    failed = 0
    while failed < MOST_FAILED:
        try:
            picture = take()
        except Exception as problem:  # a camera's driver raises many
            failed += 1
            skip(problem)
            time.sleep(0.1)
        else:
            failed = 0
            yield picture
    raise OSError("the camera gives no pictures any more")


def raw_image(picture: Picture, shape: tuple[int, int, int]) -> bytes:
    """The middle of a picture at the size that the network takes, channels first.

    Args:
        shape: channels (1 or 3), height and width.
    """
    channels, height, width = shape
    rgb = _resized(picture, width, height)
    planes = [rgb[0::3], rgb[1::3], rgb[2::3]]
    if channels == 3:
        return b"".join(planes)
    # Luma of ITU-R BT.601.
    return bytes(
        (red * 299 + green * 587 + blue * 114 + 500) // 1000
        for red, green, blue in zip(*planes, strict=True)
    )


def _resized(picture: Picture, width: int, height: int) -> bytes:
    if (picture.width, picture.height) == (width, height):
        return picture.rgb
    # The largest part in the middle that has the shape wanted.
    scale = min(picture.width / width, picture.height / height)
    left = (picture.width - scale * width) / 2
    top = (picture.height - scale * height) / 2
    try:
        from PIL import Image
    except ImportError:
        return _nearest(picture, left, top, scale, width, height)
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    box = (left, top, left + scale * width, top + scale * height)
    return image.resize((width, height), Image.Resampling.BOX, box).tobytes()


def _nearest(
    picture: Picture, left: float, top: float, scale: float, width: int, height: int
) -> bytes:
    columns = [3 * int(left + (column + 0.5) * scale) for column in range(width)]
    resized = bytearray()
    for row in range(height):
        start = 3 * picture.width * int(top + (row + 0.5) * scale)
        for column in columns:
            resized += picture.rgb[start + column : start + column + 3]
    return bytes(resized)


# --- Requests and replies --------------------------------------------------------------------


@dataclass
class Sent:
    """A request that waits for its reply; times of this machine's monotonic clock, seconds."""

    number: int
    created_s: float
    sent_s: float
    label: int | None


@dataclass
class Tally:
    """What became of the requests."""

    sent: int = 0
    in_time: int = 0
    late: int = 0
    dropped: int = 0
    errors: int = 0
    lost: int = 0
    skipped: int = 0
    labelled: int = 0
    correct: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_LATENCIES))

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [
            f"{self.sent} requests: {self.in_time} answered in time, {self.late} late, "
            f"{self.dropped} dropped, {self.errors} errors, {self.lost} without a reply"
        ]
        if self.skipped:
            lines.append(f"{self.skipped} pictures could not be read")
        if self.labelled:
            lines.append(f"{self.correct} of {self.labelled} answers correct")
        if self.latencies_ms:
            ordered = sorted(self.latencies_ms)
            middle, high = (
                ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in (0.5, 0.95)
            )
            which = (
                f" of the last {MOST_LATENCIES} answers" if len(ordered) == MOST_LATENCIES else ""
            )
            lines.append(f"latency{which}: p50 {middle:.1f} ms, p95 {high:.1f} ms")
        return "\n".join(lines)


class Device:
    """One device of the protocol: its connection, its open requests and what became of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.edge: str = options.edge
        self.name: str = options.device
        self.deadline_s: float = options.deadline_ms / 1e3
        self.qos: int = options.qos
        self.reports: bool = options.report
        self.tally = Tally()
        self.open: dict[int, Sent] = {}
        self.way_ms: float | None = None
        self.shape: tuple[int, int, int] | None = None
        # Without user and password.
        self.broker = re.sub("//.*@", "//", options.broker)
        self.lost_at_s: deque[float] = deque(maxlen=MOST_LOST)
        self.connected = threading.Event()
        self.ready = threading.Event()
        # Guards what paho's thread and the main thread both change.
        self.lock = threading.Lock()
        # A reply to an earlier run of this program must not be taken for one of this run's.
        self.first_id = random.getrandbits(30) << 32
        self.client = self._client(options)

    def _topic(self, kind: str) -> str:
        return f"offramp/{VERSION}/{kind}/{self.edge}/{self.name}"

    def _client(self, options: argparse.Namespace) -> mqtt.Client:
        url = urlsplit(options.broker)
        five = options.mqtt == "5"
        self.five = five
        arguments: dict[str, Any] = {
            "client_id": f"{self.edge}-{self.name}",
            "protocol": mqtt.MQTTv5 if five else mqtt.MQTTv311,
        }
        if hasattr(mqtt, "CallbackAPIVersion"):  # paho-mqtt 2
            arguments["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION2
        client = mqtt.Client(**arguments)
        if url.username:
            client.username_pw_set(unquote(url.username), password_of(options))
        if url.scheme == "mqtts":
            context = ssl.create_default_context(cafile=options.ca)
            if options.cert:
                context.load_cert_chain(options.cert, options.key)
            client.tls_set_context(context)
        client.reconnect_delay_set(1, 5)
        client.on_socket_open = _without_delay
        client.on_connect = self._on_connect
        client.on_connect_fail = _tell_failure
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        port = url.port or (8883 if url.scheme == "mqtts" else 1883)
        client.connect_async(url.hostname or "", port, keepalive=15)
        return client

    # paho-mqtt 1 and 2 call these with different arguments after the third.
    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, code: Any, *rest: Any) -> None:
        if getattr(code, "value", code) != 0:
            print(f"the broker refuses the connection: {code}", file=sys.stderr)
            return
        # In here, so that a reconnection subscribes too; and before anything is published.
        status = f"offramp/{VERSION}/status/{self.edge}/+"
        client.subscribe([(self._topic("reply"), self.qos), (status, 1)])
        self.connected.set()
        print(f"connected to {self.broker}", file=sys.stderr, flush=True)

    def _on_disconnect(self, client: mqtt.Client, _: Any, *rest: Any) -> None:
        was_connected = self.connected.is_set()
        self.connected.clear()
        # In paho-mqtt 2 flags come before the reason.
        code = rest[1] if hasattr(mqtt, "CallbackAPIVersion") else rest[0]
        number = getattr(code, "value", code)
        if number == 0 or not was_connected:
            return  # this program ended it, or the broker has refused it, which was told
        now_s = time.monotonic()
        self.lost_at_s.append(now_s)
        often = len(self.lost_at_s) == MOST_LOST and now_s - self.lost_at_s[0] < LOST_WITHIN_S
        line = f"connection lost: {_reason(code)}"
        if often or number == TAKEN_OVER:
            # The broker ends the older of two connections with one identifier, and MQTT 3.1.1
            # cannot say so; both then come back, and end each other for ever.
            line += f"; is another client of this name ({self.edge}-{self.name}) connected?"
        print(line, file=sys.stderr, flush=True)

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        now_s = time.monotonic()
        try:
            fields = decode(bytes(message.payload)) if message.payload else {}
            if fields.get("v") != VERSION:
                return
            if message.topic == self._topic("reply"):
                self._take_reply(fields, now_s)
            else:
                self._take_status(fields)
        except (ValueError, TypeError, KeyError) as problem:
            print(f"{message.topic}: {problem}", file=sys.stderr)

    def _take_status(self, fields: Mapping[str, Any]) -> None:
        if fields.get("state") == "online":
            channels, height, width = fields["input_shape"]
            self.shape = (int(channels), int(height), int(width))
            self.ready.set()

    def _take_reply(self, fields: Mapping[str, Any], now_s: float) -> None:
        status = fields.get("status")
        with self.lock:
            sent = self.open.pop(fields.get("id", -1), None)
        if sent is None:
            if status == "error":
                print(f"error: {fields.get('code')}: {fields.get('message')}", file=sys.stderr)
            return  # else a second reply to the same request
        latency_s = now_s - sent.created_s
        node_ms = fields.get("node_ms")
        if isinstance(node_ms, float | int):
            self.way_ms = max(0.0, (now_s - sent.sent_s) * 1e3 - node_ms)
        about = f"#{sent.number} {status} after {latency_s * 1e3:.1f} ms"
        if status == "ok":
            about += self._answered(fields, sent, latency_s)
        elif status == "dropped":
            self.tally.dropped += 1
            about += f": {fields.get('reason')}"
        else:
            self.tally.errors += 1
            about += f": {fields.get('code')}: {fields.get('message')}"
        print(about, flush=True)
        if self.reports:
            self._report(fields["id"], latency_s)

    def _answered(self, fields: Mapping[str, Any], sent: Sent, latency_s: float) -> str:
        tally = self.tally
        in_time = latency_s <= self.deadline_s
        tally.in_time += in_time
        tally.late += not in_time
        tally.latencies_ms.append(latency_s * 1e3)
        if sent.label is not None:
            tally.labelled += 1
            tally.correct += fields["class"] == sent.label
        late = "" if in_time else " LATE"
        return (
            f"{late}: class {fields['class']}, confidence {fields.get('confidence', 0):.2f}, "
            f"exit {fields.get('exit')} of {fields.get('node')}"
        )

    def _report(self, id: int, latency_s: float | None) -> None:
        if not self.connected.is_set():
            return  # paho would keep them all until the broker is back
        latency_ms = None if latency_s is None else latency_s * 1e3
        payload = encode({"v": VERSION, "id": id, "latency_ms": latency_ms})
        self.client.publish(self._topic("report"), payload, qos=self.qos)

    def skip(self, problem: Exception) -> None:
        """A picture could not be read: say which, and go on without it."""
        self.tally.skipped += 1
        print(f"skipped: {problem}", file=sys.stderr, flush=True)

    def send(self, picture: Picture, created_s: float, label: int | None) -> None:
        """Send one request; without a connection it is lost.

        Args:
            created_s: when the picture was there, from which the deadline counts.
        """
        assert self.shape is not None
        image = raw_image(picture, self.shape)
        number = self.tally.sent
        id = self.first_id + number
        sent_s = time.monotonic()
        request: dict[str, Any] = {
            "v": VERSION,
            "id": id,
            "deadline_ms": self.deadline_s * 1e3,
            "age_ms": (sent_s - created_s) * 1e3,
            "sent_ms": sent_s * 1e3,
            "shape": self.shape,
            "image": image,
        }
        if self.way_ms is not None:
            request["way_ms"] = self.way_ms
        if label is not None:
            request["label"] = label
        with self.lock:
            self.open[id] = Sent(number, created_s, sent_s, label)
        self.tally.sent += 1
        # What is queued while the broker is away would arrive after its deadline.
        if not self.connected.is_set():
            return
        properties = None
        if self.five:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = max(1, math.ceil(self.deadline_s))
        self.client.publish(
            self._topic("request"), encode(request), qos=self.qos, properties=properties
        )

    def expire(self) -> None:
        """Give up the requests whose replies are overdue, and report them as lost."""
        wait_s = self.deadline_s + GRACE_S
        before_s = time.monotonic() - wait_s
        with self.lock:
            lost = [(id, sent) for id, sent in self.open.items() if sent.created_s < before_s]
            for id, _ in lost:
                del self.open[id]
        for id, sent in lost:
            self.tally.lost += 1
            print(f"#{sent.number} lost: no reply within {wait_s:g} s", flush=True)
            if self.reports:
                self._report(id, None)

    def wait_until(self, at_s: float) -> None:
        """Let time pass until a time of the monotonic clock, seconds."""
        while True:
            self.expire()
            left_s = at_s - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(left_s, LOOK_EVERY_S))

    def finish(self) -> None:
        """Wait for the last replies, until they come or are overdue."""
        while self.open:
            self.expire()
            time.sleep(0.01)
        if self.reports:
            time.sleep(0.2)  # lets paho's thread send the last


def _without_delay(client: mqtt.Client, _: Any, opened: Any) -> None:
    # Otherwise Nagle's algorithm and delayed acknowledgements hold packets back for 40 ms.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _reason(code: Any) -> str:
    text = str(code) if hasattr(code, "value") else mqtt.error_string(code)
    # What paho says where nobody told it more.
    return "the broker or the network ended it" if text == "Unspecified error" else text


def _tell_failure(*_: Any) -> None:
    # paho calls this where it handles the exception, which it does not pass on.
    print(f"no connection: {sys.exc_info()[1]}", file=sys.stderr, flush=True)


# --- The program -----------------------------------------------------------------------------


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--broker",
        default="mqtt://localhost",
        help=(
            "mqtt:// or mqtts://[user[:password]@]host[:port]; without a password there, that of "
            f"--password-file counts, else that of ${PASSWORD_VARIABLE}"
        ),
    )
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", help="its first line is the user's password"
    )
    parser.add_argument("--edge", required=True, help="whom to ask: the scenario's kind of node")
    parser.add_argument("--device", required=True, help="this device's name")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, metavar="FOLDER")
    source.add_argument("--camera", action="store_true")
    parser.add_argument("--rate-hz", type=float, default=1.0)
    parser.add_argument("--deadline-ms", type=float, default=500.0)
    parser.add_argument("--count", type=int, help="requests to send; without it, until Ctrl-C")
    parser.add_argument(
        "--label-from-folder-name",
        action="store_true",
        help=("the folder of a picture is its true class: its number, or its place in --classes"),
    )
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="JSON",
        help=("a list of the names of the classes, in the network's order"),
    )
    parser.add_argument("--report", action="store_true", help="report each measured latency")
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1)
    parser.add_argument("--mqtt", choices=("3.1.1", "5"), default="3.1.1")
    parser.add_argument("--ca", help="certificates to trust, PEM; without it the system's")
    parser.add_argument("--cert", help="this device's certificate, PEM")
    parser.add_argument("--key", help="its key, PEM")
    options = parser.parse_args(arguments)
    if urlsplit(options.broker).scheme not in ("mqtt", "mqtts"):
        parser.error("--broker begins with mqtt:// or mqtts://")
    for name in (options.edge, options.device):
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
            parser.error(f"{name!r} is no name: 1 to 64 of A-Z a-z 0-9 . _ -")
    if not (options.rate_hz > 0 and options.deadline_ms > 0):
        parser.error("--rate-hz and --deadline-ms are more than 0")
    return options


def password_of(options: argparse.Namespace) -> str | None:
    """The broker's: from the URL, else the file, else the environment, as with ``offramp``.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    in_url = urlsplit(options.broker).password
    if in_url:
        return unquote(in_url)
    if options.password_file is None:
        return os.environ.get(PASSWORD_VARIABLE)
    lines = options.password_file.read_text(encoding="utf-8").splitlines()
    if not lines or not lines[0]:
        raise ValueError(f"the password file {options.password_file} has an empty first line")
    return str(lines[0])


def labeller(options: argparse.Namespace) -> Callable[[Picture], int | None]:
    """What tells the true class of a picture.

    Raises:
        OSError, ValueError: the file of the classes cannot be read, or is not what it should be.
    """
    if not options.label_from_folder_name:
        return lambda picture: None
    names = _class_names(options.classes) if options.classes else []
    numbers = {name: number for number, name in enumerate(names)}

    def label(picture: Picture) -> int | None:
        name = picture.label or ""
        return int(name) if name.isascii() and name.isdigit() else numbers.get(name)

    return label


def _class_names(file: Path) -> list[str]:
    try:
        names = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:  # no JSON, or not UTF-8
        raise ValueError(f"{file}: {problem}") from problem
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'{file}: a list of names is expected, such as ["cat", "dog"]')
    return names


def main(arguments: list[str] | None = None) -> int:
    """Run the device.

    Returns:
        0 if all was done: every picture was read, every request that was wanted was sent, and
        answered in time. 1 if not, 2 if nothing could be begun.
    """
    options = options_of(arguments)
    try:
        label = labeller(options)
        device = Device(options)
        # Before anything is connected: what is missing here is told at once.
        if options.camera:
            pictures = from_camera(device.skip)
        else:
            pictures = from_folder(options.images, device.skip)
    except (OSError, ValueError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    tally, failed = device.tally, False
    device.client.loop_start()
    try:
        while not device.ready.wait(10):
            what = "no node is online" if device.connected.is_set() else "no connection"
            print(f"waiting: {what} ({device.broker}, edge {options.edge})", file=sys.stderr)
        next_s = time.monotonic()
        while options.count is None or tally.sent < options.count:
            device.wait_until(next_s)
            # A slow camera must not be followed by a burst.
            next_s = max(next_s, time.monotonic() - 1 / options.rate_hz) + 1 / options.rate_hz
            picture = next(pictures)
            device.send(picture, time.monotonic(), label(picture))
    except KeyboardInterrupt:
        pass
    except (OSError, ValueError) as problem:
        failed = True
        print(f"error: {problem}", file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt):  # then what is still awaited is not waited for
        device.finish()
    device.client.disconnect()
    device.client.loop_stop()
    print(tally.summary())
    all_sent = tally.sent == options.count if options.count is not None else tally.sent > 0
    done = all_sent and not failed and not tally.skipped and tally.in_time == tally.sent
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
