"""The run that is to be reproduced: its manifest, and its scenario as it was run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ResultsError, ScenarioError
from models.importing import source_file
from offramp import __version__
from offramp.experiment import user_file
from offramp.manifest import read_manifest
from offramp.reproduction.contents import check_unchanged
from offramp.scenario import LoadedScenario, checked_scenario
from offramp.stages.layout import MANIFEST
from offramp.store import file_hash
from offramp.yaml_source import Source


@dataclass(frozen=True)
class Original:
    """A finished run or sweep.

    Attributes:
        folder: of its results.
        path: of the manifest.
        manifest: as it was written; see :mod:`offramp.manifest`.
    """

    folder: Path
    path: Path
    manifest: dict[str, Any]

    @property
    def is_sweep(self) -> bool:
        """Whether it is of ``offramp sweep``."""
        return bool(self.manifest["kind"] == "sweep")

    @property
    def results(self) -> dict[str, str]:
        """SHA-256 of each of its tables, by name."""
        hashes: dict[str, str] = self.manifest["results"]
        return hashes


def read_original(named: Path) -> Original:
    """Read what is to be reproduced.

    Args:
        named: a results folder, or its manifest.

    Raises:
        ResultsError: it is no finished run, was changed since, or was measured live.
    """
    if not named.exists():
        raise ResultsError(
            f"{named}: no such folder or file; the results folder of a finished run is expected, "
            f"or its {MANIFEST}"
        )
    path = named / MANIFEST if named.is_dir() else named
    manifest = read_manifest(path)
    if manifest.get("world") == "live":
        source = manifest.get("source", "SCENARIO")
        raise ResultsError(
            f"{path.parent} was measured live: clocks, radios and processors never do the same "
            f"twice, and it cannot be computed again. Measure it anew (`offramp live run {source}`)"
            f" and compare the reports, or simulate it (`offramp run {source}`) and reproduce that"
        )
    if manifest.get("kind") not in ("run", "sweep"):
        raise ResultsError(f"{path} is of a {manifest.get('kind')!r}, not of a run or a sweep")
    original = Original(path.parent, path, manifest)
    check_unchanged(original.folder, original.results)
    return original


def load_original(original: Original, files: Path | None) -> LoadedScenario:
    """The scenario of a run, as it was resolved then.

    Args:
        files: the folder that named files are relative to; None: where it was.

    Raises:
        ScenarioError: this Offramp does not accept it.
    """
    manifest = original.manifest
    try:
        return checked_scenario(
            manifest["scenario"],
            files or Path(manifest["folder"]),
            manifest["source"],
            manifest["overrides"],
            Source(str(original.path), {}, {}),
        )
    except ScenarioError as error:
        version = manifest["versions"].get("offramp")
        raise ScenarioError(
            f"{error}\n(it was run by Offramp {version}; this one, {__version__}, does not accept "
            "it)"
        ) from None


def check_files(original: Original, files: Path | None, accept: bool) -> list[str]:
    """See that the files that the scenario names are there, and as they were.

    Args:
        files: the folder that they are relative to; None: where it was.
        accept: take changed files as they are; the lines that say so are returned.

    Raises:
        ResultsError: a file is missing, or was changed and that is not accepted.
    """
    folder = files or Path(original.manifest["folder"])
    missing, changed = list[str](), list[str]()
    for key, file in original.manifest["files"].items():
        find = source_file if file["is_code"] else user_file
        path = find(file["name"], folder)
        if path is None or not path.is_file():
            missing.append(f"{key}: {path or file['name']} is not there")
        elif file_hash(path) != file["sha256"]:
            changed.append(f"{key}: {path} is not what it was")
    if missing or (changed and not accept):
        raise ResultsError(
            "files that this run was made from are missing or have changed:\n  "
            + "\n  ".join([*missing, *changed])
            + "\nwith others it would be another run: put them back, or say where the old ones are "
            "(--files FOLDER)"
            + ("" if missing else "; --accept-changes shows what the change does")
        )
    return changed
