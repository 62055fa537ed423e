"""Offramp: accuracy under deadline of multi-exit networks on IoT hardware.

import offramp

scenario = offramp.load_scenario("quickstart", ["devices.cameras.count=20"])
report = offramp.Pipeline(scenario).run(Path("results/quickstart"))
print(report.summary)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from models.errors import (
    ArtifactError,
    BrokerError,
    CheckpointError,
    DataError,
    LiveError,
    NetworkError,
    OfframpError,
    PolicyError,
    ResultsError,
    ScenarioError,
    TrainingError,
)

if TYPE_CHECKING:
    from offramp.pipeline import Pipeline
    from offramp.scenario import LoadedScenario, load_scenario

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "BrokerError",
    "CheckpointError",
    "DataError",
    "LiveError",
    "LoadedScenario",
    "NetworkError",
    "OfframpError",
    "Pipeline",
    "PolicyError",
    "ResultsError",
    "ScenarioError",
    "TrainingError",
    "load_scenario",
]

#: Imported when they are asked for: they bring half of Offramp, for which `--help` need not wait.
_HOMES = {
    "LoadedScenario": "offramp.scenario",
    "Pipeline": "offramp.pipeline",
    "load_scenario": "offramp.scenario",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
