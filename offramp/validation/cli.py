"""``offramp validate``: does the simulator tell the truth?"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from offramp.live.options import (
    AwakeOption,
    CertificatesOption,
    LiveSetOption,
    OtherBrokerOption,
    PasswordFileOption,
    PinOption,
    PoliciesOption,
    SeedsOption,
    StrategiesOption,
)
from offramp.options import QuietOption, ScenarioArgument, StoreOption, YesOption

if TYPE_CHECKING:
    from offramp.console import Console
    from offramp.validation.run import Validation


def validate(
    scenario: ScenarioArgument,
    set: LiveSetOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Results folder (default: results/NAME-validation).",
        ),
    ] = None,
    store: StoreOption = None,
    strategy: StrategiesOption = None,
    seed: SeedsOption = None,
    policy: PoliciesOption = None,
    replications: Annotated[
        int,
        typer.Option(min=1, help="Repetitions of each arm, each with requests of its own."),
    ] = 3,
    broker: OtherBrokerOption = None,
    ca: CertificatesOption = None,
    password_file: PasswordFileOption = None,
    links: Annotated[
        Literal["measured", "scenario"],
        typer.Option(
            help="The network that is simulated: as it was measured, or as the scenario's links "
            "say, where it is made so and the calibration knows nothing of it."
        ),
    ] = "measured",
    direct_broker: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The same broker by a way without the network of --links scenario: nodes connect "
            "by it, and calibrations take it.",
        ),
    ] = None,
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
    pin: PinOption = True,
    awake: AwakeOption = False,
    yes: YesOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a scenario live and simulated, with the same requests, and compare.

    Profiles this host, calibrates broker, clients and nodes with requests of its own, runs every
    arm in real time and in the simulator, and reports how far they are apart. Ctrl-C keeps the
    arms that are finished; the same command goes on from there.
    """
    from devices.mqtt.broker_address import parse_broker
    from models.errors import BrokerError, ScenarioError
    from offramp.console import Console
    from offramp.live.session import LiveOptions
    from offramp.live.starting import asking, certificate_arguments, live_pipeline
    from offramp.scenario import load_scenario
    from offramp.store import Store, default_root
    from offramp.validation.run import Settings
    from offramp.validation.run import validate as run_validation

    console = Console(quiet)
    loaded = load_scenario(scenario, set or [])
    version = loaded.scenario.mqtt.version if loaded.scenario.mqtt else "5"
    address, direct = (
        parse_broker(url, ca=ca, password_file=password_file, version=version) if url else None
        for url in (broker, direct_broker)
    )
    if address is None and (ca or password_file):
        raise BrokerError(
            "the broker that is started has neither TLS nor passwords: certificates and "
            "passwords are for another one (--broker)"
        )
    if links == "scenario" and calibration is None and direct is None:
        raise ScenarioError(
            "--links scenario: the network is there already, and would be calibrated with the "
            "nodes: name a way to the broker without it (--direct-broker URL), or a calibration "
            "that was made without it (--calibration FOLDER)"
        )
    if direct is not None and (address is None or links != "scenario"):
        raise ScenarioError(
            "--direct-broker: is another way to the broker of --broker, for --links scenario"
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
    results = output or Path("results") / f"{loaded.scenario.name}-validation"
    command = shlex.join(
        [
            *("offramp", "validate", scenario, "-o", str(results)),
            *("--replications", str(replications)),
            *_given("--set", *(set or [])),
            *_given("--strategy", *(strategy or [])),
            *_given("--seed", *(seed or [])),
            *_given("--policy", *(policy or [])),
            *_given("--broker", address and address.url),
            *_given("--ca", ca),
            *_given("--password-file", password_file),
            *(["--links", links] if links != "measured" else []),
            *_given("--direct-broker", direct and direct.url),
            *_given("--calibration", calibration),
            *([] if pin else ["--no-pin"]),
            *(["--awake"] if awake else []),
        ]
    )
    validation = run_validation(
        loaded,
        pipeline,
        results,
        LiveOptions(
            address,
            broker_arguments=certificate_arguments(ca, None, None),
            direct=direct,
            pin=pin,
            awake=awake,
        ),
        Settings(links, calibration, jobs, command),
        notes,
        asking(console, yes),
    )
    if validation is not None:
        show(validation, console)


def _given(option: str, *values: object) -> list[str]:
    """An option as often as it was given."""
    return [text for value in values if value is not None for text in (option, str(value))]


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
    if validation.quietness_note:
        console.result(validation.quietness_note)
    console.result(f"report: {validation.page}")
