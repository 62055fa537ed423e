"""A sweep: a scenario, the keys that vary, and all combinations of their values.

They come from the scenario's block ``sweep`` and from the command line, and are crossed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.errors import ScenarioError
from offramp.scenario import LoadedScenario, checked_scenario, find_scenario, folder_of
from offramp.sweep.points import Points
from offramp.sweep.reading import GivenAxis, block_axes, read_override
from offramp.sweep.swept_keys import locate_all, with_places
from offramp.sweep.template import Template
from offramp.sweep.trying import try_values
from offramp.yaml_source import Source, apply_override, read_file


@dataclass(frozen=True)
class Sweep:
    """A checked sweep.

    Attributes:
        base: the scenario as it is without the sweep, with the fixed overrides.
        template: what makes a scenario of the values of a point.
        points: the values of every point, in the order of :attr:`keys`.
        source: the path or name that was given.
        overrides: as they were given.
    """

    base: LoadedScenario
    template: Template
    points: Points
    source: str
    overrides: tuple[str, ...]

    @property
    def data(self) -> dict[str, Any]:
        """The base scenario's data, before it was checked, without the key ``sweep``."""
        return self.template.data

    @property
    def keys(self) -> tuple[str, ...]:
        """Swept keys, dotted, in the order given."""
        return self.template.keys

    def summary(self) -> str:
        """One line: how many points, and of which keys."""
        axes = " × ".join(f"{' with '.join(it.keys)} ({len(it):,})" for it in self.points.axes)
        count = len(self.points)
        return f"sweep: {count:,} point{'s' if count > 1 else ''}: {axes}"

    def scenario_at(self, values: Sequence[Any]) -> LoadedScenario:
        """The checked scenario of a point.

        Args:
            values: an item of :attr:`points`.

        Raises:
            ScenarioError: these values are not valid together.
        """
        return self.template.scenario_at(values)


def load_sweep(source: str, overrides: Sequence[str] = ()) -> Sweep:
    """Read, override and check a sweep.

    Args:
        source: a YAML file, or the name of a scenario that ships.
        overrides: ``key.path=value`` each, the value in YAML, for what is the same at every point;
            ``key.path=value,value,...`` for what is varied.

    Raises:
        ScenarioError: anything is wrong with it; the message says where.
    """
    read = [read_override(override) for override in overrides]
    fixed = [one for one, axis in zip(overrides, read, strict=True) if axis is None]
    return _crossed(source, fixed, [axis for axis in read if axis], tuple(overrides))


def load_block(source: str, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a scenario's block ``sweep`` alone: each override is one value, as elsewhere.

    Raises:
        ScenarioError: anything is wrong with it, or it has no such block.
    """
    return _crossed(source, overrides, [], tuple(overrides))


def _crossed(
    source: str, fixed: Sequence[str], listed: Sequence[GivenAxis], overrides: tuple[str, ...]
) -> Sweep:
    path = find_scenario(source)
    data, lines = read_file(path)
    written = Source(str(path), lines, {})
    for override in fixed:
        apply_override(data, override, written)
    base = checked_scenario(data, folder_of(source), source, fixed, written)
    given = [*block_axes(base.scenario.sweep, data.get("sweep"), written), *listed]
    if not given:
        raise ScenarioError(
            f"{path}: nothing varies: name several values, as in "
            "--set devices.cameras.count=5,10,20, or give the scenario a block `sweep`"
        )
    data.pop("sweep", None)
    base = replace(base, scenario=base.scenario.model_copy(update={"sweep": None}))
    swept = locate_all(data, given, written)
    points = Points([one.axis for one in given])
    template = Template(
        data,
        points.keys,
        tuple(swept),
        base.folder,
        source,
        tuple(fixed),
        with_places(written, swept),
    )
    try_values(template, points)
    return Sweep(base, template, points, source, overrides)
