"""A validation from its scenario to its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import ArtifactError, ResultsError
from models.files import write_text
from offramp.console import Console
from offramp.live.awake import check_awake
from offramp.live.run import run_live
from offramp.live.session import LiveOptions, LiveSession
from offramp.live.table import live_table
from offramp.pipeline import Pipeline, check_writable
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.stages.live_parts import LIVE_PARTS, remove_parts
from offramp.store import content_key, file_hash
from offramp.validation.calibrating import Calibrating, read_measured, write_around
from offramp.validation.calibration import (
    Calibration,
    calibrated,
    read_calibration,
)
from offramp.validation.comparison import Comparison, compare
from offramp.validation.draws import other_draws
from offramp.validation.figures import write_figures
from offramp.validation.measuring import DisturbedError, measure
from offramp.validation.page import Findings, quietness_note, write_findings
from offramp.validation.time_parts import division_of, time_parts

LIVE, SIMULATED, CALIBRATION, FIGURES = "live", "simulated", "calibration", "figures"

#: Of a validation that is not finished: the profile that it is made with.
_BEGUN = ".begun.json"


#: So often a calibration is tried that is disturbed.
_CALIBRATIONS = 3


@dataclass(frozen=True)
class Settings:
    """How a scenario is validated.

    Attributes:
        links: ``measured``, or ``scenario`` where the network is as the scenario says.
        calibration: folder of one that was made before; None: it is measured.
        jobs: processes that simulate.
        command: that does the same again, for the page.
    """

    links: str = "measured"
    calibration: Path | None = None
    jobs: int | None = None
    command: str = ""


@dataclass(frozen=True)
class Validation:
    """A finished validation.

    Attributes:
        quietness_note: that the host was not quiet, if so.
    """

    comparison: Comparison
    page: Path
    quietness_note: str | None


def validate(
    source: LoadedScenario,
    pipeline: Pipeline,
    results: Path,
    options: LiveOptions,
    settings: Settings,
    notes: Sequence[str],
    go_on: Callable[[int, float], bool],
) -> Validation | None:
    """Profile, calibrate, run live and simulated, and compare.

    A validation that is interrupted goes on with the arms that were measured.

    Args:
        source: the scenario as the user named it.
        pipeline: of what is left of it live.
        results: folder for everything.
        notes, go_on: see :func:`offramp.live.run.run_live`.

    Returns:
        None if the user would rather not.

    Raises:
        OfframpError: a part could not start, or the runs cannot be compared.
    """
    check_writable(results)
    console, lived = pipeline.console, pipeline.loaded
    given = read_calibration(settings.calibration) if settings.calibration else None
    if given is not None:
        _check_calibration(given, lived)
        if given.about.get("processors") != options.use_of_processors:
            raise ArtifactError(
                f"when the calibration was made, {given.about.get('processors')}; now, "
                f"{options.use_of_processors} (--pin, --awake): calibrate anew (leave "
                "--calibration out)"
            )
    if options.awake:
        check_awake()  # before what takes long
    pipeline.prepare(results / LIVE)
    profile = _profile(pipeline, results, given)
    folder = results / CALIBRATION

    def calibration_now(session: LiveSession) -> Calibration:
        for attempt in range(_CALIBRATIONS):
            try:
                with live_table(console) as table:
                    measured = measure(session, table, console.note)
                break
            except DisturbedError as error:
                if attempt == _CALIBRATIONS - 1:
                    raise
                console.note(f"warning: {error}; it is measured again")
        # What inference takes beyond the profile is beyond this one, at the scenario's rate.
        measured.about.update(profile=profile, scenario=_key(lived))
        return measured

    kept = [] if given else _kept(results, profile, lived, options, console)
    calibrating = Calibrating(folder, given, kept, calibration_now)
    ran = run_live(source, pipeline, results / LIVE, options, notes, go_on, between=calibrating)
    if ran is None:
        return None
    try:
        validation = _against_simulation(
            source, pipeline, results, options, settings, calibrating.measured
        )
    except OSError as error:
        reason = error.strerror or error
        raise ResultsError(f"cannot write to {results}: {reason}") from error
    # Only now: whatever ends it before loses nothing that was measured.
    remove_parts(results / LIVE)
    (results / _BEGUN).unlink(missing_ok=True)
    return validation


def _against_simulation(
    source: LoadedScenario,
    pipeline: Pipeline,
    results: Path,
    options: LiveOptions,
    settings: Settings,
    measured: Sequence[Calibration],
) -> Validation:
    """Simulate what was run live, and compare.

    Args:
        measured: calibrations of this validation; none where one was given.

    Raises:
        OSError: results cannot be written.
    """
    folder = results / CALIBRATION
    calibration = read_calibration(folder)
    lived = _with_links(pipeline.loaded, source, settings.links)
    replications, arms = _replications(lived)

    def with_calibration(samples: Calibration, at: Path) -> LoadedScenario:
        return calibrated(lived, samples, at, settings.links)

    pooled = with_calibration(calibration, folder)
    around = write_around(folder, measured, replications, arms)
    of_replications = [with_calibration(samples, at) for at, samples in around]
    of_replications = of_replications or [pooled] * replications
    simulating = Pipeline(pooled, pipeline.store, pipeline.console, pipeline.show_load)
    simulating.simulate(results / SIMULATED, settings.jobs, of_replications)
    simulating.report(results / SIMULATED)
    others = other_draws(simulating, of_replications, results, results / SIMULATED, settings.jobs)
    comparison = compare(results / LIVE, results / SIMULATED, others)
    parts = time_parts(
        comparison.live,
        comparison.simulated,
        division_of(comparison.live, calibration, settings.links),
    )
    captions = write_figures(comparison, parts, results / FIGURES)
    findings = Findings(
        comparison,
        calibration,
        parts,
        settings.links,
        bool(measured),
        settings.command,
        tuple(_notes(comparison)),
    )
    page = write_findings(results, findings, captions)
    return Validation(comparison, page, quietness_note(calibration))


def _profile(pipeline: Pipeline, results: Path, given: Calibration | None) -> str:
    """Profile now, next to what is measured live; returns the profile's hash.

    Once in a validation that is interrupted, and not with a calibration that was given: what
    inference took beyond the profile belongs to the profile of that time.
    """
    begun = results / _BEGUN
    profile = file_hash(pipeline.profile())
    if given is not None:
        if given.about.get("profile") != profile:
            raise ArtifactError(
                "the calibration was made with another profile of this host: calibrate anew "
                "(leave --calibration out), or name the one that was made last"
            )
        return profile
    try:
        before = json.loads(begun.read_text(encoding="utf-8"))["profile"]
    except (OSError, ValueError, KeyError, TypeError):
        before = None
    if before != profile or not (results / LIVE / LIVE_PARTS).is_dir():
        profile = file_hash(pipeline.profile(again=True))
        write_text(begun, json.dumps({"profile": profile}) + "\n")
    return profile


def _kept(
    results: Path, profile: str, lived: LoadedScenario, options: LiveOptions, console: Console
) -> list[Calibration]:
    """The calibrations of this validation, if it was interrupted after arms were measured.

    Those that cannot be used are not, and the console is told why.
    """
    if not any((results / LIVE).glob(f"{LIVE_PARTS}/*/*.parquet")):
        return []
    way = options.direct or options.broker
    broker = way.url if way else "embedded"
    try:
        kept = read_measured(
            results / CALIBRATION,
            profile=profile,
            broker=broker,
            scenario=_key(lived),
            processors=options.use_of_processors,
        )
        for calibration in kept:
            _check_calibration(calibration, lived)
    except ArtifactError as error:
        console.note(
            "earlier calibrations are not used, and the arms that are there are simulated with "
            f"those from now on: {error}"
        )
        return []
    return kept


def _key(lived: LoadedScenario) -> str:
    return content_key(lived.scenario.model_dump())


def _replications(lived: LoadedScenario) -> tuple[int, int]:
    """How many there are, and arms in each."""
    networks = len(list(keys.trained_networks(lived.experiment)))
    scenario = lived.scenario
    return scenario.simulation.replications, networks * len(scenario.policies)


def _check_calibration(calibration: Calibration, lived: LoadedScenario) -> None:
    """See that a calibration can be used before anything takes long."""
    calibrated(lived, calibration, Path(), "measured")


def _with_links(lived: LoadedScenario, source: LoadedScenario, links: str) -> LoadedScenario:
    """The scenario as it is run live, with its own links where these are there."""
    if links == "measured":
        return lived
    scenario = lived.scenario.model_copy(update={"links": source.scenario.links})
    return replace(lived, scenario=scenario)


def _notes(comparison: Comparison) -> list[str]:
    """What the live run itself says that a reader has to know."""
    warnings: list[str] = comparison.live.manifest.get("live", {}).get("warnings", [])
    return warnings
