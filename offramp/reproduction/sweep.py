"""Running a finished sweep again from its manifest, and comparing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from models.errors import ResultsError
from models.inference.fingerprint import fingerprint
from offramp.checks.memory import most_workers
from offramp.console import Console
from offramp.manifest import read_manifest
from offramp.reproduction.contents import compare_files
from offramp.reproduction.figures import run_figures
from offramp.reproduction.judging import IDENTICAL, environment_changes, judge, unexplained
from offramp.reproduction.options import CHANGED, WORK, Options, work_folder
from offramp.reproduction.original import Original
from offramp.reproduction.outcome import Reproduction
from offramp.reproduction.page import write_outcome
from offramp.reproduction.statistics import Anew, differences, with_verdicts
from offramp.stages import keys
from offramp.stages.layout import MANIFEST, POINTS, PREDICTIONS, PROFILE
from offramp.store import DESCRIPTION, Store, content_key, file_hash
from offramp.sweep.backend import Backend
from offramp.sweep.definition import Sweep
from offramp.sweep.recorded import kept_profile, recorded_sweep
from offramp.sweep.run import run_sweep
from offramp.sweep.table import FAILURES, SUMMARY, TABLE
from offramp.words import counted

_ARMS = ["point", "strategy", "policy"]

#: What decides which requests are created, besides the scenario and its files.
_DRAWN_BY = ("numpy", "scipy", "stage simulation", "host: machine", "host: processor")


def reproduce_sweep(
    original: Original,
    store: Store,
    console: Console,
    options: Options,
    output: Path,
    changed: Sequence[str],
) -> Reproduction:
    """Run all points of a sweep again, in a store of their own, and compare the tables.

    Args:
        store: where trained networks are looked for.
        changed: files that are not what they were, and were accepted.

    Raises:
        OfframpError: it cannot be run again.
    """
    folder = options.files or Path(original.manifest["folder"])
    sweep = recorded_sweep(original.manifest, folder, original.path)
    mode = "scratch" if options.from_scratch else "own"
    if not (output / WORK / mode).exists():  # else it was stopped, and goes on
        for name in (POINTS, TABLE, SUMMARY, FAILURES, MANIFEST):
            (output / name).unlink(missing_ok=True)
    with work_folder(output) as work:
        own = Store(work / mode, console.note)
        own.root.mkdir(exist_ok=True)
        notes = [_take_networks(original, store, own, options.from_scratch)]
        notes += _take_profiles(original, store, own)
        notes += [f"{CHANGED} {line}" for line in changed]
        run_sweep(sweep, own, output, console, lambda: _backend(sweep, options.jobs))
        outcome = _compare(original, output, notes)
        write_outcome(outcome)
    return outcome


def _backend(sweep: Sweep, jobs: int | None) -> Backend:
    from offramp.sweep.local import LocalBackend

    asked = min(jobs or os.cpu_count() or 1, len(sweep.points))
    return LocalBackend(min(asked, most_workers(sweep.base.scenario, sweep.base.folder)))


# --- what points start from ----------------------------------------------------------------------


def _take_networks(original: Original, store: Store, own: Store, from_scratch: bool) -> str:
    """Bring the sweep's own networks into its store, as far as they are there; a note on them."""
    wanted = _of_kind(original.manifest, "predictions")
    if from_scratch:
        return f"All {len(wanted)} networks were trained again in a store of their own"
    taken = 0
    for key, expected in wanted.items():
        folder = store.at("trained", key)
        if folder is None or file_hash(folder / PREDICTIONS) != expected:
            continue
        _link(folder, own.root / "trained" / key)
        taken += 1
        validation = content_key(keys.validation_key(_made_from(folder / DESCRIPTION)))
        of_split = store.at("validation", validation)
        if of_split:
            _link(of_split, own.root / "validation" / validation)
    if taken == len(wanted):
        return f"The sweep's own {taken} networks, from the store"
    return (
        f"{taken} of the sweep's own {len(wanted)} networks, from the store; the others are no "
        "longer there and were trained again"
    )


