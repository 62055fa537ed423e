"""``offramp live …``: everything that talks MQTT."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from offramp.live.broker import broker
from offramp.live.devices import devices
from offramp.live.edge import edge
from offramp.live.options import (
    AwakeOption,
    CertificatesOption,
    LiveSetOption,
    OtherBrokerOption,
    PasswordFileOption,
    PinOption,
    PoliciesOption,
    PrivateKeyOption,
    SeedsOption,
    StrategiesOption,
)
from offramp.options import QuietOption, ScenarioArgument, StoreOption, YesOption

live = typer.Typer(
    no_args_is_help=True,
    help="Run a scenario for real: over MQTT, with virtual or physical devices.",
)
live.command()(edge)
live.command()(devices)
live.command()(broker)


class _RunCommand(TyperCommand):
    """Lets ``--join`` stand alone, for one device."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Say the number that ``--join`` leaves out."""
        said = [*args, ""]
        filled = list[str]()
        for word, after in pairwise(said):
            filled.append(word)
            if word == "--join" and not after.isdigit():
                filled.append("1")
        return super().parse_args(ctx, filled)


@live.command(cls=_RunCommand)
def run(
    scenario: ScenarioArgument,
    set: LiveSetOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Results folder (default: results/NAME-live)."
        ),
    ] = None,
    store: StoreOption = None,
    strategy: StrategiesOption = None,
    seed: SeedsOption = None,
    policy: PoliciesOption = None,
    replications: Annotated[
        int, typer.Option(min=1, help="Repetitions of each arm, each with requests of its own.")
    ] = 1,
    broker: OtherBrokerOption = None,
    ca: CertificatesOption = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate of all clients (PEM).")
    ] = None,
    password_file: PasswordFileOption = None,
    key: PrivateKeyOption = None,
    mqtt_version: Annotated[
        Literal["5", "3.1.1"] | None,
        typer.Option(help="Default: as the scenario says, else 5; 3.1.1 without --broker."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Of the broker that is started (default: a free one, reached from this host only; "
            "with --join 1883, reached from everywhere).",
        ),
    ] = None,
    join: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="[N]",
            show_default=False,
            help="Wait until N devices that were not started here (default: 1) ask something, and "
            "record them too.",
        ),
    ] = None,
    join_wait_s: Annotated[
        float, typer.Option(min=0, help="How long devices that are to join are waited for.")
    ] = 600.0,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Prometheus metrics of the first node, of others on the next (default: free "
            "ones).",
        ),
    ] = None,
    pin: PinOption = True,
    awake: AwakeOption = False,
    yes: YesOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run arms of a scenario in real time, one after the other, and report as a simulation does.

    Trains and profiles what is missing, and starts what is missing on this host: broker, nodes,
    devices. Ctrl-C keeps the arms that are finished; the same command goes on from there.
    """
    from devices.mqtt.broker_address import parse_broker
    from models.errors import BrokerError
    from offramp.console import Console
    from offramp.live.run import run_live
    from offramp.live.session import LiveOptions
    from offramp.live.starting import asking, certificate_arguments, live_pipeline
    from offramp.report.terminal import show_report
    from offramp.scenario import load_scenario
    from offramp.stages.live_parts import remove_parts
    from offramp.store import Store, default_root

    console = Console(quiet)
    loaded = load_scenario(scenario, set or [])
    address = None
    if broker is not None:
        if port is not None:
            raise BrokerError("--port is of the broker that is started; with --broker, none is")
        version = mqtt_version or (loaded.scenario.mqtt.version if loaded.scenario.mqtt else "5")
        address = parse_broker(
            broker, ca=ca, cert=cert, key=key, password_file=password_file, version=version
        )
    elif ca or cert or key or password_file or mqtt_version == "5":
        raise BrokerError(
            "the broker that is started speaks MQTT 3.1.1 without TLS and passwords: certificates, "
            "passwords and version 5 are for another one (--broker)"
        )
    pipeline, notes = live_pipeline(
        loaded,
        address,
        strategy or [],
        seed or [],
        policy or [],
        replications,
        Store(store or default_root()),
        console,
    )
    options = LiveOptions(
        address,
        port,
        certificate_arguments(ca, cert, key),
        join or 0,
        metrics_port,
        join_within_s=join_wait_s,
        pin=pin,
        awake=awake,
    )
    results = output or Path("results") / f"{loaded.scenario.name}-live"
    report = run_live(loaded, pipeline, results, options, notes, asking(console, yes))
    if report is not None:
        remove_parts(results)
        show_report(report, console)
