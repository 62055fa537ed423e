"""``offramp live devices``: virtual devices of a scenario, against nodes that are up already."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.table import Table

from models.errors import LiveError, ResultsError
from offramp.console import Console
from offramp.live.options import (
    BrokerOption,
    CertificatesOption,
    OverrideOption,
    PasswordFileOption,
    PrivateKeyOption,
    VersionOption,
)
from offramp.options import QuietOption, ScenarioArgument

if TYPE_CHECKING:
    from devices.mqtt.broker_address import Broker
    from devices.virtual.fleet_log import FleetResult
    from devices.virtual.fleet_settings import SampleSet
    from models.artifacts import Predictions
    from offramp.scenario import LoadedScenario
    from sim.results.run import Run
    from sim.world import World


def devices(
    scenario: ScenarioArgument,
    broker: BrokerOption = "mqtt://127.0.0.1",
    ca: CertificatesOption = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate of the devices (PEM).")
    ] = None,
    password_file: PasswordFileOption = None,
    key: PrivateKeyOption = None,
    mqtt_version: VersionOption = None,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this device group; may be repeated."),
    ] = None,
    replication: Annotated[
        int, typer.Option(min=0, help="Which of the replications of the scenario to send.")
    ] = 0,
    duration_s: Annotated[
        float | None, typer.Option(help="Of the measured window (default: the scenario's).")
    ] = None,
    wait_s: Annotated[
        float, typer.Option(help="For the nodes to be online, and the devices connected.")
    ] = 30.0,
    records: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the records here (Parquet).")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Of the network, in the records (default: as nodes say).")
    ] = None,
    training_seed: Annotated[
        int | None, typer.Option(help="Of the network, in the records (default: as nodes say).")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Of the nodes, in the records (default: as nodes say).")
    ] = None,
    set: OverrideOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run the devices of a scenario against nodes that are up already.

    Each is an MQTT client of its own, and sends what it would in the simulator. Ctrl-C ends the run
    early; what was done by then is in the records.
    """
    from devices.mqtt.broker_address import parse_broker
    from devices.virtual.fleet import run_fleet
    from devices.virtual.fleet_settings import FleetSettings
    from devices.virtual.results import run_of
    from offramp.live.scenarios import check_live
    from offramp.live.warnings import not_emulated
    from offramp.scenario import load_scenario

    console = Console(quiet)
    loaded = load_scenario(scenario, set or [])
    for given, name in ((duration_s, "--duration-s"), (wait_s, "--wait-s")):
        if given is not None and not 0 < given < math.inf:
            raise LiveError(f"{name}: a positive number of seconds is expected, not {given:g}")
    if records is not None and not records.absolute().parent.is_dir():
        raise ResultsError(f"cannot write {records}: there is no folder {records.parent}")
    world = fleet_world(loaded)
    if duration_s is not None:
        world = replace(world, duration_s=duration_s)
    version = mqtt_version or (world.mqtt.version if world.mqtt else "5")
    check_live(loaded, version)
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
    samples = test_samples(loaded)
    for left_out in not_emulated(loaded.scenario, embedded=False):
        console.note(f"note: {left_out}")
    _say_what_runs(world, group, address, console)
    settings = FleetSettings.of(address, world.mqtt, wait_s=wait_s)
    with console.task("live devices", math.ceil(world.horizon_s)) as update:
        result = run_fleet(
            world,
            samples,
            replication,
            settings,
            groups=group,
            on_progress=lambda progress: update(int(max(0.0, progress.time_s))),
        )
    run = run_of(world, result, samples.labels)
    show(world, run, console)
    for warning in result.warnings(world):
        console.result(f"warning: {warning}")
    if records is not None:
        arm = _arm(result, strategy, training_seed, policy, console)
        write(records, world, run, samples, arm)
        console.result(f"records: {records}")
    if result.cut_s is not None:
        raise typer.Exit(130)


