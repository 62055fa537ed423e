"""What a simulation starts from: networks' predictions, profiles and the files of the world.

Never imports torch: training and profiling left what is read here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from models.errors import ArtifactError
from offramp.named_files import policy_code
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.stages.layout import PREDICTIONS, PROFILE, VALIDATION_PREDICTIONS
from offramp.store import Store, file_hash
from offramp.worlds import build_world, needs_host_profile, read_matching_profile, world_files
from sim.policy_building import build_policy, needs_fitting
from sim.world import World

#: What the profile of this host is called among the inputs.
PROFILE_INPUT = "profile of this host"


def validation_input(strategy: str, seed: int) -> str:
    """What a network's predictions for the validation split are called among the inputs."""
    return f"validation predictions of {strategy}, seed {seed}"


@dataclass(frozen=True)
class Inputs:
    """The files that a simulation starts from.

    Attributes:
        trained: folders of the trained networks, by strategy and training seed.
        profile: this host's profile, or None where no node needs it.
        validation: predictions for the validation split, where a policy is fitted on them.
    """

    trained: dict[tuple[str, int], Path]
    profile: Path | None
    validation: dict[tuple[str, int], Path] = field(default_factory=dict)

    def hashes(self, loaded: LoadedScenario) -> dict[str, str]:
        """SHA-256 of every input file, by a name that says what it is."""
        found = {
            f"predictions of {strategy}, seed {seed}": file_hash(folder / PREDICTIONS)
            for (strategy, seed), folder in self.trained.items()
        }
        for (strategy, seed), file in self.validation.items():
            found[validation_input(strategy, seed)] = file_hash(file)
        if self.profile:
            found[PROFILE_INPUT] = file_hash(self.profile)
        for key, path in world_files(loaded).items():
            found[key] = file_hash(path)
        for key, code in policy_code(loaded.scenario, loaded.folder).items():
            found[key] = file_hash(code.path)
        return found


def find_inputs(loaded: LoadedScenario, store: Store, command: str) -> Inputs:
    """What training and profiling left in the store for this scenario.

    Args:
        command: arguments that name the scenario and the store, for the advice in errors.

    Raises:
        ArtifactError: something is not there; the message says which command makes it.
    """
    trained: dict[tuple[str, int], Path] = {}
    validation: dict[tuple[str, int], Path] = {}
    fitted = fitted_policies(loaded)
    for strategy, seed, made_from in keys.trained_networks(loaded.experiment):
        folder = store.find("trained", made_from)
        if folder is None:
            raise ArtifactError(
                f"strategy {strategy!r} with seed {seed} has not been trained with these "
                f"settings: run `offramp train{command}` first"
            )
        trained[strategy, seed] = folder
        if fitted:
            folder = store.find("validation", keys.validation_key(made_from))
            if folder is None:
                raise ArtifactError(
                    f"policy {fitted[0]!r} is fitted on validation predictions, and those of "
                    f"strategy {strategy!r} with seed {seed} have not been made: run "
                    f"`offramp train{command}` first (which trains nothing anew)"
                )
            validation[strategy, seed] = folder / VALIDATION_PREDICTIONS
    profile = None
    if needs_host_profile(loaded):
        folder = store.find("profile", keys.profile_key(loaded.scenario, loaded.experiment))
        if folder is None:
            raise ArtifactError(
                "this network has not been profiled on this host with these settings: "
                f"run `offramp profile{command}` first"
            )
        profile = folder / PROFILE
    return Inputs(trained, profile, validation)


def fitted_policies(loaded: LoadedScenario) -> list[str]:
    """Policies of the scenario that are fitted on validation predictions before a run.

    Raises:
        PolicyError: a policy cannot be built.
    """
    exit_count = loaded.experiment.architecture.exit_count
    return [
        spec.policy
        for spec in loaded.scenario.policies
        if needs_fitting(build_policy(spec.policy, spec.parameters, loaded.folder, exit_count))
    ]


def world_of(loaded: LoadedScenario, inputs: Inputs) -> World:
    """The scenario's world with the profiles found."""
    architecture = loaded.experiment.architecture
    profile = read_matching_profile(inputs.profile, architecture) if inputs.profile else None
    return build_world(loaded, profile)
