"""The stages put together: what ``offramp train``, ``profile``, ``simulate`` and ``run`` do.

torch is imported inside the functions that train or measure, so that simulating starts at once.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ResultsError
from models.files import try_to_write
from offramp.console import Console
from offramp.key_paths import flat
from offramp.manifest import manifest_of, read_manifest, simulated_files, write_manifest
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.stages.inputs import Inputs, find_inputs, fitted_policies, world_of
from offramp.stages.kept_networks import keep_networks
from offramp.stages.layout import KEPT_TRIALS, MANIFEST, POINTS, PROFILE
from offramp.stages.noisy_profile import warn_of_noise
from offramp.stages.simulation import run_simulation
from offramp.store import Store, default_root
from offramp.words import enumerated
from offramp.worlds import check_node_profiles, needs_host_profile, outline_of
from sim.results.link_loads import LinkLoad, link_loads
from sim.results.traffic import offered_traffic
from sim.results.verdict import OfferedLoad, offered_loads

if TYPE_CHECKING:
    from offramp.report.build import Report


#: Keys that are named at most where many differ.
_MOST_NAMED = 3


@dataclass
class Pipeline:
    """Runs the stages of one scenario, and notes how long each took and what it reused.

    Attributes:
        show_load: told the offered load of every node and link before anything is simulated.
    """

    loaded: LoadedScenario
    store: Store = field(default_factory=lambda: Store(default_root()))
    console: Console = field(default_factory=lambda: Console(quiet=True))
    show_load: Callable[[list[OfferedLoad], list[LinkLoad]], None] = lambda nodes, links: None
    wall_s: dict[str, float] = field(default_factory=dict)
    reused: dict[str, bool] = field(default_factory=dict)

    def train(self) -> dict[tuple[str, int], Path]:
        """Train and predict whatever is missing; return every network's folder.

        The key is strategy and seed; the folder holds the checkpoint and its predictions.
        """
        trained: dict[tuple[str, int], Path] = {}
        missing = False
        for strategy, seed, made_from in keys.trained_networks(self.loaded.experiment):
            trained[strategy, seed] = folder = self.store.path("trained", made_from)
            if self.store.find("trained", made_from):
                self._note(f"{strategy}, seed {seed}", folder, reused=True)
            else:
                missing = True
        if missing:
            self.store.check_writable()
            from offramp.stages.network import check_training
            from offramp.stages.training import run_training

            check_training(self.loaded.experiment, self.loaded.error_at)

            with self.timed("train"):
                for name, seed, folder in run_training(
                    self.loaded.experiment, self.store, self.console
                ):
                    self._note(f"{name}, seed {seed}", folder, reused=False)
        if fitted_policies(self.loaded):
            self._predict_validation()
        return trained

    def _predict_validation(self) -> None:
        """Predict the validation split, on which a policy is fitted, with every network."""
        made = [made_from for _, _, made_from in keys.trained_networks(self.loaded.experiment)]
        wanted = [keys.validation_key(made_from) for made_from in made]
        reused = all(self.store.find("validation", key) for key in wanted)
        if not reused:
            self.store.check_writable()
            from offramp.stages.validating import predict_validation

            with self.timed("predict validation"):
                predict_validation(self.loaded.experiment, self.store, self.console)
        self._note("validation predictions", self.store.root / "validation", reused)

    def profile(self, again: bool = False) -> Path:
        """Profile the network on this host, if that was not done before; return the file.

        Args:
            again: measure even if there is a profile from before, and replace it.
        """
        made_from = keys.profile_key(self.loaded.scenario, self.loaded.experiment)
        reused = not again and self.store.find("profile", made_from) is not None
        if not reused:
            self.store.check_writable()
            from offramp.stages.network import check_network
            from offramp.stages.profiling import run_profiling

            check_network(self.loaded.experiment, self.loaded.error_at)

            def make() -> None:
                run_profiling(self.loaded, self.store, self.console, made_from)

            # What was measured before stays until there is more.
            replacing = self.store.anew("profile", made_from) if again else nullcontext()
            with self.timed("profile"), replacing:
                self.store.find_or_make("profile", made_from, make)
        folder = self.store.path("profile", made_from)
        self._note("profile", folder, reused)
        warn_of_noise(folder, self.console)
        return folder / PROFILE

    def simulate(
        self,
        results: Path,
        jobs: int | None = None,
        of_replications: Sequence[LoadedScenario] = (),
        slow_moments: int = 0,
    ) -> None:
        """Simulate from what earlier stages left in the store; write into ``results``.

        Args:
            of_replications: the scenario of each, where what was measured differs between them.
            slow_moments: of their worlds; see :class:`sim.world.World`.
        """
        _check_folder(results)
        for warning in self.loaded.warnings:
            self.console.note(f"warning: {warning}")
        inputs = find_inputs(self.loaded, self.store, self.arguments())
        self.simulate_from(inputs, results, jobs, of_replications, slow_moments)

    def simulate_from(
        self,
        inputs: Inputs,
        results: Path,
        jobs: int | None = None,
        of_replications: Sequence[LoadedScenario] = (),
        slow_moments: int = 0,
    ) -> None:
        """Simulate from given networks and profile; write into ``results``."""
        world = world_of(self.loaded, inputs)
        own_worlds = [
            replace(world_of(it, inputs), slow_moments=slow_moments) for it in of_replications
        ]
        self.show_load(offered_loads(world), link_loads(world, offered_traffic(world)))
        self._note_replaced(results)
        with self.timed("simulate"):
            reused = run_simulation(
                self.loaded, inputs, world, self.store, results, self.console, jobs, own_worlds
            )
        self._note("simulation", results, reused)
        keep_networks(inputs, results)
        manifest = self.manifest(inputs)
        if of_replications:
            manifest["inputs_of_replications"] = [inputs.hashes(it) for it in of_replications]
        write_manifest(results / MANIFEST, manifest, simulated_files(results))

    def offered_load(self) -> tuple[list[OfferedLoad], list[LinkLoad]]:
        """What every node and link is asked, as far as it is known without measuring anything.

        Nodes are left out as long as one of them waits for this host's profile.
        """
        loaded, profile = self.loaded, None
        if needs_host_profile(loaded):
            made_from = keys.profile_key(loaded.scenario, loaded.experiment)
            folder = self.store.find("profile", made_from)
            if folder is None:
                world = outline_of(loaded.scenario, loaded.folder)
                return [], link_loads(world, offered_traffic(world))
            profile = folder / PROFILE
        world = world_of(loaded, Inputs({}, profile))
        return offered_loads(world), link_loads(world, offered_traffic(world))

    def report(self, results: Path) -> Report:
        """Write tables, figures and page into ``results``."""
        from offramp.report.build import build_report

        return build_report(results)

    def run(self, results: Path, jobs: int | None = None) -> Report:
        """All stages."""
        self.prepare(results)
        self.simulate(results, jobs)
        return self.report(results)

    def prepare(self, results: Path) -> None:
        """Train and profile what is missing, once it is known that results can be written."""
        _check_folder(results)
        check_node_profiles(self.loaded)
        self.train()
        if needs_host_profile(self.loaded):
            self.profile()

    def arguments(self) -> str:
        """Arguments that name this scenario and store on the command line."""
        parts = [self.loaded.source]
        for override in self.loaded.overrides:
            parts += ["--set", override]
        if self.store.root != default_root():
            parts += ["--store", str(self.store.root)]
        return "".join(f" {shlex.quote(part)}" for part in parts)

    def _note(self, what: str, where: Path, reused: bool) -> None:
        self.reused[what] = reused
        self.console.note(f"{'reused' if reused else 'made':6}  {what}  ({where})")

    def _note_replaced(self, results: Path) -> None:
        """Say so where the results of another scenario are replaced."""
        try:
            before = read_manifest(results / MANIFEST).get("scenario", {})
        except ResultsError:
            return
        old, new = dict(flat(before)), dict(flat(self.loaded.scenario.model_dump(mode="json")))
        unlike = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if unlike:
            named = unlike if len(unlike) <= _MOST_NAMED else [*unlike[:_MOST_NAMED], "more"]
            self.console.note(
                f"warning: this replaces the results in {results}, which are of another scenario "
                f"({enumerated(named)})"
            )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long the block takes."""
        start = time.perf_counter()
        yield
        self.wall_s[stage] = time.perf_counter() - start

    def manifest(self, inputs: Inputs) -> dict[str, Any]:
        """What the results were made from, and how long it took."""
        return manifest_of(self.loaded, inputs, self.wall_s, self.reused)


def _check_folder(results: Path) -> None:
    """See that a run can be written there, and would not mix with what something else keeps there.

    Raises:
        ResultsError: it cannot, or would.
    """
    check_writable(results)
    # Sweeps and searches keep what they have done in a database, long before a manifest.
    if any((results / name).exists() for name in (POINTS, KEPT_TRIALS)):
        raise ResultsError(
            f"{results} holds a sweep or a search: name another folder with --output"
        )


def check_writable(folder: Path) -> None:
    """Try to write to ``folder``, or where it will be made, before hours of work depend on it.

    Raises:
        ResultsError: it cannot be made or written to.
    """
    try:
        try_to_write(folder)
    except OSError as error:
        raise ResultsError(
            f"cannot write results to {folder}: {error.strerror or error}"
        ) from error
