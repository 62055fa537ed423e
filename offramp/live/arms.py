"""Arms of a live run: which network serves with which policy, and where they are found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.artifacts import read_predictions
from models.errors import ArtifactError, LiveError, did_you_mean
from offramp.checks import policy_label
from offramp.scenario import LoadedScenario
from offramp.schema import PolicySection
from offramp.stages import keys
from offramp.stages.layout import VALIDATION_PREDICTIONS
from offramp.store import Store
from sim.nodes.service import Service
from sim.policy import Policy
from sim.policy_building import build_policy, fit_policy, needs_fitting


@dataclass(frozen=True)
class LiveArm:
    """What one edge node serves.

    Attributes:
        policy: its label.
    """

    strategy: str
    training_seed: int
    policy: str


def choose_arms(
    loaded: LoadedScenario,
    strategies: Sequence[str] = (),
    seeds: Sequence[int] = (),
    policies: Sequence[str] = (),
) -> list[LiveArm]:
    """The arms of a scenario that the user chose, in the scenario's order.

    Args:
        strategies, policies: empty: all.
        seeds: of the training; empty: the first. Real time is too dear for all of them.

    Raises:
        LiveError: the scenario has no such arm; the message says which it has.
    """
    scenario = loaded.scenario
    training = scenario.training
    labels = [policy_label(spec) for spec in scenario.policies]
    seeds_there = [str(seed) for seed in training.seed_list]
    _check("strategy", strategies, training.strategies)
    _check("seed", map(str, seeds), seeds_there)
    _check("policy", policies, labels)
    return [
        LiveArm(strategy, seed, label)
        for seed in training.seed_list
        if seed in (seeds or training.seed_list[:1])
        for strategy in training.strategies
        if strategy in (strategies or training.strategies)
        for label in labels
        if label in (policies or labels)
    ]


def _check(option: str, given: Iterable[str], there: Sequence[str]) -> None:
    for name in given:
        if name not in there:
            raise LiveError(
                f"--{option} {name}: the scenario has {', '.join(there)}{did_you_mean(name, there)}"
            )


def network_folder(loaded: LoadedScenario, store: Store, arm: LiveArm, command: str) -> Path:
    """The folder that training left for an arm, with its checkpoint and predictions.

    Args:
        command: arguments that name the scenario and the store, for the advice in errors.

    Raises:
        ArtifactError: it was not trained.
    """
    folder = store.find("trained", _trained_key(loaded, arm))
    if folder is None:
        raise ArtifactError(
            f"strategy {arm.strategy!r} with seed {arm.training_seed} has not been trained with "
            f"these settings: run `offramp train{command}` first, or name a checkpoint file "
            "(--checkpoint)"
        )
    return folder


def arm_policy(
    loaded: LoadedScenario,
    store: Store,
    arm: LiveArm,
    service: Service,
    command: str,
    from_file: bool = False,
) -> Policy:
    """The policy of an arm, fitted on its network's validation predictions if it asks for that.

    Args:
        service: of the node that serves it: what each exit costs.
        command: as :func:`network_folder`.
        from_file: the checkpoint is a file that the user named, of which no predictions are known.

    Raises:
        PolicyError: it refuses its parameters, or what it wishes cannot be had.
        ArtifactError: it must be fitted, and there are no validation predictions.
    """
    spec = _policy_section(loaded, arm.policy)
    exit_count = loaded.experiment.architecture.exit_count
    policy = build_policy(spec.policy, spec.parameters, loaded.folder, exit_count)
    if not needs_fitting(policy):
        return policy
    folder = None
    if not from_file:
        key = keys.validation_key(_trained_key(loaded, arm))
        folder = store.find("validation", key)
    if folder is None:
        why = (
            "a checkpoint file has none: give the policy what would be fitted (its threshold, say)"
            if from_file
            else f"they have not been made: run `offramp train{command}` first (which trains "
            "nothing anew)"
        )
        raise ArtifactError(
            f"policy {arm.policy!r} is fitted on validation predictions of its network, and {why}"
        )
    validation = read_predictions(folder / VALIDATION_PREDICTIONS)
    return fit_policy(policy, spec.policy, validation, service.stepwise_means())


def _policy_section(loaded: LoadedScenario, label: str) -> PolicySection:
    return next(spec for spec in loaded.scenario.policies if policy_label(spec) == label)


def _trained_key(loaded: LoadedScenario, arm: LiveArm) -> dict[str, object]:
    return next(
        key
        for strategy, seed, key in keys.trained_networks(loaded.experiment)
        if (strategy, seed) == (arm.strategy, arm.training_seed)
    )
