"""What begins a run in real time: which arms, what is left of the scenario, whether to go on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from devices.mqtt.broker_address import Broker
from offramp.console import Console
from offramp.live.arms import choose_arms
from offramp.live.scenarios import check_live, live_policies, live_scenario
from offramp.pipeline import Pipeline
from offramp.scenario import LoadedScenario
from offramp.store import Store

#: A run that takes longer asks first.
ASKS_FROM_S = 600.0


def live_pipeline(
    loaded: LoadedScenario,
    address: Broker | None,
    strategies: Sequence[str],
    seeds: Sequence[int],
    policies: Sequence[str],
    replications: int,
    store: Store,
    console: Console,
) -> tuple[Pipeline, list[str]]:
    """The stages of what is run live of a scenario, and what must be told of what is left out.

    Args:
        address: of the broker; None for the one that is started, which speaks MQTT 3.1.1.
        strategies, seeds, policies: those that were asked for, or none.

    Raises:
        OfframpError: it cannot be run live, or has no such arm.
    """
    from offramp.report.terminal import show_load

    check_live(loaded, address.version if address else None)
    chosen, left_out = live_policies(loaded.scenario, policies)
    arms = choose_arms(loaded, strategies, seeds, chosen)
    lived = live_scenario(
        loaded,
        list(dict.fromkeys(arm.strategy for arm in arms)),
        list(dict.fromkeys(arm.training_seed for arm in arms)),
        chosen,
        replications,
        address.version if address else "3.1.1",
    )
    pipeline = Pipeline(
        lived, store, console, lambda nodes, links: show_load(nodes, links, console.note)
    )
    notes = [f"policy {label} is left out: only a simulator can know that" for label in left_out]
    return pipeline, notes


def certificate_arguments(ca: Path | None, cert: Path | None, key: Path | None) -> tuple[str, ...]:
    """The same options for others."""
    given = (("--ca", ca), ("--cert", cert), ("--key", key))
    return tuple(it for option, file in given if file for it in (option, str(file)))


def asking(console: Console, yes: bool) -> Callable[[int, float], bool]:
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