def _take_profiles(original: Original, store: Store, own: Store) -> list[str]:
    """Bring the sweep's own profiles into its store, as if they were this host's; a note on them.

    Raises:
        ResultsError: one is nowhere.
    """
    wanted = _of_kind(original.manifest, "profile")
    for key, expected in wanted.items():
        kept = kept_profile(original.folder, key)
        stored = {name: store.root / "profile" / key / name for name in (PROFILE, DESCRIPTION)}
        files = next(
            (
                it
                for it in (kept, stored)
                if all(file.is_file() for file in it.values())
                and file_hash(it[PROFILE]) == expected
                and content_key(_made_from(it[DESCRIPTION])) == key
            ),
            None,
        )
        if files is None:
            raise ResultsError(
                f"{kept[PROFILE]}, a profile of the sweep, is not there or not what was measured, "
                "nor does the store have it: a new measurement never gives the same, so the sweep "
                "can be repeated with its own profiles alone. Put it back"
            )
        made_from = _made_from(files[DESCRIPTION])
        settings = made_from["settings"]
        here = fingerprint(settings["threads"], settings["precision"], settings["runtime"])
        made_from = {**made_from, "version": keys.PROFILING_VERSION, "host": here}
        if own.find("profile", made_from) is None:
            with own.make("profile", made_from) as folder:
                shutil.copyfile(files[PROFILE], folder / PROFILE)
    return (
        ["Latencies are those of the sweep's own profiles: nothing was measured"] if wanted else []
    )


def _of_kind(manifest: dict[str, Any], kind: str) -> dict[str, str]:
    """Hashes of the artefacts of a kind that a sweep used, by key."""
    parts = ((name.partition(" "), hash) for name, hash in manifest["inputs"].items())
    return {name[2]: hash for name, hash in parts if name[0] == kind}


def _made_from(description: Path) -> dict[str, Any]:
    try:
        made_from = json.loads(description.read_text(encoding="utf-8"))["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return made_from if isinstance(made_from, dict) else {}


def _link(folder: Path, target: Path) -> None:
    """The same artefact in another store; artefacts never change, so files may be shared."""
    if target.exists():
        return
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial, copy_function=_link_file)
    partial.rename(target)


def _link_file(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


# --- comparing -----------------------------------------------------------------------------------


def _compare(original: Original, output: Path, notes: list[str]) -> Reproduction:
    manifest = read_manifest(output / MANIFEST)
    files = compare_files(original.folder, original.results, output, manifest["results"])
    changes = environment_changes(original.manifest, manifest)
    networks = [
        sorted(_of_kind(it, "predictions").values()) for it in (original.manifest, manifest)
    ]
    anew = networks[0] != networks[1]
    drawn_anew = any(it.what in _DRAWN_BY for it in changes)
    tables = [it / TABLE for it in (original.folder, output)]
    before, after = (pd.read_parquet(it) if it.exists() else None for it in tables)
    figures, apart = None, ""
    if before is not None and after is not None:
        apart = _points_apart(before, after)
        if all("strategy" in it for it in (before, after)):  # else every point failed
            figures = _figures(before, after, anew, drawn_anew)
    verdict = judge(files, figures, apart)
    changed_files = any(note.startswith(CHANGED) for note in notes)
    if verdict.word != IDENTICAL and unexplained(changes, anew, changed_files):
        notes = [
            *notes,
            "Nothing is known to have changed of what points depend on: look for a policy of your "
            "own that draws random numbers, or for a defect of Offramp",
        ]
    return Reproduction(
        original.folder, output, original.path, verdict, files, figures, None, changes, notes
    )


def _points_apart(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """Points that gave a result in one of two tables alone, in words."""
    old, new = (set(it["point"]) for it in (before, after))
    parts = [
        f"{counted(len(points), 'point')} {what} (number {_listed(points)})"
        for points, what in (
            (old - new, "that gave results failed now"),
            (new - old, "that failed before gave results now"),
        )
        if points
    ]
    return "; ".join(parts)


def _listed(points: set[int], most: int = 5) -> str:
    first = ", ".join(map(str, sorted(points)[:most]))
    return first + (f" and {len(points) - most} more" if len(points) > most else "")


def _figures(
    before: pd.DataFrame, after: pd.DataFrame, networks_anew: bool, drawn_anew: bool
) -> pd.DataFrame:
    old, new = (run_figures(it, _ARMS) for it in (before, after))
    keys = [*_ARMS, "training_seed", "replication"]
    offered = pd.concat([it.set_index(keys)["offered"] for it in (old, new)], axis=1, join="inner")
    requests_anew = drawn_anew or not offered.iloc[:, 0].equals(offered.iloc[:, 1])
    return with_verdicts(differences(old, new, _ARMS, Anew(networks_anew, requests_anew)))
