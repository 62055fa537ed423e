"""A live run: every arm in real time, its results and its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.mqtt.connections import check_broker
from models.inference.fingerprint import fingerprint
from models.processors import available_processors
from offramp.live.awake import check_awake
from offramp.live.session import LiveOptions, LiveSession, arm_name, live_session
from offramp.live.table import live_table
from offramp.live.warnings import not_emulated
from offramp.manifest import simulated_files, write_manifest
from offramp.pipeline import Pipeline
from offramp.scenario import LoadedScenario
from offramp.stages.inputs import Inputs, find_inputs, world_of
from offramp.stages.jobs import Job, job_of
from offramp.stages.layout import MANIFEST
from offramp.stages.live import ArmRun, arms_in_order, measure_missing, write_live_results
from offramp.stages.live_parts import LivePart, PartsFolder
from offramp.store import content_key
from sim.results.verdict import offered_loads

if TYPE_CHECKING:
    from offramp.report.build import Report

#: Raise when a change of code changes what a live run measures with the same settings.
LIVE_VERSION = 4


def run_live(
    source: LoadedScenario,
    pipeline: Pipeline,
    results: Path,
    options: LiveOptions,
    notes: Sequence[str],
    go_on: Callable[[int, float], bool],
    between: Callable[[LiveSession, int, bool], None] = lambda session, arms_before, over: None,
) -> Report | None:
    """Train and profile what is missing, measure every arm that was not, and report.

    Args:
        source: the scenario as the user named it.
        pipeline: of what is left of it live; see :func:`offramp.live.scenarios.live_scenario`.
        notes: what else a reader of the results has to know.
        go_on: asked before anything is measured, with the number of arms to measure and the
            seconds that they take at least.
        between: called with the session, its broker up, before every arm that is missing, and
            once more when all are measured; told how many arms lie behind, and whether all do.

    Returns:
        None if the user would rather not.

    Raises:
        OfframpError: a part could not start, or ended and could not go on.
    """
    for broker in (options.broker, options.direct):
        if broker is not None:
            check_broker(broker)  # before what takes long
    if options.awake:
        check_awake()
    pipeline.prepare(results)
    loaded, console = pipeline.loaded, pipeline.console
    inputs = find_inputs(loaded, pipeline.store, pipeline.arguments())
    job = job_of(loaded, inputs, world_of(loaded, inputs))
    pipeline.show_load(offered_loads(job.world), [])
    notes = [*notes, *not_emulated(source.scenario, options.broker is None)]
    for note in notes:
        console.note(f"warning: {note}")
    arms = arms_in_order(job)
    parts = PartsFolder(results, _key(loaded, inputs, options))
    missing = [arm for arm in arms if parts.read(arm.arm, arm.replication) is None]
    if not go_on(len(missing), len(missing) * job.world.horizon_s):
        return None
    with pipeline.timed("live"):
        if missing:
            notes += _measure(source, pipeline, job, arms, parts, options, between)
    measured = write_live_results(job, loaded.experiment.info.classes, arms, parts, inputs, results)
    live = _about(loaded, options, job, measured, notes)
    manifest = {**pipeline.manifest(inputs), "world": "live", "live": live}
    write_manifest(results / MANIFEST, manifest, simulated_files(results))
    return pipeline.report(results)


def _measure(
    source: LoadedScenario,
    pipeline: Pipeline,
    job: Job,
    arms: Sequence[ArmRun],
    parts: PartsFolder,
    options: LiveOptions,
    between: Callable[[LiveSession, int, bool], None],
) -> list[str]:
    """Measure what is missing; returns what a reader of the results has to know of it."""
    arguments = ("--store", str(pipeline.store.root))
    console = pipeline.console
    with (
        live_session(source, pipeline.loaded, job, options, arguments, console.note) as session,
        live_table(console) as table,
    ):
        for note in session.notes:
            console.note(f"warning: {note}")

        def measure(arm: ArmRun) -> LivePart:
            arms_before = arms.index(arm)
            between(session, arms_before, False)
            return session.measure(arm, table, arms_before + 1, len(arms))

        measure_missing(arms, parts, measure)
        between(session, len(arms), True)
    return session.notes


def _key(loaded: LoadedScenario, inputs: Inputs, options: LiveOptions) -> str:
    """Of everything that measured arms depend on: they are not for another run."""
    return content_key(
        {
            "version": LIVE_VERSION,
            "scenario": loaded.scenario.model_dump(),
            "inputs": inputs.hashes(loaded),
            "broker": options.broker.url if options.broker else None,
            "direct": options.direct.url if options.direct else None,
            "joined": options.join > 0,
            "pin": available_processors() if options.pin else None,
            "awake": options.awake,
        }
    )


def _about(
    loaded: LoadedScenario,
    options: LiveOptions,
    job: Job,
    measured: dict[ArmRun, LivePart],
    notes: Sequence[str],
) -> dict[str, Any]:
    """What the manifest says of a live run."""
    settings = loaded.scenario.profile
    lags = [part.about["lag_ms"] for part in measured.values()]
    of_arms = [
        f"{arm_name(arm, job)}: {note}"
        for arm, part in measured.items()
        for note in part.about["notes"]
    ]
    return {
        "broker": options.broker.url if options.broker else "embedded",
        "host": fingerprint(settings.threads, settings.precision, settings.runtime),
        "joined": sorted({name for part in measured.values() for name in part.joined}),
        "lag_ms": {name: max(lag[name] for lag in lags) for name in lags[0]},
        "same_clock": all(part.about.get("same_clock", False) for part in measured.values()),
        "awake": options.awake,
        "processors": next((part.about["processors"] for part in measured.values()), None),
        "warnings": [*notes, *of_arms],
    }