def fleet_world(loaded: LoadedScenario) -> World:
    """The scenario's world as its devices see it: of nodes they know the names."""
    from offramp.worlds import outline_of
    from sim.distributions import Constant
    from sim.nodes.service import DistributedService
    from sim.nodes.spec import NodeSpec

    section = loaded.scenario
    # Nobody asks it for its times: they are measured.
    unknown = DistributedService(Constant(0.0), loaded.experiment.architecture.exit_count)
    return replace(
        outline_of(section, loaded.folder),
        nodes=tuple(
            NodeSpec(name, node.workers, unknown, replicas=node.replicas)
            for name, node in section.nodes.items()
        ),
        faults=(),
    )


def test_samples(loaded: LoadedScenario) -> SampleSet:
    """The test set, from which devices send.

    Raises:
        DataError: it is not there.
    """
    import numpy as np

    from devices.virtual.fleet_settings import SampleSet
    from models.data.datasets import load_dataset

    section = loaded.scenario.data
    test = load_dataset(section.dataset, section.validation_fraction).test
    return SampleSet(test.images, test.labels.astype(np.int32), test.index.astype(np.int32))


def _say_what_runs(
    world: World, groups: list[str] | None, broker: Broker, console: Console
) -> None:
    from devices.virtual.fleet import chosen_groups

    running = [world.groups[index] for index in chosen_groups(world, groups)]
    console.note(
        f"{sum(group.count for group in running)} devices, {world.horizon_s:g} s, of which the "
        f"first {world.warm_up_s:g} s are cut; waiting for "
        f"{', '.join(dict.fromkeys(group.node for group in running))} at {broker.url}"
    )


def show(world: World, run: Run, console: Console) -> None:
    """Print the figures of the measured window, of each device group and of all."""
    from offramp.report.markdown import milliseconds, percent
    from sim.results.metrics import run_metrics

    table = Table(
        "devices", "offered", "on time", "late", "dropped", "lost", "AUD", "p50/p95/p99 (ms)"
    )
    parts = {
        group.name: run.where(run.requests.group == index)
        for index, group in enumerate(world.groups)
        if (run.requests.group == index).any()
    }
    if len(parts) != 1:
        parts["all"] = run
    for name, part in parts.items():
        metrics = run_metrics(world, part)
        counts = [
            f"{metrics[key]:.0f}" for key in ("offered", "on_time", "late", "dropped", "lost")
        ]
        latency = [metrics[f"latency_p{percent}_s"] for percent in (50, 95, 99)]
        table.add_row(name, *counts, percent(metrics["aud"]), milliseconds(*latency))
    console.table(table)


def _arm(
    result: FleetResult,
    strategy: str | None,
    training_seed: int | None,
    policy: str | None,
    console: Console,
) -> tuple[str, int, str]:
    """Strategy, training seed and policy: as given, else as the nodes say with one voice."""
    arm: list[str | int] = []
    for option, attribute, given, unknown in (
        ("--strategy", "strategy", strategy, "unknown"),
        ("--training-seed", "training_seed", training_seed, -1),
        ("--policy", "policy", policy, "unknown"),
    ):
        said = {getattr(status, attribute) for status in result.statuses} - {"", None}
        if given is None and len(said) != 1:
            how = "nodes differ in it" if said else "no node says it"
            console.result(f"warning: the records have {unknown} for {option}: {how}")
        arm.append(given if given is not None else said.pop() if len(said) == 1 else unknown)
    return str(arm[0]), int(arm[1]), str(arm[2])


def write(
    file: Path, world: World, run: Run, samples: SampleSet, arm: tuple[str, int, str]
) -> None:
    """Write the records of a run.

    Raises:
        ResultsError: the file cannot be written.
    """
    from sim.results.records import write_records
    from sim.results.run import record_table

    table = record_table(world, run, _no_predictions(samples), *arm)
    try:
        write_records(file, [table], {"world": "live"})
    except OSError as error:
        raise ResultsError(f"cannot write {file}: {error.strerror}") from error


def _no_predictions(samples: SampleSet) -> Predictions:
    """Samples and labels as records want them; what networks say of them is in the replies."""
    import numpy as np

    from models.artifacts import Predictions

    count = len(samples.labels)
    predicted = np.zeros((count, 0), dtype=np.int32)
    confidence = np.zeros((count, 0), dtype=np.float32)
    return Predictions(samples.sample, samples.labels, predicted, confidence, {})
