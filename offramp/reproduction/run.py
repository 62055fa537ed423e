"""Running a finished run again from its manifest, and comparing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from models.errors import ResultsError
from offramp.console import Console
from offramp.manifest import read_manifest
from offramp.pipeline import Pipeline, check_writable
from offramp.reproduction.contents import FileComparison, compare_files
from offramp.reproduction.figures import exit_figures, run_figures
from offramp.reproduction.judging import IDENTICAL, environment_changes, judge, unexplained
from offramp.reproduction.networks import are_anew, network_changes
from offramp.reproduction.options import CHANGED, WORK, Options, work_folder
from offramp.reproduction.original import Original, check_files, load_original, read_original
from offramp.reproduction.outcome import OUTCOME, Reproduction
from offramp.reproduction.page import write_outcome
from offramp.reproduction.starting import Start, find_start
from offramp.reproduction.statistics import Anew, differences, with_verdicts
from offramp.stages.jobs import Network
from offramp.stages.layout import (
    EXIT_ACCURACY,
    KEPT_TRIALS,
    MANIFEST,
    POINTS,
    PREDICTIONS,
    RECORDS,
    RUNS,
)
from offramp.store import Store, file_hash


def reproduce(named: Path, store: Store, console: Console, options: Options) -> Reproduction:
    """Run what a manifest says again, compare, and write what came of it.

    Args:
        named: a results folder, or its manifest.
        store: where trained networks are looked for.

    Raises:
        OfframpError: it cannot be run again, or the output cannot be written.
    """
    original = read_original(named)
    output = _output(original, options.output)
    changed = check_files(original, options.files, options.accept_changes)
    if original.is_sweep:
        from offramp.reproduction.sweep import reproduce_sweep

        return reproduce_sweep(original, store, console, options, output, changed)
    loaded = load_original(original, options.files)
    with work_folder(output) as work:
        for name in ("simulation", "networks"):  # of one that was stopped
            shutil.rmtree(work / name, ignore_errors=True)
        start = find_start(original, loaded, store, work, options.from_scratch, console)
        # A store without simulations: what is compared is always computed.
        pipeline = Pipeline(loaded, Store(work / "simulation"), console, wall_s=start.wall_s)
        pipeline.simulate_from(start.inputs, output, options.jobs)
        notes = [_upper(start.note)]
        if start.inputs.profile:
            notes.append("Latencies are those of the run's own profile: nothing was measured")
        notes += [f"{CHANGED} {line}" for line in changed]
        compared = _compare(original, output, start, notes)
        write_outcome(compared)
    return compared


def _output(original: Original, named: Path | None) -> Path:
    folder = original.folder.absolute()
    output = named or folder.with_name(f"{folder.name or 'run'}-again")
    if output.resolve() == original.folder.resolve():
        raise ResultsError(
            f"{output} is the run itself: write its reproduction somewhere else (-o)"
        )
    # Sweeps and searches keep what they have done in a database, long before a manifest.
    holds_something = any((output / name).exists() for name in (MANIFEST, POINTS, KEPT_TRIALS))
    if holds_something and not any((output / name).exists() for name in (OUTCOME, WORK)):
        raise ResultsError(
            f"{output} holds the results of something else: write the reproduction somewhere else "
            "(-o)"
        )
    check_writable(output)
    return output


def _compare(original: Original, output: Path, start: Start, notes: list[str]) -> Reproduction:
    manifest = read_manifest(output / MANIFEST)
    files = compare_files(original.folder, original.results, output, manifest["results"])
    before = {**_predict_the_same(original, start), **start.before}
    networks = network_changes(before, start.inputs, _exit_accuracies(original.folder))
    anew = Anew(are_anew(networks), _requests_anew(files))
    figures = _figures(original.folder, output, networks, anew)
    changes = environment_changes(original.manifest, manifest)
    verdict = judge(files, figures)
    changed_files = any(note.startswith(CHANGED) for note in notes)
    if verdict.word != IDENTICAL and unexplained(changes, anew.networks, changed_files):
        notes = [
            *notes,
            "Nothing is known to have changed of what records depend on (networks, profile, files, "
            "versions, processor): look for a policy of your own that draws random numbers, or for "
            "a defect of Offramp",
        ]
    return Reproduction(
        original.folder,
        output,
        original.path,
        verdict,
        files,
        figures,
        networks,
        changes,
        notes,
    )


def _predict_the_same(original: Original, start: Start) -> dict[Network, Path]:
    """Networks whose predictions have the hash of those of the run, wherever these are."""
    found = dict[Network, Path]()
    for entry in original.manifest["networks"]:
        network = (entry["strategy"], entry["training_seed"])
        file = start.inputs.trained[network] / PREDICTIONS
        if file_hash(file) == entry["predictions"]:
            found[network] = file
    return found


def _requests_anew(files: list[FileComparison]) -> bool:
    """Whether others were created, or it is not known."""
    return not any(file.same_requests for file in files if file.name == RECORDS)


def _figures(before: Path, after: Path, networks: pd.DataFrame, anew: Anew) -> pd.DataFrame | None:
    if not (before / RUNS).exists():
        return None
    arms = ["strategy", "policy"]
    old, new = (run_figures(_read_runs(folder / RUNS), arms) for folder in (before, after))
    table = differences(old, new, arms, anew)
    if anew.networks:
        exits = differences(
            exit_figures(networks, "accuracy_before"),
            exit_figures(networks, "accuracy_after"),
            ["strategy"],
            Anew(networks=True, requests=False),
        )
        exits.insert(1, "policy", "-")
        table = pd.concat([table, exits], ignore_index=True)
    return with_verdicts(table)


def _read_runs(path: Path) -> pd.DataFrame:
    names: dict[Any, Any] = {"strategy": str, "policy": str}
    try:
        runs = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} is damaged: {error}") from None
    return runs


def _exit_accuracies(folder: Path) -> dict[tuple[str, int, int], float]:
    """Test accuracy of the run's networks by strategy, seed and exit, where its table is there."""
    path = folder / EXIT_ACCURACY
    if not path.exists():
        return {}
    table = pd.read_csv(path)
    return {
        (str(row.strategy), int(row.training_seed), int(row.exit)): float(row.accuracy)
        for row in table.itertuples()
    }


def _upper(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
