"""What points need before they are simulated: networks and profiles, each made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.errors import OfframpError, ResultsError, ScenarioError
from models.training.strategies import RANKED_STRATEGIES
from offramp.console import Console
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.stages.inputs import fitted_policies
from offramp.stages.layout import PREDICTIONS, PROFILE
from offramp.stages.noisy_profile import warn_of_noise
from offramp.store import Store, content_key, file_hash
from offramp.sweep.backend import Artefact, Backend, Call
from offramp.sweep.point import Context, asked_profile
from offramp.sweep.sharing import Shared, decides_fitting, decides_networks, decides_profile
from offramp.sweep.training import (
    Made,
    predict_validation,
    prepare_backbone,
    prepare_scores,
    train_network,
)
from offramp.worlds import needs_host_profile


@dataclass(frozen=True)
class _Network:
    """One trained network, and what it is made from.

    Attributes:
        values: of swept keys that it depends on, at one of the points that need it.
        key: of its artefact.
        backbone, scores: keys of what it shares with others, where it does.
        prepared: key of the activations that are computed with the backbone.
    """

    values: dict[str, Any]
    strategy: str
    seed: int
    key: str
    validation: str
    backbone: str | None
    scores: str | None
    prepared: str | None


@dataclass
class _Profile:
    """A profile of this host that points need."""

    loaded: LoadedScenario
    asked: str
    made_from: dict[str, Any]
    hash: str | None

    @property
    def key(self) -> str:
        """Of its artefact."""
        return content_key(self.made_from)


class Preparation:
    """Finds what points need, makes what is missing, and knows what could not be made."""

    def __init__(self, context: Context, store: Store, console: Console) -> None:
        self.context = context
        self._store = store
        self._console = console
        template = context.template
        self._shared = {
            decides: Shared(template, decides)
            for decides in (decides_networks, decides_fitting, decides_profile)
        }
        self._networks: dict[str, list[_Network]] = {}
        self._fitted: dict[str, bool] = {}
        self._profiles: dict[str, _Profile | None] = {}
        self._by_asked: dict[str, _Profile] = {}
        self._failures: dict[Artefact, Made] = {}

    # --- what points need ------------------------------------------------------------------------

    def profile_hash(self, values: Sequence[Any]) -> str | None:
        """Hash of the profile that a point uses: empty if none, None if it is not measured yet."""
        profile = self._profile(values)
        return profile.hash if profile else ""

    def look(self, values: Sequence[Any]) -> None:
        """Note what a point needs that is to be simulated."""
        self._networks_of(values)
        self._is_fitted(values)

    def needs(self, values: Sequence[Any]) -> tuple[Artefact, ...]:
        """The artefacts that a point reads; none are told of one that is not valid."""
        networks = self._networks_of(values)
        found = [("trained", network.key) for network in networks]
        if self._is_fitted(values):
            found += [("validation", network.validation) for network in networks]
        profile = self._profile(values)
        return (*found, *([("profile", profile.key)] if profile else []))

    def failure(self, needs: Sequence[Artefact]) -> Made | None:
        """Why something that a point needs could not be made, if so."""
        return next((self._failures[need] for need in needs if need in self._failures), None)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the predictions and profiles that points use, by artefact."""
        found = {}
        for networks in self._networks.values():
            for network in networks:
                path = self._store.root / "trained" / network.key / PREDICTIONS
                if path.is_file():
                    found[f"predictions {network.key}"] = file_hash(path)
        for profile in self._by_asked.values():
            if profile.hash:
                found[f"profile {profile.key}"] = profile.hash
        return dict(sorted(found.items()))

    def _networks_of(self, values: Sequence[Any]) -> list[_Network]:
        shared = self._shared[decides_networks]
        key = shared.among(values)
        if key not in self._networks:
            found = self._scenario(shared, values)
            if found is None:
                return []
            try:
                self._networks[key] = list(_networks(shared.values(values), found))
            except (OfframpError, OSError):
                return []  # a file that is not there: its points tell
        return self._networks[key]

    def _is_fitted(self, values: Sequence[Any]) -> bool:
        shared = self._shared[decides_fitting]
        key = shared.among(values)
        if key not in self._fitted:
            loaded = self._scenario(shared, values)
            if loaded is None:
                return False
            try:
                self._fitted[key] = bool(fitted_policies(loaded))
            except OfframpError:
                self._fitted[key] = False
        return self._fitted[key]

    def _profile(self, values: Sequence[Any]) -> _Profile | None:
        shared = self._shared[decides_profile]
        key = shared.among(values)
        if key not in self._profiles:
            loaded = self._scenario(shared, values)
            if loaded is None:
                return None
            self._profiles[key] = self._found_profile(loaded)
        return self._profiles[key]

    def _found_profile(self, loaded: LoadedScenario) -> _Profile | None:
        if not needs_host_profile(loaded):
            return None
        asked = asked_profile(loaded)
        if asked not in self._by_asked:
            made_from = keys.profile_key(loaded.scenario, loaded.experiment)
            found = self._store.find("profile", made_from)
            hash = file_hash(found / PROFILE) if found else None
            self._by_asked[asked] = _Profile(loaded, asked, made_from, hash)
        return self._by_asked[asked]

    def _scenario(self, shared: Shared, values: Sequence[Any]) -> LoadedScenario | None:
        """One of the scenarios that share what the values decide; None if there is none yet."""
        for chosen in (
            shared.values(values),
            dict(zip(self.context.template.keys, values, strict=True)),
        ):
            try:
                return self.context.scenario_with(chosen)
            except ScenarioError:
                continue
        return None

    # --- making it -------------------------------------------------------------------------------

    def make_networks(self, backend: Backend) -> None:
        """Train what is missing, each network once, and what several share before them.

        Raises:
            ResultsError: the disk is full.
            BackendError: the workers are gone.
        """
        wanted = {it.key: it for networks in self._networks.values() for it in networks}
        missing = [it for it in wanted.values() if not self._store.at("trained", it.key)]
        backbones = {it.prepared: it for it in missing if it.prepared}
        scores = {it.scores: it for it in missing if it.scores}
        self._make(
            "prepare backbones and activations",
            backend,
            prepare_backbone,
            [
                self._call(it, (it.seed,), [], ("backbone", it.backbone))
                for it in backbones.values()
            ],
        )
        self._make(
            "score difficulty",
            backend,
            prepare_scores,
            [
                self._call(it, (it.seed,), [("backbone", it.backbone)], ("scores", it.scores))
                for it in scores.values()
            ],
        )
        self._make(
            "train",
            backend,
            train_network,
            [
                self._call(
                    it,
                    (it.strategy, it.seed),
                    [("backbone", it.backbone), ("scores", it.scores)],
                    ("trained", it.key),
                )
                for it in missing
            ],
            self._failures,
        )
        self._predict_validation(backend)

    def _predict_validation(self, backend: Backend) -> None:
        fitted = any(self._fitted.values())
        wanted = {
            it.validation: it
            for networks in self._networks.values()
            for it in networks
            if fitted and ("trained", it.key) not in self._failures
        }
        missing = [it for key, it in wanted.items() if not self._store.at("validation", key)]
        self._make(
            "predict validation",
            backend,
            predict_validation,
            [
                self._call(
                    it, (it.strategy, it.seed), [("trained", it.key)], ("validation", it.validation)
                )
                for it in missing
            ],
            self._failures,
        )

    def _call(
        self,
        network: _Network,
        arguments: tuple[Any, ...],
        needs: list[tuple[str, str | None]],
        makes: tuple[str, str | None],
    ) -> Call:
        return Call(
            (self.context, network.values, *arguments),
            tuple((kind, key) for kind, key in needs if key and self._store.at(kind, key)),
            tuple((kind, key) for kind, key in [makes] if key),
        )

    def _make(
        self,
        title: str,
        backend: Backend,
        function: Callable[..., Made],
        calls: list[Call],
        failures: dict[Artefact, Made] | None = None,
    ) -> None:
        """Make artefacts in workers; what fails is noted in ``failures``, if not told later."""
        if not calls:
            return
        with self._console.task(title, len(calls)) as update:
            for number, done in enumerate(backend.run(function, calls), start=1):
                made = Made(done.error, died=True) if done.error else done.value
                if made.disk_full:
                    raise ResultsError(
                        f"{title}: {made.error}. Nothing is lost: make room, and the same command "
                        "goes on from there"
                    )
                if made.error and failures is not None:
                    for artefact in calls[done.number].makes:
                        failures[artefact] = made
                update(number)

    def make_profiles(self) -> None:
        """Measure the profiles that are missing, on this host, while nothing else runs."""
        for profile in self._by_asked.values():
            if profile.hash is None:
                self._measure(profile)
            folder = self._store.find("profile", profile.made_from)
            if folder:
                warn_of_noise(folder, self._console)
        known = {it.asked: it.key for it in self._by_asked.values() if it.hash}
        self.context = replace(self.context, profiles=known)

    def _measure(self, profile: _Profile) -> None:
        from offramp.stages.network import check_network
        from offramp.stages.profiling import run_profiling

        loaded = profile.loaded
        try:
            check_network(loaded.experiment, loaded.error_at)
            found = self._store.find_or_make(
                "profile",
                profile.made_from,
                lambda: run_profiling(loaded, self._store, self._console, profile.made_from),
            )
        except OfframpError as error:
            self._failures["profile", profile.key] = Made(str(error))
        else:
            profile.hash = file_hash(found / PROFILE)


def _networks(values: dict[str, Any], loaded: LoadedScenario) -> Iterator[_Network]:
    experiment = loaded.experiment
    training = experiment.training
    for strategy, seed, made_from in keys.trained_networks(experiment):
        backbone = scores = prepared = None
        if not training.checkpoints:
            if training.regime == "classifier_wise":
                prepared = content_key(keys.activations_key(experiment, seed, "train", "bfloat16"))
                if not experiment.model.weights:
                    backbone = content_key(keys.backbone_key(experiment, seed))
            if strategy in RANKED_STRATEGIES:
                scores = content_key(keys.scores_key(experiment, seed))
        key, validation = content_key(made_from), content_key(keys.validation_key(made_from))
        yield _Network(values, strategy, seed, key, validation, backbone, scores, prepared)
