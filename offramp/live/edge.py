"""``offramp live edge``: one edge node of a scenario, until it is told to end."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from models.errors import BrokerError, LiveError
from offramp.console import Console
from offramp.live.options import (
    BrokerOption,
    CertificatesOption,
    OverrideOption,
    PasswordFileOption,
    PrivateKeyOption,
    VersionOption,
)
from offramp.options import ScenarioArgument

if TYPE_CHECKING:
    from devices.node.edge import EdgeNode

#: The network thread gets the interpreter after so long from a worker that computes in Python.
_SWITCH_INTERVAL_S = 1e-3

_LOOK_EVERY_S = 0.1
_ENDING = (signal.SIGTERM, signal.SIGINT)


def edge(
    scenario: ScenarioArgument,
    node: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A name under nodes, or of one of its replicas, such as edge-1 (default: the only "
            "one).",
        ),
    ] = None,
    replica: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Which of the node's replicas, from 0.")
    ] = None,
    broker: BrokerOption = "mqtt://127.0.0.1",
    ca: CertificatesOption = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate of the node (PEM).")
    ] = None,
    password_file: PasswordFileOption = None,
    key: PrivateKeyOption = None,
    mqtt_version: VersionOption = None,
    strategy: Annotated[
        str | None, typer.Option(help="Whose network to serve (default: the first).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of its training (default: the first).")] = None,
    policy: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Decides at which exit to answer (default: the first)."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Serve this network, instead of one in the store."),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Latencies measured on this host (default: in the store, else measured now).",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve metrics for Prometheus here.")
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="On which address to serve metrics.")
    ] = "0.0.0.0",
    wait_s: Annotated[
        float, typer.Option(min=0, help="How long to wait for a broker that is not up yet.")
    ] = 0.0,
    drain_s: Annotated[
        float,
        typer.Option(min=0, help="How long to answer what has come, once told to end."),
    ] = 10.0,
    set: OverrideOption = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Artefact store (default: $OFFRAMP_STORE, or in the user's cache).",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Serve one node of a scenario over MQTT.

    Ctrl-C or SIGTERM lets it answer what it has and leave; a second one ends it at once. A newer
    node of the same name takes over.
    """
    from devices.frozen_heap import frozen_heap
    from devices.mqtt.broker_address import parse_broker
    from devices.mqtt.connections import check_broker
    from devices.node.node_metrics import NodeMetrics, serve_metrics
    from offramp.live.arms import choose_arms
    from offramp.live.node_parts import NodeFiles, build_node, node_place
    from offramp.live.scenarios import check_live, live_policies
    from offramp.scenario import load_scenario
    from offramp.store import Store, default_root

    console = Console(quiet)
    loaded = load_scenario(scenario, set or [])
    version = mqtt_version or (loaded.scenario.mqtt.version if loaded.scenario.mqtt else "5")
    if version not in ("5", "3.1.1"):
        raise LiveError(f"--mqtt-version: 5 or 3.1.1 is expected, not {version}")
    address = parse_broker(
        broker,
        ca=ca,
        cert=cert,
        key=key,
        password_file=password_file,
        version=cast(Literal["5", "3.1.1"], version),
    )
    check_live(loaded, version)
    place = node_place(loaded, node, replica)
    if checkpoint is not None and (strategy is not None or seed is not None):
        raise LiveError("--checkpoint names the network itself: leave out --strategy and --seed")
    labels, _ = live_policies(loaded.scenario, [policy] if policy is not None else [])
    arm = choose_arms(
        loaded,
        [strategy] if strategy is not None else [],
        [seed] if seed is not None else [],
        labels[:1],
    )[0]
    check_broker(address, may_come=wait_s > 0)  # before what takes long
    metrics, end_metrics = NodeMetrics(), None
    if metrics_port is not None:
        end_metrics = serve_metrics(metrics, metrics_port, metrics_host)  # before what takes long
    try:
        files = NodeFiles(Store(store or default_root()), checkpoint, profile)
        served = build_node(loaded, address, place, arm, files, metrics, console)
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        with frozen_heap():
            _serve(served, wait_s, drain_s, console)
    finally:
        if end_metrics is not None:
            end_metrics()


def _serve(node: EdgeNode, wait_s: float, drain_s: float, console: Console) -> None:
    """Serve until a signal, or until the node cannot go on."""
    told: list[int] = []

    def end(number: int, frame: object) -> None:
        told.append(number)
        for each in _ENDING:  # the next one ends it at once
            signal.signal(each, signal.SIG_DFL)

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        try:
            node.start(wait_s=wait_s, go_on=lambda: not told)
        except BrokerError:
            if told:
                return
            raise
        console.note(f"{node.description} serves")
        try:
            # Not one long wait: a signal must not find its lock taken.
            while not told and not node.wait(_LOOK_EVERY_S):
                pass
        finally:
            if told:
                console.note(f"node {node.name} answers what it has, for {drain_s:g} s at most")
            served = node.drain(drain_s)
        if not served:
            console.note(f"node {node.name} has dropped what it could not serve in time")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
