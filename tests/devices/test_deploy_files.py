"""The files of ``deploy/`` that no test can run: what they name exists, and their form is right."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import DEPLOY
from ruamel.yaml import YAML
from typer.main import get_command

from offramp.cli import app

ROOT = DEPLOY.parent


def check_edge_arguments(arguments: list[str]) -> None:
    """Whether ``offramp`` understands them, without running anything."""
    assert arguments[:2] == ["live", "edge"]
    edge = get_command(app).commands["live"].commands["edge"]
    edge.make_context("edge", arguments[2:])  # raises a usage error for an option it has not


def unit() -> dict[str, list[str]]:
    text = (DEPLOY / "offramp-edge.service").read_text(encoding="utf-8")
    settings: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and line[0] not in "#[":
            key, value = line.split("=", 1)
            settings.setdefault(key, []).append(value)
    return settings


class TestUnit:
    def test_the_node_understands_its_arguments(self):
        (command,) = unit()["ExecStart"]
        example = re.search(
            r"^#   OFFRAMP_EDGE=(.*)$",
            (DEPLOY / "offramp-edge.service").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        assert example is not None
        assert example[1] in (DEPLOY / "README.md").read_text(encoding="utf-8")
        words = shlex.split(command.replace("$OFFRAMP_EDGE", example[1]))
        assert words[0] == "/opt/offramp/bin/offramp"
        check_edge_arguments(words[1:])

    def test_a_drain_is_waited_for_and_status_2_is_final(self):
        settings = unit()
        assert settings["KillSignal"] == ["SIGTERM"]
        assert settings["Restart"] == ["on-failure"]
        assert settings["RestartPreventExitStatus"] == ["2"]

    def test_systemd_understands_it(self, tmp_path):
        if shutil.which("systemd-analyze") is None:
            pytest.skip("systemd-analyze is not installed")
        text = (DEPLOY / "offramp-edge.service").read_text(encoding="utf-8")
        file = tmp_path / "offramp-edge.service"
        file.write_text(text.replace("/opt/offramp/bin/offramp", "/bin/true"), encoding="utf-8")
        said = subprocess.run(
            ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, timeout=60
        )
        assert str(file.name) not in said.stderr
        assert said.returncode == 0


class TestCompose:
    compose = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))

    def test_the_node_understands_its_arguments(self):
        check_edge_arguments(self.compose["services"]["node"]["command"])

    def test_what_is_mounted_exists_or_is_a_secret(self):
        names = set(self.compose["volumes"])
        for service in self.compose["services"].values():
            for volume in service["volumes"]:
                source = volume.split(":")[0]
                if source.startswith("./secrets/"):
                    continue
                assert source in names or (DEPLOY / source).exists()
        ignored = (DEPLOY / ".gitignore").read_text(encoding="utf-8").splitlines()
        assert "secrets/" in ignored

    def test_all_start_with_their_host(self):
        """``on-failure`` would not: Docker starts no such container after a reboot."""
        for service in self.compose["services"].values():
            assert service["restart"] == "unless-stopped"
        node = self.compose["services"]["node"]
        assert f"./node.sh:{node['entrypoint'][-1]}:ro" in node["volumes"]

    def test_ports_are_those_of_the_broker(self):
        text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text(encoding="utf-8")
        listeners = re.findall(r"^listener (\d+)", text, re.MULTILINE)
        ports = self.compose["services"]["broker"]["ports"]
        assert ports == [f"{port}:{port}" for port in listeners]

    def test_the_broker_keeps_its_state_in_a_volume_that_its_user_owns(self, tmp_path):
        """The official image gives its user /mosquitto, and no other folder."""
        broker = self.compose["services"]["broker"]
        text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text(encoding="utf-8")
        # For the host of deploy/README.md: the folder of Debian's package.
        assert "\npersistence_location /var/lib/mosquitto/\n" in text
        (tmp_path / "mosquitto.conf").write_text(text, encoding="utf-8")
        shell, option, line = broker["command"]
        for theirs, ours in (
            ("/tmp/", f"{tmp_path}/in-use-"),
            ("/mosquitto/config/", f"{tmp_path}/"),
            ("exec mosquitto -c", "cat"),
        ):
            assert theirs in line
            line = line.replace(theirs, ours)
        done = subprocess.run([shell, option, line], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        (place,) = re.findall(r"^persistence_location (\S+)/$", done.stdout, re.MULTILINE)
        assert f"broker-state:{place}" in broker["volumes"]
        assert place.startswith("/mosquitto/")
        assert done.stdout.replace(place, "/var/lib/mosquitto") == text

    def test_the_image_copies_what_there_is(self):
        build = self.compose["services"]["node"]["build"]
        file = (DEPLOY / build["context"] / build["dockerfile"]).resolve()
        copied = re.findall(r"^COPY (.*) \S+$", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert all((ROOT / name).exists() for line in copied for name in line.split())
        assert {"models", "sim", "devices", "offramp", "scenarios"} <= set(copied)


class TestNodeInItsContainer:
    """``node.sh`` with a program that ends as a node does in place of ``offramp``."""

    @pytest.fixture
    def start(self, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
        started: list[subprocess.Popen[str]] = []

        def start(node: str) -> subprocess.Popen[str]:
            program = tmp_path / "offramp"
            program.write_text(f"#!/bin/sh\n{node}\n", encoding="utf-8")
            program.chmod(0o755)
            started.append(
                subprocess.Popen(
                    ["sh", str(DEPLOY / "node.sh"), "live", "edge", "a scenario.yaml"],
                    env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            return started[-1]

        yield start
        for process in started:
            process.terminate()
            process.communicate(timeout=10)

    @pytest.mark.parametrize("status", [0, 1])
    def test_it_ends_as_the_node_ends(self, start, status):
        process = start(f'printf "%s." "$@"; exit {status}')
        said, _ = process.communicate(timeout=60)
        assert said == "live.edge.a scenario.yaml."
        assert process.returncode == status

    def test_it_stays_where_the_node_must_not_be_started_again(self, start):
        process = start("exit 2")
        assert "is not started again" in process.stderr.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(10) == 2

    def test_told_to_end_it_lets_the_node_answer_what_it_has(self, start):
        node = (
            "trap 'sleep 0.5; echo answered; exit 0' TERM; echo serves; while :; do sleep 0.1; done"
        )
        process = start(node)
        assert process.stdout.readline() == "serves\n"
        process.terminate()
        said, _ = process.communicate(timeout=60)
        assert said == "answered\n"
        assert process.returncode == 0


@pytest.mark.parametrize(
    "script", [ROOT / ".ci" / "run", DEPLOY / "make_certificates.sh", DEPLOY / "node.sh"]
)
def test_scripts_can_be_run(script):
    assert script.stat().st_mode & 0o111
    shell = script.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!").split()
    subprocess.run([*shell, "-n", str(script)], check=True, timeout=60)


def test_readme_names_files_that_exist():
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"deploy/[\w./-]*\w", text):
        assert (ROOT / name).exists() or name.startswith("deploy/secrets"), name
