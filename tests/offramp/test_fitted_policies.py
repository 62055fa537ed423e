"""Policies that are fitted on validation predictions: what they cost, and what is kept of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.artifacts import Predictions, Profile, write_predictions
from offramp import load_scenario
from offramp.live.arms import LiveArm, arm_policy
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.stages.inputs import Inputs
from offramp.stages.jobs import untried_job
from offramp.stages.layout import VALIDATION_PREDICTIONS
from offramp.store import Store
from offramp.worlds import build_world
from sim.nodes.service import ProfiledService, Service
from sim.policy import Policy
from sim.running.slices import Slices
from sim.simulation import simulate
from sim.world import World

NETWORK = ("standard", 0)
EXITS = 3


def service_ms(segment: float, branch: float, speed: float = 1.0) -> Service:
    """Every segment and every branch takes the same; slow inferences are slow in all of it."""
    slowness = np.array([[0.5], [1.0], [1.5]]) / 1e3
    segments, branches = (time * slowness * np.ones(EXITS) for time in (segment, branch))
    alone = np.cumsum(segments, axis=1) + branches
    tables = {"exit": alone, "segment": segments, "branch": branches}
    return ProfiledService(Profile({1: tables}, about={}), speed)


def says(architecture: str, samples: int = 60) -> Predictions:
    """A network that is sure of some samples soon, but right at its last exit alone.

    Whatever lets more samples get there is worth its cost.
    """
    hard = (np.arange(samples) * 37 % samples)[:, None] / samples
    sure = 1 - hard * [0.9, 0.6, 0.3]
    return Predictions(
        sample=np.arange(samples, dtype=np.int32),
        label=np.zeros(samples, np.int32),
        predicted=np.tile([1, 1, 0], (samples, 1)).astype(np.int32),
        confidence=sure.astype(np.float32),
        about={"architecture": architecture, "dataset": "digits"},
    )


Fitted = Callable[[dict[str, Any], Service], tuple[Policy, World, Predictions]]


@pytest.fixture(params=["simulated", "live"])
def fitted(
    request: pytest.FixtureRequest,
    scenario: Callable[..., Path],
    fixed_service: dict[str, Any],
    tmp_path: Path,
) -> Fitted:
    """Fits a policy for a node with the service given, as a simulation or a live node does."""

    def fit(policy: dict[str, Any], service: Service) -> tuple[Policy, World, Predictions]:
        changes = {
            **fixed_service,
            "model.exits": ["layer1", "layer2"],
            "devices.cameras.deadline_ms": 1e6,
            "devices.cameras.samples": "shuffled",
            "simulation.duration_s": 40,
            "policies": [{**policy, "label": "fit"}],
        }
        loaded = load_scenario(str(scenario(changes)))
        world = build_world(loaded, None)
        world = replace(world, nodes=(replace(world.nodes[0], service=service),))
        predictions = says(loaded.experiment.architecture.fingerprint())
        by = {"simulated": by_simulation, "live": by_live_node}[request.param]
        return by(loaded, world, predictions), world, predictions

    def by_simulation(loaded: LoadedScenario, world: World, predictions: Predictions) -> Policy:
        inputs = Inputs({NETWORK: tmp_path}, None, {NETWORK: tmp_path})
        job = untried_job(loaded, inputs, world, lambda file: predictions)
        return job.policy(job.policies[0], NETWORK)

    def by_live_node(loaded: LoadedScenario, world: World, predictions: Predictions) -> Policy:
        store = Store(tmp_path / "store-of-one")
        trained = next(keys.trained_networks(loaded.experiment))[2]
        with store.make("validation", keys.validation_key(trained)) as folder:
            write_predictions(folder / VALIDATION_PREDICTIONS, predictions)
        return arm_policy(loaded, store, LiveArm(*NETWORK, "fit"), world.nodes[0].service, "")

    return fit


def mean_ms(policy: Policy, world: World, predictions: Predictions) -> float:
    """What a worker takes for a sample on average: over all samples, each at every speed."""
    workload = Slices(world, predictions.label, 0)
    run = simulate(world, workload, predictions, policy, 1.0)
    drawn = np.array(world.nodes[0].service.draw(run.requests.service_u))
    took_ms = np.full((len(predictions.label), 3), np.nan)
    took_ms[run.requests.sample, drawn] = 1e3 * (run.finished_s - run.started_s)
    assert not np.isnan(took_ms).any(), "too few requests for every sample at every speed"
    return float(took_ms.mean())


@pytest.mark.parametrize("name", ["confidence", "deadline_confidence", "offload"])
@pytest.mark.parametrize("wanted_ms", [3.25, 4.0, 5.5])
def test_a_wanted_cost_is_kept_where_branches_are_dear(
    fitted: Fitted, name: str, wanted_ms: float
) -> None:
    # Exit by exit 2, 4 and 6 ms; straight to an exit only 2, 3 and 4.
    policy, *alone = fitted({"policy": name, "wanted_cost_ms": wanted_ms}, service_ms(1.0, 1.0))
    assert wanted_ms - 0.25 <= mean_ms(policy, *alone) <= wanted_ms * (1 + 1e-9)


def test_a_wanted_cost_is_that_at_the_speed_of_the_node(fitted: Fitted) -> None:
    wish = {"policy": "confidence", "wanted_cost_ms": 8.0}
    policy, *alone = fitted(wish, service_ms(1.0, 1.0, speed=0.5))
    assert 7.5 <= mean_ms(policy, *alone) <= 8.0 * (1 + 1e-9)
