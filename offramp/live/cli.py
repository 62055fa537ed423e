"""``offramp live …``: everything that talks MQTT."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from offramp.live.broker import broker
from offramp.live.devices import devices
from offramp.live.edge import edge

if TYPE_CHECKING:
    from collections.abc import Callable

    from offramp.console import Console

#: A run that takes longer asks first.
ASKS_FROM_S = 600.0

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
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO", help="A YAML file, or the name of a scenario that ships."
        ),
    ],
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a key, such as simulation.duration_s=30."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Results folder (default: results/NAME-live)."
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="FOLDER",
            help="Artefact store (default: $OFFRAMP_STORE, or in the user's cache).",
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this strategy; may be repeated (default: all)."),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="Training seed; may be repeated (default: the first)."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Only this policy; may be repeated (default: all)."),
    ] = None,
    replications: Annotated[
        int, typer.Option(min=1, help="Repetitions of each arm, each with requests of its own.")
    ] = 1,
    broker: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="mqtt://[user[:password]@]host[:port], or mqtts:// (default: one is started).",
        ),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates to trust (PEM).")
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate of all clients (PEM).")
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Its first line is the password of the user (else $OFFRAMP_MQTT_PASSWORD).",
        ),
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).")] = None,
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
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Prometheus metrics of the first node, of others on the next (default: free "
            "ones).",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
) -> None:
    """Run arms of a scenario in real time, one after the other, and report as a simulation does.

    Trains and profiles what is missing, and starts what is missing on this host: broker, nodes,
    devices. Ctrl-C keeps the arms that are finished; the same command goes on from there.
    """
    from devices.broker_address import parse_broker
    from models.errors import BrokerError
    from offramp.cli import show_load, show_report
    from offramp.console import Console
    from offramp.live.arms import choose_arms
    from offramp.live.run import run_live
    from offramp.live.scenarios import check_live, live_policies, live_scenario
    from offramp.live.session import LiveOptions
    from offramp.pipeline import Pipeline
    from offramp.scenario import load_scenario
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
    elif ca or cert or key or mqtt_version == "5":
        raise BrokerError(
            "the broker that is started speaks MQTT 3.1.1 without TLS: certificates and version 5 "
            "are for another one (--broker)"
        )
    check_live(loaded, address.version if address else None)
    policies, left_out = live_policies(loaded.scenario, policy or [])
    arms = choose_arms(loaded, strategy or [], seed or [], policies)
    lived = live_scenario(
        loaded,
        list(dict.fromkeys(arm.strategy for arm in arms)),
        list(dict.fromkeys(arm.training_seed for arm in arms)),
        policies,
        replications,
        address.version if address else "3.1.1",
    )
    pipeline = Pipeline(
        lived,
        Store(store or default_root()),
        console,
        lambda nodes, links: show_load(nodes, links, console.note),
    )
    options = LiveOptions(address, port, _certificates(ca, cert, key), join or 0, metrics_port)
    results = output or Path("results") / f"{loaded.scenario.name}-live"
    notes = [f"policy {label} is left out: only a simulator can know that" for label in left_out]
    report = run_live(loaded, pipeline, results, options, notes, _ask(console, yes))
    if report is not None:
        show_report(report, console)


def _certificates(ca: Path | None, cert: Path | None, key: Path | None) -> tuple[str, ...]:
    """The same options for others."""
    given = (("--ca", ca), ("--cert", cert), ("--key", key))
    return tuple(it for option, file in given if file for it in (option, str(file)))


def _ask(console: Console, yes: bool) -> Callable[[int, float], bool]:
    """Says how long a run takes, and asks whether to go on if that is long."""

    def go_on(arms: int, seconds: float) -> bool:
        if not arms:
            console.note("all arms are measured already: only the report is made")
            return True
        took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        console.note(f"to measure: {arms} arm(s), {took} in real time and some seconds for each")
        asks = seconds >= ASKS_FROM_S and not yes and console.rich.is_terminal
        return not asks or not sys.stdin.isatty() or typer.confirm("Go on?", default=True)

    return go_on
