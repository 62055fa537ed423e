"""The Mosquitto configuration that ships: who gets in, who may write and read what."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from brokers import WITHIN_S, SecureMosquitto, make_certificates, program

from devices.mqtt.connections import Broker, check_broker
from devices.protocol.topics import (
    reply_topic,
    report_topic,
    request_filter,
    request_topic,
    status_topic,
)
from models.errors import BrokerError


def refusal(broker: Broker) -> str:
    with pytest.raises(BrokerError) as caught:
        check_broker(broker)
    assert "\n" not in str(caught.value)
    assert "pass@word" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_device_asks_and_a_node_answers(mosquitto_tls, join, version):
    node = join(replace(mosquitto_tls.user("node-1"), version=version), "n", request_filter("edge"))
    device = join(
        replace(mosquitto_tls.user("cam-1"), version=version), "d", reply_topic("edge", "cam-1")
    )
    device.publish(request_topic("edge", "cam-1"), b"request")
    assert node.wait_for(b"request").topic == request_topic("edge", "cam-1")
    node.publish(reply_topic("edge", "cam-1"), b"reply")
    assert device.wait_for(b"reply").topic == reply_topic("edge", "cam-1")


def test_a_device_may_read_below_its_reply_topic(mosquitto_tls, join):
    """Where MQTT 5 clients that ask several at once name a response topic for each."""
    node = join(mosquitto_tls.user("node-1"), "n")
    device = join(mosquitto_tls.user("cam-1"), "d", f"{reply_topic('edge', 'cam-1')}/#")
    node.publish(f"{reply_topic('edge', 'cam-1')}/7", b"reply")
    assert device.wait_for(b"reply").topic == f"{reply_topic('edge', 'cam-1')}/7"


def test_a_nodes_share_of_the_requests_is_let_through(mosquitto_tls, join):
    node = join(mosquitto_tls.user("node-1"), "n", request_filter("edge", shared=True))
    device = join(mosquitto_tls.user("cam-1"), "d")
    device.publish(request_topic("edge", "cam-1"), b"request")
    node.wait_for(b"request")


def test_a_device_cannot_write_to_the_topics_of_others(mosquitto_tls, join):
    node = join(mosquitto_tls.user("node-1"), "n", "offramp/#")
    runner = join(mosquitto_tls.user("runner"), "r", "offramp/#")
    other = join(mosquitto_tls.user("cam-2"), "o", "offramp/#")
    device = join(mosquitto_tls.user("cam-1"), "d")
    for topic in (
        request_topic("edge", "cam-2"),
        request_topic("edge", "cam-1") + "/more",
        reply_topic("edge", "cam-1"),
        reply_topic("edge", "cam-2"),
        report_topic("edge", "cam-2"),
        status_topic("edge", "edge"),
        "offramp/1/request",
        "other/topic",
    ):
        device.publish(topic, b"forged")
        device.publish(topic, b"forged and retained", retain=True)
    device.publish(request_topic("edge", "cam-1"), b"request")
    device.publish(report_topic("edge", "cam-1"), b"report")
    node.wait_for(b"request")
    runner.wait_for(b"report")
    late = join(mosquitto_tls.user("node-1"), "late", "#")
    node.publish(status_topic("edge", "edge"), b"status")
    for member in (other, late):
        member.wait_for(b"status")
    for member in (node, runner, other, late):
        assert not [got for got in member.got if b"forged" in got[1]]


def test_a_device_reads_nothing_of_others(mosquitto_tls, join):
    filters = (
        "#",
        "offramp/#",
        reply_topic("edge", "cam-2"),
        request_filter("edge"),
        request_filter("edge", shared=True),
        report_topic("edge", "cam-2"),
    )
    spy = join(mosquitto_tls.user("cam-1"), "spy", *filters)
    node = join(mosquitto_tls.user("node-1"), "n", request_filter("edge"))
    device = join(mosquitto_tls.user("cam-2"), "d", reply_topic("edge", "cam-2"))
    device.publish(request_topic("edge", "cam-2"), b"request")
    device.publish(report_topic("edge", "cam-2"), b"report")
    node.wait_for(b"request")
    node.publish(reply_topic("edge", "cam-2"), b"reply")
    device.wait_for(b"reply")
    # What the broker sends one client it sends in order: had it sent the others, they were here.
    node.publish(reply_topic("edge", "cam-1"), b"for cam-1")
    spy.wait_for(b"for cam-1")
    assert {topic for topic, _ in spy.got} == {reply_topic("edge", "cam-1")}


def test_virtual_devices_share_a_user(mosquitto_tls, join):
    node = join(mosquitto_tls.user("node-1"), "n", request_filter("edge"))
    fleet = join(mosquitto_tls.user("fleet"), "f", reply_topic("edge", "cameras-3"))
    fleet.publish(request_topic("edge", "cameras-3"), b"request")
    node.wait_for(b"request")
    node.publish(reply_topic("edge", "cameras-3"), b"reply")
    fleet.wait_for(b"reply")


def test_a_certificate_names_its_user(mosquitto_tls, join):
    node = join(mosquitto_tls.with_certificate("node-1"), "n", request_filter("edge"))
    device = join(mosquitto_tls.with_certificate("cam-1"), "d")
    device.publish(request_topic("edge", "cam-2"), b"forged")
    device.publish(request_topic("edge", "cam-1"), b"request")
    node.wait_for(b"request")
    assert [payload for _, payload in node.got] == [b"request"]


def test_a_packet_that_is_too_large_ends_the_connection_of_its_sender_only(mosquitto_tls, join):
    node = join(mosquitto_tls.user("node-1"), "n", request_filter("edge"))
    hog = join(mosquitto_tls.user("cam-1"), "hog")
    device = join(mosquitto_tls.user("cam-2"), "d")
    gone = threading.Event()
    hog.client.on_disconnect = lambda *_: gone.set()
    hog.client.publish(request_topic("edge", "cam-1"), bytes(1_200_000), 0)
    assert gone.wait(WITHIN_S)
    largest = bytes(1024 * 1024)
    device.publish(request_topic("edge", "cam-2"), largest)
    node.wait_for(largest)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_who_is_not_let_in(mosquitto_tls, version):
    broker = replace(mosquitto_tls.user("cam-1"), version=version)
    wrong = refusal(replace(broker, password="no/pass@word"))
    assert wrong.startswith(f"no connection to mqtts://cam-1@127.0.0.1:{mosquitto_tls.port}: ")
    assert wrong.endswith("wrong user or password, or this user may not connect")
    assert "wrong user or password" in refusal(replace(broker, username="nobody"))
    assert refusal(replace(broker, username=None)).endswith("it wants a user and a password")


def test_without_tls_there_is_no_answer(mosquitto_tls):
    plain = replace(mosquitto_tls.user("cam-1"), tls=False, ca=None)
    assert "TLS" in refusal(plain)


def test_a_client_certificate_is_asked_for(mosquitto_tls):
    without = replace(mosquitto_tls.with_certificate("cam-1"), cert=None, key=None)
    assert "it wants a client certificate (--cert and --key)" in refusal(without)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestServersCertificate:
    """paho leaves the socket of a failed handshake to the garbage collector, which complains."""

    def test_of_a_ca_that_is_not_trusted(self, mosquitto_tls, tmp_path):
        assert make_certificates(tmp_path, "server", "localhost").returncode == 0
        sentence = refusal(replace(mosquitto_tls.user("cam-1"), ca=tmp_path / "ca.crt"))
        assert sentence.endswith("its certificate is signed by a CA that is not trusted (--ca)")
        sentence = refusal(replace(mosquitto_tls.user("cam-1"), ca=None))
        assert "not trusted (--ca)" in sentence

    def test_for_another_host(self, certificates, tmp_path):
        folder = tmp_path / "made"
        assert make_certificates(folder, "server", "elsewhere.example").returncode == 0
        for name in ("ca.crt", "ca.key"):
            assert (folder / name).exists()
        broker = SecureMosquitto(tmp_path, folder)
        try:
            assert refusal(broker.user("cam-1")).endswith("its certificate is for another address")
            named = broker.user("cam-1", host="localhost")
            assert refusal(named).endswith("its certificate is for another host name")
        finally:
            broker.kill()

    def test_that_has_expired(self, certificates, tmp_path):
        folder = tmp_path / "made"
        shutil.copytree(certificates, folder)
        request = ["openssl", "req", "-new", "-key", "server.key", "-subj", "/CN=broker"]
        text = "[req]\ndistinguished_name=n\n[n]\n[s]\nsubjectAltName=IP:127.0.0.1\n"
        (folder / "config").write_text(text)
        sign = ["openssl", "x509", "-req", "-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", "7"]
        sign += ["-in", "csr", "-days", "-1", "-extfile", "config", "-extensions", "s"]
        for command in (
            [*request, "-config", "config", "-out", "csr"],
            [*sign, "-out", "server.crt"],
        ):
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
        broker = SecureMosquitto(tmp_path, folder)
        try:
            assert refusal(broker.user("cam-1")).endswith("its certificate has expired")
        finally:
            broker.kill()

    def test_signed_by_itself(self, certificates, tmp_path):
        folder = tmp_path / "made"
        shutil.copytree(certificates, folder)
        command = ["openssl", "req", "-new", "-x509", "-key", "server.key", "-out", "server.crt"]
        command += ["-subj", "/CN=broker", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
        broker = SecureMosquitto(tmp_path, folder)
        try:
            assert "signed by itself" in refusal(broker.user("cam-1"))
        finally:
            broker.kill()

    def test_a_broker_without_tls(self, mosquitto, certificates):
        tls = replace(mosquitto.broker, tls=True, ca=certificates / "ca.crt")
        assert "TLS" in refusal(tls)


def test_a_client_certificate_of_another_ca_is_refused(mosquitto_tls, tmp_path):
    assert make_certificates(tmp_path, "client", "cam-1").returncode == 0
    broker = mosquitto_tls.with_certificate("cam-1")
    foreign = replace(broker, cert=tmp_path / "cam-1.crt", key=tmp_path / "cam-1.key")
    assert "it refuses the client certificate" in refusal(foreign)


def test_old_tls_is_refused(mosquitto_tls):
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{mosquitto_tls.port}"]
    command += ["-CAfile", str(mosquitto_tls.certificates / "ca.crt")]
    old = subprocess.run([*command, "-tls1_1"], input=b"", capture_output=True, timeout=60)
    new = subprocess.run([*command, "-tls1_2"], input=b"", capture_output=True, timeout=60)
    assert b"Verify return code: 0 (ok)" in new.stdout
    assert b"BEGIN CERTIFICATE" not in old.stdout


def test_foreign_clients_work_with_these_files(mosquitto_tls, join):
    node = join(mosquitto_tls.user("node-1"), "n", request_filter("edge"))
    command = [program("mosquitto_pub"), "-h", "localhost", "-p", str(mosquitto_tls.port)]
    command += ["--cafile", str(mosquitto_tls.certificates / "ca.crt"), "-u", "cam-1", "-q", "1"]
    command += ["-P", mosquitto_tls.password("cam-1")]
    command += ["-t", request_topic("edge", "cam-1"), "-m", "from mosquitto_pub"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    node.wait_for(b"from mosquitto_pub")


class TestMakeCertificates:
    def test_certificates_pass_strict_checks(self, certificates):
        for name in ("server", "cam-1"):
            command = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", f"{name}.crt"]
            subprocess.run(command, cwd=certificates, check=True, capture_output=True, timeout=60)
        context = ssl.create_default_context(cafile=certificates / "ca.crt")
        (ca,) = context.get_ca_certs()
        assert dict(pair[0] for pair in ca["subject"])["commonName"] == "Offramp CA"

    def test_keys_are_for_their_owner_only(self, certificates):
        for key in certificates.glob("*.key"):
            assert key.stat().st_mode & 0o077 == 0

    def test_what_is_there_is_not_replaced(self, certificates):
        before = {file: file.read_bytes() for file in certificates.iterdir()}
        again = make_certificates(certificates, "client", "cam-1")
        assert again.returncode == 2
        assert "is there already" in again.stderr
        assert before == {file: file.read_bytes() for file in certificates.iterdir()}

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("client",),
            ("client", "a", "b"),
            ("other", "a"),
            ("client", "a/b"),
            ("client", ""),
            ("client", "a\nb"),
            ("client", "ca"),
            ("client", "x" * 65),
            ("server", "a b"),
            ("server", "a:b"),
        ],
    )
    def test_what_it_does_not_understand(self, tmp_path: Path, arguments):
        made = make_certificates(tmp_path, *arguments)
        assert made.returncode == 2
        assert made.stderr
        assert not list(tmp_path.glob("server.*"))
        assert {file.name for file in tmp_path.iterdir()} <= {"ca.crt", "ca.key"}


def test_without_mosquitto_tests_fail_in_ci_and_are_skipped_elsewhere(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install mosquitto"):
        program("no-such-program")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="apt-get install mosquitto"):
        program("no-such-program")
