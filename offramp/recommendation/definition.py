"""What is to be recommended: a scenario, its targets, and the space that is searched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from models.errors import ScenarioError
from offramp.key_paths import KeyPathError, locate
from offramp.recommendation.cost import CostKind, check_cost, declares_energy
from offramp.recommendation.policies import ORACLE, as_mapping, policy_options
from offramp.recommendation.space import Configuration, Space, ends
from offramp.recommendation.target import Target
from offramp.scenario import LoadedScenario, checked_scenario, find_scenario, folder_of
from offramp.schema import RecommendSection
from offramp.sweep.axes import Axis, Choices, Draw, Integers, ListedAxis, RandomAxis
from offramp.sweep.points import Points
from offramp.sweep.reading import GivenAxis, read_draw
from offramp.sweep.sharing import decides_networks
from offramp.sweep.swept_keys import locate_all, with_places
from offramp.sweep.template import Template
from offramp.sweep.trying import try_values
from offramp.yaml_lines import Location
from offramp.yaml_source import Source, apply_override, read_file

#: What every trial sets, before the keys that are searched: in this order.
ALWAYS_SET: dict[str, Location] = {
    "training.strategies": ("training", "strategies"),
    "policies": ("policies",),
    "simulation.replications": ("simulation", "replications"),
    "seed": ("seed",),
}

#: Keys that cannot be searched, and why.
_NOT_SEARCHED: dict[Location, str] = {
    ("name",): "nothing depends on it",
    ("description",): "nothing depends on it",
    ("seed",): "which requests come is chance, and no configuration",
    ("sweep",): "it is for `offramp sweep`",
    ("recommend",): "it says what is searched",
    ("simulation",): "how long and how often the world is simulated is no configuration of it",
    ("training", "strategies"): "every strategy is searched: name them in training.strategies",
    ("training", "seeds"): "training seeds are chance, and no configuration",
}

#: Fewer replications than this are too few to verify by, where the scenario does not say how many.
_FEWEST_VERIFIED = 10

#: Workers are searched at least up to so many, and up to so many times those given.
_WORKERS, _TIMES_GIVEN = 8, 2


@dataclass(frozen=True)
class Question:
    """A checked question.

    Attributes:
        base: the scenario as it is, without the blocks `sweep` and `recommend`.
        template: makes the scenario of a trial of the values of :data:`ALWAYS_SET` and of the
            space's keys.
        section: how to search.
        cost: what is to be small.
    """

    base: LoadedScenario
    template: Template
    space: Space
    section: RecommendSection
    targets: tuple[Target, ...]
    cost: CostKind

    @property
    def strategies(self) -> list[str]:
        """All of them are searched."""
        return list(self.base.scenario.training.strategies)

    @property
    def replications(self) -> int:
        """Of a verification."""
        given = self.base.scenario.simulation.replications
        return self.section.replications or max(_FEWEST_VERIFIED, given)

    @cached_property
    def screening_seed(self) -> int:
        """Seed of the simulations that are searched.

        Another than the scenario's, with which the best are verified: those requests are new then,
        and `offramp run` shows the same.
        """
        text = f"screening before seed {self.base.scenario.seed}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")

    @property
    def knows_energy(self) -> bool:
        """Whether the scenario declares power."""
        return declares_energy(self.base.scenario)

    @property
    def trained_keys(self) -> list[str]:
        """Searched keys of which each value is another training."""
        places = dict(zip(self.template.keys, self.template.locations, strict=True))
        return [key for key in self.space.keys if decides_networks(places[key])]

    @property
    def cheaper_if_lower(self) -> list[str]:
        """Searched keys that a cost in workers falls with."""
        workers = (".workers", ".replicas") if self.cost == "workers" else ()
        return [key for key in self.space.keys if key.endswith(workers)]

    def screened(self, strategy: str, configuration: Configuration) -> tuple[Any, ...]:
        """The values that simulate a trial."""
        return self._values(
            strategy, configuration, self.section.screening_replications, self.screening_seed
        )

    def verified(self, strategy: str, configuration: Configuration) -> tuple[Any, ...]:
        """The values that simulate a verification."""
        seed = self.base.scenario.seed
        return self._values(strategy, configuration, self.replications, seed)

    def _values(
        self, strategy: str, configuration: Configuration, replications: int, seed: int
    ) -> tuple[Any, ...]:
        return ([strategy], [configuration.policy], replications, seed, *configuration.values)

    def given(self) -> Iterator[Configuration]:
        """The scenario as it is, with each of its policies."""
        values = tuple(self._given_value(key) for key in self.space.keys)
        for written in self.template.data["policies"]:
            policy = as_mapping(written)
            if policy["policy"] != ORACLE:
                yield Configuration(policy, values)

    def corners(self) -> Iterator[Configuration]:
        """Every key at its lowest, and every key at its highest, with the first policy."""
        first = next(self.given(), None)
        policy = first.policy if first else self.space.first_of(self.space.policies[0])
        for end in (0, 1):
            yield Configuration(policy, tuple(ends(draw)[end] for draw in self.space.keys.values()))

    def _given_value(self, key: str) -> Any:
        node: Any = self.base.scenario.model_dump()
        for part in dict(zip(self.template.keys, self.template.locations, strict=True))[key]:
            try:
                node = node[part]
            except (KeyError, IndexError, TypeError):
                return None
        return node


def load_question(
    source: str, overrides: Sequence[str], targets: tuple[Target, ...], cost: CostKind
) -> Question:
    """Read, override and check.

    Args:
        source: a YAML file, or the name of a scenario that ships.
        overrides: ``key.path=value`` each, the value in YAML.

    Raises:
        ScenarioError: anything is wrong with it; the message says where.
    """
    path = find_scenario(source)
    data, lines = read_file(path)
    written = Source(str(path), lines, {})
    for override in overrides:
        apply_override(data, override, written)
    base = checked_scenario(data, folder_of(source), source, overrides, written)
    section = base.scenario.recommend or RecommendSection()
    _check_section(section, written)
    check_cost(cost, section.prices, base.scenario)
    data = {key: value for key, value in data.items() if key not in ("sweep", "recommend")}
    update = {"sweep": None, "recommend": None}
    base = LoadedScenario(
        base.scenario.model_copy(update=update), base.folder, source, tuple(overrides), written
    )
    of_policies, draws = _searched(section, data, written)
    if not section.keys:
        draws = _workers(base, written)
    template = _template(base, data, draws, section, written)
    _try_policies(template, of_policies, written)
    architecture = base.experiment.architecture
    options = policy_options(
        data["policies"],
        {index: dict(found) for index, found in of_policies.items()},
        section.policies == "all",
        template,
        architecture.exit_count,
        architecture.classes,
    )
    space = Space(draws, options)
    if section.keys and draws:
        try_values(template, Points([*_axes(draws), _policy_axis(space)]))
    return Question(base, template, space, section, targets, cost)


def _check_section(section: RecommendSection, written: Source) -> None:
    for key in ("screening_replications", "replications"):
        if getattr(section, key) == 1:
            raise ScenarioError(
                written.message(
                    ("recommend", key),
                    "given 1, and one replication says nothing of how far it is from the next: at "
                    "least 2",
                )
            )


def _searched(
    section: RecommendSection, data: dict[str, Any], written: Source
) -> tuple[dict[int, dict[str, Draw]], dict[str, Draw]]:
    """What the block wants searched: parameters of policies by position, and other keys."""
    of_policies: dict[int, dict[str, Draw]] = {}
    others: dict[str, Draw] = {}
    for key, values in section.keys.items():
        place: Location = ("recommend", "keys", key)
        draw = _sorted(read_draw(values))
        try:
            location = locate(data, key)
        except KeyPathError as error:
            raise ScenarioError(written.message(place, str(error))) from None
        for above, reason in _NOT_SEARCHED.items():
            if location[: len(above)] == above:
                raise ScenarioError(written.message(place, f"cannot be searched: {reason}"))
        match location:
            case ("policies", int(index), str(name)) if name not in ("policy", "label"):
                of_policies.setdefault(index, {})[name] = draw
            case ("policies", *_):
                text = "policies are searched anyway: list them under policies"
                raise ScenarioError(written.message(place, text))
            case _:
                others[key] = draw
    return of_policies, others


def _sorted(draw: Draw) -> Draw:
    """Choices that are numbers in their order: neighbours are alike."""
    if isinstance(draw, Choices) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in draw.values
    ):
        return Choices(tuple(sorted(set(draw.values))))
    return draw


def _workers(base: LoadedScenario, written: Source) -> dict[str, Draw]:
    """The workers of every node, but for those that the command line sets."""
    return {
        f"nodes.{name}.workers": Integers(1, max(_WORKERS, _TIMES_GIVEN * node.workers))
        for name, node in base.scenario.nodes.items()
        if ("nodes", name, "workers") not in written.overrides
    }


def _template(
    base: LoadedScenario,
    data: dict[str, Any],
    draws: dict[str, Draw],
    section: RecommendSection,
    written: Source,
) -> Template:
    where: Location = ("recommend", "keys")
    searched = locate_all(data, [GivenAxis(axis, where) for axis in _axes(draws)], written)
    template = Template(
        data=data,
        keys=(*ALWAYS_SET, *draws),
        locations=(*ALWAYS_SET.values(), *searched),
        folder=base.folder,
        source=base.source,
        overrides=base.overrides,
        written=with_places(written, searched if section.keys else {}),
    )
    return template


def _axes(draws: dict[str, Draw]) -> list[Axis]:
    """Each key as an axis of a sweep, whose checks are the same."""
    return [RandomAxis({key: draw}, 2, 0) for key, draw in draws.items()]


def _policy_axis(space: Space) -> Axis:
    """Each policy by itself: a value of another key may go with some of them alone."""
    rows = tuple(([space.first_of(option)],) for option in space.policies)
    return ListedAxis(("policies",), rows)


def _try_policies(
    template: Template, of_policies: dict[int, dict[str, Draw]], written: Source
) -> None:
    """Try the values that parameters of policies may take, each by itself."""
    for index, draws in of_policies.items():
        policy = as_mapping(template.data["policies"][index])
        for name, draw in draws.items():
            for value in draw.extremes():
                try:
                    template.scenario_with({"policies": [{**policy, name: value}]})
                except ScenarioError as error:
                    place = ("recommend", "keys", f"policies.{index}.{name}")
                    reason = str(error).partition("policies.0: ")[2] or str(error)
                    raise ScenarioError(written.message(place, f"{reason} (at {value})")) from None
