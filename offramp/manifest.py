"""The manifest of a results folder: what it was made from, by whom, and what was made.

It holds all that running it again needs, so that the folder can be sent to somebody else. It is
written last, and says of itself and of the tables beside it whether they were changed since.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from models.artifacts import read_profile
from models.errors import ResultsError
from models.files import write_text
from models.host import host_facts, resolved_device, resolved_precision
from offramp.checks.warnings import warnings_of
from offramp.named_files import NamedFile, named_files
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.stages.inputs import Inputs
from offramp.stages.kept_networks import network_facts
from offramp.stages.layout import ALWAYS_SIMULATED, SOMETIMES_SIMULATED, TRACES
from offramp.store import content_key, file_hash

FORMAT = "offramp-manifest-2"
_FORMATS = "offramp-manifest-"

_VERSIONED = (
    "offramp",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "simpy",
    "datasketches",
    "scikit-learn",
    "pyarrow",
    "pandas",
)


def environment() -> dict[str, Any]:
    """Versions of what computes, of the stages' code, and the machine."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _VERSIONED},
        },
        "stages": {
            "training": keys.TRAINING_VERSION,
            "profiling": keys.PROFILING_VERSION,
            "simulation": keys.SIMULATION_VERSION,
        },
        "host": host_facts(),
    }


def manifest_of(
    loaded: LoadedScenario, inputs: Inputs, wall_s: dict[str, float], reused: dict[str, bool]
) -> dict[str, Any]:
    """What a run's results are made from.

    Args:
        wall_s: seconds that each stage took.
        reused: whether each part was there before.
    """
    scenario, training = loaded.scenario, loaded.scenario.training
    device = resolved_device(training.device)
    files = named_files(loaded)
    return {
        "kind": "run",
        "scenario": scenario.model_dump(),
        "source": loaded.source,
        "overrides": list(loaded.overrides),
        "folder": str(loaded.folder.absolute()),
        "seeds": {"simulation": scenario.seed, "training": training.seed_list},
        **environment(),
        "training": {
            "device": device,
            "precision": resolved_precision(training.precision, device),
            "threads": training.threads or os.cpu_count() or 1,
        },
        "inputs": inputs.hashes(loaded),
        "files": file_facts(files),
        "profiles": {
            key: read_profile(file.path).about["host"]
            for key, file in files.items()
            if key.endswith(".profile")
        },
        "networks": [
            {"strategy": strategy, "training_seed": seed, **network_facts(folder)}
            for (strategy, seed), folder in inputs.trained.items()
        ],
        "warnings": [
            f"{'.'.join(map(str, place))}: {text}"
            for place, text in warnings_of(scenario, loaded.folder)
        ],
        "wall_s": wall_s,
        "reused": reused,
    }


def file_facts(files: dict[str, NamedFile]) -> dict[str, dict[str, Any]]:
    """What a manifest says of files that a scenario names, as far as they are there."""
    return {
        key: {"name": file.name, "sha256": file_hash(file.path), "is_code": file.is_code}
        for key, file in files.items()
        if file.path.is_file()
    }


def simulated_files(results: Path) -> list[str]:
    """Names of what a simulation or a live run left in a results folder: tables and traces."""
    tables = [*ALWAYS_SIMULATED, *SOMETIMES_SIMULATED]
    return [*tables, *(path.name for path in sorted(results.glob(TRACES)))]


def write_manifest(path: Path, manifest: dict[str, Any], files: Iterable[str]) -> None:
    """Write a manifest whole or not at all, with hashes of itself and of what lies beside it.

    Args:
        files: names of tables in the same folder; those that are not there are left out.
    """
    there = {name: path.with_name(name) for name in files}
    results = {name: file_hash(file) for name, file in there.items() if file.is_file()}
    whole = {"format": FORMAT, **manifest, "results": results}
    # As it will be read: JSON knows neither tuples nor keys that are numbers.
    whole = json.loads(json.dumps(whole))
    write_text(path, json.dumps({**whole, "checksum": content_key(whole)}, indent=1) + "\n")


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest that nobody changed since it was written.

    Raises:
        ResultsError: it is missing, damaged, of another format, or was changed.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(
            f"{path} is not there: a results folder of a finished run has one, and is what is "
            "expected here"
        ) from None
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ResultsError(f"{path} is damaged, it is no JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise ResultsError(f"{path} is not a manifest of Offramp")
    check_format(path, manifest)
    checksum = manifest.pop("checksum", None)
    if checksum != content_key(manifest):
        raise ResultsError(
            f"{path} was changed after it was written (its checksum does not fit): what it says "
            "need not be what was run. To run something else, change the scenario"
        )
    return manifest


def kind_of(path: Path) -> str | None:
    """What the folder of a manifest holds, such as ``run``; None where there is no manifest."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["kind"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def check_format(path: Path, manifest: dict[str, Any]) -> None:
    """Refuse a manifest that this version does not read.

    Raises:
        ResultsError: it is of another format, or none of ours.
    """
    format = manifest.get("format")
    if format == FORMAT:
        return
    if isinstance(format, str) and format.startswith(_FORMATS):
        version = manifest.get("versions")
        by = version.get("offramp") if isinstance(version, dict) else None
        raise ResultsError(
            f"{path} is written as {format!r}, and this Offramp ({metadata.version('offramp')}) "
            f"reads {FORMAT!r}: use the Offramp that wrote it{f' ({by})' if by else ''}"
        )
    if format is None and {"scenario", "versions", "inputs"} <= set(manifest):
        raise ResultsError(
            f"{path} was written by an older Offramp: it does not say which files, networks and "
            "tables belong to it. Run the scenario once more "
            f"(`offramp run {manifest.get('source', 'SCENARIO')}`), which writes one that does"
        )
    raise ResultsError(f"{path} is not a manifest of Offramp")
