"""``offramp validate``: does the simulator tell the truth?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from offramp.console import Console
    from offramp.validation.run import Validation


def validate(
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
            "--output",
            "-o",
            metavar="FOLDER",
            help="Results folder (default: results/NAME-validation).",
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
        int,
        typer.Option(min=1, help="Repetitions of each arm, each with requests of its own."),
    ] = 3,
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
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Its first line is the password of the user (else $OFFRAMP_MQTT_PASSWORD).",
        ),
    ] = None,
    links: Annotated[
        Literal["measured", "scenario"],
        typer.Option(
            help="The network that is simulated: as it was measured, or as the scenario's links "
            "say, where it is made so and the calibration knows nothing of it."
        ),
    ] = "measured",
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Use a calibration of an earlier validation, of this host."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, help="Processes that simulate (default: as many as processors)."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
) -> None:
    """Run a scenario live and simulated, with the same requests, and compare.

    Profiles this host, calibrates broker, clients and nodes with requests of its own, runs every
    arm in real time and in the simulator, and reports how far they are apart. Ctrl-C keeps the
    arms that are finished; the same command goes on from there.
    """
    from devices.broker_address import parse_broker
    from models.errors import BrokerError, ScenarioError
    from offramp.cli import show_load
    from offramp.console import Console
    from offramp.live.arms import choose_arms
    from offramp.live.cli import _ask, _certificates
    from offramp.live.scenarios import check_live, live_policies, live_scenario
    from offramp.live.session import LiveOptions
    from offramp.pipeline import Pipeline
    from offramp.scenario import load_scenario
    from offramp.store import Store, default_root
    from offramp.validation.run import Settings
    from offramp.validation.run import validate as run_validation

    console = Console(quiet)
    loaded = load_scenario(scenario, set or [])
    address = None
    if broker is not None:
        version = loaded.scenario.mqtt.version if loaded.scenario.mqtt else "5"
        address = parse_broker(broker, ca=ca, password_file=password_file, version=version)
    elif ca or password_file:
        raise BrokerError(
            "the broker that is started has neither TLS nor passwords: certificates and "
            "passwords are for another one (--broker)"
        )
    if links == "scenario" and calibration is None:
        raise ScenarioError(
            "--links scenario: the network is there already, and would be calibrated with the "
            "nodes: name a calibration that was made without it (--calibration FOLDER)"
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
    results = output or Path("results") / f"{loaded.scenario.name}-validation"
    validation = run_validation(
        loaded,
        pipeline,
        results,
        LiveOptions(address, broker_arguments=_certificates(ca, None, None)),
        Settings(links, calibration, jobs),
        [f"policy {label} is left out: only a simulator can know that" for label in left_out],
        _ask(console, yes),
    )
    if validation is not None:
        show(validation, console)


def show(validation: Validation, console: Console) -> None:
    """Print how far the worlds are apart, the verdict, and where the page is."""
    from rich.table import Table

    from offramp.validation.page import misses, shown, verdict_line

    comparison = validation.comparison
    table = Table("strategy", "policy", "metric", "live", "simulated", "error", "target", "met")
    for row in comparison.judged.to_dict(orient="records"):
        table.add_row(row["strategy"], row["policy"], *shown(row))
    console.table(table)
    missed = "".join(f"\n  {line}" for line in misses(comparison))
    console.result(verdict_line(comparison) + missed)
    console.result(f"report: {validation.page}")
