"""What a run is simulated again from: its own networks and profile, or networks trained again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ResultsError
from offramp.console import Console
from offramp.pipeline import Pipeline
from offramp.reproduction.original import Original
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.stages.inputs import PROFILE_INPUT, Inputs, fitted_policies, validation_input
from offramp.stages.jobs import Network
from offramp.stages.kept_networks import kept_file
from offramp.stages.layout import PREDICTIONS, PROFILE, VALIDATION_PREDICTIONS
from offramp.store import DESCRIPTION, Store, content_key, file_hash


@dataclass(frozen=True)
class Start:
    """What a simulation starts from, and how that was come by.

    Attributes:
        before: the predictions of the run's own networks, as far as they are still there.
        trained: whether networks were trained again, not taken from the run.
        note: a sentence about the networks.
        wall_s: seconds that each stage took.
    """

    inputs: Inputs
    before: dict[Network, Path]
    trained: bool
    note: str
    wall_s: dict[str, float]


def find_start(
    original: Original,
    loaded: LoadedScenario,
    store: Store,
    work: Path,
    from_scratch: bool,
    console: Console,
) -> Start:
    """Find the run's own networks and profile; train networks again where they are not there.

    Args:
        store: where trained networks lie.
        work: a folder for copies, and for the networks if nothing is to be taken from the store.
        from_scratch: train even if they are there.

    Raises:
        ResultsError: the profile of the run is nowhere.
        OfframpError: a network cannot be trained.
    """
    profile = _own_profile(original, store)
    fitted = bool(fitted_policies(loaded))
    own = {
        (entry["strategy"], entry["training_seed"]): _Own(original, entry, store, fitted)
        for entry in original.manifest["networks"]
    }
    before = {network: it.predictions for network, it in own.items() if it.predictions}
    missing = [f"{strategy}, seed {seed}" for (strategy, seed), it in own.items() if not it.whole]
    if not from_scratch and not missing:
        copied = sum(not it.in_store for it in own.values())
        where = "the results folder" if copied == len(own) else "the store"
        if 0 < copied < len(own):
            where = "the store and the results folder"
        note = f"the run's own {len(own)} networks, from {where}: nothing was trained"
        trained = {network: it.folder(work / "networks") for network, it in own.items()}
        validation = {
            network: folder / VALIDATION_PREDICTIONS if not it.in_store else it.validation
            for (network, folder), it in zip(trained.items(), own.values(), strict=True)
        }
        found = {network: file for network, file in validation.items() if file and fitted}
        return Start(Inputs(trained, profile, found), before, False, note, {})
    if from_scratch:
        store = Store(work / "store")
        note = f"{len(own)} networks trained again in a store of their own"
    else:
        some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        note = (
            f"networks trained again, where this host's store has none of the same settings: of "
            f"{len(missing)} of {len(own)} the run's own are no longer there ({some})"
        )
    console.note(note)
    pipeline = Pipeline(loaded, store, console)
    folders = pipeline.train()
    validation = {}
    if fitted:
        for strategy, seed, made_from in keys.trained_networks(loaded.experiment):
            folder = store.path("validation", keys.validation_key(made_from))
            validation[strategy, seed] = folder / VALIDATION_PREDICTIONS
    found = {network: file for network, file in validation.items() if file}
    return Start(Inputs(folders, profile, found), before, True, note, pipeline.wall_s)


class _Own:
    """One of the run's own networks: where its predictions are, if they are anywhere.

    Attributes:
        predictions: of the test set, with the content that they had; None if they are nowhere.
        validation: likewise of the validation split, where a policy is fitted on it.
        in_store: whether they are in the store, not copies in the results folder.
        whole: whether all that a simulation needs is there.
    """

    def __init__(
        self, original: Original, entry: dict[str, Any], store: Store, fitted: bool
    ) -> None:
        self._network: Network = (entry["strategy"], entry["training_seed"])
        self._results = original.folder
        hashes: dict[str, str] = original.manifest["inputs"]
        validation_hash = hashes.get(validation_input(*self._network)) if fitted else None
        stored = store.at("trained", entry["key"])
        self.in_store = stored is not None and _holds(stored / PREDICTIONS, entry["predictions"])
        self._stored = stored
        if self.in_store and stored:
            self.predictions: Path | None = stored / PREDICTIONS
            key = keys.validation_key(_made_from(stored / DESCRIPTION))
            of_split = store.at("validation", content_key(key)) if validation_hash else None
            self.validation = of_split / VALIDATION_PREDICTIONS if of_split else None
            if not validation_hash or _holds(self.validation, validation_hash):
                self.whole = True
                return
        self.in_store = False
        kept = kept_file(self._results, self._network, PREDICTIONS)
        self.validation = kept_file(self._results, self._network, VALIDATION_PREDICTIONS)
        self.whole = (
            _holds(kept, entry["predictions"])
            and _is_description(kept_file(self._results, self._network, DESCRIPTION), entry["key"])
            and (not validation_hash or _holds(self.validation, validation_hash))
        )
        if self.whole:
            self.predictions = kept
        elif not hasattr(self, "predictions"):
            self.predictions = kept if _holds(kept, entry["predictions"]) else None

    def folder(self, copies: Path) -> Path:
        """The artefact's folder, or one under ``copies`` with the files that lie in the results."""
        if self.in_store and self._stored:
            return self._stored
        strategy, seed = self._network
        folder = copies / f"{strategy}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in (DESCRIPTION, PREDICTIONS, VALIDATION_PREDICTIONS):
            kept = kept_file(self._results, self._network, name)
            if kept.exists():
                shutil.copyfile(kept, folder / name)
        return folder


def _holds(file: Path | None, expected: str) -> bool:
    return file is not None and file.is_file() and file_hash(file) == expected


def _made_from(description: Path) -> dict[str, Any]:
    made_from: dict[str, Any] = json.loads(description.read_text(encoding="utf-8"))["made_from"]
    return made_from


def _is_description(file: Path, key: str) -> bool:
    try:
        return content_key(_made_from(file)) == key
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _own_profile(original: Original, store: Store) -> Path | None:
    """The profile that the run was simulated with, or None if it was with none of its host's.

    A new measurement never gives the same: the simulation is repeated with what was measured.
    """
    expected = original.manifest["inputs"].get(PROFILE_INPUT)
    if expected is None:
        return None
    beside = original.folder / PROFILE
    for file in (beside, *sorted(store.root.glob(f"profile/*/{PROFILE}"))):
        if _holds(file, expected):
            return file
    what = "is not what was measured for the run" if beside.exists() else "is not there"
    raise ResultsError(
        f"{beside} {what}, nor does the store have it: a new measurement never gives the same, so "
        "the run can be repeated with its own profile alone. Put it back"
    )
