"""Copies of networks' predictions in a results folder: what its simulation started from.

With them a results folder can be simulated again without its store, and without training.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from models.files import whole_file
from offramp.stages.inputs import Inputs
from offramp.stages.jobs import Network
from offramp.stages.layout import KEPT_PREDICTIONS, PREDICTIONS, VALIDATION_PREDICTIONS
from offramp.store import DESCRIPTION, content_key, file_hash

#: Names in a results folder end so, after strategy and seed.
_ENDINGS = {
    PREDICTIONS: ".parquet",
    VALIDATION_PREDICTIONS: ".validation.parquet",
    DESCRIPTION: ".json",
}


def keep_networks(inputs: Inputs, results: Path) -> None:
    """Copy the predictions, and what says how they came about, in place of those of before."""
    folder = results / KEPT_PREDICTIONS
    shutil.rmtree(folder, ignore_errors=True)
    for network, trained in inputs.trained.items():
        sources = {DESCRIPTION: trained / DESCRIPTION, PREDICTIONS: trained / PREDICTIONS}
        if network in inputs.validation:
            sources[VALIDATION_PREDICTIONS] = inputs.validation[network]
        for name, source in sources.items():
            with whole_file(_kept(folder, network, name)) as partial:
                shutil.copyfile(source, partial)


def kept_file(results: Path, network: Network, name: str) -> Path:
    """Where a results folder has its copy of a file of a network's artefact."""
    return _kept(results / KEPT_PREDICTIONS, network, name)


def _kept(folder: Path, network: Network, name: str) -> Path:
    strategy, seed = network
    return folder / f"{strategy}-{seed}{_ENDINGS[name]}"


def network_facts(folder: Path) -> dict[str, Any]:
    """What a manifest says of a trained network: its key in the store, where and how it was made.

    Args:
        folder: the artefact's, or a copy of it without the checkpoint.
    """
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    made_from = description["made_from"]
    return {
        "key": content_key(made_from),
        "predictions": file_hash(folder / PREDICTIONS),
        "torch": made_from.get("torch"),
        "precision": made_from.get("settings", {}).get("precision"),
        "device": made_from.get("device", "cpu"),
        "host": description.get("made_on"),
    }
