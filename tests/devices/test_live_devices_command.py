"""``offramp live devices``, called as the command line calls it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import typer
from brokers import Mosquitto, free_port
from fake_edge import fake_edge
from typer.testing import CliRunner, Result

from models.errors import BrokerError, LiveError, ResultsError, ScenarioError
from offramp.live.devices import devices
from sim.results.records import read_records

SHORT = ["--duration-s", "0.5", "--set", "simulation.warm_up_s=0.1"]


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(devices)
    return CliRunner().invoke(app, ["quickstart", *arguments], catch_exceptions=True)


def error_of(result: Result, kind: type[Exception]) -> str:
    assert isinstance(result.exception, kind)
    return str(result.exception)


def test_devices_run_and_leave_records(mosquitto: Mosquitto, tmp_path: Path) -> None:
    file = tmp_path / "records.parquet"
    said: dict[str, Any] = {"strategy": "curriculum", "training_seed": 4, "policy": "full"}
    with fake_edge(mosquitto.broker, **said) as edge:
        result = run("--broker", mosquitto.url, *SHORT, "--records", str(file))
    assert result.exit_code == 0, result.output
    assert f"records: {file}" in result.output.replace("\n", "")
    table = read_records(file)
    assert 0 < table.num_rows <= len(edge.requests)
    for column, value in said.items():
        assert set(table[column].to_pylist()) == {value}
    assert set(table["group"].to_pylist()) == {"cameras"}
    assert {device for device, *_ in edge.requests} <= {f"cameras-{n}" for n in range(10)}
    assert all(len(request.image or b"") == 64 for _, request, _ in edge.requests)
    assert min(table["created_s"].to_pylist()) >= 0.1
    assert max(table["created_s"].to_pylist()) < 0.6


def test_what_no_node_says_is_told_or_unknown(mosquitto: Mosquitto, tmp_path: Path) -> None:
    file = tmp_path / "records.parquet"
    with fake_edge(mosquitto.broker):
        result = run(
            *("--broker", mosquitto.url, *SHORT, "--records", str(file)),
            *("--strategy", "mine", "--mqtt-version", "3.1.1"),
        )
    assert result.exit_code == 0, result.output
    rows = read_records(file).to_pylist()
    arms = {(row["strategy"], row["training_seed"], row["policy"]) for row in rows}
    assert arms == {("mine", -1, "unknown")}
    assert "unknown for --policy: no node says it" in result.output


def test_ctrl_c_keeps_what_there_is(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "records.parquet"
    monkeypatch.setattr(
        "devices.virtual.fleet._Fleet._is_stopped", property(lambda self: _is_old(self))
    )
    with fake_edge(mosquitto.broker):
        result = run(
            "--broker", mosquitto.url, "--records", str(file), "--set", "simulation.warm_up_s=0"
        )
    assert result.exit_code == 130
    assert "cut short" in result.output
    assert read_records(file).num_rows > 0


def _is_old(fleet: Any) -> bool:
    """As if Ctrl-C came half a second into the run."""
    return 0.5 < fleet._exchange.time_s < 100


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--group", "phones"], LiveError, "no device group 'phones'; there are cameras"),
        (["--duration-s", "0"], LiveError, "--duration-s: a positive number"),
        (["--wait-s", str(math.nan)], LiveError, "--wait-s: a positive number"),
        (["--mqtt-version", "4"], LiveError, "5 or 3.1.1 is expected, not 4"),
        (["--records", "/no/such/folder/x"], ResultsError, "there is no folder /no/such/folder"),
        (["--broker", "http://localhost"], BrokerError, "mqtt://"),
        (
            ["--set", "devices.cameras.compute={last_exit: 1}"],
            ScenarioError,
            "devices compute nothing themselves",
        ),
    ],
)
def test_what_cannot_be_run_is_said_at_once(
    arguments: list[str], kind: type[Exception], message: str
) -> None:
    # Nothing listens at the default address, or if it does, it is not asked.
    assert message in error_of(run(*arguments), kind)


def test_a_broker_that_is_not_there() -> None:
    result = run("--broker", f"mqtt://127.0.0.1:{free_port()}")
    assert "nothing listens there" in error_of(result, BrokerError)
