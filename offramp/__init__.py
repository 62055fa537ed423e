"""Offramp: accuracy under deadline of multi-exit networks on IoT hardware.

import offramp

scenario = offramp.load_scenario("quickstart", ["devices.cameras.count=20"])
report = offramp.Pipeline(scenario).run(Path("results/quickstart"))
print(report.summary)
"""

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
